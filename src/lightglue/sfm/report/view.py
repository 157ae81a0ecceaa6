"""A model in the browser: points, cameras, images. `viser` serves the page; nothing else here imports it."""

from __future__ import annotations

import importlib
import math
import os
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightglue.errors import InputError, LightGlueError, StoreError
from lightglue.images import read_to_look_at
from lightglue.sfm.colmap.model import Model, RegisteredImage, read_model
from lightglue.sfm.report.scene import Scene, scene_of
from lightglue.support.files import read_json
from lightglue.support.printable import printable

__all__ = ["Viewer", "images_of", "open_view", "view_model"]

Array = NDArray[np.float64]
_RADIUS = 4.0  # of the scene in the viewer's unit, whatever unit the model has
_THUMBNAIL = 256  # px, longer edge
_THUMBNAILS = 400  # images; more are shown as bare pyramids
_LONGEST = 20  # of the slider of track lengths
_ORANGE = (213, 94, 0)


@dataclass(frozen=True, eq=False)
class Viewer:
    """A page that is served until `stop` is called or the process ends."""

    url: str
    server: Any  # viser.ViserServer
    cameras: tuple[Any, ...]  # viser's handle of each image's pyramid, in the order of the model's images
    _stopped: threading.Event
    _showing: threading.Lock  # held while an image is sent: a server that has stopped takes none

    def stop(self) -> None:
        """Close the page and free the port."""
        with self._showing:
            self._stopped.set()
        self.server.stop()

    def wait(self) -> None:
        """Until `stop` is called, or Ctrl-C."""
        while not self._stopped.is_set():
            time.sleep(0.2)


def view_model(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    host: str = "127.0.0.1",
    port: int = 8080,
) -> Viewer:
    """Serve the model in a folder; `open_view` says more.

    Args:
        path: a model's folder, or that of a map.
        images: the folder of the images; None takes what the map remembers.

    Raises:
        InputError: no model there, or what `open_view` raises.
        StoreError: the model is damaged.
    """
    model = read_model(path)
    return open_view(model, images_of(path) if images is None else Path(images), host, port)


def images_of(path: str | os.PathLike[str]) -> Path | None:
    """The folder of images that a map, or the map around a model, remembers; None where it is not known or gone."""
    for folder in (Path(path), Path(path).absolute().parent, Path(path).absolute().parent.parent):
        try:
            images = read_json(folder / "map.json").get("images")
        except (OSError, StoreError):
            continue
        if isinstance(images, str) and (folder / images).is_dir():
            return folder / images
    return None


def open_view(model: Model, images: Path | None = None, host: str = "127.0.0.1", port: int = 8080) -> Viewer:
    """Serve a page with a model in 3D.

    Click a camera to look through it. Sliders set the size of points and cameras, and how many images must see a
    point. Images appear in their cameras as they are read.

    Args:
        images: the folder of the images; None shows cameras without them.
        host: the address to listen at; "0.0.0.0" lets other machines in.
        port: 0 takes any that is free.

    Raises:
        InputError: nothing to show, or the port is taken.
        LightGlueError: viser is not installed.
    """
    if not model.images and not len(model.points):
        raise InputError(f"The model in {model.folder} holds no image and no point; there is nothing to show.")
    viser = _viser()
    _check_port(host, port)
    server = viser.ViserServer(host=host, port=port, label="lightglue", verbose=False)
    bound = int(server.get_port())
    if port not in (0, bound):  # taken in between; viser then looks for another
        server.stop()
        raise InputError(_taken(host, port))
    stopped, showing = threading.Event(), threading.Lock()
    scene = scene_of(model)
    _set_up(server, scene)
    _add_points(server, model, scene)
    cameras = _add_cameras(server, viser, model, scene)
    if images is not None:
        threading.Thread(target=_show_images, args=(model, images, cameras, stopped, showing), daemon=True).start()
    shown = "127.0.0.1" if host in ("", "0.0.0.0", "::") else host
    return Viewer(f"http://{shown}:{bound}", server, tuple(cameras), stopped, showing)


def _viser() -> Any:
    try:
        return importlib.import_module("viser")
    except ImportError as error:
        raise LightGlueError("The 3D view is shown by viser: pip install 'lightglue[view]'.") from error


def _check_port(host: str, port: int) -> None:
    if not 0 <= port <= 65535:
        raise InputError(f"{port} is no port; give one from 1 to 65535, or 0 for any that is free.")
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as probe:
            if os.name == "posix":
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
            probe.bind(address)
    except socket.gaierror as error:
        raise InputError(f"{host!r} is no address of this machine ({error}); give one, such as 127.0.0.1.") from error
    except OSError as error:
        raise InputError(_taken(host, port, f" ({error.strerror or error})")) from error


def _taken(host: str, port: int, why: str = "") -> str:
    return f"Port {port} of {host} is taken or not allowed{why}; give another with --port, or 0 for any that is free."


def _placed(scene: Scene, points: Array) -> NDArray[np.float32]:
    """Points (N, 3) in the viewer's frame: x to the right, y ahead, z up, around the origin."""
    return (scene.rotated(points) * (_RADIUS / scene.extent)).astype(np.float32)


def _set_up(server: Any, scene: Scene) -> None:
    server.scene.set_up_direction("+z")
    server.initial_camera.position = (-0.45 * _RADIUS, -1.1 * _RADIUS, 0.55 * _RADIUS)
    server.initial_camera.look_at = (0.0, 0.0, 0.0)
    server.gui.configure_theme(dark_mode=True)
    server.scene.set_background_image(np.full((1, 1, 3), 24, np.uint8))


def _add_points(server: Any, model: Model, scene: Scene) -> None:
    """The cloud with its sliders."""
    size = 0.004 * _RADIUS * float(np.clip((20_000 / max(len(model.points), 1)) ** 0.25, 0.4, 2))
    which = np.flatnonzero(scene.shown)
    positions, colours, lengths = _placed(scene, model.points[which]), model.colours[which], model.track_lengths[which]
    cloud = server.scene.add_point_cloud(
        "/points", positions, colours, point_size=size, point_shape="circle", precision="float32", point_shading="flat"
    )
    server.gui.add_markdown(
        f"**{len(model.images):,}** images, **{len(model.points):,}** points"
        + (f", **{model.mean_error:.2f}** px" if math.isfinite(model.mean_error) else "")
    )
    sizes = server.gui.add_slider("Point size", min=0.1, max=5.0, step=0.1, initial_value=1.0)
    longest = int(np.clip(lengths.max(initial=3), 3, _LONGEST))
    least = server.gui.add_slider("Seen by at least", min=2, max=longest, step=1, initial_value=2)

    def resize(_: Any) -> None:
        cloud.point_size = size * float(sizes.value)

    def select(_: Any) -> None:
        kept = lengths >= int(least.value)
        with server.atomic():
            cloud.points = positions[kept]
            cloud.colors = colours[kept]

    sizes.on_update(resize)
    least.on_update(select)


def _add_cameras(server: Any, viser: Any, model: Model, scene: Scene) -> list[Any]:
    """A pyramid for each image, in the order of the model's; a click looks through it."""
    scale = scene.camera_size * _RADIUS / scene.extent
    looking = server.gui.add_text("Looking through", initial_value="click a camera", disabled=True)
    shown = server.gui.add_checkbox("Cameras", initial_value=True)
    sizes = server.gui.add_slider("Camera size", min=0.2, max=4.0, step=0.1, initial_value=1.0)
    handles = []
    for i, image in enumerate(model.images):
        rotation = viser.transforms.SO3.from_matrix(scene.axes @ image.rotation.T).wxyz
        position = _placed(scene, image.centre[None])[0]
        # Numbered, since the names of files may hold slashes, which would nest them.
        handle = server.scene.add_camera_frustum(
            f"/cameras/{i}",
            fov=_field_of_view(image),
            aspect=image.camera.width / max(image.camera.height, 1),
            scale=scale,
            color=_ORANGE,
            wxyz=rotation,
            position=position,
        )
        handle.on_click(_look_through(image, rotation, position, looking))
        handles.append(handle)

    def show(_: Any) -> None:
        for handle in handles:
            handle.visible = bool(shown.value)

    def resize(_: Any) -> None:
        for handle in handles:
            handle.scale = scale * float(sizes.value)

    shown.on_update(show)
    sizes.on_update(resize)
    return handles


def _field_of_view(image: RegisteredImage) -> float:
    """Vertical, radians."""
    return math.radians(image.camera.field_of_view[1])


def _look_through(image: RegisteredImage, rotation: Array, position: NDArray[np.float32], looking: Any) -> Any:
    def clicked(event: Any) -> None:
        camera = event.client.camera
        with event.client.atomic():
            camera.wxyz, camera.position = rotation, position
            camera.fov = _field_of_view(image)
        looking.value = printable(image.name)

    return clicked


def _show_images(
    model: Model, images: Path, cameras: list[Any], stopped: threading.Event, showing: threading.Lock
) -> None:
    """Put the images into their cameras, as they are read. What cannot be read stays a bare pyramid."""
    for image, camera in list(zip(model.images, cameras, strict=True))[:_THUMBNAILS]:
        if stopped.is_set():
            return
        thumbnail = _thumbnail(images / image.name)
        with showing:
            if thumbnail is not None and not stopped.is_set():
                camera.image = thumbnail


def _thumbnail(path: Path) -> NDArray[np.uint8] | None:
    try:
        pixels = read_to_look_at(path)
    except (LightGlueError, OSError, ValueError):
        return None
    shrink = min(1.0, _THUMBNAIL / max(pixels.shape[:2]))
    size = [max(1, round(edge * shrink)) for edge in pixels.shape[1::-1]]
    found: NDArray[np.uint8] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
    return found
