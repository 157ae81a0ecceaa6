"""Which extractor and matcher: the registry, and how a choice is loaded."""
