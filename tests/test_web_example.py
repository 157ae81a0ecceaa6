"""examples/web: the page in a headless browser, where Chromium and onnxruntime-web are there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import cv2
import numpy as np
import pytest

from lightglue import ALIKED, LightGlue
from support import ASSETS, ROOT
from support.exported import session

export = pytest.importorskip("lightglue.export", reason="onnx is not installed")

LIBRARY = ("ort.wasm.min.js", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
EDGE, COUNT = 320, 256  # px, keypoints
# Shows the page and tells the test what came of it.
WATCHED = """<iframe src="index.html{query}"></iframe><script>
const frame = document.querySelector("iframe");
setInterval(() => {{
  const body = frame.contentDocument?.body, status = body?.querySelector("#status")?.textContent ?? "";
  if (body?.dataset.matches || status.startsWith("Error"))
    fetch("result", {{ method: "POST", body: JSON.stringify([status, body.dataset.matches ?? "[]"]) }});
}}, 100);
</script>"""


class _Handler(SimpleHTTPRequestHandler):
    results: Queue[Any]

    def do_POST(self) -> None:
        self.results.put(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None or not os.environ.get("ONNXRUNTIME_WEB"):
        pytest.skip("there is no Chromium, or ONNXRUNTIME_WEB does not name the library; see examples/web/README.md")
    return found


@pytest.fixture
def site(chromium: str, tmp_path: Path) -> Iterator[tuple[Path, Any]]:
    """A folder that is served on this machine, and a function that shows the page and gives what came of it."""
    folder = tmp_path / "site"
    folder.mkdir()
    shutil.copy(ROOT / "examples" / "web" / "index.html", folder)
    for name in LIBRARY:
        (folder / name).symlink_to(Path(os.environ["ONNXRUNTIME_WEB"]) / name)
    handler = type("Handler", (_Handler,), {"results": Queue()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def show(query: str = "") -> tuple[str, list[list[float]]]:
        (folder / "watched.html").write_text(WATCHED.format(query=query))
        handler.results = Queue()
        url = f"http://127.0.0.1:{server.server_port}/watched.html"
        options = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tempfile.mkdtemp(dir=tmp_path)}"]
        with subprocess.Popen(
            [chromium, *options, "--remote-debugging-port=0", url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as browser:
            try:
                status, matches = handler.results.get(timeout=120)
            except Empty:
                pytest.fail("the page said nothing for two minutes")
            finally:
                browser.terminate()
        return status, json.loads(matches)

    yield folder, show
    server.shutdown()
    server.server_close()
    thread.join()


def expected_matches(folder: Path, images: list[Path]) -> tuple[dict[tuple[int, int], float], int]:
    """What ONNX Runtime gives here: the score of each match, and the layers."""
    extractor, matcher = session(folder / "extractor.onnx"), session(folder / "matcher.onnx")
    feed = {}
    for side, path in enumerate(images):
        image = np.float32(cv2.imread(str(path))[..., ::-1]).transpose(2, 0, 1)[None] / np.float32(255)
        options = {"max_keypoints": np.array(COUNT), "min_score": np.array(0, np.float32)}
        keypoints, descriptors, _ = extractor.run(None, {"image": image, **options})
        size = np.float32([image.shape[:1:-1]])
        feed |= {f"kpts{side}": keypoints, f"desc{side}": descriptors, f"image_size{side}": size}
    matches, scores, stop, *_ = matcher.run(None, feed)
    return {(int(i), int(matches[i])): float(scores[i]) for i in np.flatnonzero(matches >= 0)}, int(stop)


def test_two_images_are_matched_in_the_browser(site: tuple[Path, Any]) -> None:
    folder, show = site
    models = ALIKED(), LightGlue(features="aliked")
    export.write_bundle(*models, folder / "models", max_keypoints=COUNT, resize=EDGE)
    images = []
    for name in ("close", "far"):  # already of the edge that the bundle asks for: browsers resize in their own way
        image = cv2.imread(str(ASSETS / f"montmartre_{name}.jpg"))
        scale = EDGE / max(image.shape)
        images.append(folder / f"{name}.png")
        cv2.imwrite(str(images[-1]), cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    status, found = show("?a=close.png&b=far.png")
    expected, stop = expected_matches(folder / "models", images)
    assert len(expected) > 30
    assert status.startswith(f"{len(found)} matches of {COUNT} and {COUNT} keypoints after {stop} layers, ")
    scores = {(int(i), int(j)): score for i, j, score in found}
    assert scores == pytest.approx(expected, abs=1e-3)


def test_the_page_says_what_is_missing(site: tuple[Path, Any]) -> None:
    folder, show = site
    assert show()[0] == "Error: there is no models/bundle.json; README.md says how to write it"
    (folder / LIBRARY[0]).unlink()
    assert show()[0].startswith("Error: there is no ort.wasm.min.js beside this page")
