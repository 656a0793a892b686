"""A trained run, judged: clips for held-out captions beside the real clips that these describe."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from stunet.errors import UserError
from stunet.evaluate import comparison
from stunet.evaluate.cache import MeasurementCache
from stunet.evaluate.evaluator import Evaluator, Measurements, OnClips, shuffle_frames
from stunet.evaluate.generator import OnStep, make_generator
from stunet.evaluate.groups import METRIC_GROUPS, frechet_name, parse
from stunet.evaluate.metrics import METRICS, MetricValues, mean
from stunet.files import atomic
from stunet.generate import text

FILE, CACHE = "evaluation.json", "evaluation"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Figures by clip of each set of clips, and where they were written.

    Attributes:
        columns: by name of the set: "generated"; "real", the clips that the captions were written
            for; "shuffled", the same with their frames in a random order, beside an FVD alone.
        clips: how many there are of each, and of "reference", which sets are compared with.
        words: for figures whose meaning depends on the clips.
        file: where they are.
    """

    columns: Mapping[str, MetricValues]
    clips: Mapping[str, int]
    words: Mapping[str, str]
    file: pathlib.Path

    @property
    def generated(self) -> MetricValues:
        return self.columns["generated"]

    @property
    def real(self) -> MetricValues:
        return self.columns["real"]

    def said(self) -> str:
        """How many clips there are of each kind."""
        known = {
            "generated": "{} generated clips",
            "real": "{} held-out ones",
            "shuffled": "the frames of these in a random order",
            "reference": "sets are compared with {} others",
        }
        return "; ".join(known[name].format(count) for name, count in self.clips.items())


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
    """Samples `num` clips with the newest checkpoint's averaged weights, and compares.

    Each clip has the caption of one of `num` held-out clips, as `sources.sample` takes them; if
    there are fewer of those, captions are taken again, with other noise. A temporal
    super-resolution network by itself fills in between the true keyframes of that clip. Sets of
    clips are compared with `num` training clips, taken likewise, as many of each as there are of
    the smaller one.

    Batches are split over all devices, and what was measured of each is kept in `out`: the same
    call again goes on where this one was stopped.

    Args:
        workdir: of a training run.
        metrics: names of `groups.METRIC_GROUPS`, with commas; those of the comparison by default.
        protocol: file of a protocol, to compare with other data than the run's own.
        tsr: of the temporal super-resolution run that fills in between that run's keyframes.
        augmentation: of its keyframes; see `cascade.fill`, and `cascade.cascade` for the default.
            True keyframes are not augmented unless it is given.
        out: directory for `evaluation.json`, `samples/` and `evaluation/`; `workdir` by default, or
            with a protocol one of its name in there.
        num: clips to sample: 64 by default, or as many as the protocol says.
        seed: of the noise.
        batch_size: clips, or windows of clips, sampled at once.
        window: frames of a window, if what happens at the borders of windows is asked; by default
            those of a cascade.
        on_step: called with the steps of sampling done and their number, over all batches.
        on_clips: called with the name of a set of real clips, those measured and their number.
        sample: settings of the config's `sample` that replace the run's own.

    Raises:
        UserError: a directory holds no training run or no checkpoint, or a spatial super-resolution
            network; the runs do not go together; a metric cannot see such clips, or so few; or a
            protocol's data are missing.
    """
    generator = make_generator(workdir, tsr=tsr, augmentation=augmentation, seed=seed, **sample)
    clip = generator.dataset.clip
    if protocol:
        against = comparison.by_protocol(protocol, clip, num)
    else:
        against = comparison.own(generator.dataset, num or 64)
    chosen = parse(metrics or against.metrics)
    shape = (against.frames, clip.height, clip.width)
    unique = len(set(against.chosen))
    sets = {"generated": len(against.captions)} | ({"held-out": unique} if unique else {})
    # Distances between sets depend on their sizes: columns are of as many clips each.
    equal = min(sets.values())
    sets["reference"] = against.references
    _check(chosen, shape, sets)
    out = out or (workdir / protocol.stem if protocol else workdir)
    borders = range(window, against.frames, window) if window else generator.borders
    evaluator = Evaluator(
        generator=generator,
        comparison=against,
        borders=tuple(border for border in borders if border < against.frames),
        cache=MeasurementCache(out / CACHE),
        batch_size=batch_size,
    )
    compared = [name for name in chosen if METRIC_GROUPS[name].compare]
    generated, shown = evaluator.measure_generated(chosen, on_step)
    measured, reference = {"generated": generated}, {}
    if unique:
        held_out = (against.real, unique)
        measured["real"] = evaluator.measure_source("real", *held_out, chosen, on_clips)
        if "fvd" in chosen:
            measured["shuffled"] = evaluator.measure_source(
                "shuffled", *held_out, compared, on_clips, shuffle_frames
            )
    if compared:
        references = (against.reference, against.references)
        reference = evaluator.measure_source("reference", *references, compared, on_clips)
    rows = {"generated": range(len(against.captions)), "real": against.chosen}
    clips = {"generated": len(against.captions)}
    clips |= {name: unique for name in measured if name != "generated"}
    clips |= {"reference": against.references} if compared else {}
    evaluation = Evaluation(
        columns={
            name: _figures(found, reference, shape, rows.get(name, (0,)), (clips[name], equal))
            for name, found in measured.items()
        },
        clips=clips,
        words=dict(
            frechet_name(count, against.references, shape) for count in (clips["generated"], equal)
        ),
        file=out / FILE,
    )
    # A network without text saw no captions, and its samples show none.
    has_text = generator.parts.denoiser.network.text_features > 0
    captions = against.captions[: len(shown)] if has_text else [""] * len(shown)
    text.write(out / "samples", f"evaluation_seed{seed}", shown, captions, clip.frame_rate)
    settings = dict(num=clips["generated"], seed=seed, window=window, augmentation=augmentation)
    settings |= {"sample": sample, "sampling_flops": generator.operations, "given": generator.given}
    if protocol:
        settings["protocol"] = protocol.stem
    _write(evaluation, settings)
    return evaluation


def _check(metrics: Sequence[str], shape: tuple[int, int, int], sets: Mapping[str, int]) -> None:
    """Raises UserError if a metric cannot be computed of such clips, or of so few in each set."""
    for name in metrics:
        METRIC_GROUPS[name].check(shape)
        min_clips = METRIC_GROUPS[name].min_clips
        if min(sets.values()) < min_clips:
            found = ", ".join(f"{count} {which}" for which, count in sets.items())
            raise UserError(
                f"{name} needs {min_clips} clips in each set, and there are {found} ones"
            )


def _figures(
    measured: Measurements,
    reference: Measurements,
    shape: tuple[int, int, int],
    rows: Sequence[int],
    counts: Sequence[int],
) -> MetricValues:
    """Those of each clip, at `rows`, and those of the whole set, repeated over them.

    The latter are of the first so many clips. Later counts replace earlier ones, but for an FVD,
    which is not called that of fewer clips.
    """
    found = {}
    for metric, arrays in measured.items():
        found |= {k: np.asarray(v)[list(rows)] for k, v in arrays.items() if k in METRICS}
        if compare := METRIC_GROUPS[metric].compare:
            for count in dict.fromkeys(counts):
                some = {k: v[:count] for k, v in arrays.items()}
                values = compare(some, reference[metric], shape)
                found |= {name: np.full(len(rows), value) for name, value in values.items()}
    return {name: found[name] for name in METRICS if name in found}


def _write(evaluation: Evaluation, settings: dict[str, object]) -> None:
    def as_json(found: MetricValues) -> dict[str, object]:
        return {
            name: {"mean": _number(mean(values)), "clips": [_number(v) for v in values]}
            for name, values in found.items()
        }

    content = settings | {
        # What the report shows of it.
        "metrics": {
            name: number
            for name, values in evaluation.generated.items()
            if (number := _number(mean(values))) is not None
        },
        "better": {
            name: METRICS[name].better for name in evaluation.generated if METRICS[name].better
        },
        "words": {k: v for k, v in evaluation.words.items() if k in evaluation.generated},
        "sets": evaluation.clips,
        **{name: as_json(found) for name, found in evaluation.columns.items()},
    }
    with atomic(evaluation.file) as partial:
        partial.write_text(json.dumps(content, indent=1) + "\n")


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else round(float(value), 6)
