"""What is written into pictures: names of files in any script, on one line, in letters that the fonts have."""

from __future__ import annotations

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.ft2font import FT2Font

__all__ = ["families", "fitted", "letter_width", "printable"]

# Families with Chinese, Japanese and Korean letters on the usual systems, for the names of files.
_EASTERN = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Arial Unicode MS",
)


def families() -> list[str]:
    """Font families to take letters from, in this order: Matplotlib's own, then an Eastern one where there is one."""
    installed = set(fontManager.get_font_names())
    return [FontProperties().get_name(), *[family for family in _EASTERN if family in installed][:1]]


def letter_width(fontsize: float) -> float:
    """Inches that a letter takes on average."""
    return 0.53 * fontsize / 72


def printable(text: str) -> str:
    """`text` on one line, not too long, with a square for each letter that no font has."""
    fonts = _fonts()
    text = _shortened(" ".join(str(text).split()), 100)
    return "".join(letter if any(f.get_char_index(ord(letter)) for f in fonts) else "□" for letter in text)


def fitted(text: str, fontsize: float, inches: float) -> str:
    """`text`, printable, its middle left out where it would be longer than `inches`."""
    whole = fit = printable(text)
    fonts, kept = _fonts(), len(whole)
    while kept > 3 and _width(fit, fontsize, fonts) > inches:
        kept -= 1
        fit = _shortened(whole, kept)
    return fit


def _shortened(text: str, longest: int) -> str:
    half = longest // 2
    return text if len(text) <= longest else f"{text[: longest - half - 1]}…{text[-half:]}"


def _width(text: str, fontsize: float, fonts: list[FT2Font]) -> float:
    """Inches that `text` takes at most."""
    points = 0.0
    for letter in text:
        font = next((f for f in fonts if f.get_char_index(ord(letter))), fonts[0])
        font.set_size(fontsize, 72)
        points += font.load_char(ord(letter)).linearHoriAdvance / 65536
    return 1.05 * points / 72  # rounded to whole pixels, letters may be a little wider


def _fonts() -> list[FT2Font]:
    return [get_font(findfont(FontProperties(family=family))) for family in families()]
