"""Tracks out of verified matches, and where they are in the world, with the poses as they are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Tracks", "join", "triangulate"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_ROUNDS = 5  # of leaving out the worst observation of a track
LEAST_ANGLE = 3.0  # degrees between two rays; below, a place along them is not known well


@dataclass(frozen=True, eq=False)
class Tracks:
    """Tracks of the keypoints of several images, and their places."""

    numbers: tuple[Integers, ...]  # of each image, (N,): the track that a keypoint is of, -1 for none
    places: Floats  # (T, 3) in the world; NaN where rays meet at too small an angle


def join(counts: Sequence[int], matches: Iterable[tuple[int, int, Integers, Floats]]) -> tuple[Integers, ...]:
    """The track of each keypoint, of each image; -1 for none. A track has at most one keypoint of an image.

    counts: keypoints of each image. matches: two images, rows (K, 2) of their keypoints, scores (K,).

    The best matches are taken first; one that would bring two keypoints of an image together is left out.
    """
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    edges, scores = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
    for a, b, rows, each in matches:
        edges.append(np.asarray(rows, np.int64).reshape(-1, 2) + starts[[a, b]])
        scores.append(np.asarray(each, np.float64))
    every = np.concatenate(edges)[np.argsort(-np.concatenate(scores), kind="stable")]
    owner = np.repeat(np.arange(len(counts)), counts).tolist()
    parent: dict[int, int] = {}
    members: dict[int, dict[int, int]] = {}  # of a root: image -> keypoint

    def root(node: int) -> int:
        if node not in parent:
            parent[node], members[node] = node, {owner[node]: node}
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for first, second in every.tolist():
        a, b = root(first), root(second)
        if a == b or not members[a].keys().isdisjoint(members[b]):
            continue
        if len(members[a]) < len(members[b]):
            a, b = b, a
        parent[b] = a
        members[a].update(members.pop(b))
    numbers = np.full(starts[-1], -1, np.int64)
    for number, node in enumerate(sorted(members, key=lambda each: min(members[each].values()))):
        numbers[list(members[node].values())] = number
    return tuple(np.split(numbers, starts[1:-1]))


def triangulate(
    numbers: Sequence[Integers], rays: Sequence[Floats], poses: Floats, focals: Floats, limit: float, fewest: int = 2
) -> Tracks:
    """Where tracks are. What is seen more than `limit` px from there is left out of its track.

    Args:
        numbers: of each image (N,), the track of each keypoint, as `join` gives them.
        rays: of each image (N, 2), directions (x/z, y/z) of the keypoints.
        poses: (I, 4, 4), from the world to the cameras; they stay as they are.
        focals: (I,) px, mean focal length of each image: of errors at focal length 1 it makes px.
        fewest: keypoints that a track has, at least 2.

    Those that lie behind a camera are none.
    """
    image = np.repeat(np.arange(len(numbers)), [len(each) for each in numbers])
    track = np.concatenate([*numbers, np.zeros(0, np.int64)]).astype(np.int64)
    xy = np.concatenate([*rays, np.zeros((0, 2))])
    count = int(track.max(initial=-1)) + 1
    if not count:
        return Tracks(tuple(numbers), np.zeros((0, 3)))
    track = np.where(np.isfinite(xy).all(1), track, -1)
    # Seen from the middle of the cameras, in units of their distance: geographic coordinates have millions.
    centres = -np.einsum("nji,nj->ni", poses[:, :3, :3], poses[:, :3, 3])
    middle = centres.mean(0) if len(centres) else np.zeros(3)
    unit = float(np.abs(centres - middle).max(initial=0.0)) or 1.0
    P = poses[:, :3].astype(np.float64).copy()
    P[:, :, 3] = (P[:, :, 3] + P[:, :, :3] @ middle) / unit
    places = np.full((count, 3), np.nan)
    todo = np.ones(count, np.bool_)
    for last in range(_ROUNDS, -1, -1):
        seen = np.bincount(track[track >= 0], minlength=count)
        track[(track >= 0) & (seen[track] < fewest)] = -1
        rows = np.flatnonzero((track >= 0) & todo[track])
        if not len(rows):
            break
        order = rows[np.lexsort((image[rows], track[rows]))]
        _place(places, track[order], P[image[order]], xy[order])
        errors = _errors(places[track[order]], P[image[order]], xy[order], focals[image[order]])
        worst = np.full(count, 0.0)
        np.maximum.at(worst, track[order], errors)
        todo = worst > limit
        bad = todo[track[order]] & (errors >= worst[track[order]]) if last else todo[track[order]]
        track[order[bad]] = -1
    places[~_is_sharp(places, track, (centres - middle) / unit, image)] = np.nan
    splits = np.cumsum([len(each) for each in numbers])[:-1]
    return Tracks(tuple(np.split(track, splits)), places * unit + middle)


def _place(places: Floats, track: Integers, P: Floats, xy: Floats) -> None:
    """The places of tracks, whose observations stand one after the other, by the smallest singular vector."""
    numbers, starts, lengths = np.unique(track, return_index=True, return_counts=True)
    equations = np.stack([xy[:, :1] * P[:, 2] - P[:, 0], xy[:, 1:] * P[:, 2] - P[:, 1]], 1)  # (O, 2, 4)
    equations /= np.linalg.norm(equations, axis=2, keepdims=True)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        rows = equations[starts[chosen][:, None] + np.arange(length)].reshape(len(chosen), -1, 4)
        X = np.linalg.svd(rows, full_matrices=False)[2][:, -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            places[numbers[chosen]] = X[:, :3] / X[:, 3:]


def _errors(places: Floats, P: Floats, xy: Floats, focal: Floats) -> Floats:
    """(O,) px; infinite behind a camera."""
    inside = np.einsum("nij,nj->ni", P[:, :, :3], places) + P[:, :, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        errors = np.linalg.norm(inside[:, :2] / inside[:, 2:] - xy, axis=1) * focal
    return np.where((inside[:, 2] > 0) & np.isfinite(errors), errors, np.inf)


def _is_sharp(places: Floats, track: Integers, centres: Floats, image: Integers) -> NDArray[np.bool_]:
    """(T,) whether rays to a place meet at an angle that says where it is."""
    found = np.zeros(len(places), np.bool_)
    rows = np.flatnonzero(track >= 0)
    order = rows[np.argsort(track[rows], kind="stable")]
    toward = places[track[order]] - centres[image[order]]
    with np.errstate(divide="ignore", invalid="ignore"):
        toward /= np.linalg.norm(toward, axis=1, keepdims=True)
    numbers, starts, lengths = np.unique(track[order], return_index=True, return_counts=True)
    for length in np.unique(lengths):
        chosen = np.flatnonzero(lengths == length)
        each = toward[starts[chosen][:, None] + np.arange(length)]
        found[numbers[chosen]] = (each @ each.transpose(0, 2, 1)).min((1, 2)) < np.cos(np.radians(LEAST_ANGLE))
    return found
