"""What an ONNX file says of itself, read before a runtime sees it: a few fields of its protobuf, without `onnx`.

Runtimes meet a file of another kind with an error of their parser's, or with none. The layout is that of onnx.proto
(github.com/onnx/onnx): of ModelProto graph = 7 and metadata_props = 14, of GraphProto input = 11 and output = 12.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lightglue_runtime.contract import Description
from lightglue_runtime.errors import ModelError

__all__ = ["ModelFile", "Shape"]

Shape = tuple["int | str", ...]  # a number, or the name of a dimension that varies ("" for one without a name)

_MODEL_FIELDS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 14, 20, 25, 26))  # of ModelProto
_GRAPH, _METADATA = 7, 14
_INPUT, _OUTPUT = 11, 12
_TYPES = {1: "float32", 7: "int64", 10: "float16"}  # of TensorProto.DataType
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # protobuf's wire types
# First bytes of what people have beside an ONNX file.
_OTHERS = (
    (b"PK\x03\x04", "a zip archive, such as torch's checkpoints"),
    (b"\x80\x02", "a pickle, such as torch's older checkpoints"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself"),
    (b"<?xml", "XML, such as OpenVINO's own format; take the .onnx file"),
    (b"ONNX", "in ONNX's text format"),
)


class _CutOffError(ValueError):
    """A field ends behind the end of what there is."""


@dataclass(frozen=True)
class ModelFile:
    """A model that `lightglue export` wrote."""

    path: Path
    description: Description
    inputs: Mapping[str, Shape]
    outputs: Mapping[str, Shape]
    types: Mapping[str, str] = field(default_factory=dict)  # of both: "float32", "int64", or ONNX's number of another

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> ModelFile:
        """Raises ModelError where there is no such file, or one that is cut off, of another format or version."""
        path = Path(path)
        try:
            if not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode):  # a pipe waits for its writer
                raise ModelError(f"{path} is a device or a pipe; name an .onnx file.")
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if not size:
                    raise ModelError(f"{path} is empty; export or copy it again.")
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                    return cls._parse(path, content)
        except FileNotFoundError:
            raise ModelError(f"There is no model at {path}; `lightglue export` writes one.") from None
        except IsADirectoryError:
            raise ModelError(f"{path} is a folder; name the .onnx file in it.") from None
        except (OSError, ValueError) as error:  # a ValueError: a name that no file can have
            raise ModelError(f"{path} cannot be read ({getattr(error, 'strerror', None) or error}).") from error

    @classmethod
    def _parse(cls, path: Path, content: mmap.mmap) -> ModelFile:
        for beginning, what in _OTHERS:
            if content[: len(beginning)] == beginning:
                raise ModelError(f"{path} is {what}; give an ONNX file that `lightglue export` wrote.")
        if content[4:8] == b"ORTM":
            raise ModelError(f"{path} is in ONNX Runtime's own format; give the ONNX file that it was made of.")
        properties: dict[str, str] = {}
        inputs: dict[str, Shape] = {}
        outputs: dict[str, Shape] = {}
        types: dict[str, str] = {}
        seen: list[int] = []
        try:
            for number, begin, end in _fields(content, 0, len(content), _MODEL_FIELDS):
                seen.append(number)
                if number == _GRAPH:
                    inputs, outputs, types = _signature(content, begin, end)
                elif number == _METADATA:
                    key, value = _texts(content, begin, end)
                    properties[key] = value
        except _CutOffError as error:
            if seen[:1] == [1]:  # the version of the format, with which every ONNX file begins
                raise ModelError(
                    f"{path} is cut off: it has {len(content):,} bytes and {error}; export or copy it again."
                ) from None
            raise _no_onnx(path) from None
        except ValueError:
            raise _no_onnx(path) from None
        if _GRAPH not in seen:
            raise _no_onnx(path) if 1 not in seen else ModelError(f"{path} is cut off; export or copy it again.")
        return cls(path, Description.from_properties(properties, str(path)), inputs, outputs, types)

    def sha256(self) -> str:
        """Of the whole file."""
        digest = hashlib.sha256()
        with self.path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def check(self, kind: str, inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
        """ModelError unless the file is a model of this kind that takes `inputs` and gives `outputs`."""
        found = self.description
        if found.kind != kind:
            raise ModelError(
                f"{self.path} is the {found.kind} of {found.features}, not a {kind}; give the file of the {kind}."
            )
        for what, has, wanted in (("input", self.inputs, inputs), ("output", self.outputs, outputs)):
            missing = [name for name in wanted if name not in has]
            if missing:
                raise ModelError(
                    f"{self.path} has format {found.format}, which lacks the {what} {missing[0]}; export the {kind} "
                    f"again, without a format for other programs."
                )


def _no_onnx(path: Path) -> ModelError:
    return ModelError(f"{path} is no ONNX file; give one that `lightglue export` wrote.")


def _varint(content: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    value = shift = 0
    while True:
        if at >= end:
            raise _CutOffError("ends within a field")
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _fields(
    content: mmap.mmap, begin: int, end: int, known: frozenset[int] | None = None
) -> Iterator[tuple[int, int, int]]:
    """The fields of a message: number, and where its value begins and ends. ValueError where it is none."""
    at = begin
    while at < end:
        tag, at = _varint(content, at, end)
        number, wire = tag >> 3, tag & 7
        if number == 0 or (known is not None and number not in known):
            raise ValueError(f"a field {number}")
        start = at
        if wire == _VARINT:
            _, at = _varint(content, at, end)
        elif wire == _BYTES:
            length, start = _varint(content, at, end)
            at = start + length
        elif wire in (_FIXED32, _FIXED64):
            at += 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"wire type {wire}")
        if at > end:
            yield number, start, end  # the caller may want to know how far it came
            raise _CutOffError(f"should have {at:,} at least")
        yield number, start, at


def _signature(content: mmap.mmap, begin: int, end: int) -> tuple[dict[str, Shape], dict[str, Shape], dict[str, str]]:
    """The inputs and outputs of a graph with their shapes, and the types of both."""
    found: dict[int, dict[str, Shape]] = {_INPUT: {}, _OUTPUT: {}}
    types: dict[str, str] = {}
    if begin > end:
        return {}, {}, {}
    for number, start, stop in _fields(content, begin, end):
        if number in found:
            name, shape, types[name] = _value(content, start, stop)
            found[number][name] = shape
    return found[_INPUT], found[_OUTPUT], types


def _value(content: mmap.mmap, begin: int, end: int) -> tuple[str, Shape, str]:
    """Name, shape and type of a ValueInfoProto: type = 2, in it tensor_type = 1, in it elem_type = 1 and shape = 2, in
    it dim = 1."""
    name, shape, kind = "", [], ""
    for number, start, stop in _fields(content, begin, end):
        if number == 1:
            name = _text(content, start, stop)
        elif number == 2:
            for tensor in _within(content, start, stop, 1):
                for element in _within(content, *tensor, 1):
                    code = _varint(content, *element)[0]
                    kind = _TYPES.get(code, str(code))
                for dims in _within(content, *tensor, 2):
                    shape = [_dimension(content, *dim) for dim in _within(content, *dims, 1)]
    return name, tuple(shape), kind


def _dimension(content: mmap.mmap, begin: int, end: int) -> int | str:
    for number, start, stop in _fields(content, begin, end):
        if number == 1:
            return _varint(content, start, stop)[0]
        if number == 2:
            return _text(content, start, stop)
    return ""


def _within(content: mmap.mmap, begin: int, end: int, wanted: int) -> list[tuple[int, int]]:
    return [(start, stop) for number, start, stop in _fields(content, begin, end) if number == wanted]


def _texts(content: mmap.mmap, begin: int, end: int) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    found = {number: _text(content, start, stop) for number, start, stop in _fields(content, begin, end)}
    return found.get(1, ""), found.get(2, "")


def _text(content: mmap.mmap, begin: int, end: int) -> str:
    return content[begin:end].decode("utf-8", "replace")
