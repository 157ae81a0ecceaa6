"""Match the photographs that come with the package, for the first page of `lightglue web`.

    python scripts/web_example.py

Writes src/lightglue/web/stored/montmartre.json, which the page shows before torch is loaded: what the service itself
gives for this pair and these options. Without times and with one thread: each run on a processor writes the same.
"""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event

import torch

from lightglue.support.files import write_files
from lightglue.web.tasks.pair import match
from lightglue.web.tasks.report import Report

PACKAGE = Path(__file__).parents[1] / "src" / "lightglue"
PHOTOGRAPHS = [PACKAGE / "parity" / "photographs" / f"montmartre_{name}.jpg" for name in ("close", "far")]
OPTIONS = {"max_keypoints": 1024, "geometry": "homography", "mp": False}  # the same on all machines


def main() -> None:
    """Match, and write."""
    images = [
        {"id": f"example-{i}", "name": path.name, "data": path.read_bytes()} for i, path in enumerate(PHOTOGRAPHS)
    ]
    torch.set_num_threads(1)  # sums of several threads differ in their last digits
    given = {"images": images, "asked": {**OPTIONS, "device": "cpu"}, "options": OPTIONS}
    found = match(given, Report(lambda message: None, Event()))
    example = {"id": "example", **json.loads(found["json"])}
    times = example.pop("seconds")  # of this machine, of which others learn nothing
    del example["geometry"]["seconds"]
    example["rows"] = {name: text for name, text in example["rows"].items() if name not in times}
    path = PACKAGE / "web" / "stored" / "montmartre.json"
    path.parent.mkdir(exist_ok=True)
    write_files({path: (json.dumps(example, separators=(",", ":")) + "\n").encode()})
    print(f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
