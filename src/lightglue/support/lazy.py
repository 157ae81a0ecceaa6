"""Names of a package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(package: str, owners: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package. owners: name -> the module that owns it, below the package or `lightglue....`."""

    def find(name: str) -> Any:
        if name not in owners:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        owner = owners[name]
        module = import_module(owner if owner.startswith("lightglue.") else f"{package}.{owner}")
        value = getattr(module, name)
        setattr(sys.modules[package], name, value)  # so that it is found at once from now on
        return value

    return find
