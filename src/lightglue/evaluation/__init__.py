"""How good matches are: benchmarks, records of each pair, reports, comparisons."""
