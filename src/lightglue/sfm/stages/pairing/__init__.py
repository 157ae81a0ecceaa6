"""Which images to match with which: each source of pairs in a module.

A source takes names (or what lies under them) and gives an array (P, 2) of int64 indices into them, so that millions
of pairs are small; `lightglue.sfm.stages.pairs` unites them and gives names.
"""
