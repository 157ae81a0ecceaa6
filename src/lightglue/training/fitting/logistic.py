"""Logistic regression by Newton's method: exact, without a learning rate, the same for the same rows."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["cross_entropy", "fit", "probabilities"]

Array = NDArray[np.float64]
_STEPS = 50
_BLOCK = 8_192  # rows at a time, so that a copy of few is made


def fit(
    x: NDArray[np.floating],  # (R, D)
    y: NDArray[np.bool_],  # (R,)
    ridge: float,
    centre: Array | None = None,  # (1 + D,) what the ridge draws to; zeros for None
    weights: Array | None = None,  # (R,) how much each row counts; 1 for None
) -> Array:
    """(1 + D,) coefficients of the log odds, the constant first.

    The ridge counts in rows, for columns of unit variance; without a centre it leaves the constant alone. Two rows at
    the columns' mean, one of each class, keep everything finite where one class is missing.
    """
    mean, deviation = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    scale = np.r_[1.0, np.where(deviation > 1e-12, deviation, 1.0)]
    count = np.ones(len(x)) if weights is None else weights

    def inner(b: Array) -> Array:
        """Coefficients for columns of mean 0 and variance 1."""
        return np.asarray(np.r_[b[0] + b[1:] @ mean, b[1:] * scale[1:]])

    drawn_to = np.zeros(len(scale)) if centre is None else inner(centre)
    pull = np.full(len(scale), ridge)
    pull[0] = 0.0 if centre is None else ridge

    def loss(b: Array) -> float:
        total = 0.5 * float(pull @ (b - drawn_to) ** 2) + 2 * float(np.logaddexp(0, b[0])) - float(b[0])
        for rows, columns in _blocks(x, mean, scale):
            odds = columns @ b
            total += float(count[rows] @ np.logaddexp(0, np.where(y[rows], -odds, odds)))
        return total

    b = drawn_to.copy()
    least = loss(b)
    for _ in range(_STEPS):
        gradient, curvature = pull * (b - drawn_to), np.diag(pull)
        p = _sigmoid(b[:1])[0]  # of the two rows at the mean
        gradient[0] += 2 * p - 1
        curvature[0, 0] += 2 * p * (1 - p)
        for rows, columns in _blocks(x, mean, scale):
            p = _sigmoid(columns @ b)
            gradient += columns.T @ (count[rows] * (p - y[rows]))
            curvature += (columns * (count[rows] * p * (1 - p))[:, None]).T @ columns
        step = np.linalg.solve(curvature + 1e-9 * np.eye(len(b)), gradient)
        while (tried := loss(b - step)) > least and np.abs(step).max() > 1e-9:  # far away, the step may be too long
            step = step / 2
        if tried >= least:
            break
        b, least = b - step, tried
    slopes = b[1:] / scale[1:]
    return np.asarray(np.r_[b[0] - slopes @ mean, slopes])


def _blocks(x: NDArray[np.floating], mean: Array, scale: Array) -> Iterator[tuple[slice, Array]]:
    """Some rows at a time: which, and a one and the standardised columns of each."""
    for start in range(0, len(x), _BLOCK):
        rows = slice(start, start + _BLOCK)
        yield rows, np.c_[np.ones(len(x[rows])), (x[rows] - mean) / scale[1:]]


def probabilities(b: Array, x: NDArray[np.floating]) -> Array:
    """(R,) of rows x (R, D) by coefficients (1 + D,)."""
    return _sigmoid(b[0] + x @ b[1:])


def cross_entropy(b: Array, x: NDArray[np.floating], y: NDArray[np.bool_]) -> float:
    """The mean over the rows, in nats; NaN for none."""
    if not len(x):
        return float("nan")
    odds = b[0] + x @ b[1:]
    return float(np.logaddexp(0, np.where(y, -odds, odds)).mean())


def _sigmoid(odds: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -odds)))
