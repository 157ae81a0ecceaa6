"""Files of pairs, a pair a line: ours, with a tab between the names, and hloc's, with a space.

A name that a line cannot hold as it is (with a tab, a line's end, blanks around it, or a quotation mark in front) is a
JSON string. Lines that begin with # and have no tab are comments, as in COLMAP's lists.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from lightglue.errors import InputError, StoreError
from lightglue.sfm.skipped import Skipped
from lightglue.support.files import write_whole
from lightglue.support.text import BLANKS, read_text, split_lines

__all__ = ["Pair", "pairs_among", "read_pairs", "write_pairs"]

Pair = tuple[str, str]
_AWKWARD = re.compile('[\t\n\r]|^["\ufeff ]| $|^$')  # the last but one would be taken for the mark of UTF-8


def write_pairs(path: str | os.PathLike[str], pairs: Iterable[Pair]) -> None:
    """Write pairs, replacing any file that was there, whole or not at all. Raises StoreError."""
    lines = (f"{_written(name0)}\t{_written(name1)}\n" for name0, name1 in pairs)
    write_whole(Path(path), "".join(lines).encode("utf-8", "surrogateescape"))


def read_pairs(path: str | os.PathLike[str]) -> list[Pair]:
    """The pairs in a file, each once and canonical (name0 < name1), in the file's order.

    Raises InputError for a line that is no pair or a file that is no text, StoreError where it cannot be read.
    """
    pairs: dict[Pair, None] = {}
    for number, line in _lines(path):
        found = _split(line)
        if len(found) != 1 or found[0][0] == found[0][1]:
            raise InputError(f"{path}, line {number}: {_fault(line)}")
        pairs[_canonical(*found[0])] = None
    return list(pairs)


def pairs_among(path: str | os.PathLike[str], names: Collection[str]) -> tuple[list[Pair], list[Skipped]]:
    """The pairs in a file of images that are there, and the lines that were left out.

    Where the names in hloc's file have spaces, the names that there are decide. Raises StoreError where the file
    cannot be read, InputError where it is no text.
    """
    known = set(names)
    pairs: dict[Pair, None] = {}
    skipped = []
    for number, line in _lines(path):
        found = _split(line) if "\t" in line else _splits(line)
        fit = list(dict.fromkeys(pair for each in found if known.issuperset(pair := _as_known(each, known))))
        if len(fit) == 1 and fit[0][0] != fit[0][1]:
            pairs[_canonical(*fit[0])] = None
        else:
            skipped.append(_left_out(f"{path}, line {number}", line, fit or found, known))
    return list(pairs), skipped


def _as_known(pair: Pair, known: set[str]) -> Pair:
    """The names of a line as images have them, where it was written on Windows or begins them with ./."""
    name0, name1 = (n if n in known else n.replace("\\", "/").removeprefix("./") for n in pair)
    return name0, name1


def _left_out(where: str, line: str, found: list[Pair], known: set[str]) -> Skipped:
    if len(found) != 1 or found[0][0] == found[0][1]:
        return Skipped(where, _fault(line))
    absent = ", ".join(repr(name) for name in found[0] if name not in known)
    return Skipped(f"{found[0][0]}, {found[0][1]}", f"There is no image {absent}; see {where}.")


def _fault(line: str) -> str:
    return f"{line!r:.200} is no pair; give two different names with a tab between them."


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, str]]:
    try:
        text = read_text(path)
    except OSError as error:
        raise StoreError(f"The pairs in {path} cannot be read ({error.strerror or error}); name a file.") from error
    for number, line in enumerate(split_lines(text), 1):
        line = line.strip(BLANKS)
        if line and (not line.startswith("#") or "\t" in line):
            yield number, line


def _split(line: str) -> list[Pair]:
    """The two names of a line, if that is what it holds."""
    parts = re.split("\t+", line) if "\t" in line else re.split(" +", line)
    names = [_read(part.strip(" ")) for part in parts]
    return [(names[0], names[1])] if len(names) == 2 and all(names) else []


def _splits(line: str) -> list[Pair]:
    """Two names, at each of the blanks between which a line may be split."""
    return [(line[: blank.start()], line[blank.end() :]) for blank in re.finditer(" +", line)]


def _canonical(name0: str, name1: str) -> Pair:
    return (name0, name1) if name0 < name1 else (name1, name0)


def _written(name: str) -> str:
    return json.dumps(name) if _AWKWARD.search(name) else name


def _read(part: str) -> str:
    if part.startswith('"'):
        try:
            name = json.loads(part)
        except ValueError:
            return part  # a name of hloc's, which has no quotes
        return name if isinstance(name, str) else part
    return part
