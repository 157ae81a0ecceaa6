"""The former path of `lightglue.sfm.localization.localizer`."""

import warnings

from lightglue.sfm.localization.localizer import *  # noqa: F403

warnings.warn("lightglue.sfm.localizer is now lightglue.sfm.localization.localizer.", DeprecationWarning, stacklevel=2)
