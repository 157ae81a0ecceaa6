"""Float32 matrix products on a CPU, by the library that is faster there: torch's own choice or oneDNN.

torch hands float32 products to MKL wherever it was built with it. MKL uses AVX-512 on Intel's CPUs alone; on AMD's it
took 2.2 times as long as oneDNN (docs/performance.md), which torch has for convolutions and bfloat16. The operator for
linear layers is private to torch, so it is tried once, and left where anything is odd.
"""

from __future__ import annotations

import functools
import os
import platform
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from lightglue.support.precision import cpu_has_fast_bfloat16

__all__ = ["STEP", "linear", "onednn_is_faster", "rounded", "similarities"]

STEP = 32  # numbers of rows are multiples of it, where oneDNN multiplies

CPUINFO = Path("/proc/cpuinfo")
_ISA = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")  # by which users limit the instructions of oneDNN


@functools.cache
def onednn_is_faster() -> bool:
    """Whether oneDNN multiplies float32 faster here than torch's own products: by the CPU, never by a clock."""
    return (
        torch.backends.mkl.is_available()  # type: ignore[no-untyped-call]
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and _vendor() not in ("GenuineIntel", "")
        and torch.backends.cpu.get_cpu_capability().startswith("AVX512")
        and _onednn_may_use_avx512()
        and _operator_works()
    )


def _onednn_may_use_avx512() -> bool:
    return all(os.environ.get(name, "ALL").upper().startswith(("ALL", "DEFAULT", "AVX512", "AVX10")) for name in _ISA)


def _vendor() -> str:
    """Who made the CPU, as it says itself; empty where that is not found out."""
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor().rpartition(", ")[2]  # Windows: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")), "")


@functools.cache
def _operator_works() -> bool:
    """Whether the operator is there and multiplies as torch does."""
    x, weight, bias = (torch.linspace(-1, 1, size, device="cpu") for size in (35 * 24, 40 * 24, 40))
    x, weight = x.view(35, 24), weight.view(40, 24)
    try:
        return torch.allclose(_by_onednn(x, weight, bias), F.linear(x, weight, bias), atol=1e-5)
    except (AttributeError, RuntimeError, TypeError):  # another version of torch
        return False


def _by_onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return found


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`: (R, in), (out, in), (out,) -> (R, out).

    Where gradients are recorded, and of other dtypes, devices and layouts, it is torch's own product.
    """
    # In bfloat16 torch takes oneDNN itself, but writes a bias first, which oneDNN then adds to.
    fast = _takes(x) and _takes(weight) and x.numel() > 0 and not (x.dtype == torch.bfloat16 and bias is None)
    return _by_onednn(x, weight, bias) if fast else F.linear(x, weight, bias)


def _takes(x: Tensor) -> bool:
    """Whether oneDNN is the better one for this factor."""
    if not (x.is_cpu and x.is_contiguous()) or (x.requires_grad and torch.is_grad_enabled()):
        return False
    if x.dtype == torch.bfloat16:
        return cpu_has_fast_bfloat16() and _onednn_may_use_avx512() and _operator_works()
    return x.dtype == torch.float32 and onednn_is_faster()


def similarities(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b.T`: (M, d), (N, d) -> (M, N), which may be a view of a larger matrix."""
    if not (_takes(a) and _takes(b)):
        return a @ b.T
    padded = (F.pad(x, (0, 0, 0, rounded(len(x)) - len(x))) for x in (a, b))
    return linear(*padded)[: len(a), : len(b)]


def rounded(n: int) -> int:
    """How many rows n take up: few different numbers, at most an eighth more where n is not small.

    oneDNN builds a kernel for each shape that it meets, which takes some 0.3 ms, as long as a small product.
    """
    step = max(STEP, (1 << n.bit_length()) >> 4)
    return -(-n // step) * step
