"""The keyframe cascade: keyframes from prompts, then the frames between them.

What Lumiere's single pass is compared with. The keyframes come from an ordinary text-to-video
network trained on clips that are sub-sampled in time (`data.stride`); a temporal super-resolution
network (`tsr.stride`, `stunet.diffusion.keyframes`) fills in the rest. The clips of the latter say
how: those of two keyframes are windows, as in Imagen Video (arXiv 2210.02303) and Make-A-Video
(arXiv 2209.14792); those of all keyframes, the whole clip at once; and any number between.

Each window has noise of its own and is sampled by itself, though all windows of all clips are in
one batch. Windows meet in a keyframe, which both are given; keyframes come out as they went in, so
the windows fit together whatever each has made of its ends.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet import configs
from stunet.errors import UserError
from stunet.generate.text import (
    OnStep,
    Run,
    load,
    load_config,
    load_unconditioned,
    sample_clips,
    text_to_video,
)

# Of generated keyframes: an SNR of 5, a fixed one as Imagen Video samples with (section 2.5).
AUGMENTATION = 0.27


@dataclasses.dataclass(frozen=True)
class Cascaded:
    """Clips whose frames were filled in between keyframes.

    Attributes:
        clips: -1..1; frames 0, stride, 2 stride, ... are the keyframes themselves.
        keyframes: the frames they were filled in between, as given.
        stride: frames from one keyframe to the next.
        borders: frames in which two windows meet, ascending; none if one window is the whole clip.
        config: of the temporal super-resolution run, with the settings that it was sampled at.
        augmentation: level at which the keyframes were corrupted.
        checkpoints: updates of each network that had a part in them, the first one first.
    """

    clips: Float[np.ndarray, "n t h w c"]
    keyframes: Float[np.ndarray, "n k h w c"]
    stride: int
    borders: tuple[int, ...]
    config: configs.Config
    augmentation: float
    checkpoints: tuple[int, ...]


def keyframes(
    workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = lambda done, total: None,
    **sample: object,
) -> tuple[Float[np.ndarray, "n k h w c"], configs.Config]:
    """Samples keyframes for each prompt: text-to-video, of a run with a `data.stride` above 1.

    Arguments, results and errors as `text.text_to_video`.
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
    on_step: OnStep = lambda done, total: None,
) -> Cascaded:
    """Fills in the frames between keyframes, generated or true.

    Args:
        run: of temporal super-resolution (`text.load`).
        keyframes: -1..1, at least two of each clip, `tsr.stride` frames apart.
        prompts: one for each clip.
        augmentation: level at which the keyframes are corrupted before the network sees them, 0 to
            the run's `tsr.max_augmentation`. 0 suits true keyframes, `AUGMENTATION` generated ones.
        seed: of the noise; a clip depends on it, on its place and on the settings alone.
        number: the place of the first clip.
        batch_size: windows sampled at once; by default all of them.
        on_step: called with the steps done and their number.

    Raises:
        UserError: the run is none of temporal super-resolution, or keyframes or augmentation do not
            suit it.
    """
    keyframes, config = np.asarray(keyframes, np.float32), run.config
    stride = _check_tsr(config, "the run")
    data, count = config.data, keyframes.shape[1]
    windows = count_windows(config, count)
    if keyframes.shape[2:] != (data.height, data.width, data.channels):
        raise UserError(
            f"keyframes are {'x'.join(map(str, keyframes.shape[2:]))} (rows, columns, channels), "
            f"and the run fills in {data.height}x{data.width}x{data.channels}"
        )
    if len(prompts) != len(keyframes):
        raise UserError(f"there are {len(prompts)} prompts for the keyframes of {len(keyframes)}")
    check_augmentation(config, augmentation)
    filled = sample_clips(
        run,
        [prompt for prompt in prompts for _ in range(windows)],
        split(keyframes, windows),
        level=augmentation,
        seed=seed,
        number=number * windows,
        batch_size=batch_size,
        on_step=on_step,
    )
    clips = join(filled, windows)
    clips[:, ::stride] = keyframes
    borders = find_borders(config, count)
    return Cascaded(clips, keyframes, stride, borders, config, augmentation, (run.checkpoint,))


def cascade(
    keyframes_workdir: pathlib.Path,
    tsr_workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    augmentation: float | None = None,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = lambda done, total: None,
    **sample: object,
) -> Cascaded:
    """Samples one clip for each prompt, through both networks.

    Args:
        keyframes_workdir: of a training run with a `data.stride` above 1.
        tsr_workdir: of a training run with a `tsr.stride` above 1.
        prompts: captions in the manner of those trained on.
        augmentation: see `fill`; by default `AUGMENTATION`, or the most that was trained if that is
            less.
        seed: of the noise; clip i depends on it, on i and on the settings alone.
        batch_size: keyframes' clips, and then windows, sampled at once; by default all of them.
        on_step: called with the steps done and their number, of both networks together.
        sample: settings of `configs.Sample` that replace the runs' own.

    Raises:
        UserError: a directory holds no run or no checkpoint, the runs do not go together, or the
            augmentation or the seed is out of range.
    """
    pair = load_pair(keyframes_workdir, tsr_workdir, **sample)
    return through(
        pair, prompts, augmentation=augmentation, seed=seed, batch_size=batch_size, on_step=on_step
    )


def load_pair(
    keyframes_workdir: pathlib.Path, tsr_workdir: pathlib.Path, *, devices: int = 1, **sample
) -> tuple[Run, Run]:
    """The runs of `cascade`, on so many devices.

    Raises:
        UserError: as `cascade`.
    """
    check_pair(load_config(keyframes_workdir), load_config(tsr_workdir))
    first = load_unconditioned(keyframes_workdir, devices=devices, **sample)
    return first, load(tsr_workdir, devices=devices, **sample)


def through(
    pair: tuple[Run, Run],
    prompts: Sequence[str],
    *,
    augmentation: float | None = None,
    seed: int = 0,
    number: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = lambda done, total: None,
) -> Cascaded:
    """`cascade`, of the runs that `load_pair` has loaded; `number` is the place of the first clip
    among those of that seed."""
    first, run = pair
    if augmentation is None:
        augmentation = min(AUGMENTATION, run.config.tsr.max_augmentation)
    check_augmentation(run.config, augmentation)  # Before the keyframes, which take long.
    before = 0
    filling = len(prompts) * count_windows(run.config, first.config.data.frames)
    later = run.config.sample.steps * math.ceil(filling / (batch_size or filling))

    def keyframes_step(done: int, total: int) -> None:
        nonlocal before
        before = total
        on_step(done, total + later)

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
        on_step=lambda done, total: on_step(before + done, before + total),
    )
    return dataclasses.replace(filled, checkpoints=(first.checkpoint, *filled.checkpoints))


def check_pair(keyframes: configs.Config, tsr: configs.Config) -> None:
    """Checks that one run makes keyframes that the other fills in between.

    Raises:
        UserError: they were trained for other strides, numbers of frames, sizes, rates or texts.
    """
    stride = _check_tsr(tsr, "the run given as --tsr") * tsr.data.stride
    if keyframes.data.stride != stride:
        raise UserError(
            f"keyframes are {keyframes.data.stride} frames apart (data.stride) and are filled in "
            f"when {stride} apart (tsr.stride); train both with the same stride"
        )
    count_windows(tsr, keyframes.data.frames)
    for key in ("height", "width", "channels", "fps"):
        ours, theirs = getattr(keyframes.data, key), getattr(tsr.data, key)
        if ours != theirs:
            raise UserError(
                f"data.{key} is {ours:g} of the keyframes and {theirs:g} of the network that fills "
                "in between them; train both with the same"
            )
    if not configs.same_text_encoder(keyframes, tsr):
        raise UserError(
            f"the keyframes' text encoder is {dataclasses.asdict(keyframes.text)} and that of the "
            f"network that fills in between them {dataclasses.asdict(tsr.text)}; train both with "
            "the same"
        )


def check_augmentation(config: configs.Config, augmentation: float) -> None:
    """Raises: UserError, if the temporal super-resolution network has not learnt it."""
    if not 0 <= augmentation <= config.tsr.max_augmentation:
        raise UserError(
            f"augmentation is {augmentation:g}; the network has learnt 0 to "
            f"{config.tsr.max_augmentation:g} (tsr.max_augmentation)"
        )


def count_windows(tsr: configs.Config, keyframes: int) -> int:
    """Windows in a clip of so many keyframes, which is how many clips the network is to sample.

    Raises:
        UserError: windows of the run's length do not make up such a clip.
    """
    steps = (tsr.data.frames - 1) // tsr.tsr.stride
    if keyframes < 2 or (keyframes - 1) % steps:
        fitting = ", ".join(str(1 + steps * n) for n in (1, 2, 3))
        raise UserError(
            f"there are {keyframes} keyframes, which windows of {steps + 1} "
            f"({tsr.data.frames} frames) that share their ends do not make up; they do {fitting}, "
            "... keyframes"
        )
    return (keyframes - 1) // steps


def find_borders(tsr: configs.Config, keyframes: int) -> tuple[int, ...]:
    """The frames in which two windows of such a clip meet, ascending."""
    windows = count_windows(tsr, keyframes)
    return tuple(window * (tsr.data.frames - 1) for window in range(1, windows))


def split(
    keyframes: Float[np.ndarray, "n k h w c"], windows: int
) -> Float[np.ndarray, "n*{windows} j h w c"]:
    """The keyframes of each window, those of the first clip first; neighbours share one."""
    steps = (keyframes.shape[1] - 1) // windows
    places = np.arange(windows)[:, None] * steps + np.arange(steps + 1)
    return keyframes[:, places].reshape(-1, steps + 1, *keyframes.shape[2:])


def join(
    filled: Float[np.ndarray, "n*{windows} t h w c"], windows: int
) -> Float[np.ndarray, "n t2 h w c"]:
    """Whole clips from their windows; of the frame that two share, the earlier window's."""
    filled = filled.reshape(-1, windows, *filled.shape[1:])
    rest = filled[:, :, 1:]
    rest = rest.reshape(len(filled), -1, *filled.shape[3:])
    return np.concatenate([filled[:, 0, :1], rest], axis=1)


def _check_tsr(config: configs.Config, which: str) -> int:
    """Its stride."""
    if config.tsr.stride < 2:
        raise UserError(
            f"{which} holds no temporal super-resolution network (tsr.stride is 1); give one that "
            "was trained with a tsr.stride, as the experiment cascade_tsr_windowed"
        )
    return config.tsr.stride


def later_seed(seed: int) -> int:
    """Of the second network: row i of its noise is not to be that of the first network's."""
    return int(np.random.SeedSequence([seed, 1]).generate_state(1)[0] >> 1)
