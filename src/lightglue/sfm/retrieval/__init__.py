"""Which images are similar."""
