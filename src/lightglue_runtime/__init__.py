"""Match images with models that `lightglue export` wrote: NumPy, OpenCV and a runtime, without torch."""

from __future__ import annotations
