"""`python -m lightglue`: the command line, of the very interpreter that is named."""

from __future__ import annotations

from lightglue.cli import main

if __name__ == "__main__":
    main()
