"""Judges a trained run: samples clips for held-out captions, and measures them and real clips."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from stunet.evaluate import comparison
from stunet.evaluate.cache import MeasurementCache
from stunet.evaluate.evaluator import Evaluator, OnClips, shuffle_frames
from stunet.evaluate.generator import OnStep, make_generator
from stunet.evaluate.groups import (
    check_sets,
    find,
    frechet_name,
    known_metrics,
    metric_values,
    parse,
)
from stunet.evaluate.metrics import METRICS, Metric, MetricValues, mean
from stunet.files import atomic, check_writable
from stunet.generate import text
from stunet.train.saved import trained

FILE, CACHE = "evaluation.json", "evaluation"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Holds the metrics of each set of clips.

    Attributes:
        columns: metrics of each clip, by the name of the set. "generated" holds the sampled clips,
            and "real" the clips that the captions were written for. "shuffled" holds the real clips
            with their frames in a random order; it is measured only for FVD.
        clips: number of clips in each set. "reference" is the set that others are compared with.
        titles: titles of metrics whose names depend on the number and size of the clips, by the
            name of the metric.
        rows: how tables show each metric, in their order.
        file: path of the file to which the metrics were written.
    """

    columns: Mapping[str, MetricValues]
    clips: Mapping[str, int]
    titles: Mapping[str, str]
    rows: Mapping[str, Metric]
    file: pathlib.Path

    @property
    def generated(self) -> MetricValues:
        """Returns the metrics of the sampled clips."""
        return self.columns["generated"]

    @property
    def real(self) -> MetricValues:
        """Returns the metrics of the clips that the captions were written for."""
        return self.columns["real"]

    def summary(self) -> str:
        """Says how many clips each set has."""
        sentences = {
            "generated": "generated: {} sampled clips",
            "real": "real: {} held-out clips",
            "shuffled": "shuffled: the real clips with their frames in a random order",
            "reference": "distances: to {} reference clips",
        }
        return "\n".join(sentences[name].format(count) for name, count in self.clips.items())


def evaluate(
    workdir: pathlib.Path,
    *,
    metrics: str | None = None,
    protocol: pathlib.Path | None = None,
    tsr: pathlib.Path | None = None,
    augmentation: float | None = None,
    out: pathlib.Path | None = None,
    num: int | None = None,
    seed: int = 0,
    batch_size: int = 32,
    window: int = 0,
    on_step: OnStep = lambda done, total: None,
    on_clips: OnClips = lambda what, done, total: None,
    **sample: object,
) -> Evaluation:
    """Samples `num` clips with a checkpoint's EMA weights, and measures them.

    Each clip gets the caption of one of `num` held-out clips, which `sources.representatives`
    chooses. If there are fewer held-out clips, captions repeat with other noise. If `workdir`
    holds a temporal super-resolution network, the network fills in the frames between true
    keyframes of the held-out clip. Sets of clips are compared with `num` training clips, which
    `sources.representatives` chooses too. The distance of the sampled clips and the distance of
    the held-out clips each use as many clips as the smaller of these two sets has.

    Batches are split over all devices. The measurements of each batch are stored in `out`, so that
    a repeated call continues where an earlier call was stopped.

    Args:
        workdir: work directory of a training run, or a weights file of `stunet export` or `stunet
            ema`.
        metrics: comma-separated names in `groups.METRIC_GROUPS`. None means "fvd" with a protocol
            and `groups.DEFAULT` without.
        protocol: path or name of a protocol (`comparison.Protocol`). The protocol's prompts and
            videos take the place of the run's captions and clips.
        tsr: work directory of the temporal super-resolution run that fills in frames between the
            keyframes of `workdir`.
        augmentation: noise augmentation of the keyframes; see `cascade.fill`. None means the
            default of `cascade.cascade`, and no augmentation for true keyframes.
        out: directory for `evaluation.json`, `samples/` and `evaluation/`. None means `workdir`, or
            a subdirectory of `workdir` with the protocol's name. For a weights file, the
            directory beside it with its name stands for `workdir`.
        num: number of clips to sample; None means 64, or the protocol's number.
        seed: seed of the noise.
        batch_size: number of clips, or of windows of clips, in each batch.
        window: frames in each window, a stretch of frames that a network makes at a time. The
            borders of windows are measured separately from the rest. 0 means the windows in which
            the clips are generated.
        on_step: called with the number of finished sampling steps and the number of all steps.
        on_clips: called with the name of a set of real clips, the number of clips measured so far,
            and the number of all.
        sample: settings that replace those in the section `sample` of the run's config.

    Raises:
        UserError: a directory holds no training run or no checkpoint; a run enlarges clips
            (spatial super-resolution); the two runs do not fit together; a metric cannot be
            computed for clips of this size or number; or the protocol's data are missing.
    """
    generator = make_generator(workdir, tsr=tsr, augmentation=augmentation, seed=seed, **sample)
    clip = generator.dataset.clip
    if protocol:
        compared = comparison.from_protocol(protocol, clip, num)
    else:
        compared = comparison.from_dataset(generator.dataset, num or 64)
    groups = parse(metrics or compared.default_metrics)
    shape = (compared.frames, clip.height, clip.width)
    num_generated, num_real = len(compared.captions), len(set(compared.real_indices))
    sets = {"generated": num_generated} | ({"held-out": num_real} if num_real else {})
    # A distance between sets depends on their sizes, so all columns use equally many clips.
    smallest = min(sets.values())
    sets["reference"] = compared.num_reference
    check_sets(groups, shape, sets)
    # Beside a weights file, a directory of its name.
    place = workdir.with_suffix("") if workdir.is_file() else workdir
    out = out or (place / protocol.stem if protocol else place)
    check_writable(out, "choose an --out in which you may create files")
    borders = range(window, compared.frames, window) if window else generator.borders
    evaluator = Evaluator(
        generator=generator,
        comparison=compared,
        borders=tuple(border for border in borders if border < compared.frames),
        cache=MeasurementCache(out / CACHE),
        batch_size=batch_size,
    )
    distances = [name for name in groups if find(name).compare]
    generated, shown = evaluator.measure_generated(groups, on_step)
    measured, reference = {"generated": generated}, {}
    if num_real:
        held_out = (compared.real, num_real)
        measured["real"] = evaluator.measure_source("real", *held_out, groups, on_clips)
        if "fvd" in groups:
            measured["shuffled"] = evaluator.measure_source(
                "shuffled", *held_out, distances, on_clips, shuffle_frames
            )
    if distances:
        references = (compared.reference, compared.num_reference)
        reference = evaluator.measure_source("reference", *references, distances, on_clips)
    of_clips = {"generated": range(num_generated), "real": compared.real_indices}
    rows = known_metrics(groups)
    clips = {"generated": num_generated}
    clips |= {name: num_real for name in measured if name != "generated"}
    clips |= {"reference": compared.num_reference} if distances else {}
    evaluation = Evaluation(
        columns={
            name: metric_values(
                *(measurements, reference, shape, rows),
                *(of_clips.get(name, (0,)), (clips[name], smallest)),
            )
            for name, measurements in measured.items()
        },
        clips=clips,
        titles=dict(
            frechet_name(count, compared.num_reference, shape)
            for count in (num_generated, smallest)
        ),
        rows=rows,
        file=out / FILE,
    )
    # A network without text saw no captions, and its samples show none.
    has_text = generator.parts.denoiser.network.text_features > 0
    captions = compared.captions[: len(shown)] if has_text else [""] * len(shown)
    text.write(out / "samples", f"evaluation_seed{seed}", shown, captions, clip.frame_rate)
    settings = dict(num=num_generated, seed=seed, window=window, augmentation=augmentation)
    settings |= {"sample": sample, "given": generator.given}
    settings["sampling_flops"] = generator.operations()
    settings["checkpoint"] = trained.find_step(workdir, generator.parts)
    if protocol:
        settings["protocol"] = protocol.stem
    _write(evaluation, settings)
    return evaluation


def _write(evaluation: Evaluation, settings: dict[str, object]) -> None:
    """Writes the settings and all metrics to the evaluation's file."""

    def as_json(column: MetricValues) -> dict[str, object]:
        return {
            name: {"mean": _number(mean(values)), "clips": [_number(v) for v in values]}
            for name, values in column.items()
        }

    own = {name: row for name, row in evaluation.rows.items() if name not in METRICS}
    content = settings | {
        # The report shows these means.
        "metrics": {
            name: number
            for name, values in evaluation.generated.items()
            if (number := _number(mean(values))) is not None
        },
        "better": {
            name: better
            for name in evaluation.generated
            if (better := evaluation.rows[name].better)
        },
        "words": {k: v for k, v in evaluation.titles.items() if k in evaluation.generated},
        # The report shows users' own metrics by these, since it imports no module of theirs.
        "own_metrics": {
            k: dataclasses.asdict(row) for k, row in own.items() if k in evaluation.generated
        },
        "sets": evaluation.clips,
        **{name: as_json(column) for name, column in evaluation.columns.items()},
    }
    with atomic(evaluation.file) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def _number(value: float | np.floating) -> float | None:
    """Rounds a number for JSON; NaN, which JSON lacks, becomes None."""
    return None if np.isnan(value) else round(float(value), 6)
