"""Look-alike places with exact truth, made from scenes with known cameras.

    python scripts/look_alikes/doubles.py DATA OUT

poster-SCENE: the same poster stands in two places of the scene, nearer than all else, so that it is drawn over it.
twin-SCENE: every other photograph is taken at a second place, a copy of the first, larger, turned and elsewhere; a few
images show both. Whoever takes the places for one explains every pair of the two, but for the images that show both:
these are photographs of two cameras, turned about their centres into one wide image, which is exactly what a camera
would see that stands between the places.

Writes OUT/NAME.json, as the manifests of `../shared/data` are, and OUT/NAME/*.png.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from scenes import BOTH, Scene, centre, load

POSTER = "planar/graf/1.png"


@dataclass(frozen=True)
class Board:
    """Where posters stand: upright rectangles in a plane, in the scene's metres, whose third axis points down."""

    right: tuple[float, float]  # along the plane, to the right as the cameras see it
    distance: float  # of the plane from the origin, along (right[1], -right[0]), which points away from the cameras
    places: tuple[tuple[float, float], tuple[float, float]]  # middles, along `right` and down
    width: float


BOARDS = {
    "fountain": Board((0.90291, -0.42983), 15.8, ((-11.6, -0.5), (-7.4, -0.5)), 1.9),
    "herzjesu": Board((0.67950, 0.73367), 9.7, ((-4.5, -1.6), (3.0, -1.6)), 4.0),
}


@dataclass(frozen=True)
class Twin:
    """A second place: the cameras `copies` of it stand where `originals` stand at the first."""

    originals: tuple[str, str]
    copies: tuple[str, str]
    tilt: float  # degrees about the line through them: the second place is seen above the first


TWINS = {
    "fountain": Twin(("0007.jpg", "0009.jpg"), ("0002.jpg", "0004.jpg"), 48.0),
    "herzjesu": Twin(("0005.jpg", "0007.jpg"), ("0000.jpg", "0002.jpg"), 48.0),
}
WIDE = (1024, 0.5)  # px of the longer edge of an image that shows both places; its focal length against the others'
PANS = (0.0, 8.0)  # degrees that such images are turned by


# --- posters -----------------------------------------------------------------------------------------------------


def poster_scene(scene: Scene, board: Board, poster: np.ndarray, out: Path) -> None:
    """Paste a poster into both places of every image that sees them."""
    entries = []
    for name in scene.names:
        image, P = cv2.imread(str(scene.folder / name)), scene.K[name] @ scene.groups[0][name][:3]
        for place in board.places:
            image = pasted(image, P, corners(board, place, poster.shape[0] / poster.shape[1]), poster)
        entries.append((Path(name).with_suffix(".png").name, image, scene.K[name], scene.groups[0][name]))
    write(out, f"poster-{scene.name}", entries)


def corners(board: Board, place: tuple[float, float], aspect: float) -> np.ndarray:
    """(4, 3): top left, top right, bottom right, bottom left."""
    right = np.array((*board.right, 0.0))
    away = np.array((board.right[1], -board.right[0], 0.0))
    down = np.array((0.0, 0.0, 1.0))
    middle = board.distance * away + place[0] * right + place[1] * down
    x, y = board.width / 2 * right, board.width * aspect / 2 * down
    return np.stack((middle - x - y, middle + x - y, middle + x + y, middle - x + y))


def pasted(image: np.ndarray, P: np.ndarray, rectangle: np.ndarray, poster: np.ndarray) -> np.ndarray:
    """An image with a poster over a rectangle (4, 3) of the scene; P (3, 4) projects."""
    seen = np.hstack((rectangle, np.ones((4, 1)))) @ P.T
    if (seen[:, 2] <= 0.1).any():
        return image
    height, width = poster.shape[:2]
    source = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], np.float32)
    target = (seen[:, :2] / seen[:, 2:]).astype(np.float32)
    sides = np.linalg.norm(target - np.roll(target, 1, 0), axis=1)
    shrink = min(1.0, 1.5 * float(sides.max()) / width)  # warping alone would alias
    small = cv2.resize(poster, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    source *= (np.array(small.shape[1::-1]) - 1) / (width - 1, height - 1)
    H = cv2.getPerspectiveTransform(source.astype(np.float32), target)
    size = image.shape[1::-1]
    warped = cv2.warpPerspective(small, H, size, flags=cv2.INTER_LINEAR)
    mask = cv2.warpPerspective(np.ones(small.shape[:2], np.float32), H, size, flags=cv2.INTER_LINEAR)[..., None]
    return np.asarray(image * (1 - mask) + warped * mask).round().astype(np.uint8)


# --- twins -------------------------------------------------------------------------------------------------------


def twin_scene(scene: Scene, twin: Twin, out: Path) -> None:
    """The first place from every other camera, the second from those between, and both from two cameras."""
    poses = scene.groups[0]
    G = second_place(scene, twin)
    entries = []
    for number, name in enumerate(scene.names):
        image, T = cv2.imread(str(scene.folder / name)), poses[name]
        if number % 2:
            image, T = relit(image), moved(T, G)
        entries.append((f"{'ab'[number % 2]}{Path(name).stem}.png", image, scene.K[name], T))
    for number, (original, copy) in enumerate(zip(twin.originals, twin.copies, strict=True)):
        first = (cv2.imread(str(scene.folder / original)), scene.K[original], poses[original])
        second = (relit(cv2.imread(str(scene.folder / copy))), scene.K[copy], moved(poses[copy], G))
        for at, pan in enumerate(PANS):
            entries.append((f"{BOTH}{number}{at}.png", *both_places(first, second, pan)))
    write(out, f"twin-{scene.name}", entries)


def second_place(scene: Scene, twin: Twin) -> np.ndarray:
    """The similarity (4, 4) from the first place to the second."""
    poses = scene.groups[0]
    a, b = (centre(poses[name]) for name in twin.copies)
    c, d = (centre(poses[name]) for name in twin.originals)
    scale = np.linalg.norm(d - c) / np.linalg.norm(b - a)
    along = (d - c) / np.linalg.norm(d - c)
    yaw = np.arctan2(*(d - c)[[1, 0]]) - np.arctan2(*(b - a)[[1, 0]])
    level = cv2.Rodrigues(np.array((0.0, 0.0, yaw)))[0]
    now = level @ (b - a) / np.linalg.norm(b - a)
    axis = np.cross(now, along)
    sine = np.linalg.norm(axis)
    lift = cv2.Rodrigues(axis / max(sine, 1e-12) * np.arcsin(sine))[0]
    R = cv2.Rodrigues(along * np.radians(twin.tilt))[0] @ lift @ level
    G = np.eye(4)
    G[:3, :3], G[:3, 3] = scale * R, c - scale * R @ a
    return G


def moved(T: np.ndarray, G: np.ndarray) -> np.ndarray:
    """The camera (4, 4) that sees the second place as T sees the first: R X + t = (R' G(X) + t') / scale."""
    scale = np.cbrt(np.linalg.det(G[:3, :3]))
    found = scale * T @ np.linalg.inv(G)
    found[3] = (0, 0, 0, 1)
    return np.asarray(found)


def relit(image: np.ndarray) -> np.ndarray:
    """The same a little darker and warmer."""
    return np.clip(image * np.array((0.82, 0.88, 0.94)), 0, 255).round().astype(np.uint8)


View = tuple[np.ndarray, np.ndarray, np.ndarray]  # image, K (3, 3), world to camera (4, 4)


def both_places(first: View, second: View, pan: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a wide camera at their common centre sees of two views. pan: degrees that it is turned by to the right."""
    away = [view[2][2, :3] for view in (first, second)]
    z = away[0] + away[1]
    x = np.cross(first[2][1, :3], z)
    z, x = z / np.linalg.norm(z), x / np.linalg.norm(x)
    R = cv2.Rodrigues(np.array((0.0, np.radians(-pan), 0.0)))[0] @ np.stack((x, np.cross(z, x), z))
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, -R @ centre(first[2])
    edge, zoom = WIDE
    f = float(first[1][0, 0]) * zoom
    size = (edge * 3 // 4, edge)
    K = np.array([[f, 0, (size[0] - 1) / 2], [0, f, (size[1] - 1) / 2], [0, 0, 1]])
    canvas = np.full((size[1], size[0], 3), 127, np.uint8)
    for image, known, pose in (second, first):
        H = K @ R @ pose[:3, :3].T @ np.linalg.inv(known)
        small = cv2.GaussianBlur(image, (0, 0), 0.8)
        warped = cv2.warpPerspective(small, H, size, flags=cv2.INTER_LINEAR)
        mask = cv2.warpPerspective(np.ones(image.shape[:2], np.uint8), H, size, flags=cv2.INTER_NEAREST)
        canvas[mask > 0] = warped[mask > 0]
    return canvas, K, T


# --- files -------------------------------------------------------------------------------------------------------


def write(out: Path, name: str, entries: list[tuple[str, np.ndarray, np.ndarray, np.ndarray]]) -> None:
    """Images and a manifest."""
    (out / name).mkdir(parents=True, exist_ok=True)
    said = []
    for file, image, K, T in entries:
        cv2.imwrite(str(out / name / file), image)
        said.append({"image": f"{name}/{file}", "K": K.tolist(), "T_w2c": T.tolist()})
    (out / f"{name}.json").write_text(json.dumps({"name": name, "kind": "localization", "images": said}))


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    poster = cv2.imread(str(args.data / POSTER))
    for name in BOARDS:
        scene = load(name, args.data, args.out)
        poster_scene(scene, BOARDS[name], poster, args.out)
        twin_scene(scene, TWINS[name], args.out)


if __name__ == "__main__":
    main()
