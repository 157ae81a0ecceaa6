"""The inputs on which `lightglue.kornia` is held to kornia's classes, and the script that made kornia's outputs.

`cd tests; python -m support.kornia_oracle FOLDER` needs kornia 0.9.0 and writes kornia_lightglue.npz. FOLDER
holds the published files aliked_lightglue_v0-1_arxiv.pth and disk_lightglue_v0-1_arxiv.pth.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

REFERENCE = Path(__file__).parents[1] / "data" / "reference"
TRAINED = {"aliked": "aliked-n16", "disk": "disk"}  # feature name -> its published arrays
SIFT_LIKE = ("sift", "doghardnet", "dog_affnet_hardnet")

# Case -> keywords of LightGlue; each is run with and without the images' sizes.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "strict": {"filter_threshold": 0.5},
    "full": {"depth_confidence": -1, "width_confidence": -1, "flash": False},
    "shallow": {"n_layers": 5, "depth_confidence": 0.5, "width_confidence": 0.7, "mp": False},
}


def frames(keypoints: Tensor) -> Tensor:
    """(1, N, 2, 3) upright frames of scale 1 about keypoints (N, 2)."""
    return torch.cat((torch.eye(2).expand(len(keypoints), 2, 2), keypoints[..., None]), -1)[None]


def montmartre(name: str, index: int, count: int = 256) -> tuple[Tensor, Tensor]:
    """The first descriptors (N, D) of a published set of features, and frames about its keypoints."""
    arrays = np.load(REFERENCE / f"{TRAINED[name]}_montmartre_{index}.npz")
    keypoints, descriptors = (torch.from_numpy(arrays[key])[0, :count].float() for key in ("keypoints", "descriptors"))
    return descriptors, frames(keypoints)


def sizes(name: str) -> list[tuple[int, int]]:
    """(H, W) of both montmartre images."""
    both = [np.load(REFERENCE / f"{TRAINED[name]}_montmartre_{i}.npz")["image_size"][0] for i in (0, 1)]
    return [(int(height), int(width)) for width, height in both]


def seeded_frames(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Unit descriptors (N, 128), alike in all images, and frames (1, N, 2, 3), some mirrored, in 640 x 480."""
    g = torch.Generator().manual_seed(0)
    common = torch.randn(count, 128, generator=g)  # of the images with different seeds
    g = torch.Generator().manual_seed(seed)
    descriptors = F.normalize(common + 0.5 * torch.randn(count, 128, generator=g), dim=1)
    shapes = 20 * torch.randn(count, 2, 2, generator=g)
    shapes[0], shapes[1] = torch.diag(torch.tensor([7.0, 7.0])), torch.diag(torch.tensor([-7.0, -7.0]))  # 0 and pi
    keypoints = torch.rand(count, 2, generator=g) * torch.tensor([640.0, 480.0])
    return descriptors, torch.cat((shapes, keypoints[..., None]), -1)[None]


SEEDED_OPTIONS = {"n_layers": 2, "depth_confidence": -1, "width_confidence": -1, "filter_threshold": 0.0}
SEEDED_HW = (480, 640)


def seeded_state(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, Tensor]:
    """A state dict under the published names, the same wherever names and shapes are the same."""
    g = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in sorted(shapes):
        if name == "confidence_thresholds":
            continue
        state[name] = (0.1 if len(shape) < 2 else shape[-1] ** -0.5) * torch.randn(shape, generator=g)
        if name.endswith("ffn.1.weight"):
            state[name] += 1
        if name.startswith("input_proj.weight") or "final_proj.weight" in name:
            state[name] *= 8  # so that the descriptors decide, and scores are of all sizes
    state["posenc.Wr.weight"] *= 0.3  # radians a normalised length
    return state


def _main(folder: Path) -> None:
    from kornia.feature import LightGlueMatcher, integrated, lightglue

    def state_of(url: Any, file_name: str) -> dict[str, Tensor]:
        path = folder / file_name.replace("-pth", ".pth")  # kornia's name for a file in its cache
        if path.exists():
            return torch.load(path, weights_only=True)
        plain = lightglue.LightGlue(None, input_dim=128, add_scale_ori=True, n_layers=SEEDED_OPTIONS["n_layers"])
        return seeded_state((key, tuple(value.shape)) for key, value in plain.state_dict().items())

    lightglue.load_state_dict_from_url = state_of
    arrays: dict[str, Tensor] = {}

    def record(case: str, result: tuple[Tensor, Tensor]) -> None:
        arrays[f"{case}_scores"], arrays[f"{case}_indices"] = result[0], result[1].short()

    for name in TRAINED:
        (desc1, lafs1), (desc2, lafs2) = montmartre(name, 0), montmartre(name, 1)
        hw1, hw2 = sizes(name)
        for case, options in OPTIONS.items():
            matcher = LightGlueMatcher(name, dict(options))
            record(f"{name}_{case}", matcher(desc1, desc2, lafs1, lafs2, hw1, hw2))
            record(f"{name}_{case}_unsized", matcher(desc1, desc2, lafs1, lafs2))
    (desc1, lafs1), (desc2, lafs2) = seeded_frames(40, 1), seeded_frames(50, 2)
    for name in SIFT_LIKE:
        scales, oris = integrated._lightglue_keypoint_scale_ori(lafs1, name)
        arrays[f"{name}_scales"], arrays[f"{name}_oris"] = scales, oris
        matcher = LightGlueMatcher(name, dict(SEEDED_OPTIONS))
        record(name, matcher(desc1, desc2, lafs1, lafs2, SEEDED_HW, SEEDED_HW))
    np.savez_compressed(REFERENCE / "kornia_lightglue.npz", **{key: value.numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        _main(Path(sys.argv[1]))
