"""What is written into pictures: names of files in any script, on one line, in letters that the fonts have."""

from __future__ import annotations

from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font

__all__ = ["families", "letter_width", "printable"]

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


def printable(text: str, longest: int = 100) -> str:
    """`text` on one line, not too long, with a square for each letter that no font has."""
    text = " ".join(str(text).split())
    if len(text) > longest:
        half = max(longest // 2, 2)
        text = f"{text[:half]}…{text[-half + 1 :]}"
    fonts = [get_font(findfont(FontProperties(family=family))) for family in families()]
    return "".join(letter if any(f.get_char_index(ord(letter)) for f in fonts) else "□" for letter in text)
