"""Sessions of ONNX Runtime."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightglue_runtime.denormals import flushed_denormals
from lightglue_runtime.errors import InputError, ModelError
from lightglue_runtime.model_file import ModelFile
from lightglue_runtime.session import Arrays, Session, SessionOptions, failed

__all__ = ["PROVIDERS", "OnnxSession", "import_onnxruntime", "provider_names"]

# Short name -> ONNX Runtime's.
PROVIDERS = MappingProxyType(
    {
        "cpu": "CPUExecutionProvider",
        "cuda": "CUDAExecutionProvider",
        "tensorrt": "TensorrtExecutionProvider",
        "coreml": "CoreMLExecutionProvider",
        "directml": "DmlExecutionProvider",
        "openvino": "OpenVINOExecutionProvider",
        "rocm": "ROCMExecutionProvider",
        "migraphx": "MIGraphXExecutionProvider",
        "webgpu": "WebGpuExecutionProvider",
    }
)
_CPU = PROVIDERS["cpu"]
_FATAL = 4  # the level below which nothing is printed; what goes wrong is raised in any case


def import_onnxruntime() -> Any:
    """The library. Raises ModelError where it is not installed."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError(
            "onnxruntime is not installed; run `pip install onnxruntime` (or onnxruntime-gpu), or choose the runtime "
            f"openvino ({error})."
        ) from error
    return onnxruntime


def provider_names(providers: Sequence[str]) -> list[str]:
    """ONNX Runtime's names of those that are asked for, the CPU behind them for what they cannot do.

    Raises InputError for a name that there is not, ModelError for a provider that this build does not have.
    """
    onnxruntime = import_onnxruntime()
    names = []
    for each in providers or ("cpu",):
        name = PROVIDERS.get(str(each).lower(), each)
        if name not in onnxruntime.get_all_providers() and name not in PROVIDERS.values():
            raise InputError(f"There is no provider {each!r}; choose one of {', '.join(PROVIDERS)}.")
        names.append(name)
    present = onnxruntime.get_available_providers()
    absent = [name for name in names if name not in present]
    if absent:
        raise ModelError(
            f"{', '.join(absent)} is not in this onnxruntime {onnxruntime.__version__}, which has "
            f"{', '.join(present)}; install a build that has it (such as onnxruntime-gpu), or choose cpu."
        )
    return list(dict.fromkeys((*names, _CPU)))


class OnnxSession(Session):
    """A model in ONNX Runtime."""

    def __init__(self, file: ModelFile, options: SessionOptions) -> None:
        """Raises ModelError where ONNX Runtime cannot open the file, or not with the providers; InputError."""
        onnxruntime = import_onnxruntime()
        names = provider_names(options.providers)
        if options.precision != "f32":
            raise InputError(
                f"precision is {options.precision!r}, and ONNX Runtime computes in the file's own; take f32, the "
                "runtime openvino, or a file that was exported with --precision int8."
            )
        onnxruntime.disable_telemetry_events()  # Windows builds send some
        self.runtime = f"ONNX Runtime {onnxruntime.__version__}"
        self.precision = "float32"
        self.requests = options.requests
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _FATAL
        settings.intra_op_num_threads = options.threads_each
        settings.inter_op_num_threads = 1
        settings.enable_mem_pattern = False  # numbers of keypoints differ from call to call
        if file.description.kind == "matcher" and file.description.precision == "f32" and names == [_CPU]:
            # Folded when it was written: nothing is left to gain, and looking for it took up to 2 s.
            settings.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        # Threads that wait for work sleep: docs/decisions/020-waiting-threads.md has what spinning costs others.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "0")
        settings.add_session_config_entry("session.set_denormal_as_zero", "1")  # in the threads of its pool
        try:
            with flushed_denormals():  # puts back what that option does to this thread
                self._session = onnxruntime.InferenceSession(str(file.path), settings, providers=names)
        except Exception as error:  # of many types, none of them public
            raise failed(f"{file.path} cannot be opened by {self.runtime}; export it again", error) from error
        given = self._session.get_providers()
        if names[0] not in given:
            raise ModelError(
                f"{names[0]} could not be loaded by {self.runtime}; see that its libraries are installed, or choose "
                "the provider cpu."
            )
        self.device = "CPU" if given[0] == _CPU else str(given[0])
        self._types = {each.name: each.type for each in self._session.get_inputs()}
        self._outputs = [each.name for each in self._session.get_outputs()]
        self._name = file.path

    def run(self, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """See `Session`."""
        given = {name: np.asarray(value, order="C") for name, value in inputs.items() if name in self._types}
        try:
            with flushed_denormals():
                found = self._session.run(self._outputs, given)
        except Exception as error:
            raise failed(f"{self._name} cannot be run by {self.runtime}", error) from error
        return dict(zip(self._outputs, found, strict=True))
