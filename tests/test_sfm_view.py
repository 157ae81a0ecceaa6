"""The 3D view: it is served on the port asked for, and what stands in the way is told."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
import urllib.request
from pathlib import Path
from unittest import mock

import cv2
import numpy as np
import pytest

from lightglue.errors import InputError, LightGlueError
from lightglue.sfm.colmap.model import Model, read_model
from lightglue.sfm.report.view import images_of, open_view
from support.colmap_model import write_model

pytest.importorskip("pycolmap", reason="pycolmap is not installed")


@pytest.fixture
def model(tmp_path: Path) -> Model:
    return read_model(write_model(tmp_path / "map" / "model"))


def test_the_page_is_served_until_it_is_stopped_with_photographs_in_their_cameras(model: Model, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((480, 640, 3), 128, np.uint8))
    (tmp_path / "b.jpg").write_text("this is no photograph")
    view = open_view(model, tmp_path, port=0)
    try:
        with urllib.request.urlopen(view.url, timeout=10) as answer:
            assert answer.status == 200
            assert b"<html" in answer.read()
        ends = time.monotonic() + 10
        while view.cameras[0].image is None and time.monotonic() < ends:
            time.sleep(0.02)
        assert view.cameras[0].image.shape == (192, 256, 3)
        assert view.cameras[1].image is None
    finally:
        view.stop()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(view.url, timeout=1)


def test_a_view_stops_only_when_the_image_that_is_being_sent_has_been(model: Model, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((480, 640, 3), 128, np.uint8))
    begun, told = threading.Event(), list[str]()

    class Camera:
        def __setattr__(self, name: str, value: object) -> None:
            begun.set()
            time.sleep(0.1)
            told.append("sent")

    with mock.patch("lightglue.sfm.report.view._add_cameras", return_value=[Camera() for _ in model.images]):
        view = open_view(model, tmp_path, port=0)
    stop = view.server.stop

    def stopped() -> None:
        told.append("stopped")
        stop()

    with mock.patch.object(view.server, "stop", stopped):
        assert begun.wait(10)
        view.stop()
    assert told == ["sent", "stopped"]


def test_a_taken_port_is_told(model: Model) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(InputError, match="is taken .* --port"):
            open_view(model, port=other.getsockname()[1])


@pytest.mark.parametrize(("host", "port"), [("127.0.0.1", 70000), ("no.such.host.invalid", 0)])
def test_a_wrong_address_is_told(model: Model, host: str, port: int) -> None:
    with pytest.raises(InputError, match="give one"):
        open_view(model, host=host, port=port)


def test_without_viser_there_is_one_sentence(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    with pytest.raises(LightGlueError, match=r"pip install 'lightglue\[view\]'"):
        open_view(model, port=0)


def test_the_photographs_are_where_the_map_says(model: Model, tmp_path: Path) -> None:
    assert images_of(model.folder) is None
    (tmp_path / "photos").mkdir()
    (tmp_path / "map" / "map.json").write_text(json.dumps({"images": str(tmp_path / "photos")}))
    assert images_of(model.folder) == images_of(tmp_path / "map") == tmp_path / "photos"
