"""The former place of `lightglue.models.choice`."""

import warnings

from lightglue.models.choice import *  # noqa: F403

warnings.warn("lightglue.model_choice is now lightglue.models.choice.", DeprecationWarning, stacklevel=2)
