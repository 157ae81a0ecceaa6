"""Labelled pairs of pictures: which show the same thing, and which do not although they look alike.

The labels come from geometry or from how a pair was made, never from matching:

- shared: the pairs of the manifests, and pairs of photographs of one building;
- shared part: two parts of one photograph with a common region, one of them changed;
- other scene: photographs of different scenes;
- opposite side: templeRing from opposite sides, which have no surface in common;
- other part: two parts of one photograph without a common region, one of them changed;
- other part, two views: the same of two photographs with a known homography.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pictures import Picture

__all__ = ["HARD", "Pair", "labelled_pairs"]

HARD = ("opposite side", "other part", "other part, two views")  # kinds of hard negatives

MANIFESTS = ("planar15", "synth16", "tum18", "strecha_dev", "strecha_wide_dev", "temple18", "kusvod2")
IMAGES = "../images"  # beside the folder with the manifests
MORE_SHARED = (
    ("montmartre_close.jpg", "montmartre_far.jpg"),
    ("sacre_coeur1.jpg", "sacre_coeur2.jpg"),
    ("DSC_0410.JPG", "DSC_0411.JPG"),
)

# The scene of a photograph whose folder or name does not tell it, by sight: no pair of photographs of one scene counts
# as "other scene", and no model is asked about a scene that it was fitted on.
SCENES = {
    "lund": [f"synth/{k:02}_" for k in (0, 1, 2, 5, 6, 8, 9, 10, 11, 12, 14, 15)],  # one street
    "venice": ["synth/03_"],
    "guards": ["synth/04_"],
    "capitol": ["synth/07_"],
    "westminster": ["synth/13_"],
    "objects": [f"kusvod2/{name}" for name in ("booksh", "zoom", "wash", "shout", "box")],  # bottles, books: the same
    "graffiti": ["planar/graf/", "kusvod2/graff"],
    "temple": ["temple/", "kusvod2/temple1", "kusvod2/temple2"],
    "leuven": ["kusvod2/Leuven1", "kusvod2/Leuven2"],
    "montmartre": [f"{IMAGES}/montmartre", f"{IMAGES}/sacre_coeur"],
    "facade": [f"{IMAGES}/DSC_041"],
    "creation of Adam": [f"{IMAGES}/fsm", f"{IMAGES}/sist_chapel"],
    "office": ["tum/"],
    "fountain": ["strecha1024/fountain-P11/"],
    "Herz-Jesus": ["strecha1024/Herz-Jesus-P8/"],
}

# Azimuth in degrees of the cameras of templeRing by the number of the photograph, measured in the plane that they lie
# in. From the manifest's rotations, and between its pairs from essential matrices (at least 440 inliers each; all
# other pairs of views with over 100 inliers agree to 8 degrees).
AZIMUTH = {
    1: 0, 31: 5, 3: 15, 4: 23, 41: 63, 7: 81, 8: 89, 9: 99, 12: 120, 38: 142, 36: 158, 33: 181, 47: 188, 46: 196,
    45: 204, 44: 211, 42: 227, 14: 237, 15: 245, 17: 260, 18: 268, 19: 275, 21: 291, 23: 306, 24: 314, 25: 322, 26: 330,
}  # fmt: skip
OPPOSITE = 150  # degrees; a column's surface ends at 180

# Photographs that parts are cut from: one of each scene, several of those with many alike parts.
WHOLES = [
    *(f"{IMAGES}/{name}" for name in ("DSC_0410.JPG", "DSC_0411.JPG", "montmartre_far.jpg", "sacre_coeur1.jpg")),
    *(f"{IMAGES}/{name}" for name in ("fsm.jpg", "sist_chapel.jpg")),
    *(f"strecha1024/fountain-P11/{k:04}.jpg" for k in (2, 5, 9)),
    *(f"strecha1024/Herz-Jesus-P8/{k:04}.jpg" for k in (0, 3, 6)),
    *(f"tum/{name}.png" for name in ("1341847981.726650", "1341847987.758741", "1341847994.866828")),
    *(f"temple/templeR{k:04}.png" for k in (14, 33, 4)),
    *(f"planar/{scene}/1.png" for scene in ("boat", "graf", "v_churchill")),
    *(f"synth/{k:02}_0.jpg" for k in range(16)),
]

OTHER_SCENES = 150  # pairs of different scenes


@dataclass(frozen=True)
class Pair:
    """Two pictures, and whether anything is seen in both."""

    picture0: Picture
    picture1: Picture
    overlap: bool
    kind: str
    name: str = ""  # of the manifest, where the pair is in one

    @property
    def scenes(self) -> frozenset[str]:
        """One scene or two."""
        return frozenset(scene_of(picture.file) for picture in (self.picture0, self.picture1))


def scene_of(file: str) -> str:
    """The scene of a photograph."""
    for scene, beginnings in SCENES.items():
        if file.startswith(tuple(beginnings)):
            return scene
    folder, name = file.split("/")[0], Path(file).stem
    return name[:-1] if folder == "kusvod2" else file.split("/")[1]


def labelled_pairs(data: Path) -> list[Pair]:
    """All pairs, in an order that does not depend on the machine."""
    manifests = {name: json.loads((data / f"{name}.json").read_text())["pairs"] for name in MANIFESTS}
    listed = [pair for pairs in manifests.values() for pair in pairs]
    photographs = sorted({pair[image] for pair in listed for image in ("image0", "image1")})
    wholes = [*WHOLES, *(file for file in photographs if file.startswith("kusvod2/") and file.endswith("A.jpg"))]
    return [
        *shared(manifests),
        *parts(wholes),
        *opposite_sides(),
        *parts_of_two_views([*manifests["planar15"], *manifests["synth16"]], data),
        *other_scenes([*photographs, *(f"{IMAGES}/{name}" for pair in MORE_SHARED for name in pair)]),
    ]


def shared(manifests: dict[str, list[dict]]) -> Iterator[Pair]:
    """Pairs of one scene with common surfaces."""
    for name, pairs in manifests.items():
        for pair in pairs:
            yield Pair(Picture(pair["image0"]), Picture(pair["image1"]), True, "shared", name)
    for file0, file1 in MORE_SHARED:
        yield Pair(Picture(f"{IMAGES}/{file0}"), Picture(f"{IMAGES}/{file1}"), True, "shared", "images")


def parts(wholes: list[str]) -> Iterator[Pair]:
    """Parts of one photograph with and without a common region; the second is changed."""
    for seed, file in enumerate(wholes, 1):
        left = Picture(file, (0.0, 0.0, 0.5, 1.0))
        yield Pair(left, Picture(file, (0.3, 0.0, 0.8, 1.0), 2 * seed), True, "shared part")
        yield Pair(left, Picture(file, (0.55, 0.0, 1.0, 1.0), 2 * seed + 1), False, "other part")


def opposite_sides() -> Iterator[Pair]:
    """Views of templeRing from opposite sides."""
    for a, b in itertools.combinations(AZIMUTH, 2):
        apart = abs((AZIMUTH[a] - AZIMUTH[b] + 180) % 360 - 180)
        if apart >= OPPOSITE:
            pictures = (Picture(f"temple/templeR{k:04}.png") for k in (a, b))
            yield Pair(*pictures, False, "opposite side")


def parts_of_two_views(pairs: list[dict], data: Path) -> Iterator[Pair]:
    """A part of image 0, and a part of image 1 that the homography maps none of it to."""
    for pair in pairs:
        sizes = [image_size(data / pair[image]) for image in ("image0", "image1")]
        found = separate_parts(np.array(pair["H"]), *sizes)
        if found is not None:
            pictures = (Picture(pair[image], box) for image, box in zip(("image0", "image1"), found, strict=True))
            yield Pair(*pictures, False, "other part, two views")


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of a picture in px."""
    import cv2

    h, w = cv2.imread(str(path)).shape[:2]
    return w, h


Box = tuple[float, float, float, float]


def separate_parts(H: NDArray[np.float64], size0: tuple[int, int], size1: tuple[int, int]) -> tuple[Box, Box] | None:
    """Two boxes in shares of the sizes, the second as large as can be, 3 % away from where the first is seen.

    None where it would hold less than a quarter of image 1.
    """
    best: tuple[float, Box, Box] | None = None
    margin = 0.03
    for box in ((0, 0, 0.45, 1), (0.55, 0, 1, 1), (0, 0, 1, 0.45), (0, 0.55, 1, 1)):
        x, y = np.array(box)[[0, 2, 2, 0]] * size0[0], np.array(box)[[1, 1, 3, 3]] * size0[1]
        mapped = H @ np.stack((x, y, np.ones(4)))
        if mapped[2].min() <= 0 < mapped[2].max():
            continue  # the box crosses the horizon of image 1
        x, y = np.clip(mapped[:2] / mapped[2] / np.array(size1)[:, None], 0, 1)
        strips = (
            (0, 0, x.min() - margin, 1), (x.max() + margin, 0, 1, 1),
            (0, 0, 1, y.min() - margin), (0, y.max() + margin, 1, 1),
        )  # fmt: skip
        for strip in strips:
            area = max(0, strip[2] - strip[0]) * max(0, strip[3] - strip[1])
            if area >= 0.25 and (best is None or area > best[0]):
                best = (area, tuple(map(float, box)), tuple(map(float, strip)))
    return None if best is None else best[1:]


def other_scenes(photographs: list[str]) -> list[Pair]:
    """Photographs of different scenes, each scene as often as the others, drawn with a fixed seed."""
    rng = np.random.default_rng(0)
    files: dict[str, list[str]] = {}
    for file in sorted(set(photographs)):
        files.setdefault(scene_of(file), []).append(file)
    scenes, drawn = sorted(files), set()
    while len(drawn) < OTHER_SCENES:
        drawn.add(tuple(str(rng.choice(files[scene])) for scene in rng.choice(scenes, 2, replace=False)))
    return [Pair(Picture(file0), Picture(file1), False, "other scene") for file0, file1 in sorted(drawn)]
