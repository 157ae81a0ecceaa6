"""What C libraries write right to stderr about the file that they decode: OpenCV, FFmpeg, libjpeg, libpng, libtiff.

The lines are taken from the process's stderr, so that they can stand in the error that names the file. Whatever else is
written there meanwhile, by any thread, is passed on as it is, a moment later.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Condition
from typing import TypeVar

__all__ = ["with_native_lines"]

Result = TypeVar("Result")
_STDERR = 2
_LARGE = 1 << 20  # bytes in memory, beyond which they are let go of
_NATIVE = re.compile(
    rb"\[[\w,]+ @ 0x[0-9a-f]+\] |\[ ?(?:FATAL|ERROR|WARN|INFO|DEBUG|VERB)[ :][^\]\n]*\] global |OpenCV TIFF"
    rb"|libpng (?:error|warning): "
    rb"|Corrupt JPEG data|Premature end of JPEG|Invalid SOS parameters|Inconsistent progression|Unsupported marker type"
    rb"|Unknown Adobe color|Warning: unknown JFIF|\w*(?:TIFF|JPEGLib|LZW|Fax|Zip|PixarLog|PackBits)\w*: "
)
_OPENCV = re.compile(r"^\[[^\]]*\] global \S+ (?:TIFF_Error |TIFF_Warning |errorLogCallback |\w+ )?")
_FFMPEG = re.compile(r"^\[[\w,]+ @ 0x[0-9a-f]+\] ")
_RAISED = re.compile(r"^.* error: \(-?\d+:[^)]*\) (.*?)(?: in function '.*')?$")


def with_native_lines(decode: Callable[[], Result]) -> tuple[Result, list[str]]:
    """What `decode` returns, and the lines that C libraries wrote meanwhile: each once, without their prefixes.

    Calls in several threads run at once. Where two overlapped and lines came, `decode` runs again with no other beside
    it, so that the lines are its own. Nothing is caught where the process has no stderr.
    """
    result, lines, alone = _window.run(decode, alone=False)
    if lines and not alone:
        del result  # it may be large
        result, lines, _ = _window.run(decode, alone=True)
    return result, list(dict.fromkeys(filter(None, map(_bare, lines))))


def _bare(line: bytes) -> str:
    """A line without what says where in the library it was written."""
    text = " ".join(line.decode("utf-8", "replace").split())
    return _RAISED.sub(r"\1", _OPENCV.sub("", _FFMPEG.sub("", text)))


def _file_in_memory() -> int:
    """Its descriptor. Raises OSError or AttributeError where there are none."""
    made = os.memfd_create("stderr")
    from fcntl import F_GETFL, F_SETFL, fcntl  # is where such files are

    # Else of two threads that write at once one overwrites what the other wrote.
    fcntl(made, F_SETFL, fcntl(made, F_GETFL) | os.O_APPEND)
    return made


class _Window:
    """Stderr leads into memory as long as somebody decodes."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._running = 0  # calls of `run`
        self._is_reserved = False  # for one of them
        self._began = 0  # calls that have ever begun
        self._real = self._memory = -1  # descriptors
        self._read = 0  # bytes of the memory that are dealt with
        self._found: list[bytes] = []  # lines of libraries since the window was opened
        self._last = b""  # line of a library, with which an empty line may belong
        self._knows_forks = False

    def run(self, decode: Callable[[], Result], *, alone: bool) -> tuple[Result, list[bytes], bool]:
        """What `decode` returns, lines that were written meanwhile, and whether nobody else decoded."""
        with self._changed:
            self._changed.wait_for(lambda: not self._is_reserved and not (alone and self._running))
            self._is_reserved = alone
            was_alone = self._running == 0
            if was_alone:
                self._open()
            self._running += 1
            self._began += 1
            begin, began = len(self._found), self._began
        try:
            result = decode()
        finally:
            with self._changed:
                self._running -= 1
                self._pass_on()
                found = self._found[begin:]
                if not self._running:
                    self._close()
                self._is_reserved = self._is_reserved and not alone
                self._changed.notify_all()
        return result, found, was_alone and began == self._began

    def _open(self) -> None:
        self._found, self._last = [], b""
        if not self._knows_forks and hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._forked)
            self._knows_forks = True
        try:
            self._real = os.dup(_STDERR)
            if self._memory < 0:
                self._memory = _file_in_memory()
            os.dup2(self._memory, _STDERR)
        except (OSError, AttributeError):  # no stderr, or a system without files in memory
            self._forget()

    def _close(self) -> None:
        """The file in memory is kept: a thread that was about to write to it as this ends may do so later on, and what
        it writes is passed on when the next one decodes."""
        if self._real < 0:
            return
        os.dup2(self._real, _STDERR)
        self._pass_on()  # what came between
        if self._read > _LARGE:
            self._forget()
        else:
            os.close(self._real)
            self._real = -1

    def _forked(self) -> None:
        """In a child process none of the threads that decode is there."""
        if self._real >= 0:
            os.dup2(self._real, _STDERR)
        self._forget()
        self.__init__()  # type: ignore[misc]
        self._knows_forks = True

    def _forget(self) -> None:
        for descriptor in (self._real, self._memory):
            with suppress(OSError):
                if descriptor >= 0:
                    os.close(descriptor)
        self._real = self._memory = -1
        self._read = 0

    def _pass_on(self) -> None:
        """Keep the lines of libraries, and write all else to where stderr led before."""
        if self._real < 0:
            return
        content = os.pread(self._memory, max(0, os.fstat(self._memory).st_size - self._read), self._read)
        if self._running:  # a line that is being written is not told apart yet
            content = content[: content.rfind(b"\n") + 1]
        self._read += len(content)
        rest = b"".join(self._of_others(content.splitlines(keepends=True)))
        with suppress(OSError):  # as a library does whose stderr is full or broken
            while rest:
                rest = rest[os.write(self._real, rest) :]

    def _of_others(self, lines: list[bytes]) -> Iterator[bytes]:
        """The lines that no library wrote, nor the empty ones that belong with a library's.

        OpenCV ends some of its lines twice. libpng writes a line and its end apart, so an empty line some way after one
        of its own says that another thread's text was written in between and stands in that line: it is passed on.
        """
        for line in lines:
            if _NATIVE.match(line):
                self._found.append(line)
                self._last = line
            elif line == b"\n" and self._last:
                if self._last.startswith(b"libpng"):
                    yield self._last
                self._last = b""
            else:
                if not self._last.startswith(b"libpng"):
                    self._last = b""
                yield line


_window = _Window()
