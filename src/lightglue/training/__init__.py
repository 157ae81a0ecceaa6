"""From images to a trained matcher: samples with ground truth, losses, exact resume, checkpoints, judging.

Layout: arXiv 2306.13643, section 4 and appendix, and cvg/glue-factory for what the paper leaves open.
"""
