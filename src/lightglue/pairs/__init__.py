"""From two images to matches: the models' work, what follows it, and what is written of it.

Loaded when it is first used: options and formats are read without torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lightglue.support.lazy import lazy_names

if TYPE_CHECKING:
    from lightglue.pairs.files import MatchedFiles, match_files
    from lightglue.pairs.match import match_pair, match_pairs
    from lightglue.pairs.options import OutputOptions, PairOptions
    from lightglue.pairs.record import MatchedPair, PairFeatures, PairMatches

__all__ = [
    "MatchedFiles",
    "MatchedPair",
    "OutputOptions",
    "PairFeatures",
    "PairMatches",
    "PairOptions",
    "match_files",
    "match_pair",
    "match_pairs",
]

_OWNERS = {
    "MatchedFiles": "files",
    "MatchedPair": "record",
    "OutputOptions": "options",
    "PairFeatures": "record",
    "PairMatches": "record",
    "PairOptions": "options",
    "match_files": "files",
    "match_pair": "match",
    "match_pairs": "match",
}


__getattr__ = lazy_names(__name__, _OWNERS)
