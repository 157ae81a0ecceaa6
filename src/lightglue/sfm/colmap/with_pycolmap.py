"""pycolmap, 3.11 to 4.2: the one module of maps that imports it.

What differs between the versions is asked of `RELEASE` or of pycolmap itself where it is used: how a database is
opened, rigs and frames (3.12), seeds and cameras that are held fixed one by one (3.13), the global and the hierarchical
mapper (4.0 and 4.1), poses as properties or methods.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightglue.errors import InputError, LightGlueError

_on_terminate = signal.getsignal(signal.SIGTERM)
try:
    import pycolmap
except ImportError as error:
    raise LightGlueError("Maps need pycolmap: pip install 'lightglue[sfm]'.") from error
# The log that comes with pycolmap takes SIGTERM for a crash: it prints a stack, and may then wait for ever.
if _on_terminate is not None and threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, _on_terminate)

__all__ = ["RELEASE", "VERSION", "pycolmap", "quiet", "set_option", "short"]

VERSION: str = pycolmap.__version__
RELEASE = tuple(int(part) for part in re.findall(r"\d+", VERSION)[:2])

if RELEASE < (3, 11):
    raise LightGlueError(f"pycolmap {VERSION} is too old; run `pip install --upgrade pycolmap` (3.11 or later).")


class _Quiet:
    """How many calls want COLMAP's log to be still; its level is one for the whole process."""

    lock = threading.Lock()
    calls = 0
    level = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keep COLMAP's log to fatal errors while in this context: what it says of errors is in its exceptions too."""
    logging: Any = pycolmap.logging
    with _Quiet.lock:
        if _Quiet.calls == 0:
            _Quiet.level = logging.minloglevel
            logging.minloglevel = max(_Quiet.level, 3)
        _Quiet.calls += 1
    try:
        yield
    finally:
        with _Quiet.lock:
            _Quiet.calls -= 1
            if _Quiet.calls == 0:
                logging.minloglevel = _Quiet.level


def short(error: Exception) -> str:
    """What COLMAP says, without the line of its code."""
    return re.sub(r"^\[[^\]]*\]\s*", "", " ".join(str(error).split()))[:300]


def set_option(options: Any, name: str, value: Any) -> None:
    """Set an option by its dotted name. Raises InputError for one that this version does not have."""
    *path, last = name.split(".")
    for part in path:
        options = getattr(options, part, None)
    if options is None or last not in dir(options):
        raise InputError(f"pycolmap {VERSION} has no option {name!r}; look at its documentation, or leave it out.")
    try:
        setattr(options, last, value)
    except TypeError as error:
        raise InputError(f"{name} cannot be {value!r}; give a {type(getattr(options, last)).__name__}.") from error
