"""How much of the machine this process may use: what its affinity, its control groups and others leave of it.

A container or a batch system gives a job 2 of 64 cores and says so in one of these places; `os.cpu_count()` answers 64.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["usable_cores", "usable_memory"]

_ROOT = Path("/")
_UNLIMITED = 1 << 60  # bytes; version 1 writes the largest multiple of a page for "no limit"


def usable_cores(root: Path = _ROOT) -> int:
    """Cores that this process can keep busy, at least 1: of its affinity, within the quotas of its control groups.

    A quota may be a part of a core and is rounded: 1.5 keeps two processes busy three quarters of the time.

    root: of the file system that is asked, for tests.
    """
    cores = _affinity()
    return max(1, min([cores, *(int(quota + 0.5) for quota in _quotas(root))]))


def usable_memory(root: Path = _ROOT) -> int | None:
    """Bytes that this process and its children can still take without swapping; None where nobody says.

    The least of what the machine has available and what is left under the limits of the control groups; pages of files
    that were read can be dropped and count as free.
    """
    return min([*_available(root), *_left(root)], default=None)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _quotas(root: Path) -> Iterator[float]:
    """Cores' worth of time that each control group allows."""
    for folder in _groups(root, ""):
        quota, period = (*_text(folder / "cpu.max").split(), "max", "max")[:2]
        yield from _ratio(quota, period)
    for folder in _groups(root, "cpu"):
        yield from _ratio(_text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us"))


def _ratio(quota: str, period: str) -> Iterator[float]:
    if quota.isdecimal() and period.isdecimal() and int(period):  # "max" and -1: no limit
        yield int(quota) / int(period)


def _available(root: Path) -> Iterator[int]:
    """What the kernel says is available on the machine."""
    for line in _text(root / "proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable" and value.split()[:1] and value.split()[0].isdecimal():
            yield int(value.split()[0]) * 1024


def _left(root: Path) -> Iterator[int]:
    """What is left of the memory that each control group allows."""
    for folder in _groups(root, ""):
        for limit in ("memory.max", "memory.high"):
            yield from _rest(folder, limit, "memory.current", "inactive_file")
    for folder in _groups(root, "memory"):
        yield from _rest(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _rest(folder: Path, limit: str, used: str, droppable: str) -> Iterator[int]:
    most, taken = _text(folder / limit), _text(folder / used)
    if not most.isdecimal() or int(most) > _UNLIMITED:
        return
    facts = dict(line.split(maxsplit=1) for line in _text(folder / "memory.stat").splitlines() if " " in line)
    dropped = facts.get(droppable, "0")
    in_use = int(taken) - int(dropped) if taken.isdecimal() and dropped.isdecimal() else 0
    yield max(0, int(most) - max(0, in_use))


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """The folders of this process's control group and of those that it is in, as far as they can be seen.

    controller: of version 1, such as "cpu"; "" for version 2.
    """
    for own in _text(root / "proc/self/cgroup").splitlines():
        _, _, rest = own.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            for mounted, top in _mounts(root, controller):
                # In a container the mount may show a group of the host as the top, or another than ours.
                below = Path(path).relative_to(top) if Path(path).is_relative_to(top) else Path()
                below = Path() if ".." in below.parts else below
                folder = root / mounted.relative_to("/")
                yield from (folder / part for part in (below, *below.parents))


def _mounts(root: Path, controller: str) -> Iterator[tuple[Path, Path]]:
    """Where the control groups are mounted, and which of them is on top there."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields, kind = left.split(), right.split()
        if len(fields) < 5 or len(kind) < 3:
            continue
        is_ours = controller in kind[2].split(",") if controller else True
        if kind[0] == ("cgroup" if controller else "cgroup2") and is_ours:
            yield Path(_unescaped(fields[4])), Path(_unescaped(fields[3]))


def _unescaped(path: str) -> str:
    return path.replace(r"\040", " ").replace(r"\134", "\\")


def _text(path: Path) -> str:
    """The content of a file; empty where there is none, or it is not for us."""
    try:
        return path.read_text(errors="replace").strip()
    except (OSError, ValueError):
        return ""
