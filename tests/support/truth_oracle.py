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
