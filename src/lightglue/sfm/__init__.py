"""From a folder of photographs to a map, and from a map to where a photograph was taken."""
