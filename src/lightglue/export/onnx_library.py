"""The package `onnx`, which is an extra: imported when a model is written."""

from __future__ import annotations

from typing import Any

from lightglue.errors import ModelError

__all__ = ["onnx"]


def onnx() -> Any:
    """The module, with its helpers. Raises ModelError where it is not installed."""
    try:
        import onnx
        import onnx.checker
        import onnx.helper
        import onnx.numpy_helper
    except ImportError as error:
        raise ModelError(
            "onnx is not installed, which writes models; run `pip install 'lightglue[export]'`."
        ) from error
    return onnx
