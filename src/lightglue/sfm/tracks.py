"""The former path of `lightglue.sfm.stages.refine`."""

import warnings

from lightglue.sfm.stages.refine import *  # noqa: F403

warnings.warn("lightglue.sfm.tracks is now lightglue.sfm.stages.refine.", DeprecationWarning, stacklevel=2)
