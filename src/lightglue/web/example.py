"""The pair that the page opens with: photographs and a result that come with the package, so that nothing is loaded.

`scripts/web_example.py` writes the result.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

__all__ = ["EXAMPLE", "example_files", "example_pair"]

EXAMPLE = "example"  # name of the result; the images are example-0 and example-1


def example_pair() -> dict[str, Any]:
    """The result, as the service describes a pair."""
    text = files("lightglue.web").joinpath("stored").joinpath("montmartre.json").read_bytes()
    found: dict[str, Any] = json.loads(text)
    return found


def example_files(pair: dict[str, Any]) -> Iterator[tuple[dict[str, Any], bytes]]:
    """Its images: what is said of each, and its file."""
    folder = files("lightglue.parity").joinpath("photographs")
    for image in pair["images"]:
        yield image, folder.joinpath(image["name"]).read_bytes()
