"""One module a benchmark: where its files come from, how they are laid out, what protocol they are judged by."""
