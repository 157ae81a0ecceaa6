"""A matched pair as one file of HTML: the viewer of `lightglue web`, its data and its pictures, and nothing else.

The viewer's modules lie in the folder `viewer` beside this file. A page without a server cannot import them one by one,
so they are written into it one after the other, each a function that gives what the module exports.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from lightglue.drawing.plotting import shrunk, to_bytes
from lightglue.support.printable import printable

__all__ = ["VIEWER", "encode_picture", "viewer_page"]

VIEWER = Path(__file__).parent / "viewer"  # modules, words and the style sheet; `lightglue web` serves them
_QUALITY = 90  # of the JPEGs
_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|class|const) (\w+))", re.MULTILINE)


def viewer_page(pair: Mapping[str, Any], pictures: Sequence[bytes], title: str) -> bytes:
    """The page.

    Args:
        pair: what `lightglue.pairs.viewed.viewed` gives.
        pictures: of both images, JPEG or PNG; those of the pair's sizes, or smaller.
        title: of the page.
    """
    script, style = _script(), (VIEWER / "style.css").read_text(encoding="utf-8")
    data = json.dumps({"pair": pair, "pictures": [_data(each) for each in pictures]}, separators=(",", ":"))
    policy = f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:"
    page = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(printable(title))}</title>
<style>{style}</style>
</head>
<body>
<script type="application/json" id="data">{_in_script(data)}</script>
<script type="module">{script}</script>
<noscript>This page needs JavaScript.</noscript>
</body>
</html>
"""
    return page.encode()


def encode_picture(image: Any) -> bytes:
    """An image of any kind as a JPEG, no larger than a picture can show."""
    pixels = shrunk(to_bytes(image))[..., ::-1]  # OpenCV's order
    _, content = cv2.imencode(".jpg", np.ascontiguousarray(pixels), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return content.tobytes()


@lru_cache
def _script() -> str:
    """The module `standalone` and all that it imports, as one script."""
    parts: dict[str, str] = {}

    def add(name: str) -> None:
        if name in parts:
            return
        source = (VIEWER / f"{name}.js").read_text(encoding="utf-8")
        imports = _IMPORT.findall(source)
        for _, other in imports:
            add(other)
        taken = "\n".join(f"const {{{names.replace(' as ', ': ')}}} = _{other};" for names, other in imports)
        exported = ", ".join(_EXPORT.findall(source))
        body = _EXPORT.sub("", _IMPORT.sub("", source))
        parts[name] = f"const _{name} = (() => {{\n{taken}\n{body}\nreturn {{ {exported} }};\n}})();"

    add("standalone")
    return "\n".join(parts.values())


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _in_script(text: str) -> str:
    """JSON that cannot end the element it stands in."""
    return text.replace("<", "\\u003c")


def _data(image: bytes) -> str:
    kind = "png" if image.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(image).decode()}"
