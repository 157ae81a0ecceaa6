"""Text as it may be shown: that of `lightglue_runtime.printable`, which both packages have."""

from __future__ import annotations

from lightglue_runtime.printable import escaped, printable

__all__ = ["escaped", "printable"]
