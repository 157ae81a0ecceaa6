"""How many cores and how much memory a process may use, on file systems made for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lightglue_runtime import limits
from lightglue_runtime.limits import usable_cores, usable_memory

V2 = "30 25 0:26 {top} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup rw\n"
V1 = "31 25 0:27 {top} /sys/fs/cgroup/{name} rw,nosuid shared:9 - cgroup cgroup rw,{name}\n"
GB = 1 << 30


@pytest.fixture(autouse=True)
def _eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_affinity", lambda: 8)


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def version_2(root: Path, groups: dict[str, str], *, own: str = "/a/b", top: str = "/") -> Path:
    files = {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": V2.format(top=top)}
    return system(root, files | {f"sys/fs/cgroup/{name}": text for name, text in groups.items()})


def test_without_control_groups_the_affinity_counts(tmp_path):
    assert usable_cores(tmp_path) == 8
    assert usable_memory(tmp_path) is None


def test_the_affinity_of_this_process_is_asked(monkeypatch):
    monkeypatch.undo()
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9})
        assert limits._affinity() == 3
        monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert limits._affinity() == 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("140000 100000", 1),
        ("10000 100000", 1),
        ("9900000 100000", 8),
        ("25000 50000", 1),
        ("", 8),
        ("nonsense", 8),
        ("100000 0", 8),
    ],
)
def test_a_quota_of_version_2_is_kept_and_rounded(tmp_path, quota, cores):
    assert usable_cores(version_2(tmp_path, {"a/b/cpu.max": quota})) == cores


def test_the_tightest_group_counts_whether_its_own_or_one_around_it(tmp_path):
    groups = {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000", "cpu.max": "500000 100000"}
    assert usable_cores(version_2(tmp_path, groups)) == 3


def test_in_a_container_the_mount_is_the_top(tmp_path):
    assert usable_cores(version_2(tmp_path / "own", {"cpu.max": "200000 100000"}, own="/")) == 2
    root = version_2(tmp_path / "hosts", {"cpu.max": "300000 100000"}, own="/docker/1f", top="/docker/1f")
    assert usable_cores(root) == 3
    root = version_2(tmp_path / "elsewhere", {"cpu.max": "400000 100000"}, own="/../other")
    assert usable_cores(root) == 4


@pytest.mark.parametrize(("quota", "cores"), [("-1", 8), ("250000", 3), ("50000", 1)])
def test_a_quota_of_version_1_is_kept(tmp_path, quota, cores):
    files = {
        "proc/self/cgroup": "5:memory:/job\n4:cpu,cpuacct:/job\n1:name=systemd:/job\n",
        "proc/self/mountinfo": V1.format(name="memory", top="/") + V1.format(name="cpu,cpuacct", top="/"),
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": quota,
        "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
    }
    assert usable_cores(system(tmp_path, files)) == cores


def test_memory_is_what_is_left_under_the_limit_and_files_can_be_dropped(tmp_path):
    groups = {
        "a/b/memory.max": str(4 * GB),
        "a/b/memory.current": str(3 * GB),
        "a/b/memory.stat": f"anon {GB}\ninactive_file {2 * GB}\n",
        "a/memory.max": "max",
    }
    root = version_2(tmp_path, groups)
    assert usable_memory(root) == 3 * GB
    assert usable_memory(system(root, {"proc/meminfo": "MemTotal: 9 kB\nMemAvailable:   1048576 kB\n"})) == GB


def test_memory_beyond_the_high_mark_is_not_counted_on(tmp_path):
    groups = {"memory.max": "max", "memory.high": str(2 * GB), "memory.current": str(3 * GB)}
    assert usable_memory(version_2(tmp_path, groups)) == 0


def test_memory_under_version_1(tmp_path):
    files = {
        "proc/self/cgroup": "5:memory:/docker/1f\n",
        "proc/self/mountinfo": V1.format(name="memory", top="/docker/1f"),
        "sys/fs/cgroup/memory/memory.limit_in_bytes": str(4 * GB),
        "sys/fs/cgroup/memory/memory.usage_in_bytes": str(2 * GB),
        "sys/fs/cgroup/memory/memory.stat": f"total_inactive_file {GB}\n",
    }
    root = system(tmp_path, files)
    assert usable_memory(root) == 3 * GB
    system(root, {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712"})  # none
    assert usable_memory(root) is None


def test_this_machine_has_at_least_one_core_and_some_memory():
    assert 1 <= usable_cores() <= 8
    assert usable_memory() is None or usable_memory() > 0
