"""Sessions of OpenVINO."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.errors import InputError, ModelError
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.session import Arrays, Session, SessionOptions, failed

__all__ = ["OpenVinoSession", "import_openvino"]

_WORDS = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
_CAPABILITY = {"f32": "FP32", "bf16": "BF16", "f16": "FP16"}


def import_openvino() -> Any:
    """The library, without its telemetry: its import reports itself to a server where it finds `openvino_telemetry`.

    It takes a stub of its own where it does not. A process that has imported openvino before has done so itself.
    Raises ModelError where it is not installed.
    """
    hidden = "openvino" not in sys.modules and "openvino_telemetry" not in sys.modules
    if hidden:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # an ImportError for who asks
    try:
        import openvino
    except ImportError as error:
        raise ModelError(
            f"openvino is not installed; run `pip install openvino`, or choose the runtime onnx ({error})."
        ) from error
    finally:
        if hidden:
            del sys.modules["openvino_telemetry"]
    return openvino


class OpenVinoSession(Session):
    """A model in OpenVINO, on the CPU: one call after another, each with all threads.

    With several streams OpenVINO 2026.4 gave some pairs wrong matches, and stopped answering now and then, in the
    nested branches of an adaptive matcher; with one stream never.
    """

    device = "CPU"
    requests = 1

    def __init__(self, file: ModelFile, options: SessionOptions) -> None:
        """Raises ModelError where OpenVINO cannot open the file; InputError for what this CPU cannot do."""
        openvino = import_openvino()
        if options.providers not in ((), ("cpu",)):
            raise InputError(
                f"providers are {', '.join(options.providers)}, which only ONNX Runtime has; leave them out."
            )
        version = openvino.get_version().partition("-")[0]
        self.runtime = f"OpenVINO {version}"
        core = openvino.Core()
        able = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        if _CAPABILITY[options.precision] not in able:
            raise InputError(
                f"precision is {options.precision!r}, for which this CPU has no instructions; OpenVINO computes in "
                f"{', '.join(name for name, needed in _CAPABILITY.items() if needed in able)} here."
            )
        self.precision = _WORDS[options.precision]
        settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": options.threads,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": options.precision,
            "ENABLE_CPU_PINNING": False,  # processes side by side would be pinned to the same cores
        }
        kept = None if options.cache is None else options.cache / "openvino" / version / file.sha256()
        try:
            model = _compiled(core, file.path, settings, kept)
            self._request = model.create_infer_request()
        except Exception as error:  # of many types
            raise failed(f"{file.path} cannot be opened by {self.runtime}; export it again", error) from error
        self._inputs = {each.get_any_name() for each in model.inputs}
        self._outputs = [_name_of(each, file) for each in model.outputs]
        self._name = file.path
        self._running = Lock()

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `Session`."""
        given = {name: np.asarray(value, order="C") for name, value in inputs.items() if name in self._inputs}
        try:
            with self._running:
                self._request.infer(given)
                outputs = [self._request.get_output_tensor(i) for i in range(len(self._outputs))]
                return {name: np.array(each.data) for name, each in zip(self._outputs, outputs, strict=True)}
        except Exception as error:
            raise failed(f"{self._name} cannot be run by {self.runtime}", error) from error


def _compiled(core: Any, path: Path, settings: dict[str, Any], kept: Path | None) -> Any:
    """The model, from the folder `kept` or kept there; without it where that cannot be written or holds something else.

    Raises what OpenVINO does.
    """
    if kept is not None:
        with suppress(Exception):  # of many types; what is wrong with the model is raised below
            return core.compile_model(str(path), "CPU", {**settings, "CACHE_DIR": str(kept)})
    return core.compile_model(str(path), "CPU", settings)


def _name_of(output: Any, file: ModelFile) -> str:
    """The file's name of an output: OpenVINO also has those of tensors that it found to be the same."""
    names: set[str] = output.get_names()
    return next((name for name in file.outputs if name in names), output.get_any_name())
