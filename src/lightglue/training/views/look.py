"""What an image looks like, in 64 bits: copies of an image, also smaller or compressed ones, have the same."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["look_of"]


def look_of(image: NDArray[np.uint8]) -> str:
    """16 hexadecimal digits: in each of 8 rows, whether it grows brighter from one of 9 places to the next."""
    gray: Any = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    small = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int32)
    return np.packbits(small[:, 1:] > small[:, :-1]).tobytes().hex()
