"""Look-alike places: which verified pairs are false, and whether a model agrees with the others."""
