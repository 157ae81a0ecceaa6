"""What is held out to validate with: whole scenes, or images and all that look the same."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from lightglue.training.draws import Draws
from lightglue.training.journal import View
from lightglue.training.sources.record import ScenePairs

__all__ = ["group_of", "held_out", "held_out_of_scene"]


def group_of(view: View, scenes: int) -> str:
    """What is held out together with a view: its scene, where its source has several, or what looks like it."""
    return f"scene {view.source}/{view.scene}" if view.posed is not None and scenes > 1 else f"look {view.look}"


def held_out(groups: Iterable[str], share: float, seed: int) -> set[str]:
    """About this share of the groups, at least one, never all; none where there is one group, or the share is 0."""
    ordered = sorted(set(groups), key=lambda group: (Draws(seed, "held out", group).uniform(), group))
    if share == 0 or len(ordered) < 2:
        return set()
    return set(ordered[: min(len(ordered) - 1, max(1, round(share * len(ordered))))])


def held_out_of_scene(groups: Mapping[str, str], pairs: ScenePairs, share: float, seed: int) -> set[str]:
    """Of a single scene: groups of images that see the same, so that there are pairs among them; never more than half.

    groups: of each image. Begins with one at random; then comes whatever has most pairs with those that were taken.
    """
    ordered = sorted(set(groups.values()), key=lambda group: (Draws(seed, "held out", group).uniform(), group))
    most = len(ordered) // 2
    if share == 0 or most < 1:
        return set()
    wanted = min(most, max(2, round(share * len(ordered))))
    near = _neighbours(groups, pairs)
    taken = ordered[:1]
    while len(taken) < wanted:
        rest = [group for group in ordered if group not in taken]
        taken.append(max(rest, key=lambda group: sum(near.get((group, other), 0.0) for other in taken)))
    return set(taken)


def _neighbours(groups: Mapping[str, str], pairs: ScenePairs) -> dict[tuple[str, str], float]:
    """How much each two groups overlap, in sum."""
    found: dict[tuple[str, str], float] = {}
    names: Sequence[str] = pairs.names
    for i, j, overlap in zip(pairs.first.tolist(), pairs.second.tolist(), pairs.overlap.tolist(), strict=True):
        a, b = groups.get(names[i]), groups.get(names[j])
        if a is not None and b is not None:
            for key in ((a, b), (b, a)):
                found[key] = found.get(key, 0.0) + overlap
    return found
