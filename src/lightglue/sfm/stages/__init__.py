"""The stages of a map: path in, path out."""
