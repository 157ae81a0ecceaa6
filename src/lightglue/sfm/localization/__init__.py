"""Where an image was taken in a map."""
