"""Where the test data lies (the montmartre pair inside the project, more beside the checkout), and what was skipped."""

from __future__ import annotations

import gc
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest

from lightglue.models.loaded import LoadedModels
from lightglue.support import products
from lightglue.support.caches import BoundedCache
from lightglue.weights import cache_folder, locate, read
from support import ASSETS, NEEDS_BROWSER, NEEDS_GPU, NEEDS_SHARED, PAIRS, ROOT, SHARED
from support.exported import Exported
from support.remembered import remembered
from support.undrawn import undrawn

# pytest keeps the tests as it rewrote them only where Python may write bytecode, and containers often say that it may
# not: each process would take longer to rewrite all asserts than to load torch.
sys.dont_write_bytecode = False

# Until all tests are known, what was made stays: the collector would look at it in vain, again and again.
gc.disable()

# What the tests do must not depend on which published weights are here: nothing stands in for them, here and in
# processes that are started.
os.environ["LIGHTGLUE_PUBLISHED_ONLY"] = "1"

INSIDE = ROOT / "tests" / "data" / "reference"


def _first_existing(*candidates: Path) -> Path:
    for path in candidates:
        if path.exists():
            return path
    pytest.skip(f"{NEEDS_SHARED}: {candidates[-1].name} is missing")


def _arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as arrays:
        return dict(arrays)


@pytest.fixture(params=[False, True], ids=["torch", "onednn"])
def onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether float32 products are oneDNN's: each way on every machine, whatever is faster there."""
    if request.param and not products._operator_works():
        pytest.skip("this torch has no such operator")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    return bool(request.param)


@pytest.fixture(scope="session")
def reference() -> Callable[[str], dict[str, Any]]:
    """`reference("aliked-n16_montmartre_0")`: the arrays that the published code gave."""

    def load(name: str) -> dict[str, Any]:
        path = _first_existing(INSIDE / f"{name}.npz", SHARED / "reference" / "outputs" / f"{name}.npz")
        return _arrays(path)

    return load


@pytest.fixture(scope="session")
def image_path() -> Callable[[str, int], Path]:
    """`image_path("montmartre", 0)`: the file of the pair's first image."""

    def find(pair: str, index: int) -> Path:
        name = PAIRS[pair][index]
        return _first_existing(ASSETS / str(name), SHARED / "images" / str(name))

    return find


@pytest.fixture(scope="session")
def random_weights() -> Callable[[str], dict[str, Any]]:
    """`random_weights("lightglue_sift_like")`: a published architecture with seeded weights, inputs and outputs."""

    def load(name: str) -> dict[str, Any]:
        path = _first_existing(INSIDE / f"{name}.npz", SHARED / "reference" / "random_weights" / f"{name}.npz")
        return _arrays(path)

    return load


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`exported.file("aliked", "adaptive")`: a matcher's file, written once a session."""
    return Exported(tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session", autouse=True)
def _published_weights_are_read_once() -> Iterator[None]:
    """One in the cache folder is verified and unpacked at its first use and when it changes; others always."""
    folder, unpack, digest = cache_folder(), read._read, locate._sha256
    unpacked: dict[tuple[object, ...], dict[str, Any]] = {}
    digests: dict[tuple[object, ...], str] = {}

    def state(path: Path) -> tuple[object, ...]:
        about = path.stat()
        return path, about.st_ino, about.st_mtime_ns, about.st_ctime_ns, about.st_size

    def unpack_once(path: Path) -> Any:
        if path.parent != folder:
            return unpack(path)
        if (key := state(path)) not in unpacked:
            unpacked[key] = read._tensors(unpack(path), path)
        return {name: value.clone() for name, value in unpacked[key].items()}

    def digest_once(path: Path) -> str:
        if path.parent != folder:
            return digest(path)
        if (key := state(path)) not in digests:
            digests[key] = digest(path)
        return digests[key]

    with mock.patch.object(read, "_read", unpack_once), mock.patch.object(locate, "_sha256", digest_once):
        yield


@pytest.fixture
def no_models() -> Iterator[None]:
    """Fail the test where weights are read; no model that an earlier test has loaded is kept."""
    nothing_kept: BoundedCache[str, LoadedModels] = BoundedCache(2)
    no_matchers: BoundedCache[str, Any] = BoundedCache(2)
    with (
        mock.patch("lightglue.weights.read.resolve", side_effect=AssertionError("a model was loaded")),
        mock.patch("lightglue.models.loaded._LOADED", nothing_kept),
        mock.patch("lightglue.models.loaded._MATCHERS", no_matchers),
    ):
        yield


@pytest.fixture(scope="module")
def each_image_is_looked_at_once() -> Iterator[None]:
    """See `remembered`."""
    with remembered():
        yield


@pytest.fixture(scope="module")
def charts_undrawn() -> Iterator[None]:
    """See `undrawn`."""
    with undrawn():
        yield


@pytest.fixture(scope="session")
def corner_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `photographs` of a corner and their `map`, made without weights. Not to be changed."""
    pytest.importorskip("pycolmap")
    from lightglue.sfm.pipeline import build_map
    from support.corner import map_options, take_photographs

    folder = tmp_path_factory.mktemp("corner")
    take_photographs(folder / "photographs")
    with undrawn():
        build_map(folder / "photographs", folder / "map", map_options())
    return folder


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """An empty folder that every user may enter and read; pytest's own are closed to others."""
    if not hasattr(os, "geteuid"):
        pytest.skip("needs POSIX permissions")
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    shutil.rmtree(folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The page's come first: one of several processes gets them all, and is alone in starting a service and a browser.

    Those that have done theirs take what others have last.
    """
    items.sort(key=lambda item: not item.path.is_relative_to(ROOT / "tests" / "web_browser"))


def pytest_collection_finish() -> None:
    """What thousands of tests and their modules hold is there to the end: the garbage collector need not look at it."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many tests were skipped, and for want of what."""
    reasons = [str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.getreports("skipped")]
    kinds = {
        kind: [reason for reason in reasons if reason.startswith(kind)]
        for kind in (NEEDS_GPU, NEEDS_SHARED, NEEDS_BROWSER)
    }
    counted = [f"{len(found)} {kind}" for kind, found in kinds.items()]
    others = [reason for reason in reasons if not reason.startswith(tuple(kinds))]
    terminalreporter.write_line(f"skipped: {', '.join(counted)}, {len(others)} for another reason")
    for reason, count in Counter(others).items():
        terminalreporter.write_line(f"  {count} x {reason}")
