"""True matches of two sets of keypoints, from what is known of the scene: pure functions with one result, `Truth`."""
