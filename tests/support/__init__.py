"""What several test files use: where the test data lies, commands in this process, made-up scenes and runs."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
ASSETS = ROOT / "assets"
SHARED = ROOT.parent / "shared"  # arrays and images too large for the project; not everyone has them
A, B = ASSETS / "montmartre_close.jpg", ASSETS / "montmartre_far.jpg"
# The same photographs at half the size, with which pictures are drawn in a fourth of the time.
CLOSE, FAR = (ROOT / "src/lightglue/parity/photographs" / path.name for path in (A, B))

# The beginnings of reasons to skip a test: counted at the end of a run.
NEEDS_GPU = "needs a GPU"
NEEDS_SHARED = "needs ../shared"
NEEDS_BROWSER = "needs a browser"

# Reference pair -> its two image files and the `resize` that its features were extracted with.
PAIRS = {
    "montmartre": ("montmartre_close.jpg", "montmartre_far.jpg", 800),
    "sacre_coeur": ("sacre_coeur1.jpg", "sacre_coeur2.jpg", 1024),
    "facade": ("DSC_0410.JPG", "DSC_0411.JPG", 640),
}
