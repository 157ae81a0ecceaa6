"""Match the photographs that come with the package, for the first page of `lightglue web`.

    python scripts/web_example.py

Writes src/lightglue/web/stored/montmartre.json, which the page shows before torch is loaded. All mutual partners are in
it, whatever their score, so that the slider goes down to 0.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from lightglue.geometry.estimation import estimate_fundamental
from lightglue.models.choice import Models
from lightglue.pairs.files import match_files
from lightglue.pairs.viewed import viewed, viewed_geometry, warp_of
from lightglue.support.files import write_files

PACKAGE = Path(__file__).parents[1] / "src" / "lightglue"
PHOTOGRAPHS = [PACKAGE / "parity" / "photographs" / f"montmartre_{name}.jpg" for name in ("close", "far")]
KEYPOINTS, USUAL = 1024, 0.1  # of each image; the threshold that the page shows it with


def main() -> None:
    """Match, and write."""
    models = Models(max_keypoints=KEYPOINTS, device="cpu", thresholds={"filter_threshold": 0.0})
    found = match_files(*PHOTOGRAPHS, models=models)
    names = PHOTOGRAPHS[0].name, PHOTOGRAPHS[1].name
    example = viewed(found.pair, names, found.summary(), threshold=USUAL, floor=0.0, warp=warp_of(found.pair))
    example |= {"id": "example", "options": {"max_keypoints": KEYPOINTS}}
    order = np.argsort(-found.pair.scores.numpy(), kind="stable")
    shown = order[: int((found.pair.scores > USUAL).sum())]
    estimate = estimate_fundamental(found.pair.points0[shown], found.pair.points1[shown])
    example["geometry"] = viewed_geometry(estimate) | {"score_threshold": USUAL}
    for i, image in enumerate(example["images"]):
        image["id"] = f"example-{i}"
    path = PACKAGE / "web" / "stored" / "montmartre.json"
    path.parent.mkdir(exist_ok=True)
    write_files({path: (json.dumps(example, separators=(",", ":")) + "\n").encode()})
    print(f"{path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
