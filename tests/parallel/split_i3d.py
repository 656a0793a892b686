"""Computes I3D's features of seven clips on three devices; test_i3d.py runs it.

It prints the shape of a device's part of a call. Then it prints the largest difference from NumPy's
result, and the progress.
"""

from unittest import mock

import jax
import numpy as np

from stunet.evaluate import i3d

WEIGHTS = np.linspace(0.5, 2, 400, dtype=np.float32)


def logits(weights, clips):
    """Stands in for the network, which takes seconds to compile."""
    # Prints the shape of each device's part when the program is partitioned.
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
