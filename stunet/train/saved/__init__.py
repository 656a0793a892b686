"""What a run leaves on disk, and what begins with it: checkpoints, snapshots, files of weights."""
