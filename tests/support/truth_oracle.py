"""Truth keypoint by keypoint, as the rules say it: to hold the fast functions to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

IGNORED, UNMATCHABLE = -2, -1


def project(H, point):
    x, y, z = np.asarray(H, float) @ [*point, 1.0]
    return np.array([x / z, y / z])


def nearest_both_ways(count0, count1, distance: Callable[[int, int], float], limit: float):
    """Pairs that are each other's nearest, nearer than the limit; of equal ones the first."""
    found = []
    for i in range(count0):
        row = [distance(i, j) for j in range(count1)]
        if not row or min(row) >= limit:
            continue
        j = row.index(min(row))
        column = [distance(k, j) for k in range(count0)]
        if column.index(min(column)) == i:
            found.append((i, j))
    return found


def homography_truth(points0, points1, H, positive, negative):
    back = np.linalg.inv(H)

    def there(i, j):
        return np.linalg.norm(project(H, points0[i]) - points1[j])

    def here(i, j):
        return np.linalg.norm(project(back, points1[j]) - points0[i])

    rows, columns = range(len(points0)), range(len(points1))
    matches0 = [UNMATCHABLE if all(there(i, j) > negative for j in columns) else IGNORED for i in rows]
    matches1 = [UNMATCHABLE if all(here(i, j) > negative for i in rows) else IGNORED for j in columns]
    both = nearest_both_ways(len(points0), len(points1), lambda i, j: max(there(i, j), here(i, j)), positive)
    for i, j in both:
        matches0[i], matches1[j] = j, i
    return matches0, matches1


def seen(K, T, place):
    """px of a place in another frame, None behind the camera or where it is not known."""
    x, y, z = T[:3, :3] @ place + T[:3, 3]
    return None if not z > 0 else np.array([K[0, 0] * x / z + K[0, 2], K[1, 1] * y / z + K[1, 2]])


def off_line(K0, K1, T, point0, point1):
    """Mean of the distances of both from the epipolar line of the other, px."""
    x, y, z = T[:3, 3]
    F = np.linalg.inv(K1).T @ np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3] @ np.linalg.inv(K0)
    line1, line0 = F @ [*point0, 1], F.T @ [*point1, 1]
    product = abs(line1 @ [*point1, 1])
    norms = np.hypot(*line1[:2]), np.hypot(*line0[:2])
    return 0.0 if 0 in norms else (product / norms[0] + product / norms[1]) / 2


def apart(position, point):
    return np.inf if position is None else float(np.linalg.norm(position - point))


def depth_truth(points0, points1, depth0, depth1, K0, K1, T, positive, negative, epipolar):
    rows, columns = range(len(points0)), range(len(points1))
    back = np.linalg.inv(T)

    def place(K, point, depth):
        return depth * (np.linalg.inv(K) @ [*point, 1])

    def there(i, j):
        return apart(seen(K1, T, place(K0, points0[i], depth0[i])), points1[j])

    def here(i, j):
        return apart(seen(K0, back, place(K1, points1[j], depth1[j])), points0[i])

    known0, known1 = np.isfinite(depth0), np.isfinite(depth1)
    matches0 = [UNMATCHABLE if known0[i] and all(there(i, j) > negative for j in columns) else IGNORED for i in rows]
    matches1 = [UNMATCHABLE if known1[j] and all(here(i, j) > negative for i in rows) else IGNORED for j in columns]
    both = nearest_both_ways(len(points0), len(points1), lambda i, j: max(there(i, j), here(i, j)), positive)
    for i, j in both:
        matches0[i], matches1[j] = j, i
    open0, open1 = [i for i in rows if matches0[i] == IGNORED], [j for j in columns if matches1[j] == IGNORED]
    line = {(i, j): off_line(K0, K1, T, points0[i], points1[j]) for i in open0 for j in open1}
    for i in open0:
        if not known0[i] and all(line[i, j] > epipolar for j in open1):
            matches0[i] = UNMATCHABLE
    for j in open1:
        if not known1[j] and all(line[i, j] > epipolar for i in open0):
            matches1[j] = UNMATCHABLE
    return matches0, matches1


def tracks_truth(points0, points1, tracks0, tracks1, places0, places1, K0, K1, T0, T1, positive, negative, epipolar):
    rows, columns = range(len(points0)), range(len(points1))
    T = T1 @ np.linalg.inv(T0)
    placed0, placed1 = np.isfinite(places0).all(1), np.isfinite(places1).all(1)

    def there(i, j):
        return apart(seen(K1, T1, places0[i]), points1[j])

    def here(i, j):
        return apart(seen(K0, T0, places1[j]), points0[i])

    def possible(i, j):
        if tracks0[i] == tracks1[j] >= 0:
            return True
        if off_line(K0, K1, T, points0[i], points1[j]) > epipolar:
            return False
        return not (placed0[i] and there(i, j) > negative) and not (placed1[j] and here(i, j) > negative)

    matches0 = [IGNORED if any(possible(i, j) for j in columns) else UNMATCHABLE for i in rows]
    matches1 = [IGNORED if any(possible(i, j) for i in rows) else UNMATCHABLE for j in columns]
    for i in rows:
        for j in columns:
            if tracks0[i] == tracks1[j] >= 0:
                if (placed0[i] and there(i, j) >= positive) or (placed1[j] and here(i, j) >= positive):
                    continue
                matches0[i], matches1[j] = j, i
    return matches0, matches1
