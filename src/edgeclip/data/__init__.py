"""Image-caption sets: where they come from, how they are split, and their decoding in worker processes."""
