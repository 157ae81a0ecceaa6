"""Objects on their way between processes. Large arrays and tensors lie in one file that every process maps.

Pages of a mapped file are in memory once, however many processes read them; one that writes gets a page of its own.
"""

from __future__ import annotations

import mmap
import os
import pickle
import struct
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from typing import IO, Any

from lightglue.errors import InputError, LightGlueError

__all__ = ["Parcel", "read_message", "unpack", "write_message"]

_LARGE = 1 << 16  # bytes; smaller ones go with the rest
_ALIGNED = 64  # bytes: what vector instructions like best
_LENGTH = struct.Struct("<Q")


class Parcel:
    """What all processes get. Raises InputError for what cannot be sent, LightGlueError where there is no room for it.

    `ends`, closing it, frees the file; processes that have it mapped keep it until they end.
    """

    def __init__(self, value: Any) -> None:
        buffers: list[memoryview] = []

        def goes_along(buffer: pickle.PickleBuffer) -> bool:
            view = buffer.raw()
            if view.nbytes < _LARGE:
                return True
            buffers.append(view)
            return False

        self._head = _dumps(value, goes_along)
        self._places: list[tuple[int, int]] = []  # where each buffer begins, bytes
        self._file: IO[bytes] | None = None
        self._inline: list[bytes] = []
        if not buffers:
            return
        if os.name != "posix":  # a file without a name cannot be handed on
            self._inline = [bytes(each) for each in buffers]
            return
        try:
            self._file = _nameless_file()
            for each in buffers:
                begin = -(-self._file.tell() // _ALIGNED) * _ALIGNED
                self._file.seek(begin)
                self._file.write(each)
                self._places.append((begin, each.nbytes))
            self._file.flush()
        except OSError as error:
            self.close()
            size = sum(each.nbytes for each in buffers) / 1e6
            raise LightGlueError(
                f"There is no place for the {size:,.0f} MB that processes share ({error}); make room in the folder for "
                "temporary files, name another one in TMPDIR, or use 1 worker."
            ) from error

    @property
    def handed_on(self) -> tuple[int, ...]:
        """The open files that a new process must have."""
        return () if self._file is None else (self._file.fileno(),)

    def message(self) -> tuple[bytes, tuple[int, ...], list[tuple[int, int]], list[bytes]]:
        """What to send to a process that has them, for `unpack` there."""
        return self._head, self.handed_on, self._places, self._inline

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            with suppress(OSError):  # of what could not be written, either
                self._file.close()


def _nameless_file() -> IO[bytes]:
    """A file that a kill leaves nothing of; never in the place of a standard stream, which a new process has others of.

    A program without a standard input gives its number to the next file that is opened.
    """
    file = tempfile.TemporaryFile(prefix="lightglue-")  # noqa: SIM115  # whoever asked closes it
    if file.fileno() > 2:
        return file
    import fcntl

    with file:
        return os.fdopen(fcntl.fcntl(file.fileno(), fcntl.F_DUPFD_CLOEXEC, 3), "w+b")


def unpack(message: tuple[bytes, tuple[int, ...], list[tuple[int, int]], list[bytes]]) -> Any:
    """The object of a `Parcel`, in another process."""
    head, files, places, inline = message
    if not files:
        return pickle.loads(head, buffers=[bytearray(each) for each in inline])
    mapped = memoryview(mmap.mmap(files[0], 0, access=mmap.ACCESS_COPY))
    os.close(files[0])
    return pickle.loads(head, buffers=[mapped[begin : begin + size] for begin, size in places])


def write_message(stream: IO[bytes], value: Any) -> None:
    """Send an object. Raises InputError for what cannot be sent, OSError where nobody reads."""
    content = _dumps(value)
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """The next object. Raises EOFError where the other side has ended, also in the middle of it."""
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return pickle.loads(_exactly(stream, length))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError
    return content


def _dumps(value: Any, goes_along: Callable[[pickle.PickleBuffer], Any] | None = None) -> bytes:
    stream = BytesIO()
    try:
        _Pickler(stream, 5, buffer_callback=goes_along).dump(value)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # whatever an object says that cannot be pickled
        reason = " ".join(str(error).split())
        raise InputError(
            f"Another process cannot have this ({reason:.200}); give what can be pickled, or use 1 worker."
        ) from error
    return stream.getvalue()


class _Pickler(pickle.Pickler):
    """Sends a tensor as its memory, and nothing that another process would look for in vain."""

    def reducer_override(self, value: Any) -> Any:
        """See `pickle.Pickler.reducer_override`."""
        if isinstance(value, type) or callable(value):
            self._check_known_elsewhere(value)
        torch = sys.modules.get("torch")
        if torch is None or type(value) is not torch.Tensor or value.device.type != "cpu":
            return NotImplemented
        if value.layout != torch.strided or value.is_quantized:
            return NotImplemented
        plain = value.detach().resolve_conj().resolve_neg().contiguous()
        content = plain.reshape(-1).view(torch.uint8).numpy() if plain.numel() else plain.new_empty(0).float().numpy()
        named = str(plain.dtype).removeprefix("torch.")
        return _tensor, (pickle.PickleBuffer(content), named, tuple(plain.shape), value.requires_grad)

    @staticmethod
    def _check_known_elsewhere(value: Any) -> None:
        if getattr(value, "__module__", None) == "__main__" and hasattr(value, "__qualname__"):
            raise InputError(
                f"Another process does not know {value.__qualname__}, which a script or a notebook defines; put it "
                "into a module, or use 1 worker."
            )


def _tensor(content: Any, dtype: str, shape: tuple[int, ...], requires_grad: bool) -> Any:
    import torch

    kind = getattr(torch, dtype)
    if 0 in shape:
        made = torch.empty(shape, dtype=kind)
    else:
        writable = content if isinstance(content, memoryview) and not content.readonly else bytearray(content)
        made = torch.frombuffer(writable, dtype=kind).reshape(shape)
    return made.requires_grad_() if requires_grad else made
