"""How many of the pairs that truly overlap does retrieval find? Against matching every pair.

    python scripts/retrieval_recall.py ../shared/data /tmp/recall

All photographs of the data sets are one collection. Two images overlap where LightGlue over 1,024 ALIKED keypoints of
each gives at least 30 matches on one fundamental matrix. Features, matches and verdicts are kept in the second folder.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from lightglue.geometry.estimation import estimate_fundamental
from lightglue.images import load_image
from lightglue.models.choice import Models
from lightglue.sfm.retrieval.index import RetrievalOptions, build_index
from lightglue.stores import FeatureStore, ImageFeatures, MatchStore, PairMatches, Source

SETS = ("kusvod2", "planar", "strecha1024", "synth", "temple", "tum")
INLIERS = 30
RESIZE = 1024
TRUTH = ("aliked", 1024)
KS = (5, 10, 20)


def images_of(data: Path, sets: Sequence[str] = SETS) -> list[str]:
    """The names of all photographs of the sets, sorted."""
    kinds = {".jpg", ".jpeg", ".png", ".ppm"}
    found = (path for name in sets for path in (data / name).rglob("*") if path.suffix.lower() in kinds)
    return sorted(path.relative_to(data).as_posix() for path in found)


def extract(data: Path, work: Path, features: str, count: int) -> FeatureStore:
    """The features of all photographs, at most `count` of each."""
    store = FeatureStore.open(work / f"{features}-{count}", {"features": features, "count": count, "resize": RESIZE})
    missing = sorted(set(images_of(data)) - set(store.names()))
    if missing:
        extractor = Models(features, count, device="cpu").load_extractor()
        for name in missing:
            found = extractor.extract(load_image(data / name), resize=RESIZE)
            store.put(name, ImageFeatures.from_torch(found, features), Source.of(data / name))
    return store


@torch.inference_mode()
def match_all(store: FeatureStore, path: Path) -> MatchStore:
    """The matches of every pair."""
    matches = MatchStore.open(path, dict(store.settings))
    done = {(head.name0, head.name1) for head in matches.pairs()}
    wanted = [pair for pair in combinations(store.names(), 2) if pair not in done]
    if wanted:
        features = {name: store.get(name) for name in store.names()}
        matcher = Models(store.settings["features"], 0, device="cpu").load_matcher()
        for start in range(0, len(wanted), 50):
            matches.put(_match(matcher, features, pair) for pair in wanted[start : start + 50])
            print(f"\r{start} of {len(wanted)} pairs", end="", flush=True)
    return matches


def _match(matcher: torch.nn.Module, features: dict[str, ImageFeatures], pair: tuple[str, str]) -> PairMatches:
    image0, image1 = (features[name] for name in pair)
    found = matcher({"image0": image0.torch(), "image1": image1.torch()})
    indices = found["matches"][0].numpy().astype(np.int32).reshape(-1, 2)
    scores = found["scores"][0].float().numpy()
    return PairMatches(*pair, indices, scores, None, None, (image0.digest, image1.digest))


def overlapping(store: FeatureStore, matches: MatchStore) -> Iterator[tuple[str, str]]:
    """The pairs whose matches agree on a fundamental matrix."""
    wanted = [(head.name0, head.name1) for head in matches.pairs() if head.num_matches >= INLIERS]
    keypoints = {name: store.get(name).keypoints for name in {name for pair in wanted for name in pair}}
    for pair in matches.read(wanted):
        points0 = keypoints[pair.name0][pair.matches[:, 0]]
        points1 = keypoints[pair.name1][pair.matches[:, 1]]
        if estimate_fundamental(points0, points1).inliers.sum() >= INLIERS:
            yield pair.name0, pair.name1


def truth(data: Path, work: Path) -> list[tuple[str, str]]:
    """The pairs that overlap."""
    path = work / "truth.tsv"
    if not path.exists():
        store = extract(data, work, *TRUTH)
        pairs = overlapping(store, match_all(store, work / "matches.db"))
        path.write_text("".join(f"{name0}\t{name1}\n" for name0, name1 in pairs))
    return [(name0, name1) for name0, name1 in (line.split("\t") for line in path.read_text().splitlines())]


def recall(store: FeatureStore, overlap: Sequence[tuple[str, str]], options: RetrievalOptions) -> list[float]:
    """Per cent of the overlapping pairs of which one image is among the K most like the other, for each K."""
    with tempfile.TemporaryDirectory() as folder:
        index = build_index(store, Path(folder) / "retrieval.npz", options)
    rank = {
        (name, other): place
        for name, best in index.nearest(index.names, max(KS))
        for place, (other, _) in enumerate(best)
    }
    best = [min(rank.get((a, b), max(KS)), rank.get((b, a), max(KS))) for a, b in overlap]
    return [100 * sum(place < k for place in best) / len(best) for k in KS]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    arguments = parser.parse_args()
    overlap = truth(arguments.data, arguments.work)
    count = len(images_of(arguments.data))
    print(f"{count} images, {len(overlap)} overlapping pairs of {count * (count - 1) // 2}")
    print("| features | words | dimensions | " + " | ".join(f"recall@{k}" for k in KS) + " |")
    print("|---|---|---|" + "---|" * len(KS))
    for features, most in (("aliked", 2048), ("aliked", 512), ("disk", 2048), ("disk", 512)):
        store = extract(arguments.data, arguments.work, features, most)
        for words, dimensions in ((16, 64), (32, 64), (64, 32), (64, 64), (64, 128), (128, 64), (256, 64)):
            found = recall(store, overlap, RetrievalOptions(words=words, dimensions=dimensions))
            cells = " | ".join(f"{share:.1f}" for share in found)
            print(f"| {features} {most} | {words} | {dimensions} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
