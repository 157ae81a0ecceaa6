"""The former path of `lightglue.sfm.stages.extract`."""

import warnings

from lightglue.sfm.stages.extract import *  # noqa: F403

warnings.warn("lightglue.sfm.extract is now lightglue.sfm.stages.extract.", DeprecationWarning, stacklevel=2)
