"""A finished run as weights that come with the package: float16, with licence and training record, and its row.

    lightglue train -o RUN --finish
    python scripts/ship_weights.py RUN sift_lightglue --images TRAIN/images.csv TRAIN/open_scenes.csv \\
        --about "trained on ..., pose AUC@5 of ... on ..." --figures figures.json --write

Writes src/lightglue/weights/own/NAME_own.safetensors, and prints the row of `OWN` in weights/table.py; `--write` puts
it there, in place of one of the same name. NAME is the published file that it stands in for.

The record in the file has every image that views were made of, by repository, licence and author, options, commit and
figures. Each image must stand in a CSV (file, repository, path, licence, author) beside a folder of the CSV's name; a
licence that forbids commercial use or changes is refused. `--earlier` names the runs, finished or not, that RUN began
from, oldest first: their images count too. Paths of this machine are left out.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import re
import sys
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from lightglue.matching import checkpoint
from lightglue.matching.lightglue import LightGlue
from lightglue.support.revision import commit
from lightglue.training.journal import read_journal
from lightglue.training.options import TrainingOptions, as_toml, read_options
from lightglue.training.watching import read_log
from lightglue.weights.table import FILES, OWN_LIMIT, OwnFile

PACKAGE = Path(__file__).parents[1] / "src" / "lightglue" / "weights"
LICENCE = "Apache-2.0"  # of the weights that training began from
FORBIDDEN = re.compile(r"\b(nc|nd)\b|non-?commercial|no ?derivatives|all rights reserved", re.IGNORECASE)
ROWS = re.compile(r"^_OWN: tuple\[OwnFile, \.\.\.\] = \(.*?\)$", re.DOTALL | re.MULTILINE)


def options_of(run: Path) -> TrainingOptions:
    """The configuration that a run wrote."""
    return read_options(run / "config.toml")


def images_of(run: Path) -> set[Path]:
    """Files that the views of a run's pool were made of."""
    pool = Path(options_of(run).data.pool or run / "pool")
    views, _ = read_journal(pool / "views.jsonl")
    return {Path(view.path) for view in views.values()}


def known_images(manifests: Iterable[Path]) -> dict[tuple[str, ...], dict[str, str]]:
    """Rows of the CSVs by the last three parts of the files' paths."""
    found = {}
    for manifest in manifests:
        with manifest.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[(manifest.with_suffix("") / row["file"]).parts[-3:]] = row
    return found


def attribution(images: Iterable[Path], known: dict[tuple[str, ...], dict[str, str]]) -> dict[str, Any]:
    """Who made the images, and under which licence: nothing that a licence asks to be said is left out."""
    sources: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    licences: Counter[str] = Counter()
    for image in sorted(images):
        row = known.get(image.parts[-3:])
        if row is None:
            sys.exit(f"{image} stands in none of the CSVs; all images of weights that ship have a known licence")
        if not row["licence"] or FORBIDDEN.search(row["licence"]):
            sys.exit(f"{image} has the licence {row['licence']!r}: weights that ship are not trained on it")
        licences[row["licence"]] += 1
        sources[row["repository"], row["licence"], row["author"]].append(row["path"])
    return {
        "count": sum(licences.values()),
        "licences": dict(licences.most_common()),
        "sources": [
            {"repository": repository, "licence": licence, "author": author, "paths": paths}
            for (repository, licence, author), paths in sorted(sources.items())
        ],
    }


def described(options: TrainingOptions) -> str:
    """A run's configuration without the places of this machine."""
    sources = tuple(replace(each, path=each.name or Path(each.path).name, images=None) for each in options.data.sources)
    start = options.network.init_from
    start = Path(start).parent.name if start is not None and "/" in start else start
    judge = replace(options.judge, manifests=tuple(Path(each).stem for each in options.judge.manifests))
    data, network = replace(options.data, pool=None, sources=sources), replace(options.network, init_from=start)
    return as_toml(replace(options, data=data, network=network, judge=judge))


def record_of(run: Path, earlier: list[Path], given: argparse.Namespace, description: Any) -> dict[str, Any]:
    """All that is known of the training."""
    runs = [*earlier, run]
    images = set[Path]().union(*(images_of(each) for each in runs))
    before = [{"config": described(options_of(each)), **newest_step(each)} for each in earlier]
    kept = {key: value for key, value in (description.record or {}).items() if key != "config"}
    return {
        **kept,
        "config": described(options_of(run)),
        "earlier": before,
        "images": attribution(images, known_images(given.images)),
        "figures": json.loads(given.figures.read_text()) if given.figures else {},
        "commit": given.commit or commit(),
    }


def newest_step(run: Path) -> dict[str, Any]:
    """Where a run stood, from the last line of its log that says so."""
    lines = read_log(run / "log.jsonl")
    told_times = [line for line in lines if "seconds" in line and "step" in line]
    return {"step": lines[-1]["step"], "seconds": told_times[-1]["seconds"] if told_times else None}


def write(path: Path, weights: Path, licence: str, record: dict[str, Any]) -> None:
    """The file in float16; what was fitted stays as it is."""
    description = checkpoint.read_description(weights)
    assert description is not None
    matcher = LightGlue.load(weights)
    config = replace(matcher.checked_conf(), weights=None)
    checkpoint.save(
        path, matcher, config, description.features, licence, fitted=description.fitted, record=record,
        dtype=torch.float16,
    )  # fmt: skip
    largest = max(value.abs().max().item() for value in load_file(path).values())
    if not largest < torch.finfo(torch.float16).max:
        path.unlink()
        sys.exit("a weight is beyond what float16 holds")
    if (size := path.stat().st_size) > OWN_LIMIT:
        path.unlink()
        sys.exit(f"{path.name} would take {size:,} bytes, and at most {OWN_LIMIT:,} ship")


def row_of(path: Path, replaces: str, licence: str, about: str) -> OwnFile:
    """The file's row."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return OwnFile(path.stem, path.name, digest, path.stat().st_size, licence, True, replaces, about)


def source_of(row: OwnFile) -> str:
    """A row as Python."""
    fields = {name: json.dumps(value) if isinstance(value, str) else repr(value) for name, value in vars(row).items()}
    fields["size"] = f"{row.size:_}"
    if len(row.about) > 90:
        parts = textwrap.wrap(row.about, 90)
        lines = [json.dumps(part + " " * (part is not parts[-1])) for part in parts]
        fields["about"] = "(\n            " + "\n            ".join(lines) + "\n        )"
    return "    OwnFile(\n" + "".join(f"        {name}={value},\n" for name, value in fields.items()) + "    ),\n"


def put_into_table(row: OwnFile, table: Path) -> None:
    """Write the row where the others are."""
    from lightglue.weights.table import OWN

    rows = {**OWN, row.name: row}
    text, count = ROWS.subn(
        lambda _: "_OWN: tuple[OwnFile, ...] = (\n" + "".join(map(source_of, rows.values())) + ")", table.read_text()
    )
    if count != 1:
        sys.exit(f"{table} has no _OWN to write to")
    table.write_text(text)


def main() -> None:
    """Read the command line, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("replaces", choices=sorted(name for name in FILES if name.endswith("lightglue")))
    parser.add_argument("--images", type=Path, nargs="+", required=True, help="CSVs of images with their licences")
    parser.add_argument("--about", required=True, help="what it was trained on and how good it is: a clause")
    parser.add_argument("--figures", type=Path, help="JSON of figures, for the record")
    parser.add_argument("--earlier", type=Path, nargs="+", default=[])
    parser.add_argument("--licence", default=LICENCE)
    parser.add_argument("--commit", help="that the run was made with; by default the present one")
    parser.add_argument("--folder", type=Path, default=PACKAGE / "own")
    parser.add_argument("--write", action="store_true", help="put the row into weights/table.py")
    given = parser.parse_args()
    weights = given.run / "best" / "weights.safetensors"
    description = checkpoint.read_description(weights)
    if description is None or description.fitted is None:
        sys.exit(f"{weights} was not finished; run `lightglue train -o {given.run} --finish` first")
    path = given.folder / f"{given.replaces}_own.safetensors"
    write(path, weights, given.licence, record_of(given.run, given.earlier, given, description))
    row = row_of(path, given.replaces, given.licence, given.about)
    written = checkpoint.read_description(path)
    assert written is not None
    print(f"{path}: {row.size:,} bytes, {len(json.dumps(written.record)):,} of them the record")
    print(source_of(row), end="")
    if given.write:
        put_into_table(row, PACKAGE / "table.py")


if __name__ == "__main__":
    main()
