"""Views of an image: under a homography, in other light, in another size; pure functions of (seed, image, number)."""
