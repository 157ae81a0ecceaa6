"""Names of a published module that people replace, to change what the published code does."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any

__all__ = ["watch"]


def watch(module: str, used_in: Mapping[str, ModuleType], unused: Collection[str], remedy: str) -> None:
    """Let what replaces a name of the loaded `module` have its effect, or warn (UserWarning) that it has none.

    used_in: name -> the module whose code calls it, where it is replaced, too; unused: names that nothing here calls;
    remedy: what to replace instead.
    """

    class Watched(ModuleType):
        def __setattr__(self, name: str, value: Any) -> None:
            if name in used_in:
                setattr(used_in[name], name, value)
            elif name in unused:
                warnings.warn(f"{module}.{name} was replaced, which changes nothing; {remedy}", stacklevel=2)
            super().__setattr__(name, value)

    sys.modules[module].__class__ = Watched
