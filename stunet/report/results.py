"""What the directory of a sweep, or of a single run, has to show: figures, curves, pictures."""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from stunet import configs
from stunet.errors import UserError
from stunet.sweep.workdir import Manifest, ManifestEntry, read_manifest
from stunet.train.flops import model_flops, sampling_flops
from stunet.train.parts import make_parts

VALIDATION, TRAINING = "validation loss", "training loss"
# Share of a run whose mean is its final training loss: a single update's is noise.
_LAST = 0.1


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of an arm.

    Attributes:
        name: its directory in the sweep's; "" for a single run.
        arm: what it is one seed of.
        seed: which one; None: not of a single seed.
        config: that it trained by; None for what several members make together.
        step: updates done.
        finished: whether these are all.
        lines: of `metrics.jsonl`.
        figures: final figures by name, finite.
        better: "lower" or "higher", for the figures of which that is known.
        step_flops: operations of an update; None for what several members make.
        training_flops: of the run, or of all members that it is made of.
        sampling_flops: of one clip; None if that is not known.
        gif: its newest samples, if there are any.
        xt: their X-T slices.
        after: names of the members that it is made of.
        group: what it is compared within; "": with all.
        given: what it was given of the real clips, as "true keyframes", so that it is no rival of
            those that were given nothing; "": nothing.
    """

    name: str
    arm: str
    seed: int | None
    config: configs.Experiment | None
    step: int
    finished: bool
    lines: tuple[Mapping[str, float], ...]
    figures: Mapping[str, float]
    better: Mapping[str, str]
    step_flops: int | None
    training_flops: int
    sampling_flops: int | None
    gif: pathlib.Path | None
    xt: pathlib.Path | None
    after: tuple[str, ...] = ()
    group: str = ""
    given: str = ""


@dataclasses.dataclass(frozen=True)
class Results:
    """All runs of a sweep that have begun, and those that have not, by name."""

    runs: tuple[Run, ...]
    missing: tuple[str, ...]
    manifest: Manifest | None

    def groups(self) -> dict[str, dict[str, list[Run]]]:
        """Runs by group and arm, in the sweep's order. Within "fast", "fast,whole" is "whole"."""
        found = {}
        for run in self.runs:
            arm = run.arm.removeprefix(f"{run.group},") if run.group else run.arm
            found.setdefault(run.group, {}).setdefault(arm, []).append(run)
        return found


def read(workdir: pathlib.Path) -> Results:
    """Reads a sweep's directory or a run's.

    Raises:
        UserError: it is neither, or nothing in it has been trained yet.
    """
    manifest = read_manifest(workdir)
    if manifest is None:
        if not (workdir / "config.json").is_file():
            raise UserError(f"{workdir} holds neither a sweep nor a training run")
        entries = [ManifestEntry("", workdir.resolve().name, None)]
    else:
        entries = manifest.entries
    found, missing, counted = {}, [], {}
    for entry in entries:
        run = (
            _composed(workdir, entry, found) if entry.command else _member(workdir, entry, counted)
        )
        if run:
            found[entry.name] = run
        elif not entry.command:
            missing.append(entry.name)
    if not found:
        raise UserError(f"nothing has been trained in {workdir} yet")
    return Results(tuple(found.values()), tuple(missing), manifest)


def flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The finite numbers of a nested dict, by names such as "fast / drift"."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key} / ")
        elif isinstance(value, (int, float)) and math.isfinite(value):
            yield prefix + key, float(value)


def _member(workdir: pathlib.Path, entry: ManifestEntry, counted: dict) -> Run | None:
    """A training run, if it has begun. `counted` keeps the operations of each config."""
    directory = workdir / entry.name
    lines = _lines(directory / "metrics.jsonl")
    if not lines:
        return None
    config = configs.read(directory / "config.json")
    step = max(line["step"] for line in lines)
    figures = {}
    validated = [line["val/loss"] for line in lines if "val/loss" in line]
    if validated:
        figures[VALIDATION] = validated[-1]
    last = [x["loss"] for x in lines if "loss" in x and x["step"] > (1 - _LAST) * step]
    if last:
        figures[TRAINING] = sum(last) / len(last)
    parts, key = make_parts(config), dataclasses.replace(config, seed=0)
    if key not in counted:
        counted[key] = (
            model_flops(parts.denoiser, parts.batch_size),
            sampling_flops(parts.denoiser, parts.sampling),
        )
    of_update, of_clip = counted[key]
    evaluated = _evaluation(directory)
    return Run(
        name=entry.name,
        arm=entry.arm,
        seed=parts.seed,
        config=config,
        step=step,
        finished=step >= parts.events.steps,
        lines=lines,
        figures=figures | dict(flat(evaluated.get("metrics", {}))),
        better={VALIDATION: "lower", TRAINING: "lower"} | evaluated.get("better", {}),
        step_flops=of_update,
        training_flops=evaluated.get("training_flops", of_update * step),
        sampling_flops=evaluated.get("sampling_flops", of_clip),
        group=entry.group,
        given=evaluated.get("given", ""),
        **_pictures(directory),
    )


def _composed(workdir: pathlib.Path, entry: ManifestEntry, found: Mapping[str, Run]) -> Run | None:
    """What a step makes of several members, if it left figures or samples of its own."""
    directory = workdir / entry.name
    evaluated, pictures = _evaluation(directory), _pictures(directory)
    if not evaluated and not any(pictures.values()):
        return None
    parts = [found[name] for name in entry.after if name in found]
    return Run(
        name=entry.name,
        arm=entry.arm,
        seed=entry.seed,
        config=None,
        step=0,
        finished=True,
        lines=(),
        figures=dict(flat(evaluated.get("metrics", {}))),
        better=evaluated.get("better", {}),
        step_flops=None,
        training_flops=evaluated.get("training_flops", sum(run.training_flops for run in parts)),
        sampling_flops=evaluated.get("sampling_flops"),
        after=tuple(run.name for run in parts),
        group=entry.group,
        given=evaluated.get("given", ""),
        **pictures,
    )


def _lines(file: pathlib.Path) -> tuple[dict[str, float], ...]:
    found = []
    for line in file.read_text().splitlines() if file.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue  # The line that a kill cut short.
    return tuple(found)


def _evaluation(directory: pathlib.Path) -> dict[str, Any]:
    file = directory / "evaluation.json"
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text())
        if isinstance(found["metrics"], dict):
            return found
    except (json.JSONDecodeError, KeyError, TypeError):
        pass
    raise UserError(f'{file} is no evaluation; it must hold {{"metrics": {{NAME: NUMBER, ...}}}}')


def _pictures(directory: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """Samples taken last in training, or else the last by name."""
    samples = directory / "samples"
    gifs = sorted(samples.glob("step_*.gif")) or sorted(samples.glob("*.gif"))
    slices = sorted(samples.glob("step_*_xt.png")) or sorted(samples.glob("*_xt.png"))
    return {"gif": gifs[-1] if gifs else None, "xt": slices[-1] if slices else None}
