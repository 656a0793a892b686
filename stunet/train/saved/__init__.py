"""Saves what a run leaves on disk, and reads it: checkpoints, snapshots, files of weights."""
