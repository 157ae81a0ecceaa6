"""Features and matches of a collection of images, on disk."""

from lightglue.stores.features import FeatureStore, Head, ImageFeatures, Source
from lightglue.stores.matches import MatchStore, PairHead, PairMatches

__all__ = ["FeatureStore", "Head", "ImageFeatures", "MatchStore", "PairHead", "PairMatches", "Source"]
