"""Which reduced precision a device multiplies fast."""

from __future__ import annotations

import torch

__all__ = ["cpu_has_fast_bfloat16", "product_dtype"]


def cpu_has_fast_bfloat16() -> bool:
    """Whether this CPU has bfloat16 instructions (AMX or AVX-512 BF16) and torch may use them."""
    # ATEN_CPU_CAPABILITY=avx2, by which other machines are imitated, shows in the capability alone.
    wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    return wide and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def product_dtype(device: torch.device, mp: bool) -> torch.dtype | None:
    """The dtype of matrix products with `mp`; None where there is nothing faster than the network's own.

    float16 on CUDA and MPS, as in the published code; bfloat16 on a CPU that has instructions for it.
    """
    if not mp:
        return None
    if device.type == "cpu":
        return torch.bfloat16 if cpu_has_fast_bfloat16() else None
    return torch.float16
