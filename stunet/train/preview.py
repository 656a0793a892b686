"""Samples clips while training, for a person to look at."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from stunet.data import media
from stunet.data.sources import Dataset, make_source, representatives
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.train.denoiser import Denoiser
from stunet.train.metrics import Metrics
from stunet.train.objective import to_float
from stunet.train.sampling import SamplerSettings, make_sampler
from stunet.train.spaces import Space


def make_preview(
    denoiser: Denoiser,
    space: Space,
    settings: SamplerSettings,
    dataset: Dataset,
    workdir: pathlib.Path,
    mesh: jax.sharding.Mesh,
    *,
    num: int,
    seed: int,
) -> Callable[[Any, int, Metrics], None]:
    """Returns `preview(params, step, metrics)`, which samples clips into `workdir/samples/`.

    The clips have the captions of held-out clips. A spatial super-resolution network enlarges
    held-out clips that were first shrunk. A temporal super-resolution network fills in the frames
    between the keyframes of held-out clips.

    Args:
        denoiser: the network.
        space: turns its clips into frames.
        settings: how clips are sampled, without autoguidance.
        dataset: where held-out clips come from.
        workdir: working directory of the run.
        mesh: the devices.
        num: number of clips to sample, but not more than there are held-out clips.
        seed: seed of the noise, the same at every step.

    Raises:
        UserError: the data or the run's autoencoder cannot be read.
    """
    space.load()
    source = representatives(make_source(dataset, "val"), num, dataset)
    examples = [source[i] for i in range(min(num, len(source)))]
    text, mask = (np.stack([e[k] for e in examples]) for k in ("text", "text_mask"))
    # A network without text saw no captions, and its samples show none.
    captions = [e["caption"] for e in examples] if denoiser.network.text_features else None
    # The weights of a weaker version are not here.
    settings = dataclasses.replace(settings, autoguidance_scale=1.0)
    sample, given = make_sampler(denoiser, settings), None
    if clean := denoiser.conditioning.clean:
        given = clean(to_float(np.stack([e["video"] for e in examples])))
    # Filled up, so that they split over the mesh: otherwise every chip would compute all of them.
    ways = meshes.batch_ways(mesh)
    rows = np.resize(np.arange(len(examples)), -(-len(examples) // ways) * ways)
    first = jax.jit(lambda clips: clips[: len(examples)])

    def preview(params: Any, step: int, metrics: Metrics) -> None:
        inputs = jax.tree.map(lambda x: meshes.split_rows(x, rows, mesh), (text, mask, given))
        *_, clips = sample(params, *inputs[:2], seed, inputs[2])
        clips = hosts.gather(first(clips))
        if hosts.is_first():
            stem = workdir / "samples" / f"step_{step:08d}"
            stem.parent.mkdir(exist_ok=True)
            frames = space.to_frames(clips)
            media.write_gif(f"{stem}.gif", frames, denoiser.clip.frame_rate, captions)
            media.write_xt(f"{stem}_xt.png", frames, captions)
            metrics.picture(step, "samples/clips", f"{stem}.gif")
            metrics.picture(step, "samples/xt", f"{stem}_xt.png")

    return preview
