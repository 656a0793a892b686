"""Makes up the directory of a sweep whose arms break at different speeds."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tiny

from stunet import configs
from stunet.sweep import workdir as workdirs
from stunet.sweep.curves import Curves, Expected
from stunet.sweep.members import Member, Sweep

ONE_LEVEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
# Speeds are in pixels per frame. On a torus of 16 pixels with keyframes 4 frames apart, 2 pixels
# per frame are the limit of aliasing.
CURVES = Curves(
    title="Steady motion over speed",
    metrics=("coherent", "phase_drift", "faithful"),
    over=("true_speed", "step_length"),
    bins=(0.25, 0.35, 0.5, 0.71, 1.0, 1.41, 2.0, 2.83),
    label="displacement per keyframe stride; 1 is half of the torus",
    scale=2 * 4 / 16,
    marks=((1.0, "limit of aliasing"),),
    expected=(
        Expected(
            "windowed cascade on true keyframes",
            "coherent",
            (1.0, 1.0, 1.0, 0.97, 0.53, 0.25, 0.25),
        ),
    ),
)
PREDICTIONS = (
    "The single pass stays above 80% at all speeds.",
    "The windowed cascade falls to a quarter above the limit of aliasing.",
)


def _falls(before: float, after: float) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a share that falls from one value to another at the limit of aliasing."""
    return lambda speed: after + (before - after) / (1 + (speed / 2) ** 6)


# The share of steady clips at each speed, and whether the arm is given true keyframes.
ARMS = {
    "single pass": (_falls(0.92, 0.84), False),
    "windowed cascade": (_falls(0.9, 0.17), False),
    "global cascade": (_falls(0.93, 0.88), False),
    "windowed cascade on true keyframes": (_falls(1.0, 0.22), True),
    "global cascade on true keyframes": (_falls(1.0, 0.97), True),
}


def evaluation(
    rng: np.random.Generator, share: Callable[[np.ndarray], np.ndarray], given: bool, clips: int
) -> dict[str, object]:
    """Makes up the content of an evaluation.json."""
    speed = 2 * 2 ** rng.uniform(-2, 1.5, clips)
    # What seeds have in common makes them differ more than clips do.
    steady = rng.uniform(size=clips) < share(speed) + rng.normal(0, 0.03)
    drift = np.where(steady, 0.02, 0.28) * rng.uniform(0.5, 1.5, clips)
    column = {
        "step_length": speed + rng.normal(0, 0.02, clips),
        "coherent": steady.astype(float),
        "phase_drift": drift,
        "faithful": steady * (rng.uniform(size=clips) < (speed < 2) + 0.5) if given else steady,
    }
    column |= {"true_speed": speed} if given else {}
    real = dict(step_length=speed, coherent=np.ones(clips), phase_drift=np.full(clips, 0.004))
    return {
        "metrics": {name: float(np.mean(values)) for name, values in column.items()},
        "better": {"coherent": "higher", "phase_drift": "lower", "faithful": "higher"},
        "given": "true keyframes" if given else "",
        "sampling_flops": 10**9,
        "generated": as_columns(column),
        "real": as_columns(real),
    }


def as_columns(values: Mapping[str, np.ndarray]) -> dict[str, object]:
    """Returns values of clips as evaluation.json holds them."""
    return {
        name: {"mean": float(np.mean(v)), "clips": np.asarray(v, float).tolist()}
        for name, v in values.items()
    }


def write_run(directory: pathlib.Path, losses: Sequence[float]) -> None:
    """Writes what a training run that had these losses would leave."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "clock.json").write_text(json.dumps({"began": 1.5 * 86400}))
    lines = [{"step": i + 1, "loss": loss} for i, loss in enumerate(losses)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def sweep(
    directory: pathlib.Path,
    *,
    groups: Sequence[str] = ("",),
    seeds: int = 5,
    clips: int = 160,
    curves: Sequence[Curves] = (CURVES,),
    predictions: Sequence[str] = PREDICTIONS,
) -> None:
    """Writes the directory of a sweep: `len(ARMS)` arms in each group, with their evaluations."""
    entries, evaluations = [], {}
    rng = np.random.default_rng(0)
    for g, group in enumerate(groups):
        for i, (label, (share, given)) in enumerate(ARMS.items()):
            base = tiny.config(
                model=ONE_LEVEL, data=dict(fps=8.0 + g), train=dict(warmup_steps=i + 1)
            )
            for seed in range(seeds):
                name = f"{group.replace(' ', '_') or 'all'},{label.replace(' ', '_')},seed={seed}"
                config = dataclasses.replace(base, seed=seed)
                entries.append(Member(name, config, group, label))
                evaluations[name] = evaluation(rng, share, given, clips)
    made = Sweep(entries, tuple(curves), tuple(predictions), "Where does each arm break?")
    workdirs.claim(directory, made, ["sweep", "--config", "made_up.py"])
    for name, content in evaluations.items():
        steps = configs.read(directory / name / "config.json").train.steps
        write_run(directory / name, [1 / (step + 1) for step in range(steps)])
        (directory / name / "evaluation.json").write_text(json.dumps(content))
