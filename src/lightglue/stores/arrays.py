"""Arrays in a file of NumPy's (npz), read so that no damage stays unnoticed."""

from __future__ import annotations

import io
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["array_of", "read_arrays"]


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
