"""Which commit a clone is at: what `lightglue --version` and benchmarks say besides the version."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["checkout", "commit"]


def checkout(package: Path | None = None) -> Path | None:
    """The root of the clone that the package runs from; None for an installed one. `package` as in `commit`."""
    package = package or Path(__file__).resolve().parents[1]
    root = package.parent.parent
    return root if package.parent.name == "src" and (root / "pyproject.toml").is_file() else None


def commit(package: Path | None = None) -> str | None:
    """The first 12 digits of the commit of the clone that the package runs from; None for an installed package.

    Read from the files in `.git`, so that git need not be installed. Never raises.

    Args:
        package: the package's folder, ROOT/src/lightglue in a clone. None: that of this package.
    """
    try:
        if (root := checkout(package)) is None:
            return None
        git = root / ".git"
        if git.is_file():  # of a worktree: "gitdir: PATH"
            git = root / git.read_text().partition(":")[2].strip()
        return _resolved(git, (git / "HEAD").read_text().strip())
    except (OSError, ValueError):
        return None


def _resolved(git: Path, head: str) -> str | None:
    """The commit that the content of `HEAD`, a branch's name or a commit, stands for."""
    if head.startswith("ref:"):
        ref = head.partition(":")[2].strip()
        common = git / "commondir"
        shared = git / common.read_text().strip() if common.is_file() else git
        loose = shared / ref
        head = loose.read_text().strip() if loose.is_file() else _packed(shared / "packed-refs", ref)
    return head[:12] if re.fullmatch("[0-9a-f]{40,64}", head) else None


def _packed(path: Path, ref: str) -> str:
    for line in path.read_text().splitlines():
        number, _, name = line.partition(" ")
        if name == ref:
            return number
    return ""
