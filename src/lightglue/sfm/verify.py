"""The former path of `lightglue.sfm.stages.verify`."""

import warnings

from lightglue.sfm.stages.verify import *  # noqa: F403

warnings.warn("lightglue.sfm.verify is now lightglue.sfm.stages.verify.", DeprecationWarning, stacklevel=2)
