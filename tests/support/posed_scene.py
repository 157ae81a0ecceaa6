"""A generated scene with exact poses and depths: a wall far away, and a board in front of it that hides some of it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from tests.support.colmap_model import quaternion

SIZE, FOCAL = (320, 240), 300.0
K = np.array([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]])
PX = 60.0  # px of a texture for each unit


class Plane(NamedTuple):
    depth: float  # in the world, where it is z = depth
    low: tuple[float, float]
    high: tuple[float, float]
    seed: int


WALL, BOARD = Plane(10.0, (-9, -7), (9, 7), 1), Plane(6.0, (-0.5, -1.2), (1.4, 1.0), 2)


@cache
def texture(plane: Plane) -> NDArray[np.uint8]:
    """Blobs of two sizes."""
    rng = np.random.default_rng(plane.seed)
    width, height = (round(PX * (b - a)) for a, b in zip(plane.low, plane.high, strict=True))
    blobs = [
        cv2.GaussianBlur(rng.normal(size=(height, width)).astype(np.float32), (0, 0), sigma) * sigma
        for sigma in (2.5, 6)
    ]
    gray = cv2.normalize(blobs[0] + blobs[1], None, 0, 255, cv2.NORM_MINMAX)
    return cv2.cvtColor(gray.astype(np.uint8), cv2.COLOR_GRAY2RGB)


def pose(number: int) -> NDArray[np.float64]:
    """(4, 4), from the world to the camera: step by step to the right, turned towards the middle."""
    x = 0.5 * (number - 2.5)
    angle = np.arctan2(x, 9.0)
    T = np.eye(4)
    T[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    return T @ np.block([[np.eye(3), np.array([[-x], [0.05 * number], [0]])], [np.zeros(3), 1]])


def on_plane(T: NDArray[np.float64], plane: Plane) -> NDArray[np.float64]:
    """H (3, 3), from px of the plane's texture to px of the image."""
    to_world = np.array([[1 / PX, 0, plane.low[0]], [0, 1 / PX, plane.low[1]], [0, 0, plane.depth], [0, 0, 1]])
    return K @ T[:3] @ to_world


def render(T: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The image (H, W, 3) RGB, and its depths (H, W)."""
    image, depth = np.zeros((*SIZE[::-1], 3), np.uint8), np.zeros(SIZE[::-1], np.float32)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    rays = np.stack([(x - K[0, 2]) / FOCAL, (y - K[1, 2]) / FOCAL, np.ones_like(x, float)], -1) @ T[:3, :3]
    centre = -T[:3, :3].T @ T[:3, 3]
    for plane in (WALL, BOARD):  # the nearer last
        far = (plane.depth - centre[2]) / rays[..., 2]
        place = centre[:2] + far[..., None] * rays[..., :2]
        inside = ((place >= plane.low) & (place <= plane.high)).all(-1) & (far > 0)
        seen = cv2.warpPerspective(texture(plane), on_plane(T, plane), SIZE, borderMode=cv2.BORDER_REPLICATE)
        image[inside], depth[inside] = seen[inside], far[inside]
    return image, depth


def places() -> NDArray[np.float64]:
    """(P, 3) points of both planes."""
    rng = np.random.default_rng(5)
    found = []
    for plane, count in ((WALL, 400), (BOARD, 80)):
        xy = rng.uniform(plane.low, plane.high, (count, 2))
        found.append(np.concatenate([xy, np.full((count, 1), plane.depth)], 1))
    return np.concatenate(found)


def write_images(folder: Path, count: int) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number}.png" for number in range(count)]
    for number, name in enumerate(names):
        cv2.imwrite(str(folder / name), render(pose(number))[0][..., ::-1])
    return names


def write_colmap(folder: Path, count: int = 6) -> Path:
    """FOLDER/images, and FOLDER/sparse as COLMAP's text: points that are seen, and nothing of keypoints to learn."""
    names = write_images(folder / "images", count)
    sparse = folder / "sparse"
    sparse.mkdir()
    (sparse / "cameras.txt").write_text(f"1 PINHOLE {SIZE[0]} {SIZE[1]} {FOCAL} {FOCAL} 160 120\n")
    world = places()
    tracks: list[list[str]] = [[] for _ in world]
    lines = []
    for number, name in enumerate(names):
        T = pose(number)
        depth = render(T)[1]
        inside = world @ T[:3, :3].T + T[:3, 3]
        xy = (inside @ K.T)[:, :2] / inside[:, 2:]
        column, row = np.rint(xy).astype(int).T
        seen = (column >= 0) & (column < SIZE[0]) & (row >= 0) & (row < SIZE[1])
        seen[seen] = np.abs(depth[row[seen], column[seen]] - inside[seen, 2]) < 0.2
        points = []
        for at in np.flatnonzero(seen):
            tracks[at].append(f"{number + 1} {len(points)}")
            points.append(f"{xy[at, 0] + 0.5:.9g} {xy[at, 1] + 0.5:.9g} {at + 1}")
        told = " ".join(f"{value:.17g}" for value in (*quaternion(T[:3, :3]), *T[:3, 3]))
        lines += [f"{number + 1} {told} 1 {name}", " ".join(points)]
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    rows = [
        f"{at + 1} {x:.9g} {y:.9g} {z:.9g} 90 90 90 0.1 {' '.join(track)}"
        for at, ((x, y, z), track) in enumerate(zip(world, tracks, strict=True))
        if len(track) >= 2
    ]
    # A point that one image sees is none of a model.
    kept = {int(row.split()[0]) for row in rows}
    for at in range(1, len(lines), 2):
        words = lines[at].split()
        for place in range(2, len(words), 3):
            if int(words[place]) not in kept:
                words[place] = "-1"
        lines[at] = " ".join(words)
    (sparse / "images.txt").write_text("\n".join(lines) + "\n")
    (sparse / "points3D.txt").write_text("\n".join(rows) + "\n")
    return folder


def write_megadepth(root: Path, count: int = 6, scene: str = "0007", **changes: object) -> Path:
    """ROOT as MegaDepth is laid out for training, paths as pickled objects, one of them None; needs h5py."""
    import h5py

    names = write_images(root / "Undistorted_SfM" / scene / "images", count)
    depths = root / "depth_undistorted" / scene
    depths.mkdir(parents=True)
    for number in range(count):
        with h5py.File(depths / f"{number}.h5", "w") as file:
            file["depth"] = render(pose(number))[1]
    shared = np.array([[1 - 0.15 * abs(i - j) for j in range(count + 1)] for i in range(count + 1)])
    colmap = K.copy()
    colmap[:2, 2] += 0.5
    info: dict[str, object] = {
        "image_paths": np.array([*(f"Undistorted_SfM/{scene}/images/{name}" for name in names), None], object),
        "depth_paths": np.array([*(f"depth_undistorted/{scene}/{n}.h5" for n in range(count)), None], object),
        "intrinsics": np.stack([colmap] * (count + 1)),
        "poses": np.stack([pose(number) for number in range(count + 1)]),
        "overlap_matrix": shared,
    }
    (root / "scene_info").mkdir(exist_ok=True)
    np.savez(root / "scene_info" / f"{scene}.npz", **(info | changes))  # type: ignore[arg-type]
    return root
