"""What several test files use: where the test data lies, commands in this process, made-up scenes and runs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"
SHARED = ROOT.parent / "shared"  # arrays and images too large for the project; not everyone has them
A, B = ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"
