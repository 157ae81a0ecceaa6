"""Fetching a benchmark: whole or not at all, going on where it stopped, and nothing outside of its folder."""

from __future__ import annotations

import contextlib
import hashlib
import io
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lightglue.errors import LightGlueError
from lightglue.evaluation.datasets import Dataset, Download
from lightglue.evaluation.datasets.archives import ArchiveError, unpack
from lightglue.evaluation.datasets.fetch import data_folder, fetch, find_fetched
from lightglue.evaluation.datasets.manifest import PROTOCOLS


@dataclass
class Site:
    """A web site of one file, and what it is asked."""

    body: bytes
    url: str = ""
    etag: str = '"one"'
    knows_ranges: bool = True
    sends: list[int] = field(default_factory=list)  # bytes of the next answers, before the connection ends
    stalls: threading.Event | None = None  # an answer that was cut short holds the line until this is set
    asked: list[str | None] = field(default_factory=list)  # the Range of each request

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers["Range"]
        self.asked.append(wanted)
        start = 0
        if wanted and self.knows_ranges and request.headers["If-Range"] == self.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if start >= len(self.body) > 0:
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.body)}")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        request.send_header("ETag", self.etag)
        request.send_header("Content-Length", str(len(self.body) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        request.end_headers()
        end = start + self.sends.pop(0) if self.sends else len(self.body)
        with contextlib.suppress(ConnectionError):  # the other side may have enough
            request.wfile.write(self.body[start:end])
        if end < len(self.body) and self.stalls:
            request.wfile.flush()
            self.stalls.wait(20)


@pytest.fixture
def serve() -> Iterator[Callable[[bytes], Site]]:
    servers = []

    def start(body: bytes) -> Site:
        site = Site(body)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        site.url = f"http://127.0.0.1:{server.server_port}/set.zip"
        return site

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LIGHTGLUE_OFFLINE", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(f"set/{name}.txt", content)
    return buffer.getvalue()


BODY = zipped(one=bytes(range(256)) * 4000, two=b"two")


def dataset(*urls: str, **about: Any) -> Dataset:
    def load(folder: Path) -> Any:
        raise AssertionError(f"fetch must not read {folder}")

    return Dataset("set", "The Set", "points", "CC0", (Download(urls, "set.zip", **about),), load, PROTOCOLS["points"])


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_whole(folder: Path) -> None:
    assert (folder / "set" / "one.txt").read_bytes() == bytes(range(256)) * 4000
    assert (folder / "set" / "two.txt").read_bytes() == b"two"


def test_it_lies_beside_the_weights_is_whole_and_is_fetched_once(
    serve: Callable[[bytes], Site], tmp_path: Path
) -> None:
    site = serve(BODY)
    wanted = dataset(site.url, sha256=sha256(BODY))
    assert find_fetched(wanted) is None
    folder = fetch(wanted)
    assert folder == tmp_path / "cache" / "data" / "set" == data_folder() / "set"
    assert_whole(folder)
    assert fetch(wanted) == find_fetched(wanted) == folder
    assert site.asked == [None]
    assert sorted(path.name for path in data_folder().iterdir() if not path.name.endswith(".lock")) == ["set"]


def test_a_connection_that_breaks_is_taken_up_where_it_broke(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    site = serve(BODY)
    site.sends = [1000, 2000]
    assert_whole(fetch(dataset(site.url, sha256=sha256(BODY)), tmp_path))
    assert site.asked == [None, "bytes=1000-", "bytes=3000-"]


def test_a_call_goes_on_with_what_an_earlier_one_left(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    site = serve(BODY)
    site.sends = [1000, 0]
    with pytest.raises(
        LightGlueError, match=rf"The Set could not be fetched \({site.url}: the connection closed after"
    ):
        fetch(dataset(site.url), tmp_path)
    assert not (tmp_path / "set").exists()
    assert_whole(fetch(dataset(site.url), tmp_path))
    assert site.asked == [None, "bytes=1000-", "bytes=1000-"]


def test_a_server_that_ignores_ranges_begins_anew(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    site = serve(BODY)
    site.sends, site.knows_ranges = [1000], False
    assert_whole(fetch(dataset(site.url, sha256=sha256(BODY)), tmp_path))
    assert site.asked == [None, "bytes=1000-"]


def test_a_file_that_changed_meanwhile_begins_anew(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    site = serve(zipped(one=b"old" * 9000))
    site.sends = [1000, 0]
    with pytest.raises(LightGlueError):
        fetch(dataset(site.url), tmp_path)
    site.body, site.etag = BODY, '"two"'
    assert_whole(fetch(dataset(site.url), tmp_path))


def test_a_download_that_was_whole_when_it_was_interrupted_is_used(
    serve: Callable[[bytes], Site], tmp_path: Path
) -> None:
    site = serve(BODY)
    site.sends = [1000, 0]
    with pytest.raises(LightGlueError):
        fetch(dataset(site.url), tmp_path)
    part = tmp_path / ".set.download" / "set.zip.part"
    part.write_bytes(BODY)
    assert_whole(fetch(dataset(site.url), tmp_path))
    assert site.asked[-1] == f"bytes={len(BODY)}-"


def test_a_process_that_is_killed_leaves_no_half_set_and_its_bytes_are_kept(
    serve: Callable[[bytes], Site], tmp_path: Path
) -> None:
    site = serve(BODY)
    site.sends, site.stalls = [600_000], threading.Event()
    code = (
        "import sys, pathlib; from lightglue.evaluation.datasets import Dataset, Download\n"
        "from lightglue.evaluation.datasets.fetch import fetch\n"
        "load = lambda folder: None\n"
        "files = (Download((sys.argv[1],), 'set.zip'),)\n"
        "fetch(Dataset('set', '', 'points', '', files, load, None), pathlib.Path(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, site.url, str(tmp_path)], stderr=subprocess.DEVNULL)
    part = tmp_path / ".set.download" / "set.zip.part"
    until = time.monotonic() + 20
    while not (part.exists() and part.stat().st_size > 500_000) and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait()
    site.stalls.set()
    kept = part.stat().st_size
    assert kept > 500_000
    assert not (tmp_path / "set").exists()
    assert_whole(fetch(dataset(site.url, sha256=sha256(BODY)), tmp_path))
    assert site.asked == [None, f"bytes={kept}-"]


def test_what_was_left_half_unpacked_is_removed(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    (tmp_path / ".set.unpacking" / "stale").mkdir(parents=True)
    folder = fetch(dataset(serve(BODY).url), tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == [".fetched", "set"]


@pytest.mark.parametrize("about", [{"sha256": "0" * 64}, {"md5": "0" * 32}])
def test_other_bytes_than_the_published_are_refused_and_removed(
    serve: Callable[[bytes], Site], tmp_path: Path, about: dict[str, str]
) -> None:
    with pytest.raises(LightGlueError, match=r"altered: its (sha256|md5) is [0-9a-f]+, published is 0+\)"):
        fetch(dataset(serve(BODY).url, **about), tmp_path)
    assert not (tmp_path / "set").exists()
    assert not list((tmp_path / ".set.download").glob("*.zip*"))


def test_an_md5_that_fits_is_accepted_and_a_mirror_steps_in(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    broken, good = serve(b"<html>moved</html>"), serve(BODY)
    md5 = hashlib.md5(BODY, usedforsecurity=False).hexdigest()
    assert_whole(fetch(dataset(broken.url, good.url, md5=md5), tmp_path))


def test_a_web_page_in_the_place_of_the_archive_is_named_and_not_kept(
    serve: Callable[[bytes], Site], tmp_path: Path
) -> None:
    site = serve(b"<html>moved</html>")
    with pytest.raises(LightGlueError, match=r"set.zip of The Set is of no use: it is neither a zip nor a tar"):
        fetch(dataset(site.url), tmp_path)
    site.body, site.etag = BODY, '"two"'
    assert_whole(fetch(dataset(site.url), tmp_path))


def test_a_host_that_cannot_be_reached_is_one_sentence_with_url_and_remedy(tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/set.zip"
    with pytest.raises(LightGlueError) as caught:
        fetch(dataset(url), tmp_path)
    assert str(caught.value) == (
        f"The Set could not be fetched ({url}: no connection (Connection refused)). "
        f"Download {url} on any machine, unpack it, and pass --data FOLDER."
    )


def test_offline_nothing_is_asked_and_what_is_there_is_used(
    serve: Callable[[bytes], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = serve(BODY)
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    with pytest.raises(LightGlueError, match="LIGHTGLUE_OFFLINE is set. Download http"):
        fetch(dataset(site.url), tmp_path)
    assert site.asked == []
    monkeypatch.delenv("LIGHTGLUE_OFFLINE")
    folder = fetch(dataset(site.url), tmp_path)
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    assert fetch(dataset(site.url), tmp_path) == folder


def test_a_folder_of_the_users_own_is_never_touched(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "mine").write_text("mine")
    with pytest.raises(LightGlueError, match="was not fetched by this program; pass --data"):
        fetch(dataset(serve(BODY).url), tmp_path)
    assert (tmp_path / "set" / "mine").read_text() == "mine"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LightGlueError, match="cannot be kept in .* set LIGHTGLUE_CACHE"):
        fetch(dataset("http://127.0.0.1:9/"), tmp_path / "file")


def test_a_full_disk_is_said_before_it_is_full(
    serve: Callable[[bytes], Site], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(LightGlueError, match=r"bytes are needed and 10 are free. Make room"):
        fetch(dataset(serve(BODY).url), tmp_path)


def test_two_processes_that_need_it_at_once_fetch_it_once(serve: Callable[[bytes], Site], tmp_path: Path) -> None:
    site = serve(BODY)
    wanted = dataset(site.url)
    threads = [threading.Thread(target=fetch, args=(wanted, tmp_path)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_whole(tmp_path / "set")
    assert site.asked == [None]


# --- archives


@pytest.mark.parametrize("name", ["../out.txt", "/out.txt", "in/../../out.txt", "..\\out.txt", "C:\\out.txt", "C:/out"])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / "archive"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(zipfile.ZipInfo(name), "out")
    else:
        tar_of(path, tarfile.TarInfo(name))
    with pytest.raises(ArchiveError, match="leads out of its folder"):
        unpack(path, tmp_path / "in")
    assert not [each for each in tmp_path.rglob("*out*") if each.is_file()]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_a_tar_with_links_or_devices_is_refused(tmp_path: Path, kind: bytes) -> None:
    info = tarfile.TarInfo("link")
    info.type, info.linkname = kind, "/etc/passwd"
    with pytest.raises(ArchiveError, match="'link' in it is a link or a device"):
        unpack(tar_of(tmp_path / "archive", info), tmp_path / "in")


def test_a_zip_with_links_is_refused(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "archive", "w") as archive:
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(ArchiveError, match="'link' in it is a link or a device"):
        unpack(tmp_path / "archive", tmp_path / "in")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_is_unpacked_compressed_or_not(tmp_path: Path, mode: str) -> None:
    here, folder, file = tarfile.TarInfo("./"), tarfile.TarInfo("./a"), tarfile.TarInfo("./a/b.txt")
    here.type = folder.type = tarfile.DIRTYPE
    unpack(tar_of(tmp_path / "archive", here, folder, file, mode=mode), tmp_path / "in")
    assert (tmp_path / "in" / "a" / "b.txt").read_bytes() == b"12345"


@pytest.mark.parametrize("kind", ["zip", "gz", "xz"])
def test_a_damaged_archive_is_said_to_be_damaged(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "archive"
    if kind == "zip":
        path.write_bytes(BODY)
    else:
        tar_of(path, tarfile.TarInfo("file"), mode=f"w:{kind}", content=bytes(range(256)) * 4000)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match="it is (damaged|neither a zip nor a tar)"):
        unpack(path, tmp_path / "in")


def tar_of(path: Path, *members: tarfile.TarInfo, mode: Any = "w", content: bytes = b"12345") -> Path:
    with tarfile.open(path, mode) as archive:
        for member in members:
            if member.isreg():
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
