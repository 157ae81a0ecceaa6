"""How TensorRT builds an engine of a file of format `tensorrt`. Nobody has run it here: there was no TensorRT."""

from __future__ import annotations

import shlex
from pathlib import Path

from lightglue_runtime.contract import Description

__all__ = ["trtexec_command"]

_COUNTS = {"min": 1, "opt": 1024, "max": 2048}  # keypoints of an image


def trtexec_command(path: Path, description: Description) -> str:
    """The command line, with the numbers of keypoints that the engine shall be built for; change them to yours.

    The file is float32, and `--fp16` lets TensorRT choose where half precision is good enough.
    """
    numbers = description.numbers()
    shapes = {"kpts": "x2", "desc": f"x{numbers['input_dim']}"}
    if numbers["add_scale_ori"]:
        shapes |= {"scales": "", "oris": ""}
    flags = []
    for kind, count in _COUNTS.items():
        sizes = [f"{name}{side}:1x{count}{rest}" for name, rest in shapes.items() for side in (0, 1)]
        flags.append(f"--{kind}Shapes={','.join(sizes)}")
    engine = path.with_suffix(".engine")
    return shlex.join(["trtexec", f"--onnx={path}", f"--saveEngine={engine}", "--fp16", *flags])
