"""The former path of `lightglue.sfm.stages.match`."""

import warnings

from lightglue.sfm.stages.match import *  # noqa: F403

warnings.warn("lightglue.sfm.match is now lightglue.sfm.stages.match.", DeprecationWarning, stacklevel=2)
