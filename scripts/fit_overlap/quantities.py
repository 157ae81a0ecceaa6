"""What the matcher knows of a pair in the end, kept in a folder: extracting and matching take minutes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pictures import Picture, read
from torch import Tensor

from lightglue import ALIKED, DISK, LightGlue, XFeat

__all__ = ["SETTINGS", "Cache", "Setting", "settings_of"]

MOST_KEYPOINTS = 4096


@dataclass(frozen=True)
class Setting:
    """How a pair is extracted and matched."""

    name: str
    keypoints: int  # of each image
    resize: int | None  # longer edge in px
    full: bool = False  # without early stopping and pruning


SETTINGS = {
    setting.name: setting
    for setting in (
        Setting("1024", 1024, None),
        Setting("256", 256, None),
        Setting("512", 512, None),
        Setting("2048", 2048, None),
        Setting("4096", 4096, None),
        Setting("1024 resized", 1024, 1024),
        Setting("1024 full depth", 1024, None, full=True),
    )
}


class Cache:
    """Features of pictures and evidence of pairs of one feature type, from the folder or made for it."""

    def __init__(self, data: Path, folder: Path, features: str) -> None:
        self.data, self.folder, self.features = data, folder / features, features
        options: dict[str, Any] = {"max_num_keypoints": MOST_KEYPOINTS}
        extractors = {
            "aliked": (ALIKED, {"detection_threshold": -1}),
            "disk": (DISK, {}),
            "xfeat": (XFeat, {"detection_threshold": 0}),
        }
        extractor, own = extractors[features]
        self.extractor = extractor(**options, **own).eval()
        self.matcher = LightGlue(features=features).eval()
        self.usual = self.matcher.conf.depth_confidence, self.matcher.conf.width_confidence

    def keypoints(self, picture: Picture, resize: int | None) -> dict[str, Tensor]:
        """Features of a picture, as `extract` gives them, as many as there are."""
        path = self.folder / f"features-{resize}" / f"{picture.key}.npz"
        if not path.exists():
            found = self.extractor.extract(read(self.data, picture), resize=resize)
            save(path, {key: value.numpy() for key, value in found.items()})
        with np.load(path) as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    def evidence(self, picture0: Picture, picture1: Picture, setting: Setting) -> tuple[Tensor, int, int]:
        """The scores (K,) of the mutual partners, and the numbers of keypoints: what the verdict is made of."""
        path = self.folder / setting.name.replace(" ", "-") / f"{picture0.key}--{picture1.key}.npz"
        if not path.exists():
            pair = [best(self.keypoints(p, setting.resize), setting.keypoints) for p in (picture0, picture1)]
            conf = self.matcher.conf
            conf.depth_confidence, conf.width_confidence = (-1, -1) if setting.full else self.usual
            found = self.matcher({"image0": pair[0], "image1": pair[1]})
            scores = found["matching_scores0"][0]
            counts = np.array([len(scores), found["matching_scores1"].shape[1]])
            save(path, {"scores": scores[scores > 0].numpy(), "counts": counts})
        with np.load(path) as arrays:
            return torch.from_numpy(arrays["scores"]), *map(int, arrays["counts"])


def best(features: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """The `count` keypoints with the highest scores."""
    scores = features["keypoint_scores"][0]
    kept = scores.topk(min(count, len(scores))).indices
    chosen = {key: features[key][:, kept] for key in ("keypoints", "descriptors")}
    return {**chosen, "image_size": features["image_size"]}


def save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part.npz")
    np.savez(partial, **arrays)
    partial.rename(path)


def settings_of(index: int) -> list[Setting]:
    """How the pair with this number is matched: as usual, and in one of the other ways in turn."""
    turns = ("512", "2048", "1024 resized", "512", "1024 full depth", "256", "2048", "512", "1024 resized", "4096")
    return [SETTINGS["1024"], SETTINGS[turns[index % len(turns)]]]
