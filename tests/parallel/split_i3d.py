"""Run by test_i3d.py in a process of its own: what I3D's features are of seven clips on three
devices. Prints a device's part of a call, the largest difference from NumPy's, and the progress."""

from unittest import mock

import jax
import numpy as np

from stunet.evaluate import i3d

WEIGHTS = np.linspace(0.5, 2, 400, dtype=np.float32)


def logits(weights, clips):
    """In place of the network, which takes seconds to compile."""
    # As the program is partitioned, each device is told its own part.
    jax.debug.inspect_array_sharding(clips, callback=lambda s: print(s.shard_shape(clips.shape)))
    return clips.mean((1, 2, 3, 4))[:, None] * weights


if __name__ == "__main__":
    clips = np.random.default_rng(0).uniform(-1, 1, (7, 9, 4, 4, 1)).astype(np.float32)
    seen = []
    with (
        mock.patch.object(i3d, "load_params", return_value=WEIGHTS),
        mock.patch.object(i3d, "_logits", logits),
        mock.patch.object(i3d, "_DEVICE_BATCH", 1),
    ):
        found = i3d.Features()(clips, seen.append)
    alone = clips.mean((1, 2, 3, 4))[:, None] * WEIGHTS
    print(abs(found - alone).max(), *seen)
