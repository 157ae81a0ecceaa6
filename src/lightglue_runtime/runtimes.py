"""The runtimes that a model can be opened with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from lightglue_runtime.cache import cache_folder
from lightglue_runtime.errors import InputError, ModelError
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.session import Session, SessionOptions, usable_threads

__all__ = ["RUNTIMES", "find_runtime", "installed", "open_session", "session_options"]

# Name -> the module that it is installed as.
RUNTIMES = MappingProxyType({"onnx": "onnxruntime", "openvino": "openvino"})


def installed() -> list[str]:
    """The runtimes that are installed, by name; nothing is imported."""
    return [name for name, module in RUNTIMES.items() if find_spec(module) is not None]


def find_runtime(name: str | None) -> str:
    """`name`, or the first that is installed for None. Raises InputError, ModelError where it is not installed."""
    if name is not None and name not in RUNTIMES:
        raise InputError(f"runtime is {name!r}; choose one of {', '.join(RUNTIMES)}.")
    present = installed()
    if name is None and not present:
        raise ModelError("No runtime is installed; run `pip install onnxruntime` or `pip install openvino`.")
    if name is not None and name not in present:
        raise ModelError(
            f"{RUNTIMES[name]} is not installed; run `pip install {RUNTIMES[name]}`"
            + (f", or choose the runtime {present[0]}." if present else ".")
        )
    return name or present[0]


def session_options(
    threads: int | None = None,
    requests: int = 1,
    providers: Sequence[str] | str = (),
    precision: str = "f32",
    cache: str | os.PathLike[str] | bool = True,
) -> SessionOptions:
    """The options of a session, of what users give. Raises InputError."""
    names = (providers,) if isinstance(providers, str) else tuple(providers)
    if cache is True:
        folder: Path | None = cache_folder()
    else:
        folder = None if cache is False else Path(cache)
    return SessionOptions(usable_threads() if threads is None else threads, requests, names, precision, folder)


def open_session(
    file: ModelFile | str | os.PathLike[str], runtime: str | None = None, options: SessionOptions | None = None
) -> Session:
    """A model in a runtime.

    Args:
        file: what `lightglue export` wrote; looked at before the runtime sees it.
        runtime: "onnx" or "openvino"; None for the first of these that is installed.
        options: see `session_options`.

    Raises ModelError where the file, the runtime or its provider is missing or does not fit, InputError.
    """
    file = file if isinstance(file, ModelFile) else ModelFile.read(file)
    options = options or session_options()
    if find_runtime(runtime) == "onnx":
        from lightglue_runtime.onnx_runtime import OnnxSession

        return OnnxSession(file, options)
    from lightglue_runtime.with_openvino import OpenVinoSession

    return OpenVinoSession(file, options)
