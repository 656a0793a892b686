"""Reads the results in the directory of a sweep or of a single run."""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec

from stunet import configs, jsonfiles
from stunet.errors import UserError
from stunet.evaluate.metrics import Metric
from stunet.report.formatting import TRAINING, VALIDATION
from stunet.sweep.workdir import Manifest, ManifestEntry, read_manifest
from stunet.train.measured import metric_lines
from stunet.train.measured.clock import read_began
from stunet.train.measured.flops import mean_flops, sampling_flops
from stunet.train.parts import make_parts

# The final training loss is the mean over this last share of the updates: the loss of a single
# update is noise.
_LAST_SHARE = 0.1

# Metric that counts the updates skipped since a run began.
_SKIPPED = "skipped_updates"

# Value of a metric for a clip. Its square is finite too.
_Value = Annotated[float, msgspec.Meta(ge=-1e100, le=1e100)]

# Operations, of which 64 bits hold too few.
_Count = Annotated[float, msgspec.Meta(ge=0, le=1e300)]


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds one run of an arm.

    A sweep compares arms. The runs of an arm differ in the seed alone. A run is either a training
    run or a combined run, which is made of several training runs, such as the networks of a
    cascade.

    Attributes:
        name: name of the run's directory in the sweep's directory; "" for a single run.
        arm: name of the arm in the sweep.
        seed: seed of the run; None for a combined run without a single seed.
        directory: directory of the run.
        settings: value of each config key; empty for a combined run.
        step: number of updates done; 0 for a combined run.
        total_steps: number of updates after which the run is finished; 0 for a combined run.
        lines: lines of `metrics.jsonl`, oldest first.
        metrics: final value of each metric; all values are finite.
        better: "lower" or "higher", for each metric that ranks arms.
        step_flops: operations of one update; None for a combined run.
        training_flops: operations of the training, or the sum over the runs that a combined run is
            made of.
        sampling_flops: operations that sample one clip; None if they are not known.
        gif: file of the newest samples, if there are any.
        xt: file of slices through time of the newest samples, if there is one.
        date: when the training began, in seconds since 1970; None if unknown.
        made_of: names of the runs that a combined run is made of.
        group: group within which the arm is compared; "" for a sweep without groups.
        label: name of the arm for readers; "" if the sweep gives none.
        given: the part of the real clips that the run was given, such as "true keyframes"; "" if
            none. A run that was given a part is not ranked.
        clips: value of each sampled clip, for each metric of clips; None where a clip has no value.
        real_clips: the same for real clips.
        own_metrics: how to show the metrics of users, by name.
    """

    name: str
    arm: str
    seed: int | None
    directory: pathlib.Path
    settings: Mapping[str, Any]
    step: int
    total_steps: int
    lines: Sequence[Mapping[str, float]]
    metrics: Mapping[str, float]
    better: Mapping[str, str]
    step_flops: int | None
    training_flops: int
    sampling_flops: int | None
    gif: pathlib.Path | None = None
    xt: pathlib.Path | None = None
    date: float | None = None
    made_of: tuple[str, ...] = ()
    group: str = ""
    label: str = ""
    given: str = ""
    clips: Mapping[str, Sequence[float | None]] = dataclasses.field(default_factory=dict)
    real_clips: Mapping[str, Sequence[float | None]] = dataclasses.field(default_factory=dict)
    own_metrics: Mapping[str, Metric] = dataclasses.field(default_factory=dict)

    @property
    def is_finished(self) -> bool:
        return self.step >= self.total_steps

    @property
    def skipped(self) -> int:
        """The number of updates that were skipped, for example because the loss was NaN."""
        return next((int(x[_SKIPPED]) for x in reversed(self.lines) if _SKIPPED in x), 0)

    @property
    def title(self) -> str:
        """Returns the name of the arm for readers, which is the same in all groups."""
        # An arm "slow,width=8" of the group "slow" is called "width = 8" there.
        short = self.arm.removeprefix(f"{self.group},") if self.group else self.arm
        return self.label or short.replace("_", " ").replace("=", " = ").replace(",", ", ")


# The runs of each arm, by the arm's title.
Arms = Mapping[str, Sequence[Run]]


@dataclasses.dataclass(frozen=True)
class Results:
    """Holds the runs of a directory, and what a report shows of them.

    Attributes:
        runs: runs that have begun, in the sweep's order.
        missing: names of the training runs that have not begun.
        manifest: the sweep's own list of its runs; None for a single run.
    """

    runs: tuple[Run, ...]
    missing: tuple[str, ...]
    manifest: Manifest | None

    def groups(self) -> dict[str, dict[str, list[Run]]]:
        """Returns the runs by the names of their group and arm, in the sweep's order."""
        found = {}
        for run in self.runs:
            found.setdefault(run.group, {}).setdefault(run.title, []).append(run)
        return found

    def own_metrics(self) -> dict[str, Metric]:
        """Returns how to show the metrics of users, by name."""
        return {name: row for run in self.runs for name, row in run.own_metrics.items()}


def finished(arms: Arms) -> Arms:
    """Keeps the finished runs, or all runs if none is finished.

    Unfinished runs would look worse only because they were trained for less time.
    """
    done = {arm: [run for run in runs if run.is_finished] for arm, runs in arms.items()}
    return {arm: runs for arm, runs in done.items() if runs} or arms


def compared(arms: Arms) -> Arms:
    """Returns the arms without those that were trained only as a part of another arm.

    Such a part is one network of a cascade that was not evaluated by itself.
    """
    parts = {name for runs in arms.values() for run in runs for name in run.made_of}
    return {
        arm: runs
        for arm, runs in arms.items()
        if runs[0].name not in parts or set(runs[0].metrics) - {TRAINING, VALIDATION}
    }


def rivals(arms: Arms) -> Arms:
    """Returns the arms of `compared(arms)` that can be ranked: they were given no real frames."""
    return {arm: runs for arm, runs in compared(arms).items() if not runs[0].given}


def by_seed(runs: Sequence[Run], name: str) -> dict[int | None, float]:
    """Returns the value of the metric `name` for each seed. Leaves out runs without a value."""
    return {run.seed: run.metrics[name] for run in runs if name in run.metrics}


def clips_by_seed(runs: Sequence[Run], name: str) -> dict[int | None, list[float]]:
    """Returns the values of the metric `name` for the clips of each seed; [] if not known."""
    return {run.seed: [v for v in run.clips.get(name, ()) if v is not None] for run in runs}


def read(workdir: pathlib.Path) -> Results:
    """Reads the directory of a sweep or of a training run.

    Raises:
        UserError: the directory holds neither a sweep nor a run, or nothing in it has been trained
            yet.
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
        run = _step(workdir, entry, found) if entry.command else _member(workdir, entry, counted)
        if run:
            found[entry.name] = run
        elif not entry.command:
            missing.append(entry.name)
    if not found:
        raise UserError(f"nothing has been trained in {workdir} yet")
    return Results(tuple(found.values()), tuple(missing), manifest)


def flatten(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yields each finite number of a nested dict, with its name, such as "fast / drift"."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key} / ")
        # Not `math.isfinite`, which fails for integers that no float can hold.
        elif isinstance(value, int | float) and abs(value) <= sys.float_info.max:
            yield prefix + key, float(value)


def _member(workdir: pathlib.Path, entry: ManifestEntry, counted: dict) -> Run | None:
    """Reads a training run; None if the run has not begun.

    `counted` caches the floating-point operations of each config.
    """
    directory = workdir / entry.name
    file = directory / metric_lines.FILE
    found = metric_lines.read(file)
    lines = tuple(values for values, _ in found.values)
    if damage := metric_lines.damage(file, found):
        print(damage, file=sys.stderr)
    if not lines:
        return None
    config = configs.read(directory / "config.json")
    step = max(line["step"] for line in lines)
    metrics = {}
    validated = [line["val/loss"] for line in lines if "val/loss" in line]
    if validated:
        metrics[VALIDATION] = validated[-1]
    last = [x["loss"] for x in lines if "loss" in x and x["step"] > (1 - _LAST_SHARE) * step]
    if last:
        metrics[TRAINING] = sum(last) / len(last)
    settings, parts = configs.flatten(config), make_parts(config)
    key = str(settings | {"seed": None})
    if key not in counted:
        counted[key] = (
            mean_flops(parts),
            sampling_flops(parts.denoiser, parts.sampling),
        )
    step_flops, clip_flops = counted[key]
    evaluated = _read_evaluation(directory) or _Evaluation({})
    return Run(
        name=entry.name,
        arm=entry.arm,
        seed=parts.seed,
        directory=directory,
        settings=settings,
        step=step,
        total_steps=parts.events.steps,
        lines=lines,
        metrics=metrics | dict(flatten(evaluated.metrics)),
        better={VALIDATION: "lower", TRAINING: "lower"} | evaluated.better,
        step_flops=step_flops,
        training_flops=_known(evaluated.training_flops, step_flops * step),
        sampling_flops=_known(evaluated.sampling_flops, clip_flops),
        date=_read_date(directory),
        group=entry.group,
        label=entry.label,
        given=evaluated.given,
        **evaluated.as_fields(),
        **_find_pictures(directory),
    )


def _step(workdir: pathlib.Path, entry: ManifestEntry, found: Mapping[str, Run]) -> Run | None:
    """Reads a combined run, which a command of the sweep makes from several training runs.

    Returns None if the command has written neither metrics nor samples.
    """
    directory = workdir / entry.name
    evaluated, pictures = _read_evaluation(directory), _find_pictures(directory)
    if evaluated is None and not any(pictures.values()):
        return None
    evaluated = evaluated or _Evaluation({})
    parts = [found[name] for name in entry.after if name in found]
    return Run(
        name=entry.name,
        arm=entry.arm,
        seed=entry.seed,
        directory=directory,
        settings={},
        step=0,
        total_steps=0,
        lines=(),
        metrics=dict(flatten(evaluated.metrics)),
        better=evaluated.better,
        step_flops=None,
        training_flops=_known(evaluated.training_flops, sum(run.training_flops for run in parts)),
        sampling_flops=evaluated.sampling_flops,
        made_of=tuple(run.name for run in parts),
        group=entry.group,
        label=entry.label,
        given=evaluated.given,
        **evaluated.as_fields(),
        **pictures,
    )


def _read_date(directory: pathlib.Path) -> float | None:
    """Returns when a run first began, from `clock.json`; None if this file cannot be read."""
    with contextlib.suppress(UserError):
        return read_began(directory)
    return None


@dataclasses.dataclass(frozen=True)
class _Column:
    """Holds the values of a metric for each clip; None where a clip has no value."""

    clips: tuple[_Value | None, ...]


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """Holds the content of `evaluation.json`, which users may also write themselves.

    Attributes:
        metrics: numbers by name. A value may also be a dict of numbers, which forms a group. Values
            of other types are left out.
        better, training_flops, sampling_flops, given, own_metrics: as in `Run`.
        generated: values of each sampled clip, by the name of the metric.
        real: values of each real clip, by the name of the metric.
    """

    metrics: dict[str, Any]
    better: dict[str, Literal["lower", "higher"]] = dataclasses.field(default_factory=dict)
    training_flops: _Count | None = None
    sampling_flops: _Count | None = None
    given: str = ""
    generated: dict[str, _Column] = dataclasses.field(default_factory=dict)
    real: dict[str, _Column] = dataclasses.field(default_factory=dict)
    own_metrics: dict[str, Metric] = dataclasses.field(default_factory=dict)

    def as_fields(self) -> dict[str, Mapping[str, Any]]:
        """Returns the values of clips, and how to show metrics of users, as fields of `Run`."""
        return {
            "own_metrics": self.own_metrics,
            "clips": {name: column.clips for name, column in self.generated.items()},
            "real_clips": {name: column.clips for name, column in self.real.items()},
        }


def _read_evaluation(directory: pathlib.Path) -> _Evaluation | None:
    """Reads the evaluation of a run; None if the run has no `evaluation.json`.

    Raises:
        UserError: the content of the file is not an evaluation.
    """
    file = directory / "evaluation.json"
    if not file.exists():
        return None
    try:
        return jsonfiles.read(file, _Evaluation)
    except UserError as error:
        right = '{"metrics": {NAME: NUMBER, ...}}'
        raise UserError(f"{file} is no evaluation, such as {right} ({error})") from error


def _known(value: float | None, otherwise: float) -> float:
    return otherwise if value is None else value


def _find_pictures(directory: pathlib.Path) -> dict[str, pathlib.Path | None]:
    """Finds the newest samples of the training.

    If training has left no samples, finds the samples whose file name is last in alphabetical
    order.
    """

    def find(pattern: str) -> list[pathlib.Path]:
        # Reading a pipe would wait for its writer.
        return sorted(file for file in (directory / "samples").glob(pattern) if file.is_file())

    gifs = find("step_*.gif") or find("*.gif")
    slices = find("step_*_xt.png") or find("*_xt.png")
    return {"gif": gifs[-1] if gifs else None, "xt": slices[-1] if slices else None}
