"""Enlarges clips of any length (spatial super-resolution), by temporal MultiDiffusion
(`stunet.diffusion.multidiffusion`).

MultiDiffusion denoises overlapping segments of a clip, and averages them where they overlap. The
host's memory holds the whole clip three times: the noisy clip, the estimate of the clean clip in
this step, and the estimate in the step before. The samplers heun and unipc keep one and two more.
Devices see batches of segments, and all batches
have the same shape. Long clips therefore need no more device memory than short ones, and one
compiled program enlarges clips of any length.

The noise of a clip consists of consecutive blocks, each as long as a segment. Block k is the noise
that plain sampling (`make_sampler`) would draw for row k of a batch. A clip of one segment is
therefore the same as with plain sampling, up to float rounding. Rounding differs because plain
sampling compiles each step as one program, and this module compiles it as two.

A network on latents is given latents of the enlarged low-resolution clip. Its segments are averaged
as latents, and the whole clip is decoded at the end, a few frames at a time.
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from stunet.data.spec import make_encoder
from stunet.diffusion import multidiffusion, upscaling
from stunet.diffusion.samplers import SamplerState
from stunet.errors import UserError
from stunet.generate.request import check_seed
from stunet.generate.text import Loader, Run
from stunet.generate.text import load as load_run
from stunet.parallel import mesh as meshes
from stunet.prepare.decode import decode_clips, picture_size
from stunet.progress import OnStep, note, nothing
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.objectives.objective import to_float
from stunet.train.parts import Parts, read_parts
from stunet.train.sampling import (
    SamplerFunctions,
    SamplerSettings,
    later_key,
    make_functions,
    row_keys,
)

# Frames that neighbouring segments share, as in Lumiere.
OVERLAP = 2
# Augmentation level of generated clips, the same as that of a cascade's generated keyframes: an SNR
# of 5, which is a choice.
AUGMENTATION = 0.27


@dataclasses.dataclass(frozen=True)
class Upscaler:
    """A trained super-resolution network, on all devices of this process.

    Attributes:
        parts: parts that the run's config describes, with the settings used for sampling.
        params: averaged (EMA) parameters, on every device; with autoguidance, a
            `stunet.train.sampling.WithWeaker`.
        mesh: the devices, over which batches of segments are split.
        functions: compiled functions from which sampling is made. Here `update` takes one random
            key and one sampler state for each row of a batch.
        checkpoint: number of updates that `params` have had.
    """

    parts: Parts
    params: Any
    mesh: jax.sharding.Mesh
    functions: SamplerFunctions
    checkpoint: int = 0


@dataclasses.dataclass(frozen=True)
class Upscaled:
    """An enlarged clip.

    Attributes:
        clip: the clip, in -1..1.
        segments: the overlapping stretches of frames that were denoised separately.
    """

    clip: Float[np.ndarray, "t h w c"]
    segments: multidiffusion.Segments


def load(workdir: pathlib.Path, *, loader: Loader = load_run, **sample: object) -> Upscaler:
    """Reads the newest checkpoint of a super-resolution run.

    Args:
        workdir: working directory of the run, or a weights file of `stunet export`.
        loader: function that loads the run.
        sample: settings of the config's `sample` that replace the run's own.

    Raises:
        UserError: `workdir` holds no training run, no checkpoint, or a network that does not
            enlarge clips.
    """
    parts = read_parts(workdir, **sample)
    given = parts.denoiser.conditioning
    if given.name != "upscale":
        raise UserError(
            f"{workdir} holds no super-resolution network (upscale.factor is "
            f"{given.upscale_factor}); give the directory of one that was trained with an "
            "upscale.factor, as the experiment lumiere_ssr"
        )
    return make_upscaler(loader(workdir, devices=jax.local_device_count(), **sample))


def make_upscaler(run: Run) -> Upscaler:
    """Makes an upscaler from a loaded run. Programs are compiled when it is first used."""
    functions = run.compiled(_make_programs, run.parts.denoiser, run.parts.sampling)
    return Upscaler(run.parts, run.params, run.mesh, functions, run.checkpoint)


def _make_programs(denoiser: Denoiser, settings: SamplerSettings) -> SamplerFunctions:
    functions = make_functions(denoiser, settings)

    def update(keys, state, x0, i):
        def one(key, state, x0):
            return functions.update(later_key(key), state, x0, i)

        return jax.vmap(one)(keys, state, x0)

    return SamplerFunctions(jax.jit(functions.first), jax.jit(functions.estimate), jax.jit(update))


def check_base(base: Parts, parts: Parts) -> None:
    """Checks that a run makes the clips that a super-resolution run enlarges.

    Args:
        base: parts of the run that makes low-resolution clips.
        parts: parts of the super-resolution run.

    Raises:
        UserError: the sizes, rates or channels of the two runs do not fit together.
    """
    low, clip = base.clip, parts.clip
    factor = parts.denoiser.conditioning.upscale_factor
    made = {key: getattr(low, key) for key in ("height", "width", "channels")}
    asked = dict(height=clip.height // factor, width=clip.width // factor, channels=clip.channels)
    made["frame rate"], asked["frame rate"] = low.frame_rate, clip.frame_rate
    for key, value in asked.items():
        if made[key] != value:
            raise UserError(
                f"the base makes clips whose {key} is {made[key]:g}, and the super-resolution "
                f"network enlarges those whose {key} is {value:g}; train both for the same"
            )


def read_low(file: pathlib.Path, parts: Parts) -> Float[np.ndarray, "t h w c"]:
    """Reads all frames of a video, in -1..1, at the run's frame rate and low resolution.

    A video of the low resolution is read as it is. If the size is a whole multiple, such as the
    run's full resolution, the video is shrunk by averaging blocks of pixels, as in training.

    Raises:
        UserError: there is no such file, it cannot be decoded, it has another size, or its
            timestamps jump.
    """
    clip, factor = parts.clip, parts.denoiser.conditioning.upscale_factor
    rows, columns = clip.height // factor, clip.width // factor
    height, width = picture_size(file)
    times = max(1, height // rows)
    if (height, width) != (times * rows, times * columns):
        raise UserError(
            f"{file} has {height}x{width} pixels (rows x columns), and the run enlarges "
            f"{rows}x{columns} to {clip.height}x{clip.width}; give it a video of {rows}x{columns}, "
            "or of a whole multiple of that, which is shrunk first"
        )
    frames = decode_clips(file, 1, clip.frame_rate, height, width, clip.channels)
    low = np.concatenate([upscaling.shrink(to_float(frame[None]), times)[0] for frame in frames])
    if frames.breaks:
        raise UserError(f"{file} is not one clip: {'; '.join(frames.breaks)}; cut it there")
    for sentence in frames.notes():
        note(f"{file} {sentence}")
    return low


def check_settings(parts: Parts, overlap: int, weights: str, augmentation: float) -> None:
    """Checks the settings of `upscale` before there is a clip, so that mistakes show early.

    Raises:
        UserError: a setting does not suit the run.
    """
    segments = multidiffusion.cover(parts.clip.frames, parts.clip.frames, overlap)
    multidiffusion.frame_weights(segments, weights)
    most = parts.denoiser.conditioning.max_augmentation
    if not 0 <= augmentation <= most:
        raise UserError(
            f"augmentation is {augmentation:g}; the network has learnt 0 to "
            f"{most:g} (upscale.max_augmentation)"
        )


def upscale(
    upscaler: Upscaler,
    low: Float[np.ndarray, "t h w c"],
    prompt: str = "",
    *,
    overlap: int = OVERLAP,
    weights: str = "uniform",
    augmentation: float = 0.0,
    seed: int = 0,
    number: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Upscaled:
    """Enlarges a clip of any length.

    If the clip is shorter than the network's clips, its last frame is repeated. The extra frames
    are cut off after denoising.

    Args:
        upscaler: super-resolution run that `load` has loaded.
        low: low-resolution clip in -1..1.
        prompt: what the clip shows; "" stands for a caption that was dropped in training.
        overlap: frames that neighbouring segments share, from 0 (each segment is sampled by itself)
            to the network's frames - 1.
        weights: how frames that segments share are averaged, a key of `multidiffusion.WEIGHTS`.
        augmentation: noise level of `low` when the network sees it, 0 to the run's
            `upscale.max_augmentation`. 0 suits real clips. All segments see the same noise.
        seed: seed of the noise.
        number: number of the clip. Clips with the same seed but different numbers have different
            noise.
        batch_size: segments sampled at once, rounded up to a multiple of the devices; None samples
            one on each device. It only changes memory and speed.
        on_step: called with the number of finished batches of segments and the number of all
            batches, over all steps, and with the clip `[1, t, h, w, c]` as the last finished step
            estimates it (zeros before the first).

    Raises:
        UserError: the clip, the overlap, the weights or the augmentation do not suit the run, or
            the seed is out of range.
    """
    check_seed(seed)
    low, parts = np.asarray(low, np.float32), upscaler.parts
    check_settings(parts, overlap, weights, augmentation)
    _check_clip(parts, low)
    parts.space.load()
    segments = multidiffusion.cover(max(len(low), parts.clip.frames), parts.clip.frames, overlap)
    share = multidiffusion.normalise_weights(
        segments, multidiffusion.frame_weights(segments, weights)
    )
    clip = _denoise(
        upscaler, low, prompt, segments, share, augmentation, seed, number, batch_size, on_step
    )
    return Upscaled(parts.space.to_frames(clip[None])[0], segments)


def _denoise(
    upscaler: Upscaler,
    low: Float[np.ndarray, "t h w c"],
    prompt: str,
    segments: multidiffusion.Segments,
    share: Float[np.ndarray, "n l"],
    augmentation: float,
    seed: int,
    number: int,
    batch_size: int | None,
    on_step: OnStep,
) -> Float[np.ndarray, "t y x z"]:
    """Returns the clip, pixels or latents, that the network makes of a low-resolution clip.

    `upscale` describes the arguments. `share` is the weight of each frame of each segment in the
    average (`multidiffusion.normalise_weights`).
    """
    parts, functions = upscaler.parts, upscaler.functions
    shape, steps, devices = parts.denoiser.clip, parts.sampling.steps, upscaler.mesh.size
    factor, frames = parts.denoiser.conditioning.upscale_factor, len(low)
    starts = np.asarray(segments.starts)
    size = -(-(batch_size or devices) // devices) * devices
    blocks = -(-segments.frames // shape.frames)
    total = steps * -(-len(starts) // size)
    sharding = meshes.batch_sharding(upscaler.mesh)

    def put(rows: np.ndarray) -> jax.Array:
        return jax.device_put(rows, sharding)

    def keys_of(rows: np.ndarray) -> jax.Array:
        return row_keys(seed, number * blocks + rows)

    def in_blocks(clip: np.ndarray) -> np.ndarray:
        return clip.reshape(blocks, shape.frames, *clip.shape[1:])

    # Whole blocks, so that all have the same shape; no segment lies beyond the last one.
    extra = blocks * shape.frames - frames
    low = np.pad(low, ((0, extra), (0, 0), (0, 0), (0, 0)), mode="edge")
    x = np.zeros((len(low), *shape.frame_shape), np.float32)
    before, average = np.zeros_like(x), np.zeros_like(x)
    with meshes.use(upscaler.mesh):
        text, mask = (
            put(a.repeat(size, axis=0)) for a in make_encoder(parts.denoiser.text)([prompt])
        )
        level = put(np.full(size, augmentation, np.float32))
        corrupted = []
        for rows, count in _batches(blocks, size):
            clean = put(parts.space.from_low(in_blocks(low)[rows], factor))
            state, (seen, _) = functions.first(keys_of(rows), clean, augmentation)
            in_blocks(x)[rows[:count]] = np.asarray(state.x)[:count]
            corrupted.append(np.array(seen)[:count])  # A copy, which frees that of the devices.
        given = np.concatenate([block for batch in corrupted for block in batch])
        del corrupted
        # Only some samplers keep further arrays.
        kept = [np.zeros_like(x) for _ in state.kept]
        done = 0
        for i in range(steps):
            average[:] = 0
            for rows, count in _batches(len(starts), size):
                places = starts[rows][:, None] + np.arange(shape.frames)
                x0 = functions.estimate(
                    upscaler.params, text, mask, (put(given[places]), level), put(x[places]), i
                )
                multidiffusion.add(
                    average, np.asarray(x0)[:count], starts[rows[:count]], share[rows[:count]]
                )
                done += 1
                on_step(done, total, parts.space.estimate(before[None, :frames]))
            for rows, count in _batches(blocks, size):
                state = SamplerState(
                    *(put(in_blocks(part)[rows]) for part in (x, before)),
                    kept=tuple(put(in_blocks(part)[rows]) for part in kept),
                )
                x0 = put(in_blocks(average)[rows])
                after = functions.update(keys_of(rows), state, x0, i)
                for part, new in zip((x, *kept), (after.x, *after.kept), strict=True):
                    in_blocks(part)[rows[:count]] = np.asarray(new)[:count]
            before, average = average, before
    return before[:frames]


def _check_clip(parts: Parts, low: np.ndarray) -> None:
    clip, factor = parts.clip, parts.denoiser.conditioning.upscale_factor
    asked = (clip.height // factor, clip.width // factor, clip.channels)
    if low.ndim != 4 or not len(low) or low.shape[1:] != asked:
        raise UserError(
            f"the clip is {'x'.join(map(str, low.shape))}, and the run enlarges frames of "
            f"{'x'.join(map(str, asked))} (rows, columns, channels)"
        )


def _batches(count: int, size: int) -> Iterator[tuple[np.ndarray, int]]:
    """Splits rows 0..count - 1 into batches of `size` rows.

    Yields the indices of the rows in each batch, and how many of these rows are not copies.

    The last batch is filled up with copies of its rows, so that all batches have the same shape and
    nothing is compiled again.
    """
    for start in range(0, count, size):
        rows = np.arange(start, min(start + size, count))
        yield np.resize(rows, size), len(rows)
