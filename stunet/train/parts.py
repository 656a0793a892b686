"""Turns the config into the objects and settings that training and sampling use.

Only this module reads the config's keys. Other modules take these objects (`Parts`), and use
the whole config (`Parts.config`) only to compare or write it.
"""

import dataclasses
import functools
import inspect
import math
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from stunet import configs
from stunet.configs.schema import Config, Data, Mesh, all_sources, level_channels, level_layers
from stunet.data.mixtures import Bucket, Ingredient, sort_into_buckets
from stunet.data.sources import Dataset, autoencoder_fingerprint, stored_fingerprint
from stunet.data.spec import AutoencoderSpec, ClipSpec, TextSpec, make_encoder
from stunet.diffusion.distillation import Distillation
from stunet.diffusion.schedules import NoiseSchedule
from stunet.diffusion.times import Times
from stunet.errors import UserError
from stunet.nn.autoencoder.kl import KlConfig, describe_kl
from stunet.nn.stunet import STUNet
from stunet.parallel.mesh import Layout
from stunet.train.events import Events
from stunet.train.measured.evaluation import EvaluationSettings
from stunet.train.measured.preview import Preview, Samples
from stunet.train.objectives import conditioning
from stunet.train.objectives.conditioning import Conditioning
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.objectives.denoising import Denoising
from stunet.train.objectives.objective import Model, Objective
from stunet.train.objectives.reconstruction import Compressor, Reconstruction, Reconstructions
from stunet.train.objectives.spaces import Latents, Pixels, Space
from stunet.train.optim.guard import Guard
from stunet.train.optim.optimizer import Optimizer, make_optimizer
from stunet.train.optim.trainable import Trainable
from stunet.train.sampling import SamplerSettings
from stunet.train.saved import weights_file
from stunet.train.saved.retention import Retention

# Sampling steps of a network that is not distilled, if the config names none.
_STEPS = 50


@dataclasses.dataclass(frozen=True)
class Parts:
    """Holds the objects and settings that one config asks for.

    Attributes:
        space: what the network's clips are made of, pixels or latents.
        objective: the network, and what it learns.
        optimizer: optimiser, its learning rate, the running average of the weights, and the guard
            that skips updates.
        dataset: where held-out clips come from: the main source.
        buckets: the sources of training clips, sorted by the shape of their clips.
        layout: how devices are arranged in a mesh.
        events: when the run reports, saves, validates, samples and traces.
        sampling: how clips are sampled.
        preview: what the run shows while it trains.
        seed: seed of everything random.
        init_from: working directory or weights file with the weights that the run begins with; ""
            for fresh weights.
        batch_size: clips in an update, over all hosts, if they have the main source's shape.
        accumulate: number of equal parts of a batch that are computed one after the other.
        norms_by_layer: True if the metrics of an update have norms of each layer.
        skip_limit: largest number of updates in a row that may be skipped.
        watchdog_seconds: seconds without progress after which the run ends; 0 for never.
        num_threads: number of threads in each process that read clips ahead of use.
        retention: says which checkpoints stay.
        validation_clips: number of held-out clips in a validation.
        preview_clips: number of clips that a preview shows.
        trackers: names of the programs that show the run.
        evaluation: what the run measures of sampled clips while it trains.
        checkpoint: checkpoint that sampling reads: "newest", "best" or a number of updates.
        config: the whole config, to compare it or to write it.
    """

    space: Space
    objective: Objective
    optimizer: Optimizer
    dataset: Dataset
    buckets: tuple[Bucket, ...]
    layout: Layout
    events: Events
    sampling: SamplerSettings
    preview: Preview
    seed: int
    init_from: str
    batch_size: int
    accumulate: int
    norms_by_layer: bool
    skip_limit: int
    watchdog_seconds: float
    num_threads: int
    retention: Retention
    validation_clips: int
    preview_clips: int
    trackers: tuple[str, ...]
    evaluation: EvaluationSettings
    checkpoint: str
    config: configs.Experiment

    @property
    def model(self) -> Model:
        """Returns the network that is trained, and what is needed to call it."""
        return self.objective.model

    @property
    def trains_autoencoder(self) -> bool:
        """Tells whether the network is an autoencoder, which makes no clips."""
        return isinstance(self.model, Compressor)

    @property
    def denoiser(self) -> Denoiser:
        """Returns the network that is trained, with its conditioning and noise schedule.

        Raises:
            UserError: the run trains an autoencoder.
        """
        if self.trains_autoencoder:
            raise UserError(
                "autoencoder.level_features is set, so this is the training of an autoencoder, "
                "which makes no clips; write it with `stunet export --format autoencoder`, and "
                "train a network on its latents"
            )
        return self.model

    @property
    def clip(self) -> ClipSpec:
        """Returns the shape and rate of the clips of frames that the run makes."""
        return self.dataset.clip

    @property
    def sources(self) -> tuple[Ingredient, ...]:
        """Returns the sources of training clips, in the order in which they are numbered."""
        return tuple(of for bucket in self.buckets for of in bucket.mixture)

    def only(self, bucket: Bucket) -> "Parts":
        """Returns the parts as if one bucket's shape were that of all clips."""
        objective = self.objective.with_clip(self.space.clip(bucket.clip))
        return dataclasses.replace(self, objective=objective, batch_size=bucket.batch_size)


@functools.lru_cache(maxsize=16)
def make_parts(config: Config) -> Parts:
    """Makes the objects and settings that a config asks for. Reads no file and computes nothing.

    Equal configs give the same `Parts`, so that functions compiled for them are used again.
    """
    objective, preview = (_reconstruction if config.autoencoder.level_features else _denoising)(
        config
    )
    mixture = [
        Ingredient(name, data.weight, _dataset(config, data), data.clips_per_update)
        for name, data in all_sources(config.data).items()
        if data.weight
    ]
    dataset = _dataset(config, config.data)
    return Parts(
        space=_space(config),
        objective=objective,
        optimizer=_optimizer(config),
        dataset=dataset,
        buckets=sort_into_buckets(mixture, dataset.clip, config.train.batch_size),
        layout=Layout(**_shared(config.mesh, Layout)),
        events=Events(
            steps=config.train.steps,
            report_every=config.log.every,
            save_every=config.checkpoint.every,
            save_seconds=60 * config.checkpoint.every_minutes,
            validate_every=config.log.validate_every,
            preview_every=config.log.sample_every,
            snapshot_every=config.train.ema_snapshots,
            evaluate_every=config.evaluate.every,
            trace=range(config.profile.start, config.profile.start + config.profile.steps),
        ),
        sampling=_sampling(config),
        preview=preview,
        seed=config.seed,
        init_from=config.train.init_from,
        batch_size=config.train.batch_size,
        accumulate=config.train.accumulate,
        norms_by_layer=config.log.norms_by_layer,
        skip_limit=config.train.skip_limit,
        watchdog_seconds=config.train.watchdog_seconds,
        num_threads=config.data.num_threads,
        retention=Retention(
            latest=config.checkpoint.keep,
            every=config.checkpoint.keep_every,
            best=config.checkpoint.keep_best,
            highest=config.checkpoint.best_is == "highest",
        ),
        validation_clips=config.log.validate_clips,
        preview_clips=config.sample.num,
        trackers=config.log.trackers,
        evaluation=EvaluationSettings(config.evaluate.metrics, config.evaluate.num),
        checkpoint=config.sample.checkpoint,
        config=config,
    )


def bucket_configs(config: Config) -> dict[str, Config]:
    """Returns the config of a run on each bucket alone, by the bucket's name.

    Its main source is the first one of the bucket. It has the bucket's batches, and as many updates
    as the bucket has in the whole run. A run with a single bucket has its own config.
    """
    buckets, sources = make_parts(config).buckets, all_sources(config.data)
    if len(buckets) == 1:
        return {buckets[0].name: config}
    total, alone = math.fsum(bucket.weight for bucket in buckets), {}
    for bucket in buckets:
        steps = max(1, round(config.train.steps * bucket.weight / total))
        train = dataclasses.replace(config.train, batch_size=bucket.batch_size, steps=steps)
        data = dataclasses.replace(sources[bucket.mixture[0].name], clips_per_update=0)
        alone[bucket.name] = dataclasses.replace(config, data=data, train=train)
    return alone


def read_parts(workdir: pathlib.Path, *, autoencoder: str = "", **sample: object) -> Parts:
    """Returns the network and settings of the training run in `workdir`, to sample from it.

    Args:
        workdir: working directory of the run, or a weights file of `stunet export`, which holds the
            run's config.
        autoencoder: directory of the run's autoencoder, if it is not where the config says; "" for
            there. It has no effect on a run on pixels.
        sample: settings that replace those in the `sample` group of the run's config.

    Raises:
        UserError: `workdir` holds no training run, the file holds no config, or a setting is out of
            range.
    """
    # On one device, whatever the run was trained on: a few clips do not split over many.
    config = dataclasses.replace(_read_config(workdir), mesh=Mesh(data=1))
    config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, **sample))
    if autoencoder and config.autoencoder.path:
        config = configs.replace(config, {"autoencoder.path": autoencoder})
    return make_parts(configs.resolve(dataclasses.asdict(config)))


def _read_config(place: pathlib.Path) -> Config:
    """Reads the config of a run, or the config that a weights file holds."""
    if place.suffix == weights_file.SUFFIX and place.is_file():
        if config := weights_file.read_header(place).config:
            # Adapters were merged when the file was written, and a checkpoint was chosen.
            return configs.replace(configs.reset(config, "lora"), {"sample.checkpoint": "newest"})
        raise UserError(
            f"{place} holds weights without their config; take a file of `stunet export --format "
            "safetensors`"
        )
    file = place / "config.json"
    if not file.is_file():
        raise UserError(f"{place} holds no training run: there is no config.json in it")
    return configs.read(file)


def with_fingerprint(config: Config) -> Config:
    """Returns the config with the fingerprints of its text encoder and autoencoder filled in.

    A fingerprint keeps a run from continuing with another encoder than it began with. If the
    training data hold text states or latents, it is read from the data. Otherwise the fingerprint
    of the text encoder is computed from the encoder.

    Raises:
        UserError: the fingerprint must be computed, but the encoder cannot be made, or the data
            hold no latents of the autoencoder.
    """
    text, autoencoder = config.text, config.autoencoder
    if text.fingerprint and (autoencoder.fingerprint or not autoencoder.path):
        return config
    configs.check_data(config)
    parts = make_parts(config)
    datasets = [parts.dataset, *(of.dataset for of in parts.sources)]
    if autoencoder.path and not autoencoder.fingerprint:
        found = autoencoder_fingerprint(parts.dataset)
        autoencoder = dataclasses.replace(autoencoder, fingerprint=found)
    if not text.fingerprint:
        stored = next(filter(None, map(stored_fingerprint, datasets)), "")
        found = stored or make_encoder(parts.dataset.text).fingerprint
        text = dataclasses.replace(text, fingerprint=found)
    return dataclasses.replace(config, text=text, autoencoder=autoencoder)


def _dataset(config: Config, data: Data) -> Dataset:
    """Returns where the clips of a source come from, which `data` describes."""
    return Dataset(
        source=data.source,
        clip=ClipSpec(**_shared(data, ClipSpec)),
        text=TextSpec(**_shared(config.text, TextSpec)),
        seed=config.seed,
        options=_SOURCE_OPTIONS.get(data.source, _own_options)(data),
        autoencoder=_autoencoder(config),
        cut_from=data.cut_from,
        num_clips=data.num_clips,
        low_factor=config.upscale.factor if config.autoencoder.path else 1,
    )


def _optimizer(config: Config) -> Optimizer:
    guard = Guard(
        skip_nonfinite=config.train.on_nonfinite == "skip", spikes=config.train.skip_spikes
    )
    made = make_optimizer(**_shared(config.train, make_optimizer))
    return dataclasses.replace(
        made,
        guard=guard,
        keeps_power_ema=config.train.ema_snapshots > 0,
        keeps_teacher=config.distil.steps > 0,
    )


def _sampling(config: Config) -> SamplerSettings:
    steps = config.sample.steps or config.distil.steps or _STEPS
    return SamplerSettings(**_shared(config.sample, SamplerSettings) | dict(steps=steps))


def _reconstruction(config: Config) -> tuple[Reconstruction, Reconstructions]:
    """Returns what an autoencoder learns, and what it shows while it trains."""
    of, clip = config.autoencoder, ClipSpec(**_shared(config.data, ClipSpec))
    described = KlConfig(
        in_channels=clip.channels,
        out_channels=clip.channels,
        block_out_channels=of.level_features,
        layers_per_block=of.layers_per_level,
        latent_channels=of.channels,
        norm_num_groups=of.groups,
        sample_size=max(clip.height, clip.width),
        scaling_factor=1.0,
    )
    compressor = Compressor(describe_kl(described), clip)
    return Reconstruction(compressor, of.error, of.kl_weight), Reconstructions(compressor)


def _denoising(config: Config) -> tuple[Denoising, Samples]:
    """Returns what a network that denoises learns, and what it shows while it trains."""
    diffusion = config.diffusion
    times = Times(
        sampling=diffusion.time_sampling,
        mean=diffusion.time_mean,
        std=diffusion.time_std,
        reference=diffusion.time_reference,
        corrected=diffusion.time_correction,
    )
    distil = config.distil
    distillation = Distillation(**_shared(distil, Distillation)) if distil.steps else None
    denoising = Denoising(
        _denoiser(config),
        **_shared(diffusion, Denoising),
        times=times,
        held_out_times=config.log.validate_times,
        distillation=distillation,
    )
    shown = Samples(denoising.denoiser, _space(config), _sampling(config), config.seed)
    return denoising, shown


def _denoiser(config: Config) -> Denoiser:
    given = _conditioning(config)
    return Denoiser(
        network=_network(config),
        conditioning=given,
        schedule=NoiseSchedule(
            name=config.diffusion.schedule,
            **_shared(config.diffusion, NoiseSchedule),
        ),
        prediction=config.diffusion.prediction,
        clip=_network_clip(config),
        text=TextSpec(**_shared(config.text, TextSpec)),
        trainable=Trainable(
            freeze_spatial=config.freeze == "spatial",
            lora_rank=config.lora.rank,
            lora_alpha=config.lora.alpha,
            train_input=given.name != "none",
            frozen_dtype=config.model.dtype,
        ),
        input_scale=config.diffusion.input_scale,
    )


def _autoencoder(config: Config) -> AutoencoderSpec | None:
    """Returns the autoencoder whose latents the network denoises; None for pixels."""
    of = config.autoencoder
    return AutoencoderSpec(**_shared(of, AutoencoderSpec)) if of.path else None


def _space(config: Config) -> Space:
    autoencoder = _autoencoder(config)
    return Latents(autoencoder) if autoencoder else Pixels()


def _network_clip(config: Config) -> ClipSpec:
    """Returns the shape and rate of the clips that the network sees."""
    return _space(config).clip(ClipSpec(**_shared(config.data, ClipSpec)))


def _network(config: Config) -> STUNet:
    """Makes the network. Keys of `model` that are fields of `STUNet` are passed as they are."""
    model = config.model
    variance = 2 if model.learned_variance else 1
    different = dict(
        channels=level_channels(model),
        layers_per_level=level_layers(model),
        temporal_factors=model.temporal_factors if model.temporal else None,
        out_channels=_network_clip(config).channels * variance,
        pixels=config.autoencoder.factor if config.autoencoder.path else 1,
        dtype=jnp.dtype(model.dtype),
    )
    return STUNet(**_shared(model, STUNet) | different)


def _conditioning(config: Config) -> Conditioning:
    """Returns the conditioning that the config asks for. A config asks for one kind at most."""
    upscale, tsr, shares = config.upscale, config.tsr, dataclasses.asdict(config.masks)
    if upscale.factor > 1:
        of_latents = bool(config.autoencoder.path)
        enlarging = (
            conditioning.on_low_resolution_latents if of_latents else conditioning.on_low_resolution
        )
        return enlarging(upscale.factor, upscale.max_augmentation)
    if tsr.stride > 1:
        return conditioning.on_keyframes(tsr.stride, tsr.max_augmentation)
    if any(shares.values()):
        return conditioning.on_masks(shares)
    return conditioning.captions_only()


def _shared(group: Any, taker: Callable[..., Any]) -> dict[str, Any]:
    """Returns the keys of a config group that are also parameters of `taker`, with their values."""
    names = inspect.signature(taker).parameters
    fields = (field.name for field in dataclasses.fields(group))
    return {name: getattr(group, name) for name in fields if name in names}


def _own_options(data) -> dict[str, Any]:
    """Returns the options of a source that the user wrote."""
    return dict(path=data.path)


# Kind of source -> its options, which `stunet.data.sources.SOURCES` takes.
_SOURCE_OPTIONS = {
    "moving_digits": lambda data: dict(
        digit_size=data.digit_size,
        num_digits=data.num_digits,
        styles=data.digit_styles,
        speed_factor=data.speed,
        path=data.path,
        look=data.look,
        trail=data.trail,
    ),
    "motions": lambda data: dict(
        motion=data.motion,
        size=data.object_size,
        speed=data.speed,
        period=data.period,
        spread=data.speed_spread,
        octaves=data.speed_octaves,
        caption_speed=data.caption_speed,
    ),
    "clips": lambda data: dict(
        path=data.path, crop=data.crop, max_crop=data.max_crop, mirror=data.mirror
    ),
}
