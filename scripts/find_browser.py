"""Print the browser that the tests of the page take; exit with 1 where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from support.browser import find_chromium

if (found := find_chromium()) is None:
    print("no Chromium yet", file=sys.stderr)
    raise SystemExit(1)
print(f"the tests of the page take {found}")
