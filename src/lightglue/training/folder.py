"""The folder of a run: nothing that another program or the user put there is written over."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lightglue.errors import InputError

__all__ = ["refuse_others"]


def refuse_others(folder: Path, names: Sequence[str], is_ours: bool) -> None:
    """Raises InputError where the folder of a run is a file, or holds what the run would write over.

    names: of what the run writes there. is_ours: whether what bears such a name is of the same kind of run.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; name a folder for the run.")
    found = [name for name in names if (folder / name).exists()]
    if found and not is_ours:
        raise InputError(
            f"{folder} holds {', '.join(found)}, which this run would write over and no run of its kind has written; "
            "name another folder."
        )
