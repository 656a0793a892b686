"""Writes an autoencoder that was trained here as a directory of diffusers."""

import dataclasses
import pathlib

import jax
import numpy as np

from stunet.data.sources import make_source, representatives
from stunet.errors import UserError
from stunet.nn.autoencoder import Autoencoder, KlConfig, write_kl
from stunet.parallel import mesh as meshes
from stunet.train.objectives.objective import to_float
from stunet.train.parts import Parts, read_parts
from stunet.train.saved import trained

# Frames whose latents say how to shift and scale, and how many of them are encoded at once.
_FRAMES, _AT_ONCE = 1024, 32


def write(directory: pathlib.Path, workdir: pathlib.Path, **sample: object) -> int:
    """Writes config.json and the averaged weights of a checkpoint, in float32.

    config.json has the shifts and the scales with which each channel of the latents of training
    frames has the mean 0 and the standard deviation 1. Channels of an autoencoder differ in both.
    One shift and one scale for all of them would leave little of a channel but its mean.

    Args:
        directory: directory to write into, which exists.
        workdir: working directory of the run.
        sample: settings of the config's `sample` that replace the run's own, such as `checkpoint`.

    Returns:
        The number of updates that the weights have had.

    Raises:
        UserError: `workdir` holds no run or no checkpoint, the run trains no autoencoder, or its
            data cannot be read.
    """
    parts = read_parts(workdir, **sample)
    if not parts.trains_autoencoder:
        raise UserError(
            f"{workdir} trains no autoencoder, since autoencoder.level_features of its config is "
            "empty; choose another --format"
        )
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh):
        params, step = trained.restore(workdir, parts, mesh)
    autoencoder = Autoencoder(parts.model.architecture, jax.device_get(params))
    mean, std = _mean_and_std(autoencoder, _frames(parts))
    config: KlConfig = parts.model.architecture.module.config
    scaled = dataclasses.replace(config, latents_mean=mean, latents_std=std)
    write_kl(directory, scaled, autoencoder.params)
    return step


def _frames(parts: Parts) -> np.ndarray:
    """Returns about `_FRAMES` frames of training clips, float32 [n, h, w, c] in -1..1."""
    source, clips = make_source(parts.dataset, "train"), -(-_FRAMES // parts.clip.frames)
    source = representatives(source, clips, parts.dataset)
    videos = [source[i]["video"] for i in range(min(clips, len(source)))]
    return np.asarray(to_float(np.concatenate(videos)))


def _mean_and_std(
    autoencoder: Autoencoder, frames: np.ndarray
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns the mean and the standard deviation of each channel of latents that are drawn."""
    latents, over = autoencoder.encode(frames, at_once=_AT_ONCE), (0, 1, 2)
    mean = latents.mean.mean(over, dtype=np.float64)
    # The variance of the means, and the mean of the variances.
    variance = np.square(latents.mean - mean).mean(over) + np.square(latents.std).mean(over)
    return tuple(mean.tolist()), tuple(np.sqrt(variance).tolist())
