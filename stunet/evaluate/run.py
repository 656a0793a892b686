"""A trained run, judged: clips for held-out captions beside the real clips that these describe."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from stunet import configs
from stunet.data.motions import Motions, Stage
from stunet.data.moving_digits import SPEEDS, MovingDigits
from stunet.data.sources import Source, make_source
from stunet.errors import UserError
from stunet.evaluate import figures
from stunet.files import atomic
from stunet.generate import cascade, text
from stunet.plan.plan import sampling_flops
from stunet.train.conditioning import kind

FILE = "evaluation.json"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures by clip of what was sampled and of what is real, and where they were written."""

    generated: figures.Figures
    real: figures.Figures
    file: pathlib.Path


@dataclasses.dataclass(frozen=True)
class Scene:
    """What is known of the clips of a source, for `figures.measure`."""

    stage: Stage | None = None
    looks: Sequence[Sequence[str]] | None = None
    truth: np.ndarray | None = None


def evaluate(
    workdir: pathlib.Path,
    *,
    tsr: pathlib.Path | None = None,
    augmentation: float | None = None,
    out: pathlib.Path | None = None,
    num: int = 64,
    seed: int = 0,
    batch_size: int = 32,
    window: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    **sample: object,
) -> Evaluation:
    """Samples `num` clips with the newest checkpoint's averaged weights, and compares.

    Clip i has the caption of held-out clip i; if there are fewer of those, captions are taken
    again, with other noise. A temporal super-resolution network by itself fills in between the
    true keyframes of that clip. Flow histograms are compared with those of the first `num` training
    clips.

    Args:
        workdir: of a training run.
        tsr: of the temporal super-resolution run that fills in between that run's keyframes.
        augmentation: of its keyframes; see `cascade.fill`, and `cascade.cascade` for the default.
            True keyframes are not augmented unless it is given.
        out: directory for `evaluation.json` and `samples/`; `workdir` by default.
        num: clips to sample.
        seed: of the noise.
        batch_size: clips, or windows of clips, sampled at once.
        window: frames of a window, if what happens at the borders of windows is asked; by default
            those of a cascade.
        on_step: called with the steps done and their number, over all batches.
        sample: settings of `configs.Sample` that replace the run's own.

    Raises:
        UserError: a directory holds no training run or no checkpoint, or a spatial super-resolution
            network; or the runs do not go together.
    """
    config = text.load_config(workdir, **sample)
    filling = kind(config) == "tsr"
    # Whole clips, where a network makes a part of one, or every so many-th frame.
    whole = _of_whole_clips(config) if tsr or filling else config
    held_out, training = (make_source(whole, split) for split in ("val", "train"))
    if not len(held_out):
        raise UserError("the source has no held-out clips to compare with")
    chosen = [i % len(held_out) for i in range(num)]
    examples = [held_out[i] for i in chosen]
    captions = [example["caption"] for example in examples]
    real = _clips([example["video"] for example in examples])
    options = {"seed": seed, "batch_size": batch_size, "on_step": on_step}

    if tsr or filling:
        if tsr:
            filled = cascade.cascade(
                workdir, tsr, captions, augmentation=augmentation, **options, **sample
            )
        else:
            keyframes = real[:, :: config.tsr.stride]
            filled = cascade.fill(
                text.load(workdir, **sample),
                keyframes,
                captions,
                augmentation=augmentation or 0.0,
                **options,
            )
        clips, borders = filled.clips, filled.borders
        windows = cascade.count_windows(filled.config, filled.keyframes.shape[1])
        operations = sampling_flops(filled.config, windows)
        operations += sampling_flops(config) if tsr else 0
    else:
        if augmentation is not None:
            raise UserError("--augmentation is of the keyframes of a cascade; give its --tsr too")
        clips, _ = text.text_to_video(workdir, captions, **options, **sample)
        borders, operations = (), sampling_flops(config)
    if window:
        borders = tuple(range(window, whole.data.frames, window))

    given = "true keyframes" if filling and not tsr else ""
    scene = scene_of(held_out, chosen, told=bool(given) or config.model.text_features > 0)
    measured = dict(
        looks=scene.looks,
        truth=scene.truth,
        borders=borders,
        reference=_clips([training[i]["video"] for i in range(min(num, len(training)))]),
    )
    out = out or workdir
    evaluation = Evaluation(
        generated=figures.measure(clips, scene.stage, **measured),
        real=figures.measure(real, scene.stage, **measured),
        file=out / FILE,
    )
    few = slice(config.sample.num)
    rate = configs.frame_rate(whole.data)
    text.write(out / "samples", f"evaluation_seed{seed}", clips[few], captions[few], rate)
    settings = dict(num=num, seed=seed, window=window, augmentation=augmentation, sample=sample)
    _write(evaluation, settings | {"sampling_flops": operations, "given": given})
    return evaluation


def _of_whole_clips(config: configs.Config) -> configs.Config:
    """The config of the clips that keyframes are taken from, and that windows are cut from."""
    data = config.data
    frames = data.cut_from or configs.span(data)
    return dataclasses.replace(
        config, data=dataclasses.replace(data, frames=frames, stride=1, cut_from=0)
    )


def scene_of(source: Source, indices: Sequence[int], *, told: bool = True) -> Scene:
    """What moves in these clips; nothing is known of videos, or of several digits.

    Args:
        source: where the clips are from.
        indices: which ones.
        told: whether whoever sampled was told, by captions or keyframes, which way objects move.
    """
    if isinstance(source, Motions):
        truths = [source.truth(i) for i in indices]
        looks = [tuple(mover.look for mover in truth.movers) for truth in truths]
        truth = np.stack([truth.positions for truth in truths])
        return Scene(source.stage, looks, truth if told else None)
    if isinstance(source, MovingDigits) and source.num_digits == 1:
        slowest, fastest = min(SPEEDS.values()), max(SPEEDS.values())
        stage = Stage(
            "glide",
            source.height,
            source.width,
            size=float(min(source.digit_size, source.width / 2)),
            speed=source.pace * (slowest + fastest) / 2,
            spread=(fastest - slowest) / (fastest + slowest),
        )
        return Scene(stage, truth=_digits_gone(source, indices) if told else None)
    return Scene()


def _digits_gone(source: MovingDigits, indices: Sequence[int]) -> np.ndarray:
    """[n, 1, t, 2]: where digits are, from where each begins."""
    frames = np.arange(source.frames)[:, None]
    velocities = np.array([source.truth(i)[0].velocity for i in indices])
    return (velocities[:, None] * frames)[:, None] % [source.height, source.width]


def _clips(videos: Sequence[np.ndarray]) -> np.ndarray:
    return np.stack(videos).astype(np.float32) / 127.5 - 1


def _write(evaluation: Evaluation, settings: dict[str, object]) -> None:
    def as_json(found: figures.Figures) -> dict[str, object]:
        return {
            name: {"mean": _number(figures.mean(values)), "clips": [_number(v) for v in values]}
            for name, values in found.items()
        }

    content = settings | {
        # What the report shows of it.
        "metrics": {
            name: mean
            for name, values in evaluation.generated.items()
            if (mean := _number(figures.mean(values))) is not None
        },
        "better": {k: v for k, v in figures.BETTER.items() if k in evaluation.generated},
        "generated": as_json(evaluation.generated),
        "real": as_json(evaluation.real),
    }
    with atomic(evaluation.file) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 6)
