"""Arrays in a file of NumPy's (npz), read so that no damage stays unnoticed."""

from __future__ import annotations

import io
import os
import struct
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_of", "mapped_arrays", "read_arrays"]

_LOCAL_HEADER = 30  # bytes of a member's header in a zip file, before its name


def read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    """The arrays in the bytes of a file, by name. Raises ValueError for whatever is made of a damaged one.

    Each member is read to its end, where its checksum stands, before NumPy sees it: `np.load` stops where the shape in
    a damaged header says.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return {name.removesuffix(".npy"): array_of(archive.read(name)) for name in archive.namelist()}
    except Exception as error:  # zlib's, of a method that is none, of a password: there is no list of them
        raise ValueError(str(error) or type(error).__name__) from error


def array_of(member: bytes) -> NDArray[Any]:
    """The array in a member's bytes."""
    return np.asarray(np.load(io.BytesIO(member), allow_pickle=False))


def mapped_arrays(path: str | os.PathLike[str], content: bytes) -> dict[str, NDArray[Any]] | None:
    """The arrays of a file as `read_arrays` gives those of its bytes, but in the pages of the file itself.

    Processes that map a file have it in memory once, and what is not looked at for long can be dropped. content: the
    bytes of the file, which were found whole. None where the file has changed since, or its arrays are compressed.
    """
    import torch  # whose mapping holds no file open, unlike Python's: thousands are mapped at once

    try:
        whole = torch.from_file(str(path), shared=False, size=len(content), dtype=torch.uint8).numpy()
    except (RuntimeError, UnicodeError):
        return None
    if whole.data.cast("B") != content:
        return None
    arrays = {}
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for member in archive.infolist():
            if member.compress_type != zipfile.ZIP_STORED:
                return None
            header = content[member.header_offset : member.header_offset + _LOCAL_HEADER]
            begin = member.header_offset + _LOCAL_HEADER + sum(struct.unpack("<HH", header[26:30]))
            stream = io.BytesIO(content[begin : begin + member.file_size])
            np.lib.format.read_magic(stream)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            flat = np.frombuffer(whole, dtype, int(np.prod(shape)), begin + stream.tell())
            arrays[member.filename.removesuffix(".npy")] = flat.reshape(shape, order="F" if fortran else "C")
    return arrays
