"""The published benchmark script's place: `python benchmark.py --num_keypoints 512 1024 --save curves.png`.

It is `lightglue benchmark` under its published name.
"""

from __future__ import annotations

import sys

from lightglue.cli import main

if __name__ == "__main__":
    sys.argv.insert(1, "benchmark")
    main()
