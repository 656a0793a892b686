"""Samples from trained runs: the tasks of `stunet sample`, `stunet.load`, and the keyframe cascade.

Sampled clips are float32 NumPy arrays `[b, t, h, w, c]` in -1..1, with the run's averaged weights.
"""
