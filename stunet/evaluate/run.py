"""A trained run, judged: clips for held-out captions beside the real clips that these describe."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from stunet.data.motions import Motions, Stage
from stunet.data.moving_digits import SPEEDS, MovingDigits
from stunet.data.sources import Source, make_source
from stunet.errors import UserError
from stunet.evaluate import figures
from stunet.files import atomic
from stunet.generate import text

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
    num: int = 64,
    seed: int = 0,
    batch_size: int = 32,
    window: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    **sample: object,
) -> Evaluation:
    """Samples `num` clips with the newest checkpoint's averaged weights, and compares.

    Clip i has the caption of held-out clip i; if there are fewer of those, captions are taken
    again, with other noise. Flow histograms are compared with those of the first `num` training
    clips.

    Args:
        workdir: of a training run; `evaluation.json` is written there.
        num: clips to sample.
        seed: of the noise.
        batch_size: clips sampled at once.
        window: frames of a window, if what happens at the borders of windows is asked; else 0.
        on_step: called with the steps done and their number, over all batches.
        sample: settings of `configs.Sample` that replace the run's own.

    Raises:
        UserError: `workdir` holds no training run or no checkpoint, or a super-resolution network.
    """
    config = text.read_config(workdir)
    held_out, training = (make_source(config, split) for split in ("val", "train"))
    if not len(held_out):
        raise UserError("the source has no held-out clips to compare with")
    chosen = [i % len(held_out) for i in range(num)]
    examples = [held_out[i] for i in chosen]
    clips, _ = text.text_to_video(
        workdir,
        [example["caption"] for example in examples],
        seed=seed,
        batch_size=batch_size,
        on_step=on_step,
        **sample,
    )
    reference = _clips([training[i]["video"] for i in range(min(num, len(training)))])
    borders = range(window, config.data.frames, window) if window else ()
    scene = scene_of(held_out, chosen, told=config.model.text_features > 0)
    options = dict(
        looks=scene.looks, truth=scene.truth, borders=tuple(borders), reference=reference
    )
    real = _clips([example["video"] for example in examples])
    evaluation = Evaluation(
        generated=figures.measure(clips, scene.stage, **options),
        real=figures.measure(real, scene.stage, **options),
        file=workdir / FILE,
    )
    _write(evaluation, dict(num=num, seed=seed, window=window, sample=sample))
    return evaluation


def scene_of(source: Source, indices: Sequence[int], *, told: bool = True) -> Scene:
    """What moves in these clips; nothing is known of videos, or of several digits.

    Args:
        source: where the clips are from.
        indices: which ones.
        told: whether whoever sampled was told by captions which way objects move.
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
        "generated": as_json(evaluation.generated),
        "real": as_json(evaluation.real),
    }
    with atomic(evaluation.file) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 6)
