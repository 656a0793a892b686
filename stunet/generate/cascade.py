"""Samples with the keyframe cascade: keyframes from prompts, then the frames between them.

The cascade is the baseline with which Lumiere's single pass is compared. The keyframes come from an
ordinary text-to-video network, which was trained on clips that are sub-sampled in time
(`data.stride`). A temporal super-resolution (TSR) network (`tsr.stride`,
`stunet.diffusion.keyframes`) makes the other frames. To do so, it samples the clip in windows. Each
window is as long as the clips that the TSR network was trained on. A window may hold any number of
keyframes from two to all of them. With two, this is the cascade of Imagen Video (arXiv 2210.02303)
and Make-A-Video (arXiv 2209.14792). With all of them, one window is the whole clip.

Each window is sampled from its own noise, independently of all other windows, even in the same
batch. Neighbouring windows share a keyframe, which the network is given for both. The given
keyframes replace the network's output in their frames, so both windows have the same frame there.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError
from stunet.generate.text import (
    Loader,
    Run,
    load,
    load_unconditioned,
    sample_clips,
    text_to_video,
)
from stunet.progress import OnStep, nothing
from stunet.train.parts import Parts, read_parts

# Augmentation level of generated keyframes: an SNR of 5, fixed as in Imagen Video (section 2.5).
AUGMENTATION = 0.27


@dataclasses.dataclass(frozen=True)
class Cascaded:
    """Clips whose frames were filled in between keyframes.

    Attributes:
        clips: clips in -1..1; frames 0, stride, 2 stride, ... are the keyframes themselves.
        keyframes: the keyframes that the network was given, in -1..1.
        stride: frames from one keyframe to the next.
        borders: indices of the frames in which two windows meet, ascending. A window is a stretch
            of frames that the network samples at once. Empty if one window is the whole clip.
        parts: parts of the temporal super-resolution run, with the settings used for sampling.
        augmentation: noise level of the keyframes when the network saw them.
        checkpoints: number of updates of each network that was used, the keyframe network first.
    """

    clips: Float[np.ndarray, "n t h w c"]
    keyframes: Float[np.ndarray, "n k h w c"]
    stride: int
    borders: tuple[int, ...]
    parts: Parts
    augmentation: float
    checkpoints: tuple[int, ...]


def keyframes(
    workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
    **sample: object,
) -> tuple[Float[np.ndarray, "n k h w c"], Parts]:
    """Samples keyframes for each prompt with a text-to-video run whose `data.stride` is above 1.

    Arguments, results and errors are those of `text.text_to_video`.
    """
    return text_to_video(
        workdir, prompts, seed=seed, batch_size=batch_size, on_step=on_step, **sample
    )


def fill(
    run: Run,
    keyframes: Float[np.ndarray, "n k h w c"],
    prompts: Sequence[str],
    *,
    augmentation: float = 0.0,
    seed: int = 0,
    number: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Cascaded:
    """Makes the frames between keyframes. The keyframes may be generated or from real clips.

    Args:
        run: temporal super-resolution run (`text.load`).
        keyframes: keyframes in -1..1, at least two for each clip, `tsr.stride` frames apart.
        prompts: one prompt for each clip.
        augmentation: noise level of the keyframes when the network sees them, 0 to the run's
            `tsr.max_augmentation`. Use 0 for real keyframes, and `AUGMENTATION` for generated ones.
        seed: seed of the noise. A clip depends only on the seed, the clip's number and the
            settings.
        number: number of the first clip. The other clips have the next numbers.
        batch_size: windows (parts of clips) sampled at once; None samples all at once.
        on_step: called with the number of steps done, the number of all steps and the estimate of
            the windows.

    Raises:
        UserError: the run is no temporal super-resolution run, or the keyframes, the prompts or the
            augmentation do not suit it.
    """
    keyframes, parts = np.asarray(keyframes, np.float32), run.parts
    stride = _check_tsr(parts, "the run")
    clip, count = parts.clip, keyframes.shape[1]
    windows = count_windows(parts, count)
    if keyframes.shape[2:] != clip.frame_shape:
        raise UserError(
            f"keyframes are {'x'.join(map(str, keyframes.shape[2:]))} (rows, columns, channels), "
            f"and the run fills in {clip.height}x{clip.width}x{clip.channels}"
        )
    if len(prompts) != len(keyframes):
        raise UserError(f"there are {len(prompts)} prompts for the keyframes of {len(keyframes)}")
    check_augmentation(parts, augmentation)
    filled = sample_clips(
        run,
        [prompt for prompt in prompts for _ in range(windows)],
        split(parts.space.from_frames(keyframes), windows),
        level=augmentation,
        seed=seed,
        number=number * windows,
        batch_size=batch_size,
        on_step=on_step,
    )
    clips = join(filled, windows)
    clips[:, ::stride] = keyframes
    borders = find_borders(parts, count)
    return Cascaded(clips, keyframes, stride, borders, parts, augmentation, (run.checkpoint,))


def cascade(
    keyframes_workdir: pathlib.Path,
    tsr_workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    loader: Loader = load,
    augmentation: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
    **sample: object,
) -> Cascaded:
    """Samples keyframes for each prompt with one network, and the other frames with a second one.

    Args:
        keyframes_workdir: working directory of a run with a `data.stride` above 1.
        tsr_workdir: working directory of a run with a `tsr.stride` above 1.
        prompts: captions like those that the runs were trained on.
        loader: function that loads a run.
        augmentation: noise level of the keyframes when the second network sees them. None means
            `AUGMENTATION`, but at most the highest level that the second network was trained at.
        seed: seed of the noise. Clip i depends only on the seed, on i and on the settings.
        batch_size: how many clips the first network, and how many windows the second network,
            samples at once; None samples all at once.
        on_step: called with the number of steps done and the number of all steps, over both
            networks, and with the estimate of the keyframes or of the windows.
        sample: settings of the config's `sample` that replace the runs' own.

    Raises:
        UserError: a directory holds no run or no checkpoint, the runs do not go together, or the
            augmentation or the seed is out of range.
    """
    pair = load_pair(keyframes_workdir, tsr_workdir, loader=loader, **sample)
    return through(
        pair, prompts, augmentation=augmentation, seed=seed, batch_size=batch_size, on_step=on_step
    )


def load_pair(
    keyframes_workdir: pathlib.Path,
    tsr_workdir: pathlib.Path,
    *,
    loader: Loader = load,
    devices: int = 1,
    **sample: object,
) -> tuple[Run, Run]:
    """Loads the two runs of `cascade` with `loader`, on `devices` devices.

    Raises:
        UserError: as for `cascade`.
    """
    check_pair(read_parts(keyframes_workdir), read_parts(tsr_workdir))
    options = dict(devices=devices, **sample)
    first = load_unconditioned(keyframes_workdir, loader=loader, **options)
    return first, loader(tsr_workdir, **options)


def through(
    pair: tuple[Run, Run],
    prompts: Sequence[str],
    *,
    augmentation: float | None = None,
    seed: int = 0,
    number: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
) -> Cascaded:
    """Samples one clip for each prompt, through two networks that `load_pair` has loaded.

    Args:
        pair: the run that makes keyframes, and the temporal super-resolution run.
        number: number of the first clip; see `fill`.
        prompts: see `cascade`.
        augmentation: see `cascade`.
        seed: see `cascade`.
        batch_size: see `cascade`.
        on_step: see `cascade`.
    """
    first, run = pair
    if augmentation is None:
        augmentation = min(AUGMENTATION, run.parts.denoiser.conditioning.max_augmentation)
    check_augmentation(run.parts, augmentation)  # Before the keyframes, which take long.
    before = 0
    filling = len(prompts) * count_windows(run.parts, first.parts.clip.frames)
    later = run.parts.sampling.steps * math.ceil(filling / (batch_size or filling))

    def keyframes_step(done: int, total: int, clips: Any) -> None:
        nonlocal before
        before = total
        on_step(done, total + later, clips)

    given = sample_clips(
        first, prompts, seed=seed, number=number, batch_size=batch_size, on_step=keyframes_step
    )
    filled = fill(
        run,
        given,
        prompts,
        augmentation=augmentation,
        seed=later_seed(seed),
        number=number,
        batch_size=batch_size,
        on_step=lambda done, total, clips: on_step(before + done, before + total, clips),
    )
    return dataclasses.replace(filled, checkpoints=(first.checkpoint, *filled.checkpoints))


def check_pair(keyframes: Parts, tsr: Parts) -> None:
    """Checks that one run makes the keyframes between which the other run fills in frames.

    Args:
        keyframes: parts of the run that makes keyframes.
        tsr: parts of the temporal super-resolution run.

    Raises:
        UserError: the runs do not match in stride, number of frames, size, rate or text encoder.
    """
    first, second = keyframes.clip, tsr.clip
    stride = _check_tsr(tsr, "the run given as --tsr") * second.stride
    if first.stride != stride:
        raise UserError(
            f"keyframes are {first.stride} frames apart (data.stride) and are filled in "
            f"when {stride} apart (tsr.stride); train both with the same stride"
        )
    count_windows(tsr, first.frames)
    for key in ("height", "width", "channels", "fps"):
        ours, theirs = getattr(first, key), getattr(second, key)
        if ours != theirs:
            raise UserError(
                f"data.{key} is {ours:g} of the keyframes and {theirs:g} of the network that fills "
                "in between them; train both with the same"
            )
    ours, theirs = keyframes.denoiser.text, tsr.denoiser.text
    if not ours.matches(theirs):
        raise UserError(
            f"the keyframes' text encoder is {dataclasses.asdict(ours)} and that of the "
            f"network that fills in between them {dataclasses.asdict(theirs)}; train both "
            "with the same"
        )


def check_augmentation(tsr: Parts, augmentation: float) -> None:
    """Checks that a temporal super-resolution network was trained at an augmentation level.

    Raises:
        UserError: the level is outside the range of the training.
    """
    most = tsr.denoiser.conditioning.max_augmentation
    if not 0 <= augmentation <= most:
        raise UserError(
            f"augmentation is {augmentation:g}; the network has learnt 0 to "
            f"{most:g} (tsr.max_augmentation)"
        )


def count_windows(tsr: Parts, keyframes: int) -> int:
    """Counts the windows of a clip. The network samples each window of frames by itself.

    Args:
        tsr: parts of the temporal super-resolution run.
        keyframes: number of keyframes in the clip.

    Raises:
        UserError: the clip is not a whole number of windows.
    """
    frames = tsr.clip.frames
    steps = (frames - 1) // tsr.denoiser.conditioning.keyframe_stride
    if keyframes < 2 or (keyframes - 1) % steps:
        fitting = ", ".join(str(1 + steps * n) for n in (1, 2, 3))
        raise UserError(
            f"there are {keyframes} keyframes, which windows of {steps + 1} "
            f"({frames} frames) that share their ends do not make up; they do {fitting}, "
            "... keyframes"
        )
    return (keyframes - 1) // steps


def find_borders(tsr: Parts, keyframes: int) -> tuple[int, ...]:
    """Returns the indices of the frames in which two windows of a clip meet, ascending.

    Arguments and errors are those of `count_windows`.
    """
    windows = count_windows(tsr, keyframes)
    return tuple(window * (tsr.clip.frames - 1) for window in range(1, windows))


def split(
    keyframes: Float[np.ndarray, "n k h w c"], windows: int
) -> Float[np.ndarray, "n*{windows} j h w c"]:
    """Splits the `k` keyframes of each clip into windows of `j` keyframes.

    Neighbouring windows share a keyframe. All windows of the first clip come first.
    """
    steps = (keyframes.shape[1] - 1) // windows
    places = np.arange(windows)[:, None] * steps + np.arange(steps + 1)
    return keyframes[:, places].reshape(-1, steps + 1, *keyframes.shape[2:])


def join(
    filled: Float[np.ndarray, "n*{windows} t h w c"], windows: int
) -> Float[np.ndarray, "n t2 h w c"]:
    """Joins windows of `t` frames into clips of `t2` frames.

    A frame that two windows share is taken from the earlier window.
    """
    filled = filled.reshape(-1, windows, *filled.shape[1:])
    rest = filled[:, :, 1:]
    rest = rest.reshape(len(filled), -1, *filled.shape[3:])
    return np.concatenate([filled[:, 0, :1], rest], axis=1)


def _check_tsr(parts: Parts, which: str) -> int:
    """Returns how many frames apart a temporal super-resolution network's keyframes are.

    Raises:
        UserError: the run has no such network. The message calls the run `which`.
    """
    stride = parts.denoiser.conditioning.keyframe_stride
    if stride < 2:
        raise UserError(
            f"{which} holds no temporal super-resolution network (tsr.stride is 1); give one that "
            "was trained with a tsr.stride, as the experiment cascade_tsr_windowed"
        )
    return stride


def later_seed(seed: int) -> int:
    """Returns the seed of the second network, whose noise must differ from the first network's."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)
