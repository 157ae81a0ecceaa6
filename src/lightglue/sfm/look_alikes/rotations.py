"""Rotations of all images at once, from the relative rotations of pairs of which many may be false.

Spanning trees give starting points, the one by the strongest pairs first. From each, the images take the rotation that
most of their own pairs vote for, in turn, and robust averaging (iteratively reweighted least squares in the tangent
space, Chatterjee and Govindu, ICCV 2013) refines them. The start that the pairs agree with most wins: one strong false
pair in a tree does not decide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

__all__ = ["angles", "average_rotations", "components", "exp_so3", "log_so3", "spanning_forest", "triangle_support"]

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_SCALES = (20.0, 10.0, 5.0, 5.0, 5.0)  # degrees: residuals of this size count half, step by step
_AGREES = 10.0  # degrees: the same, where starting points are compared
_SWEEPS = 5  # of votes, at the most
_CANDIDATES = 64  # rotations of an image that are voted on, those of its strongest pairs, at the most
_STEPS = 60  # of conjugate gradients, at the most
_CYCLE = 10.0  # degrees of three pairs in a circle that agree


def log_so3(R: Array) -> Array:
    """The rotation vectors (N, 3), radians, of rotations (N, 3, 3)."""
    cosine = np.clip((np.trace(R, axis1=1, axis2=2) - 1) / 2, -1, 1)
    angle = np.arccos(cosine)
    axis = np.stack([R[:, 2, 1] - R[:, 1, 2], R[:, 0, 2] - R[:, 2, 0], R[:, 1, 0] - R[:, 0, 1]], axis=1)
    length = np.linalg.norm(axis, axis=1)
    near_pi = (length < 1e-6) & (cosine < 0)
    vectors = axis / np.where(length > 1e-12, length, 1)[:, None] * angle[:, None]
    if near_pi.any():  # the antisymmetric part vanishes: the axis is in the symmetric one
        B = (R[near_pi] + np.eye(3)) / 2
        column = np.argmax(np.diagonal(B, axis1=1, axis2=2), axis=1)
        direction = B[np.arange(len(B)), :, column]
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        vectors[near_pi] = direction * angle[near_pi, None]
    result: Array = vectors
    return result


def exp_so3(vectors: Array) -> Array:
    """The rotations (N, 3, 3) of rotation vectors (N, 3), radians."""
    angle = np.linalg.norm(vectors, axis=1)
    x, y, z = (vectors / np.where(angle > 0, angle, 1)[:, None]).T
    zero = np.zeros_like(x)
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    result: Array = np.eye(3) + sine * K + (1 - cosine) * (K @ K)
    return result


def angles(R: Array) -> Array:
    """Of rotations (N, 3, 3), degrees."""
    result: Array = np.degrees(np.arccos(np.clip((np.trace(R, axis1=1, axis2=2) - 1) / 2, -1, 1)))
    return result


def components(edges: Indices, count: int) -> Indices:
    """(count,) the number of each node's component, by the smallest node in it."""
    label = np.arange(count)
    while len(edges):
        low = label[edges].min(axis=1)
        before = label.copy()
        np.minimum.at(label, label[edges[:, 0]], low)
        np.minimum.at(label, label[edges[:, 1]], low)
        np.minimum.at(label, edges[:, 0], low)
        np.minimum.at(label, edges[:, 1], low)
        label = label[label]
        if np.array_equal(label, before):
            break
    return label


def spanning_forest(edges: Indices, weights: Array, count: int) -> Indices:
    """The rows of the edges of a maximum spanning forest (Kruskal), heaviest first."""
    parent = list(range(count))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    rows = []
    for row in np.argsort(-weights, kind="stable").tolist():
        a, b = root(int(edges[row, 0])), root(int(edges[row, 1]))
        if a != b:
            parent[a] = b
            rows.append(row)
    return np.array(rows, np.int64)


def average_rotations(edges: Indices, relative: Array, weights: Array, count: int, starts: int, seed: int) -> Array:
    """Rotations (count, 3, 3), world to camera, that the pairs agree with most.

    Args:
        edges: (E, 2) rows of images.
        relative: (E, 3, 3) rotation of each pair, from its first camera to its second.
        weights: (E,) how much each counts, positive.
        starts: spanning trees to begin with; the first is the heaviest, the others are of randomly changed weights.

    Each component has a world of its own, in which its first image has no rotation.
    """
    best, most = np.tile(np.eye(3), (count, 1, 1)), -1.0
    if not len(edges):
        return best
    sides = _sides(edges, relative, weights, count)
    for changed in _changed(weights, starts, seed):
        voted = _voted(sides, _along(edges, relative, changed, count))
        rotations = _averaged(edges, relative, weights, voted)
        agreement = float(np.sum(weights / (1 + np.square(residuals(edges, relative, rotations) / _AGREES))))
        if agreement > most * (1 + 1e-9):
            best, most = rotations, agreement
    return best


def _changed(weights: Array, starts: int, seed: int) -> Iterator[Array]:
    """The weights, and then weights in other orders, the more alike the likelier."""
    yield weights
    generator = np.random.default_rng(seed)
    for _ in range(starts - 1):
        yield np.log(weights) + generator.gumbel(size=len(weights))


def residuals(edges: Indices, relative: Array, rotations: Array) -> Array:
    """(E,) degrees between the rotation of each pair and that of the images' rotations."""
    return angles(relative @ rotations[edges[:, 0]] @ rotations[edges[:, 1]].transpose(0, 2, 1))


def _along(edges: Indices, relative: Array, weights: Array, count: int) -> Array:
    """Rotations by following a spanning forest from the first image of each component."""
    neighbours: list[list[tuple[int, Array]]] = [[] for _ in range(count)]
    for row in spanning_forest(edges, weights, count).tolist():
        a, b = edges[row].tolist()
        neighbours[a].append((b, relative[row]))
        neighbours[b].append((a, relative[row].T))
    rotations, done = np.tile(np.eye(3), (count, 1, 1)), np.zeros(count, bool)
    for first in range(count):
        waiting = [] if done[first] else [first]
        done[first] = True
        while waiting:
            node = waiting.pop()
            for other, R in neighbours[node]:
                if not done[other]:
                    done[other], rotations[other] = True, R @ rotations[node]
                    waiting.append(other)
    return rotations


_Sides = list[tuple[Indices, Array, Array]]


def _sides(edges: Indices, relative: Array, weights: Array, count: int) -> _Sides:
    """Of each image: the others (D,), the rotations (D, 3, 3) from them to it, the weights (D,) of these pairs."""
    of_image: list[list[tuple[int, Array, float]]] = [[] for _ in range(count)]
    for (a, b), R, weight in zip(edges.tolist(), relative, weights.tolist(), strict=True):
        of_image[b].append((a, R, weight))
        of_image[a].append((b, R.T, weight))
    return [
        (
            np.array([side[0] for side in sides], np.int64),
            np.array([side[1] for side in sides], np.float64).reshape(-1, 3, 3),
            np.array([side[2] for side in sides], np.float64),
        )
        for sides in of_image
    ]


def _voted(sides: _Sides, rotations: Array) -> Array:
    """Each image in turn takes the rotation, of those that its pairs give it, that its pairs agree with most."""
    rotations = rotations.copy()
    for _ in range(_SWEEPS):
        moved = False
        for image, (others, R, weights) in enumerate(sides):
            if len(others) < 3:  # two cannot outvote one another
                continue
            given = (R @ rotations[others]).reshape(-1, 9)
            given, voters = given[np.argsort(-weights, kind="stable")[:_CANDIDATES]], given
            cosine = np.clip((given @ voters.T - 1) / 2, -1, 1)  # trace(A' B) is the product of their numbers
            votes = (1 / (1 + np.square(np.degrees(np.arccos(cosine)) / _AGREES))) @ weights
            own = np.clip((voters @ rotations[image].reshape(9) - 1) / 2, -1, 1)
            kept = float((1 / (1 + np.square(np.degrees(np.arccos(own)) / _AGREES))) @ weights)
            best = int(np.argmax(votes))
            if votes[best] > kept * 1.05:
                rotations[image], moved = given[best].reshape(3, 3), True
        if not moved:
            break
    return rotations


def _averaged(edges: Indices, relative: Array, weights: Array, rotations: Array) -> Array:
    """Robust averaging from a starting point."""
    i, j = edges.T
    for scale in _SCALES:
        # R_j exp(..) = relative R_i: each pair's difference, in the world, is linear in those of its images.
        error = log_so3(rotations[j].transpose(0, 2, 1) @ relative @ rotations[i])
        size = np.degrees(np.linalg.norm(error, axis=1))
        robust = weights / np.square(1 + np.square(size / scale))
        step = _solve(edges, robust, error, len(rotations))
        rotations = rotations @ exp_so3(step)
    return rotations


def _solve(edges: Indices, weights: Array, target: Array, count: int) -> Array:
    """(count, 3): x with x_j - x_i = target of each pair, weighted least squares, by conjugate gradients."""
    i, j = edges.T

    def spread(values: Array) -> Array:
        columns = [np.bincount(j, v, count) - np.bincount(i, v, count) for v in values.T]
        return np.stack(columns, axis=1)

    x = np.zeros((count, 3))
    residual = spread(weights[:, None] * target)
    direction, energy = residual, float(np.sum(residual**2))
    limit = 1e-16 * max(energy, 1e-30)
    for _ in range(_STEPS):
        if energy <= limit:
            break
        image = spread(weights[:, None] * (direction[j] - direction[i]))
        alpha = energy / max(float(np.sum(direction * image)), 1e-30)
        x, residual = x + alpha * direction, residual - alpha * image
        before, energy = energy, float(np.sum(residual**2))
        direction = residual + energy / before * direction
    return x


def triangle_support(edges: Indices, relative: Array, weights: Array, count: int) -> tuple[Array, Array]:
    """(E,) and (E,): the weight of circles of three pairs, through each pair, that agree and that do not.

    A circle counts as much as the weaker of its other two pairs.
    """
    row_of = [dict[int, int]() for _ in range(count)]
    for row, (a, b) in enumerate(edges.tolist()):
        row_of[a][b] = row_of[b][a] = row
    agree, contradict = np.zeros(len(edges)), np.zeros(len(edges))
    for row, (a, b) in enumerate(edges.tolist()):
        common = sorted(row_of[a].keys() & row_of[b].keys())
        if not common:
            continue
        to_a, to_b = (np.array([row_of[node][c] for c in common]) for node in (a, b))
        c = np.array(common)
        first = np.where((c < a)[:, None, None], relative[to_a], relative[to_a].transpose(0, 2, 1))  # from c to a
        second = np.where((b < c)[:, None, None], relative[to_b], relative[to_b].transpose(0, 2, 1))  # from b to c
        good = angles(second @ relative[row] @ first) < _CYCLE
        weight = np.minimum(weights[to_a], weights[to_b])
        agree[row], contradict[row] = weight[good].sum(), weight[~good].sum()
    return agree, contradict
