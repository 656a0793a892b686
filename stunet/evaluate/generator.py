"""Clips of a trained run for captions, a batch at a time: of one network, of a cascade, or filled
in between true keyframes."""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stunet import configs
from stunet.errors import UserError
from stunet.generate import cascade, text
from stunet.train.checkpoints import Checkpoints
from stunet.train.conditioning import kind
from stunet.train.flops import sampling_flops

OnStep = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True)
class Generator:
    """What makes clips.

    Attributes:
        config: of the run.
        whole: the config of the clips that it makes in the end.
        borders: frames in which two windows of a cascade meet.
        operations: of sampling one clip.
        given: what it is given of the real clips, as "true keyframes"; "": nothing.
        identity: what the clips depend on, but for their captions and what they are given: JSON.
        make: (number of the first clip, captions, real clips of these captions, on_step) -> clips
            in -1..1. Weights are read when it is first called.
    """

    config: configs.Config
    whole: configs.Config
    borders: tuple[int, ...]
    operations: int
    given: str
    identity: Any
    make: Callable[[int, Sequence[str], np.ndarray | None, OnStep], np.ndarray]


def make_generator(
    workdir: pathlib.Path,
    *,
    tsr: pathlib.Path | None = None,
    augmentation: float | None = None,
    seed: int = 0,
    **sample: object,
) -> Generator:
    """The newest checkpoint's averaged weights, on all devices of this machine.

    Arguments and errors as `run.evaluate`.
    """
    config = text.load_config(workdir, **sample)
    runs = {workdir: config} | ({tsr: text.load_config(tsr, **sample)} if tsr else {})
    settings = dict(seed=seed, augmentation=augmentation)
    identity = [settings, *(_identity(place, config) for place, config in runs.items())]
    common = dict(config=config, identity=identity)
    devices = jax.local_device_count()
    if tsr or kind(config) == "tsr":
        if tsr:
            parts = _cascaded(config, runs[tsr], workdir, tsr, devices, settings, sample)
        else:
            parts = _filled(config, workdir, devices, settings, sample)
        given = "" if tsr else "true keyframes"
        return Generator(given=given, **parts, **common)
    if augmentation is not None:
        raise UserError(
            "--augmentation is the noise level of the keyframes of a cascade; give --tsr too"
        )
    text.check_unconditioned(workdir, config)
    load = functools.cache(lambda: text.load(workdir, devices=devices, **sample))

    def make(number, captions, real, on_step):
        return text.sample_clips(load(), captions, seed=seed, number=number, on_step=on_step)

    return Generator(
        whole=config,
        borders=(),
        operations=sampling_flops(config),
        given="",
        make=make,
        **common,
    )


def _cascaded(config, tsr_config, workdir, tsr, devices, settings, sample) -> dict[str, Any]:
    cascade.check_pair(config, tsr_config)
    windows = cascade.count_windows(tsr_config, config.data.frames)
    load = functools.cache(lambda: cascade.load_pair(workdir, tsr, devices=devices, **sample))

    def make(number, captions, real, on_step):
        options = dict(number=number, batch_size=len(captions), on_step=on_step)
        return cascade.through(load(), captions, **options, **settings).clips

    return dict(
        whole=_of_whole_clips(config, tsr_config, config.data.frames),
        borders=cascade.find_borders(tsr_config, config.data.frames),
        operations=sampling_flops(config) + sampling_flops(tsr_config, windows),
        make=make,
    )


def _filled(config, workdir, devices, settings, sample) -> dict[str, Any]:
    source_frames = config.data.cut_from or configs.clip_span(config.data)
    count = len(range(0, source_frames, config.tsr.stride * config.data.stride))
    load = functools.cache(lambda: text.load(workdir, devices=devices, **sample))
    # True keyframes are not augmented unless it is asked.
    settings = settings | {"augmentation": settings["augmentation"] or 0.0}

    def make(number, captions, real, on_step):
        options = dict(number=number, batch_size=len(captions), on_step=on_step)
        keyframes = real[:, :: config.tsr.stride]
        return cascade.fill(load(), keyframes, captions, **options, **settings).clips

    return dict(
        whole=_of_whole_clips(config, config, count),
        borders=cascade.find_borders(config, count),
        operations=sampling_flops(config, cascade.count_windows(config, count)),
        make=make,
    )


def _identity(workdir: pathlib.Path, config: configs.Config) -> Any:
    """Of a run's clips: what it was trained and is sampled by, and when its checkpoint was made."""
    with Checkpoints(workdir) as checkpoints:
        step = checkpoints.latest()
        if step is None:
            raise UserError(f"no checkpoint in {checkpoints.directory}; train first")
        made = (checkpoints.directory / str(step)).stat().st_mtime_ns
    return [json.loads(json.dumps(dataclasses.asdict(config))), step, made]


def _of_whole_clips(config: configs.Config, tsr: configs.Config, keyframes: int) -> configs.Config:
    """The config of the clips that the `tsr` network makes of so many keyframes: they have every
    `data.stride`-th frame of the source, as its windows have."""
    frames = (keyframes - 1) * tsr.tsr.stride + 1
    data = dataclasses.replace(config.data, frames=frames, stride=tsr.data.stride)
    return dataclasses.replace(config, data=data)
