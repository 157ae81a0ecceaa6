"""Which images look alike."""
