"""Geometry from matches: models with their inliers, errors against the truth, sub-pixel refinement."""
