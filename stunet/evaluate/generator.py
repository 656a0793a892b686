"""Generates clips for an evaluation: by one network, by a cascade, or between true keyframes."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stunet import progress
from stunet.data.sources import Dataset
from stunet.errors import UserError
from stunet.generate import cascade, text
from stunet.stores import addresses
from stunet.train.measured.flops import sampling_flops
from stunet.train.parts import Parts, read_parts
from stunet.train.saved import trained, weights_file
from stunet.train.saved.checkpoint_files import saved_at
from stunet.train.saved.checkpoint_names import place

# Called with the number of finished sampling steps and the number of all steps.
OnStep = Callable[[int, int], None]
Make = Callable[[int, Sequence[str], np.ndarray | None, progress.OnStep], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Generator:
    """Generates the clips to be judged.

    Attributes:
        parts: the network, data set and other objects that the config of the run describes. For a
            cascade, these are the objects of the run that makes keyframes.
        dataset: data set of real clips with the shape and rate of the generated clips.
        borders: frames in which two windows of a cascade meet. A window is a stretch of frames that
            a network makes at a time.
        operations: counts the floating-point operations that it takes to sample one clip. The call
            takes seconds.
        given: what the network gets to see of the real clips, such as "true keyframes"; "" if it
            sees nothing.
        identity: JSON value of everything that the clips depend on beside captions and real clips.
        make: maps (number of the first clip, captions, real clips of these captions, on_step) to
            clips in -1..1. The first call loads the weights.
    """

    parts: Parts
    dataset: Dataset
    borders: tuple[int, ...]
    operations: Callable[[], int]
    given: str
    identity: Any
    make: Make


def make_generator(
    workdir: pathlib.Path,
    *,
    tsr: pathlib.Path | None = None,
    augmentation: float | None = None,
    seed: int = 0,
    **sample: object,
) -> Generator:
    """Returns a generator with a checkpoint's EMA weights, on all devices of this machine.

    Arguments and errors are those of `run.evaluate`.
    """
    parts = read_parts(workdir, **sample)
    runs = {workdir: parts} | ({tsr: read_parts(tsr, **sample)} if tsr else {})
    settings = dict(seed=seed, augmentation=augmentation)
    identity = [settings, *(_identity(place, run) for place, run in runs.items())]
    devices = jax.local_device_count()
    if tsr:
        load = functools.cache(lambda: cascade.load_pair(workdir, tsr, devices=devices, **sample))
        return _cascaded(parts, runs[tsr], load, settings, identity)
    load = functools.cache(lambda: text.load(workdir, devices=devices, **sample))
    if parts.denoiser.conditioning.name != "tsr":
        if augmentation is not None:
            raise UserError(
                "--augmentation is the noise level of the keyframes of a cascade; give --tsr too, "
                "or the --workdir of a temporal super-resolution run"
            )
        text.check_unconditioned(workdir, parts)
    return of_network(parts, load, identity, **settings)


def of_network(
    parts: Parts,
    load: Callable[[], text.Run],
    identity: Any,
    *,
    seed: int = 0,
    augmentation: float | None = None,
) -> Generator:
    """Returns a generator of one network, which makes clips from captions or fills in frames.

    Args:
        parts: parts of the network's run.
        load: returns the run, with its weights. It is called for each batch of clips.
        identity: see `Generator`.
        seed: seed of the noise.
        augmentation: noise level of true keyframes; None for none.
    """
    if parts.denoiser.conditioning.name == "tsr":
        # True keyframes are augmented only on request.
        return _filled(parts, load, dict(seed=seed, augmentation=augmentation or 0.0), identity)

    def make(number, captions, real, on_step):
        return text.sample_clips(load(), captions, seed=seed, number=number, on_step=on_step)

    return Generator(
        parts=parts,
        dataset=parts.dataset.of_pixels,
        borders=(),
        operations=functools.partial(sampling_flops, parts.denoiser, parts.sampling),
        given="",
        identity=identity,
        make=make,
    )


def _cascaded(
    parts: Parts,
    tsr: Parts,
    load: Callable[[], tuple[text.Run, text.Run]],
    settings: dict[str, Any],
    identity: Any,
) -> Generator:
    """Returns a generator that runs both networks of a cascade."""
    cascade.check_pair(parts, tsr)
    count = parts.clip.frames
    windows = cascade.count_windows(tsr, count)

    def make(number, captions, real, on_step):
        options = dict(number=number, batch_size=len(captions), on_step=on_step)
        return cascade.through(load(), captions, **options, **settings).clips

    def operations():
        later = sampling_flops(tsr.denoiser, tsr.sampling, windows)
        return sampling_flops(parts.denoiser, parts.sampling) + later

    return Generator(
        parts=parts,
        dataset=_dense(parts.dataset.of_pixels, tsr, count),
        borders=cascade.find_borders(tsr, count),
        operations=operations,
        given="",
        identity=identity,
        make=make,
    )


def _filled(
    parts: Parts, load: Callable[[], text.Run], settings: dict[str, Any], identity: Any
) -> Generator:
    """Returns a generator that fills in frames between true keyframes of real clips."""
    stride, clip = parts.denoiser.conditioning.keyframe_stride, parts.clip
    source_frames = parts.dataset.cut_from or clip.span
    count = len(range(0, source_frames, stride * clip.stride))

    def make(number, captions, real, on_step):
        options = dict(number=number, batch_size=len(captions), on_step=on_step)
        return cascade.fill(load(), real[:, ::stride], captions, **options, **settings).clips

    windows = cascade.count_windows(parts, count)
    return Generator(
        parts=parts,
        dataset=_dense(parts.dataset, parts, count),
        borders=cascade.find_borders(parts, count),
        operations=functools.partial(sampling_flops, parts.denoiser, parts.sampling, windows),
        given="true keyframes",
        identity=identity,
        make=make,
    )


def _identity(workdir: pathlib.Path, parts: Parts) -> Any:
    """Returns the config, the step and the time of the weights of a run or file, as JSON values."""
    step, is_file = trained.find_step(workdir, parts), workdir.suffix == weights_file.SUFFIX
    made = saved_at(workdir if is_file else place(workdir) / str(step))
    weaker = addresses.local(parts.sampling.autoguidance_from)
    if parts.sampling.autoguidance_scale != 1 and weaker.is_file():
        made = [made, weaker.stat().st_mtime_ns]
    return [json.loads(json.dumps(dataclasses.asdict(parts.config))), step, made]


def _dense(dataset: Dataset, tsr: Parts, keyframes: int) -> Dataset:
    """Returns the data set of clips that the `tsr` network makes from `keyframes` keyframes.

    The clips have every n-th frame of the source, where n is the `data.stride` of the `tsr` run.
    """
    frames = (keyframes - 1) * tsr.denoiser.conditioning.keyframe_stride + 1
    clip = dataclasses.replace(dataset.clip, frames=frames, stride=tsr.clip.stride)
    return dataclasses.replace(dataset, clip=clip)
