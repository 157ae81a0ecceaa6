"""What LightGlue can compute in, and which of these is fastest where: a pure function of a table of measured times.

Importing this loads no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["BACKENDS", "MANY", "Chosen", "Machine", "Times", "choose", "this_machine"]

BACKENDS = ("torch", "onnx", "openvino", "auto")
MANY = 1_000  # pairs of a map, of which nobody knows the number yet

_WORTHWHILE = 0.9  # of torch's time; runs of the same differ by as much


@dataclass(frozen=True)
class Times:
    """Of the adaptive matcher for ALIKED, one thread, on photographs."""

    start: float  # s until a model is ready that was never used before
    milliseconds: Mapping[int, float]  # keypoints of each image -> a pair

    def seconds(self, pairs: int, keypoints: int) -> float:
        """For so many pairs; between and beyond the measured numbers as the nearest one."""
        nearest = min(self.milliseconds, key=lambda count: abs(count - keypoints))
        return self.start + pairs * self.milliseconds[nearest] / 1000


@dataclass(frozen=True)
class Machine:
    """What the choice depends on."""

    device: str  # of torch: "cpu", "cuda", "mps"
    bfloat16: bool  # whether products are in bfloat16: option `mp`, on a CPU that has instructions for it
    installed: Collection[str]  # of "onnx" and "openvino"
    onednn: bool = False  # whether torch's products are oneDNN's, as on AMD's CPUs with AVX-512: support/products.py


@dataclass(frozen=True)
class Chosen:
    """A backend, and why."""

    backend: str
    why: str

    def __str__(self) -> str:
        return f"{self.backend} ({self.why})"


# (bfloat16, onednn) as in `Machine`. docs/runtimes.md has the machines and the dates.
TIMES: Mapping[tuple[bool, bool], Mapping[str, Times]] = MappingProxyType(
    {
        (False, False): MappingProxyType(
            {
                "torch": Times(0.0, {512: 280, 1024: 679, 2048: 1973}),
                "onnx": Times(1.0, {512: 289, 1024: 824, 2048: 2514}),
                "openvino": Times(10.0, {512: 256, 1024: 704, 2048: 1854}),
            }
        ),
        (True, False): MappingProxyType(
            {
                "torch": Times(0.0, {512: 157, 1024: 386, 2048: 1118}),
                "openvino": Times(10.0, {512: 125, 1024: 292, 2048: 873}),
            }
        ),
        (False, True): MappingProxyType(
            {
                "torch": Times(0.0, {512: 81, 1024: 196, 2048: 636}),
                "onnx": Times(1.0, {512: 70, 1024: 196, 2048: 646}),
                "openvino": Times(10.0, {512: 71, 1024: 182, 2048: 578}),
            }
        ),
        (True, True): MappingProxyType(
            {
                "torch": Times(0.0, {512: 59, 1024: 139, 2048: 490}),
                "openvino": Times(10.0, {512: 49, 1024: 126, 2048: 395}),
            }
        ),
    }
)


def choose(machine: Machine, pairs: int, keypoints: int) -> Chosen:
    """The backend that takes the least time, torch unless another one saves a tenth.

    It never changes the precision: bfloat16 only where `mp` asks for it, and 8 bits never.
    """
    if machine.device != "cpu":
        return Chosen("torch", f"others were not measured on {machine.device}")
    table = TIMES[machine.bfloat16, machine.onednn]
    seconds = {
        name: times.seconds(pairs, keypoints)
        for name, times in table.items()
        if name == "torch" or name in machine.installed
    }
    best = min(seconds, key=lambda name: seconds[name])
    words = "bfloat16" if machine.bfloat16 else "float32"
    what = f"{pairs} pair{'s' * (pairs != 1)} of {keypoints} keypoints in {words}"
    if best == "torch" or seconds[best] > _WORTHWHILE * seconds["torch"]:
        others = [name for name in seconds if name != "torch"]
        return Chosen("torch", f"for {what} {' and '.join(others)} would save too little" if others else "alone here")
    return Chosen(best, f"about {seconds['torch'] / seconds[best]:.1f} times as fast as torch for {what}")


def this_machine(device: str, mp: bool) -> Machine:
    """The one that this runs on."""
    from lightglue.support.precision import cpu_has_fast_bfloat16
    from lightglue.support.products import onednn_is_faster
    from lightglue_runtime.runtimes import installed

    bfloat16 = mp and device == "cpu" and cpu_has_fast_bfloat16()
    return Machine(device, bfloat16, tuple(installed()), onednn_is_faster())
