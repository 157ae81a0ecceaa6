"""What every room stands on: whole files, bounded caches, progress, want of memory."""

import errno
import io
import sys
import threading
from pathlib import Path

import pytest

from lightglue.errors import StoreError, WeightsError
from lightglue.support import files, progress
from lightglue.support.caches import BoundedCache
from lightglue.support.files import remove_parts, whole, write_files, write_whole
from lightglue.support.memory import is_out_of_memory
from lightglue.support.progress import progress_display


def fail_half_way(path: Path) -> None:
    with whole(path) as part:
        part.write_bytes(b"half")
        raise KeyError


def test_a_whole_file_replaces_another_only_when_it_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file"
    write_whole(path, b"old")
    with whole(path) as part:
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    with pytest.raises(KeyError):
        fail_half_way(path)
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_files_that_belong_together_are_all_written_or_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    write_files({first: b"1", second: b"2"})
    synced: list[int] = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match=r"first, .*second could not be written \(No space left on device\)"):
        write_files({first: b"one", second: b"two"})
    assert (first.read_bytes(), second.read_bytes()) == (b"1", b"2")
    assert sorted(tmp_path.iterdir()) == [first, second]


def test_an_error_in_writing_names_the_file_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"inner cannot be written \(.*\); make room") as caught:
        write_whole(tmp_path / "file" / "inner", b"")
    assert str(caught.value).count("cannot be written") == 1
    remove_parts(tmp_path / "none")  # there is nothing to remove, and no error


def test_a_cache_drops_what_was_used_longest_ago() -> None:
    made: list[str] = []
    cache: BoundedCache[str, bytes] = BoundedCache(10, len)

    def get(key: str, size: int) -> bytes:
        return cache.get(key, lambda: made.append(key) or bytes(size))

    assert [len(get(key, 4)) for key in "abab"] == [4, 4, 4, 4]
    assert made == ["a", "b"]
    get("a", 4)
    get("c", 4)  # drops b
    get("a", 4)
    get("b", 4)
    assert made == ["a", "b", "c", "b"]
    get("large", 100)  # more than the limit: held, alone
    assert len(cache) == 1
    assert len(get("large", 0)) == 100


def test_a_cache_holds_at_least_what_its_user_needs_at_once() -> None:
    pair: BoundedCache[int, int] = BoundedCache(0, keep=2)
    none: BoundedCache[int, int] = BoundedCache(0, keep=0)
    for number in range(5):
        assert pair.get(number, lambda number=number: number) == number
        assert none.get(number, lambda number=number: number) == number
    assert (len(pair), len(none)) == (2, 0)
    assert pair.get(3, lambda: -1) == 3


def test_a_cache_holds_nothing_of_what_failed() -> None:
    cache: BoundedCache[int, int] = BoundedCache(10)
    with pytest.raises(ZeroDivisionError):
        cache.get(1, lambda: 1 // 0)
    assert cache.get(1, lambda: 7) == 7


def test_a_cache_counts_right_under_threads() -> None:
    cache: BoundedCache[int, int] = BoundedCache(5)
    wrong: list[int] = []

    def use() -> None:
        for step in range(2000):
            if cache.get(step % 9, lambda step=step: step % 9) != step % 9:
                wrong.append(step)

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert len(cache) == 5


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("Out of memory"), True),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
        (WeightsError("x.pth ran out of memory; a remedy"), False),  # says it already
    ],
)
def test_want_of_memory_is_recognised(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected


def test_without_a_terminal_each_stage_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as show:
        show("extract", 1, 3)
        show("extract", 2, 3)
        show("match", 1, 1)
    assert capsys.readouterr().err == "extract ...\nmatch ...\n"


def test_a_long_stage_says_how_much_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 0.0, 10.0, 30.0])
    monkeypatch.setattr(progress, "monotonic", lambda: next(now))
    with progress_display() as show:
        show("extract", 0, 4000)
        show("extract", 500, 4000)  # 10 s later: too soon for a line
        show("extract", 1500, 4000)
    assert capsys.readouterr().err == "extract ...\nextract: 1,500 of 4,000, about 50 s left\n"


def test_bytes_are_shown_in_megabytes(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightglue.support.progress._Lines.EVERY", 0.0)
    with progress_display(in_bytes=True) as show:
        show("fetching x", 0, 47_600_000)
        show("fetching x", 12_000_000, 47_600_000)
    assert "fetching x: 12.0 of 47.6 MB, about 0 s left" in capsys.readouterr().err


@pytest.mark.parametrize("in_bytes", [False, True])
def test_a_terminal_gets_bars(in_bytes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    with progress_display(in_bytes=in_bytes, leave=True) as show:
        show("extract", 1, 3)
        show("match", 2, None)
    written = sys.stderr.getvalue()  # type: ignore[attr-defined]
    assert "extract" in written
    assert "match" in written


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with progress_display(quiet=True) as show:
        show("extract", 1, 3)
    monkeypatch.setattr(sys, "stderr", None)
    with progress_display() as show:
        show("extract", 1, 3)
    monkeypatch.undo()
    assert capsys.readouterr().err == ""
