"""An engine by its name."""

from __future__ import annotations

from typing import Any

from lightglue.errors import InputError
from lightglue.workers.engine import ProcessEngine
from lightglue.workers.local import LocalEngine
from lightglue.workers.work import Engine

__all__ = ["make_engine"]


def make_engine(name: str = "local", **options: Any) -> Engine:
    """The engine called "local" or "ray". Raises InputError.

    local: this process, with torch's threads; with `workers` processes of this machine with one thread each, as many as
    fit for None: see `ProcessEngine`. ray: a cluster; options: fields of `RayEngine`.
    """
    if name == "local":
        if options.keys() - {"workers"}:
            raise InputError("the local engine has no options but workers.")
        return ProcessEngine(**options) if options else LocalEngine()
    if name != "ray":
        raise InputError(f"engine is {name!r}; choose local or ray.")
    try:
        from lightglue.sfm.engines.with_ray import RayEngine
    except ModuleNotFoundError as error:
        raise InputError("--engine ray needs Ray: pip install 'lightglue[ray]'.") from error
    return RayEngine(**options)
