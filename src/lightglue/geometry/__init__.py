"""Geometry of matched points."""
