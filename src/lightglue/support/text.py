"""Text files that users bring: lists, pairs, cameras, manifests. One reader for all, whatever an editor made of them.

UTF-8 with or without its mark at the beginning; lines end as on Unix, Windows or an old Mac; blanks around a line and
blank lines mean nothing; a line that begins with # is a comment.
"""

from __future__ import annotations

import codecs
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lightglue.errors import InputError

__all__ = ["BLANKS", "content_lines", "read_json_text", "read_text", "split_lines"]

BLANKS = " \t"  # around a line; other white space may be part of a name
_END = re.compile("\r\n|\r|\n")  # str.splitlines would split names too
_WIDE = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_text(path: str | os.PathLike[str], errors: str = "surrogateescape") -> str:
    """The text in a file. Bytes that are not UTF-8 stay as they are, as in file names; "strict": they are refused.

    Raises OSError where the file cannot be read, which the caller words; InputError where it holds no UTF-8 text.
    """
    content = Path(path).read_bytes()
    if content.startswith(_WIDE) or (b"\0" in content and _is_wide(content)):
        raise InputError(f"{path} is UTF-16 or UTF-32, as some editors save text; save it as UTF-8.")
    if b"\0" in content:
        raise InputError(f"{path} is no text file; name one that is, in UTF-8.")
    try:
        return content.decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from None


def split_lines(text: str) -> list[str]:
    """All lines of a text, without their ends, as they are."""
    return _END.split(text)


def content_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that say something, without the blanks around them, and their numbers from 1; comments are none."""
    for number, line in enumerate(split_lines(text), 1):
        if (bare := line.strip(BLANKS)) and not bare.startswith("#"):
            yield number, bare


def read_json_text(path: str | os.PathLike[str]) -> Any:
    """What a JSON file holds.

    Raises OSError where it cannot be read, ValueError (an InputError where it is no UTF-8) or RecursionError where it
    holds no JSON.
    """
    return json.loads(read_text(path, "strict"))


def _is_wide(content: bytes) -> bool:
    """Whether every second byte is 0, or three of four: letters of UTF-16 or UTF-32 without a mark."""
    return not any(content[1::2]) or not any(content[0::2])
