"""Enlarges a clip on four devices and on one; test_upscale.py runs it.

It prints the largest difference, and on how many devices the segments were.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "train"))
import tiny
from from_config import make_mesh, parts_with_network

from stunet.generate import upscale
from stunet.generate.text import Run
from stunet.progress import nothing

SAMPLE = dict(steps=2, threshold="none", guidance_scale=2.0)


def network(params, inputs, time, text, text_mask):
    noise, given = inputs[..., :1], inputs[..., 1:2]
    captioned = text_mask.any(1)[:, None, None, None, None]
    return jnp.tanh(0.5 * noise.mean(1, keepdims=True) + given * (1 + 0.1 * captioned))


def enlarged(devices: int, low: np.ndarray, on_step) -> np.ndarray:
    config = tiny.config(mesh=dict(data=devices), upscale=dict(factor=2), sample=SAMPLE)
    mesh = make_mesh(config, jax.devices()[:devices])
    run = Run(parts_with_network(config, network), {}, mesh)
    upscaler = upscale.make_upscaler(run)
    return upscale.upscale(upscaler, low, "a 3", overlap=1, batch_size=3, on_step=on_step).clip


if __name__ == "__main__":
    low = np.random.default_rng(0).uniform(-1, 1, (15, 4, 4, 1)).astype(np.float32)
    spread = []

    def on_step(done: int, total: int, clip) -> None:
        clips = [a for a in jax.live_arrays() if a.shape == (4, 4, 8, 8, 1)]
        spread.append(max(len(a.sharding.device_set) for a in clips))

    four, one = enlarged(4, low, on_step), enlarged(1, low, nothing)
    print(np.abs(four - one).max(), min(spread))
