"""Where images come from, and what is known of their scenes: folders, models of COLMAP and our maps, depth maps."""
