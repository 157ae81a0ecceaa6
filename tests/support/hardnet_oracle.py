"""The input on which HardNet and its patches are held to kornia, and the script that made kornia's output.

`cd tests; python -m support.hardnet_oracle` needs kornia 0.9.0 and opencv-python-headless, and writes
hardnet_kornia.npz.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from support import ASSETS

REFERENCE = Path(__file__).parents[1] / "data" / "reference"

# Channels in, channels out and kernel of the convolutions, by their number in `features`.
CONVOLUTIONS = {0: (1, 32, 3), 3: (32, 32, 3), 6: (32, 64, 3), 9: (64, 64, 3), 12: (64, 128, 3), 15: (128, 128, 3)}
LAST = {19: (128, 128, 8)}


def seeded_state() -> dict[str, Tensor]:
    """A state dict under the published names, with weights that keep a signal's size from layer to layer."""
    g = torch.Generator().manual_seed(0)
    state = {}
    for number, (before, after, kernel) in {**CONVOLUTIONS, **LAST}.items():
        size = (2 / (before * kernel**2)) ** 0.5
        state[f"features.{number}.weight"] = size * torch.randn(after, before, kernel, kernel, generator=g)
        state[f"features.{number + 1}.running_mean"] = 0.1 * torch.randn(after, generator=g)
        state[f"features.{number + 1}.running_var"] = 0.5 + torch.rand(after, generator=g)
    return state


def seeded_image(height: int = 187, width: int = 301) -> Tensor:
    """(1, 1, H, W) in [0, 1], with structure at several scales; odd sides, so that no level of a pyramid fits."""
    g = torch.Generator().manual_seed(1)
    noise = [torch.rand(1, 1, max(height // step, 2), max(width // step, 2), generator=g) for step in (2, 7, 23)]
    return sum(F.interpolate(n, size=(height, width), mode="bicubic") for n in noise).clamp(0, 3) / 3


def seeded_frames(height: int = 187, width: int = 301, count: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    """Keypoints (N, 2) px, also beyond the border, scales (N,) px for every level, orientations (N,) radians."""
    g = torch.Generator().manual_seed(2)
    keypoints = torch.rand(count, 2, generator=g) * torch.tensor([width + 8.0, height + 8.0]) - 4
    scales = 0.5 * 80 ** torch.rand(count, generator=g)
    return keypoints, scales, 6.28 * torch.rand(count, generator=g)


def _main() -> None:
    import cv2
    import kornia

    hardnet = kornia.feature.HardNet(pretrained=False).eval()
    hardnet.load_state_dict(seeded_state())
    describe = kornia.feature.LAFDescriptor(hardnet)

    def lafs(keypoints: Tensor, scales: Tensor, oris: Tensor) -> Tensor:
        degrees = torch.rad2deg(oris)[None, :, None]
        return kornia.feature.laf_from_center_scale_ori(keypoints[None], 6.0 * scales[None, :, None, None], degrees)

    image, frames = seeded_image(), lafs(*seeded_frames())
    arrays = {"patches": kornia.feature.extract_patches_from_pyramid(image, frames)[0, :, 0]}
    arrays["descriptors"] = describe(image, frames)[0]

    # The published features of the first montmartre image, their positions brought back into the resized one.
    sift = {key: torch.from_numpy(value) for key, value in np.load(REFERENCE / "sift-opencv_montmartre_0.npz").items()}
    path = ASSETS / "montmartre_close.jpg"
    rgb = torch.from_numpy(cv2.imread(str(path))[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    resized = kornia.geometry.transform.resize(rgb, 800, side="long", antialias=True)
    scale = torch.tensor([resized.shape[-1] / rgb.shape[-1], resized.shape[-2] / rgb.shape[-2]])
    frames = lafs((sift["keypoints"][0] + 0.5) * scale - 0.5, sift["scales"][0], sift["oris"][0])
    arrays["montmartre"] = describe(kornia.color.rgb_to_grayscale(resized), frames)[0].half()
    np.savez_compressed(REFERENCE / "hardnet_kornia.npz", **{key: value.numpy() for key, value in arrays.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.no_grad():
        _main()
