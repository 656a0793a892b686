"""Samples from trained runs: the tasks of `stunet sample`, and the keyframe cascade."""
