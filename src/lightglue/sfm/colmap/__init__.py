"""COLMAP: its cameras, databases, mappers and models. The one room of maps that loads pycolmap.

`with_pycolmap` imports it and knows its versions; what needs it imports from there, so that a map's features, pairs and
matches can be made without it.
"""
