"""An engine by its name."""

from __future__ import annotations

from typing import Any

from lightglue.errors import InputError
from lightglue.sfm.engines.engine import Engine, LocalEngine

__all__ = ["make_engine"]


def make_engine(name: str = "local", **options: Any) -> Engine:
    """The engine called "local" or "ray". options: fields of `RayEngine`. Raises InputError."""
    if name == "local" and not options:
        return LocalEngine()
    if name != "ray":
        fault = f"engine is {name!r}; choose local or ray" if name != "local" else "the local engine has no options"
        raise InputError(f"{fault}.")
    try:
        from lightglue.sfm.engines.with_ray import RayEngine
    except ModuleNotFoundError as error:
        raise InputError("--engine ray needs Ray: pip install 'lightglue[ray]'.") from error
    return RayEngine(**options)
