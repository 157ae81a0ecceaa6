"""Pairs that plain matching cannot do: simulated views, pooled matches, a model, and matching again in its frame.

`views` and `warping` make views, `looks` extracts and matches them, `search` says in which order, `models` and `pool`
make one of what they find, `rematch` makes it exact, `solve` has the whole; `pair` makes a record of it.
"""
