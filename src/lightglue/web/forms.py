"""What a request carries: strict JSON, and files that are never written to the disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from lightglue.support.printable import printable
from lightglue.web.failures import FailureError

__all__ = ["Upload", "parse_json", "read_form", "read_json"]

LONGEST_NAME = 200  # characters of a file's name
_OTHER_CHARSET = re.compile(r';\s*charset\s*=(?!\s*"?utf-?8)')  # Python has some that raise whatever they decode


@dataclass(frozen=True)
class Upload:
    """A file of a form."""

    name: str  # as the user has it, without what it could do to a terminal; never used as a path
    data: bytes


class _InMemory(MultiPartParser):
    """Files stay in memory, whatever their size."""

    spool_max_size = 1 << 40


async def read_json(request: Request, names: Sequence[str]) -> dict[str, Any]:
    """The body as an object of no other names than these. Raises FailureError."""
    found = parse_json(await request.body())
    if not isinstance(found, dict):
        raise FailureError.of(422, "json", "The body is no JSON object.")
    if unknown := [name for name in found if name not in names]:
        other = unknown[0][:100]
        raise FailureError.of(422, "input", f"{other!r} is not known here; there are {', '.join(names)}.", other)
    return found


def parse_json(text: bytes | str) -> Any:
    """Strict JSON: no NaN, no names twice, no depth that exhausts the stack. Raises FailureError."""
    try:
        return json.loads(text, parse_constant=_no_constant, object_pairs_hook=_no_pairs_twice)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise FailureError.of(422, "json", f"The body is no JSON: {reason}.") from None


async def read_form(
    request: Request, limit: int, files: int, fields: int = 4
) -> tuple[dict[str, Upload], dict[str, str]]:
    """Files and fields of a multipart form, by their names. limit: bytes of a file. Raises FailureError."""
    kind = request.headers.get("content-type", "").lower()
    if not kind.startswith("multipart/form-data"):
        raise FailureError.of(415, "form", "Send the file as multipart/form-data.")
    if _OTHER_CHARSET.search(kind):
        raise FailureError.of(415, "form", "Names in a form are UTF-8; leave the charset out.")
    parser = _InMemory(request.headers, request.stream(), max_files=files, max_fields=fields, max_part_size=2_000_000)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise FailureError.of(422, "form", f"The form cannot be read: {error.message}") from None
    try:
        return await _parts_of(form, limit)
    finally:
        await form.close()


async def _parts_of(form: FormData, limit: int) -> tuple[dict[str, Upload], dict[str, str]]:
    found: dict[str, Upload] = {}
    texts: dict[str, str] = {}
    for name, value in form.multi_items():
        if name in found or name in texts:
            raise FailureError.of(422, "form", f"The form has the part {name[:100]!r} twice.", name[:100])
        if isinstance(value, UploadFile):
            data = await value.read()
            if len(data) > limit:
                raise FailureError.of(
                    413, "too_large", f"{_shown(value.filename)} is larger than {limit / 1e6:.4g} MB.", name
                )
            found[name] = Upload(_shown(value.filename), data)
        else:
            texts[name] = value
    return found, texts


def _shown(name: str | None) -> str:
    """A file's name without folders, and without what a line or a terminal would take as something else."""
    base = (name or "").replace("\\", "/").rpartition("/")[2]
    return printable(base)[:LONGEST_NAME] or "image"


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no number")


def _no_pairs_twice(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice in an object")
    return found
