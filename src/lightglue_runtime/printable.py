r"""Text as it may be shown: names of files hold whatever their makers put into them, such as commands to a terminal.

What cannot be seen is shown as its code: control letters, escape sequences, reversed writing directions, what is no
Unicode. The codes are JSON's: \u001b.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ["escaped", "printable"]

_JOINERS = "\u200c\u200d"  # of letters, and of emoji
_PLAIN = re.compile(r"[ -~]*")


def escaped(text: object, keep: str = "\n\t") -> str:
    """`text` with the codes of what cannot be seen, but for the letters in `keep`."""
    text = str(text)
    return text if _PLAIN.fullmatch(text) else "".join(_shown(letter, keep) for letter in text)


def printable(text: object) -> str:
    """`text` on one line, with the codes of what cannot be seen."""
    return " ".join(escaped(text, "\n\r\t").split())


def _shown(letter: str, keep: str) -> str:
    category = unicodedata.category(letter)
    if letter in keep or letter in _JOINERS or (category[0] != "C" and category not in ("Zl", "Zp")):
        return letter
    units = letter.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
