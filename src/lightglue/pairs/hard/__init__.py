"""Pairs that plain matching cannot do: simulated views, pooled matches, a model, and matching again on the warped image."""
