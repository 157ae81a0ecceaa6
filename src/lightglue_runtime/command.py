"""`lightglue-runtime`: match two images, or say what a folder of models holds."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import perf_counter
from typing import Any, NoReturn

from lightglue_runtime.errors import InputError, ModelError
from lightglue_runtime.outputs import ARRAY_ENCODERS, fault_of
from lightglue_runtime.printable import escaped, printable
from lightglue_runtime.terminal import answering

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the `lightglue-runtime` command.

    Exit code 0: done; 1: an error in one line on stderr; 2: a wrong command line; 130: interrupted; 143: terminated.
    """
    with answering():
        options = _parser().parse_args(arguments)
        try:
            options.run(options)
        except MemoryError:
            raise InputError("there is not enough memory; use a smaller --resize or --max-keypoints.") from None
        sys.stdout.flush()  # a full disk may say so only here


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print("error:", printable(f"{message} (--help says more)"), file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="lightglue-runtime", description="Match images with exported models, without torch.")
    parser.add_argument("--version", action="version", version=f"lightglue-runtime {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    match = commands.add_parser("match", help="match two images", description="Match two images.")
    match.add_argument("images", nargs=2, metavar="IMAGE", type=Path, help="the two image files")
    match.add_argument("--max-keypoints", metavar="N", type=_count, help="the N best keypoints of each image")
    match.add_argument(
        "--resize", metavar="N|none", type=_edge, default="auto", help="px of the longer side for extraction"
    )
    match.add_argument("--stretch", action="store_true", help="spread the range of values that an image uses")
    endings = " ".join(ARRAY_ENCODERS)
    match.add_argument(
        "-o", "--output", metavar="FILE", type=Path, action="append", default=[], help=f"write to a file: {endings}"
    )
    match.set_defaults(run=_match)
    info = commands.add_parser("info", help="what a folder of models holds", description="Check a folder of models.")
    info.add_argument("models", metavar="DIR", type=Path, help="the folder")
    info.set_defaults(run=_info)
    match.add_argument("--models", metavar="DIR", type=Path, required=True, help="written by `lightglue export bundle`")
    for each in (match, info):
        each.add_argument("--json", action="store_true", help="print JSON instead of text")
        each.add_argument("--runtime", choices=("onnx", "openvino"), help="by default the one that is installed")
        each.add_argument("--threads", metavar="N", type=_count, help="to compute with; by default all cores")
        each.add_argument("--precision", choices=("f32", "bf16", "f16"), default="f32", help="of OpenVINO's products")
    return parser


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= 1_000_000:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 1000000.")


def _edge(text: str) -> int | str | None:
    if text in ("auto", "none"):
        return "auto" if text == "auto" else None
    if text.isdecimal() and 1 <= int(text) <= 65_536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is neither a number of px from 1 to 65536 nor 'none'.")


def _version() -> str:
    """Of this distribution, or of lightglue's, which holds the same package."""
    for name in ("lightglue-runtime", "lightglue"):
        with suppress(PackageNotFoundError):
            return version(name)
    return "of a source tree"


def _match(options: argparse.Namespace) -> None:
    for i, path in enumerate(options.output):
        if fault := fault_of(path, options.images, options.output[:i], tuple(ARRAY_ENCODERS)):
            print("error:", printable(f"--output: {fault}"), file=sys.stderr)
            sys.exit(2)
    start = perf_counter()
    from lightglue_runtime.bundle import load

    said: list[str] = []
    with _warnings_in(said):
        models = load(options.models, options.runtime, threads=options.threads, precision=options.precision)
        models.prepare()
        loaded = perf_counter()
        image0, image1 = options.images
        pair = models.match(image0, image1, options.max_keypoints, resize=options.resize, stretch=options.stretch)
    for path, keypoints in zip(options.images, (pair.keypoints0, pair.keypoints1), strict=True):
        if not len(keypoints):
            said.append(f"{path} has no keypoints: nothing in it is clear enough to be found again.")
    arrays = pair.arrays()
    _write({path: ARRAY_ENCODERS[path.suffix.lower()](arrays) for path in options.output})
    summary: dict[str, Any] = {
        "files": [str(path) for path in options.images],
        "features": models.features,
        "runtime": models.runtime,
        "num_keypoints": [len(pair.keypoints0), len(pair.keypoints1)],
        "num_matches": len(pair.matches),
        "layers": models.matcher.n_layers,
        "seconds": {**pair.seconds, "load": pair.seconds["load"] + loaded - start},
        **pair.numbers(),
        **({"warnings": said} if said else {}),
        "outputs": [str(path) for path in options.output],
    }
    for text in said:
        print("warning:", printable(text), file=sys.stderr)
    if options.json:
        print(json.dumps({**summary, **{name: array.tolist() for name, array in arrays.items()}}))
    else:
        _print_rows(_rows(summary))


def _rows(summary: dict[str, Any]) -> dict[str, str]:
    return {
        "images": " - ".join(Path(name).name for name in summary["files"]),
        "keypoints": " + ".join(str(count) for count in summary["num_keypoints"]),
        "matches": str(summary["num_matches"]),
        **({"overlap": f"{summary['overlap']:.3f}"} if "overlap" in summary else {}),
        "stop layer": f"{summary['stop']} of {summary['layers']}",
        "runtime": summary["runtime"],
        **{name: f"{seconds:.2f} s" for name, seconds in summary["seconds"].items()},
        **({"written": " ".join(summary["outputs"])} if summary["outputs"] else {}),
    }


def _info(options: argparse.Namespace) -> None:
    from lightglue_runtime.bundle import load
    from lightglue_runtime.manifest import PARTS, Manifest

    manifest = Manifest.read(options.models)
    manifest.verify(options.models)
    found: dict[str, Any] = {"folder": str(options.models), "features": manifest.features}
    try:
        models = load(options.models, options.runtime, threads=options.threads, precision=options.precision)
        found["runtime"] = models.runtime
    except ModelError as error:  # the files may be fine on a machine without a runtime
        found["runtime"] = f"none: {error}"
    found |= {"resize": manifest.resize, "side": manifest.side, "max_keypoints": manifest.max_keypoints}
    for part in PARTS:
        file = manifest.files[part]
        found[part] = f"{file['name']}, {file['bytes'] / 1e6:.1f} MB, SHA-256 {file['sha256']}"
    found["licences"] = dict(manifest.licences)
    if options.json:
        print(json.dumps(found))
    else:
        rows = {name: str(value) for name, value in found.items() if name != "licences"}
        _print_rows({**rows, **{f"licence of {name}": text for name, text in manifest.licences.items()}})


def _print_rows(rows: dict[str, str]) -> None:
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name:{width}}  {escaped(value)}")


def _write(contents: dict[Path, bytes]) -> None:
    """Write files, each whole or not at all. Raises InputError where one cannot be written."""
    parts: list[tuple[Path, Path]] = []
    path = Path()
    try:
        for path, content in contents.items():
            target = Path(os.path.realpath(path))  # a link at a path stays
            part = target.with_name(f".{secrets.token_hex(8)}.part")
            parts.append((part, target))
            part.write_bytes(content)
        for part, path in parts:
            part.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}); make room, or choose another.") from error
    finally:
        for part, _ in parts:
            part.unlink(missing_ok=True)


@contextmanager
def _warnings_in(said: list[str]) -> Iterator[None]:
    """Collect the texts of warnings, such as of a damaged file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    said += dict.fromkeys(str(each.message) for each in caught)
