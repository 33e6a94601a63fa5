"""Smaller students that inherit their teacher's weights: fewer layers, narrower ones, fewer tokens."""
