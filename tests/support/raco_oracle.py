"""The input on which RaCo is held to its authors' code, and the script that made that code's output.

`cd tests; python -m support.raco_oracle CHECKOUT` needs torchvision and a checkout of github.com/cvg/RaCo, and writes
raco_published.npz. The weights are seeded ones, since the trained file could not be had. The arrays in the project come
from a transcription of that code, not from a checkout (docs/decisions/006-other-extractors.md).
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from support.hardnet_oracle import REFERENCE, seeded_image

COUNT = 200  # keypoints
# `subpixel_sampling=False` is not among them: the published code fails there unless no side has to be padded.
OPTIONS = {"default": {}, "ranked": {"sort_by_ranker": True, "nms_radius": 5, "subpixel_temp": 0.2}}


def seeded_state(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    """A state dict that keeps a signal's size from layer to layer, the same wherever names and shapes are the same."""
    g = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in sorted(shapes):
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(0)
        elif name.endswith("running_var"):
            state[name] = 0.5 + torch.rand(shape, generator=g)
        elif len(shape) == 4:
            state[name] = (1.5 / np.prod(shape[1:])) ** 0.5 * torch.randn(shape, generator=g)
        else:
            state[name] = 0.1 * torch.randn(shape, generator=g) + (1.0 if ".bn" in name and "weight" in name else 0.0)
    return state


def coloured_image() -> Tensor:
    """(1, 3, 187, 301) in [0, 1]; no side is a multiple of the network's stride."""
    gray = seeded_image()
    return torch.cat((gray, gray.flip(-1), gray.flip(-2)), 1)


def _main(checkout: Path) -> None:
    sys.path.insert(0, str(checkout))
    from raco.raco import RaCo

    arrays = {}
    for case, options in OPTIONS.items():
        model = RaCo(weights=None, max_num_keypoints=COUNT, **options).eval()
        model.load_state_dict(seeded_state((k, tuple(v.shape)) for k, v in model.state_dict().items()))
        for key, value in model({"image": coloured_image()}).items():
            arrays[f"{case}_{key}"] = value[0]
    np.savez_compressed(REFERENCE / "raco_published.npz", **{key: value.numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        _main(Path(sys.argv[1]))
