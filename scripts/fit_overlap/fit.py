"""Fit the verdict of `lightglue.matching.overlap` and tell how right it is on scenes that it has not seen.

    python scripts/fit_overlap/fit.py DATA --features aliked disk xfeat --cache FOLDER

DATA is the folder with manifests and images. Scores of matched pairs are kept in FOLDER, so that a second run takes
seconds. Writes result.json beside this file, and with --plot a picture of ROC and reliability. Each pair is judged by
coefficients that were fitted without any pair of its scenes; those that ship are fitted on all pairs.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pairs import HARD, Pair, labelled_pairs
from quantities import Cache, settings_of

from lightglue.matching.overlap import evidence

FOLDS = 5
RIDGE = 0.01  # keeps coefficients finite where a fold's pairs can be told apart without a fault
BINS = 10
RESULT = Path(__file__).with_name("result.json")

Array = NDArray[np.float64]


def observations(cache: Cache, pairs: list[Pair]) -> tuple[Array, list[Pair]]:
    """Evidence (R, 2) of each pair in each of its settings, and the pair of each row."""
    rows, owners = [], []
    for number, pair in enumerate(pairs):
        for setting in settings_of(number):
            rows.append([float(value) for value in evidence(*cache.evidence(pair.picture0, pair.picture1, setting))])
            owners.append(pair)
    return np.array(rows), owners


def fit(x: Array, y: Array) -> Array:
    """Coefficients (3,), the constant first, by Newton's method on standardised columns of x (R, 2)."""
    mean, deviation = x.mean(0), x.std(0)
    columns = np.c_[np.ones(len(x)), (x - mean) / deviation]
    ridge = np.diag([0.0, RIDGE, RIDGE])
    b = np.zeros(3)
    for _ in range(50):
        p = sigmoid(columns @ b)
        curvature = (columns * (p * (1 - p))[:, None]).T @ columns + ridge
        b -= np.linalg.solve(curvature, columns.T @ (p - y) + ridge @ b)
    return np.r_[b[0] - (b[1:] * mean / deviation).sum(), b[1:] / deviation]


def sigmoid(x: Array) -> Array:
    """Log odds to probabilities."""
    return 1 / (1 + np.exp(-x))


def predict(b: Array, x: Array) -> Array:
    """Probabilities (R,)."""
    return sigmoid(b[0] + x @ b[1:])


def held_out(x: Array, y: Array, owners: list[Pair]) -> Array:
    """Each row's probability (R,) by coefficients fitted without its scenes, nor any other of the same folds."""
    scenes = sorted({scene for pair in owners for scene in pair.scenes})
    order = np.random.default_rng(0).permutation(len(scenes))
    fold = {scene: int(order[i]) % FOLDS for i, scene in enumerate(scenes)}
    folds = [frozenset(fold[scene] for scene in pair.scenes) for pair in owners]
    predicted = np.full(len(y), np.nan)
    for left_out in set(folds):
        rows = np.array([own == left_out for own in folds])
        others = np.array([not own & left_out for own in folds])
        predicted[rows] = predict(fit(x[others], y[others]), x[rows])
    return predicted


def auc(y: Array, p: Array) -> float:
    """Area under the ROC curve; ties count half."""
    better = (p[y == 1][:, None] > p[y == 0]).mean()
    return float(better + (p[y == 1][:, None] == p[y == 0]).mean() / 2)


def reliability(y: Array, p: Array) -> tuple[list[dict[str, float]], float]:
    """For each bin of probabilities how many fell into it, their mean and the share that overlaps; and the mean gap."""
    place = np.minimum((p * BINS).astype(int), BINS - 1)
    chosen = [place == k for k in range(BINS) if (place == k).any()]
    rows = [
        {"count": int(own.sum()), "predicted": float(p[own].mean()), "found": float(y[own].mean())} for own in chosen
    ]
    gap = sum(row["count"] * abs(row["predicted"] - row["found"]) for row in rows) / len(y)
    return rows, float(gap)


def report(x: Array, y: Array, owners: list[Pair], p: Array) -> dict[str, Any]:
    """What is written of one feature type; p are the held-out probabilities."""
    kinds = np.array([pair.kind for pair in owners])
    is_hard = np.isin(kinds, HARD) | (y == 1)
    bins, gap = reliability(y, p)
    names = ("constant", "amount", "share")
    return {
        "coefficients": dict(zip(names, (round(float(value), 4) for value in fit(x, y)), strict=True)),
        "rows": len(y),
        "auc": auc(y, p),
        "auc_hard": auc(y[is_hard], p[is_hard]),
        "calibration_error": gap,
        "bins": bins,
        "kinds": {
            str(kind): {"rows": int((kinds == kind).sum()), "above_half": float((p[kinds == kind] > 0.5).mean())}
            for kind in sorted(set(kinds))
        },
    }


def plot(curves: dict[str, tuple[Array, Array, Array]], path: Path) -> None:
    """ROC curves (all pairs, and positives against hard negatives) and reliability. curves: labels, p, is hard."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, (name, (y, p, hard)) in enumerate(curves.items()):
        for chosen, style, kind in ((np.full(len(y), True), "-", "all"), (hard, "--", "hard negatives")):
            order = np.argsort(-p[chosen], kind="stable")
            found = y[chosen][order]
            rates = np.cumsum(1 - found) / (1 - found).sum(), np.cumsum(found) / found.sum()
            label = f"{name}, {kind}: {auc(y[chosen], p[chosen]):.3f}"
            left.plot(*rates, style, color=f"C{number}", label=label)
        rows, gap = reliability(y, p)
        x, seen = ([row[key] for row in rows] for key in ("predicted", "found"))
        right.plot(x, seen, "o-", color=f"C{number}", label=f"{name}: mean gap {gap:.3f}")
    left.set(xlabel="false positives", ylabel="true positives", title="ROC, area", xlim=(-0.01, 0.5), ylim=(0.5, 1.01))
    right.plot([0, 1], [0, 1], color="gray", lw=0.8)
    right.set(xlabel="predicted probability", ylabel="share that overlaps", title="Reliability on scenes not seen")
    for axes in (left, right):
        axes.legend(loc="lower right", fontsize=9)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def main() -> None:
    """Fit, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--features", nargs="+", default=["aliked", "disk", "xfeat"])
    parser.add_argument("--cache", type=Path, default=Path("overlap-cache"))
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    pairs = labelled_pairs(options.data)
    result, curves = {}, {}
    for features in options.features:
        x, owners = observations(Cache(options.data, options.cache, features), pairs)
        y = np.array([float(pair.overlap) for pair in owners])
        p = held_out(x, y, owners)
        curves[features] = (y, p, np.isin([pair.kind for pair in owners], HARD) | (y == 1))
        result[features] = found = report(x, y, owners, p)
        print(features, {key: found[key] for key in ("coefficients", "auc", "auc_hard", "calibration_error", "kinds")})
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    if options.plot is not None:
        plot(curves, options.plot)


if __name__ == "__main__":
    main()
