"""Measures the metrics of `stunet evaluate` while a run trains (the config's section `evaluate`).

All devices of the run sample clips together, with the averaged weights where they lie. The first
process measures the clips, and tells the other processes the metrics.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stunet import jsonfiles, progress
from stunet.data.spec import make_encoder
from stunet.errors import UserError, choose
from stunet.evaluate import comparison
from stunet.evaluate.cache import MeasurementCache
from stunet.evaluate.evaluator import Evaluator, Measurements, join
from stunet.evaluate.generator import of_network
from stunet.evaluate.groups import check_sets, find, known_metrics, metric_values, parse
from stunet.evaluate.metrics import MetricValues, mean
from stunet.evaluate.run import CACHE
from stunet.generate.text import Run
from stunet.nn.sharding import none_in_use
from stunet.parallel import hosts
from stunet.train.parts import Parts

PREFIX = "eval/"


def make_evaluation(
    parts: Parts, workdir: pathlib.Path, mesh: jax.sharding.Mesh, tell: Callable[[str], None]
) -> "InTraining":
    """Makes the evaluation of a run, for `stunet.train.loop.train`. Writes nothing.

    Args:
        parts: parts of the run.
        workdir: working directory of the run.
        mesh: the devices of the run.
        tell: tells the user a sentence.

    Raises:
        UserError: there is no such metric, there are no held-out clips, or a metric cannot be
            computed for clips of this shape or number.
    """
    return InTraining(parts, workdir, mesh, tell)


class InTraining:
    """Measures sampled clips while a run trains; see `stunet.train.measured.evaluation.Evaluation`.

    The clips are those that `stunet evaluate` samples from the checkpoint after the same update,
    with the same number of clips, the run's seed and no autoguidance. So are their metrics.

    Arguments and errors are those of `make_evaluation`.
    """

    def __init__(
        self,
        parts: Parts,
        workdir: pathlib.Path,
        mesh: jax.sharding.Mesh,
        tell: Callable[[str], None],
    ):
        if parts.sampling.autoguidance_scale != 1:
            tell(
                "evaluations while training do without autoguidance, since the weaker version of "
                "the network is not loaded"
            )
        sampling = dataclasses.replace(parts.sampling, autoguidance_scale=1.0)
        parts = dataclasses.replace(parts, sampling=sampling)
        self._parts, self._tell = parts, tell
        make_encoder(parts.denoiser.text)  # Records may hold what training needs of it.
        self._groups = parse(",".join(parts.evaluation.metrics))
        self._known = known_metrics(self._groups)
        # Without weights, except in an evaluation. It keeps the compiled sampler.
        self._run = Run(parts, None, mesh)
        generator = of_network(parts, lambda: self._run, None, seed=parts.seed)
        compared = comparison.from_dataset(generator.dataset, parts.evaluation.num)
        self._evaluator = Evaluator(
            generator=generator,
            comparison=compared,
            borders=generator.borders,
            cache=MeasurementCache(workdir / CACHE),
            batch_size=parts.batch_size,
        )
        clip = generator.dataset.clip
        self._shape = (compared.frames, clip.height, clip.width)
        self._num, self._num_real = len(compared.captions), len(set(compared.real_indices))
        sets = dict(generated=self._num, real=self._num_real, reference=compared.num_reference)
        check_sets(self._groups, self._shape, sets)

    def begin(self) -> None:
        """Measures real clips, with which sampled clips are compared.

        The working directory keeps the measurements, so that a run that continues has them.

        Raises:
            UserError: a metric cannot be measured, or `checkpoint.keep_best` is none of them.
        """
        best = self._parts.retention.best
        if hosts.is_first():
            with none_in_use():
                real = self._real_values
            if best.startswith(PREFIX):
                named = {f"{PREFIX}{name}": name for name in real}
                self._check_direction(choose(named, best, "metric for checkpoint.keep_best"))
        hosts.wait_for_all("real clips measured")

    def measure(self, params: Any, step: int) -> dict[str, float]:
        """Samples clips and measures them.

        A group of metrics that fails is told and left out. So is a metric without a value, as of
        objects that are in no clip.

        Args:
            params: averaged parameters of the network, on the run's mesh, which is in use.
            step: number of updates that the parameters have had.

        Returns:
            The mean of each metric by its name, such as {"eval/speed": 1.2}, in every process.
        """
        self._run = dataclasses.replace(self._run, params=params, checkpoint=step)
        batches = list(self._evaluator.caption_batches())
        clips = [self._evaluator.generate(batch, progress.nothing) for batch in batches]
        self._run = dataclasses.replace(self._run, params=None)
        means = {}
        if hosts.is_first():
            with none_in_use():
                for group in self._groups:
                    means |= self._means(group, batches, clips, step)
        told = hosts.first_text(json.dumps(means))
        return jsonfiles.parse(told, dict[str, float], "the metrics that the first process told")

    def _means(
        self, group: str, batches: Sequence[Any], clips: Sequence[np.ndarray], step: int
    ) -> dict[str, float]:
        """Returns the means of one group's metrics; none if the group fails."""
        evaluator = self._evaluator
        frames, measure = evaluator.comparison.frames, find(group).measure
        try:
            measured = [
                {group: measure(some[:, :frames], batch.scene, evaluator.borders)}
                for some, batch in zip(clips, batches, strict=True)
            ]
            counts = self._num, min(self._num, self._num_real)
            values = self._values(join(measured), range(self._num), counts)
        except Exception as error:
            # What clips look like is not known before. An update must not depend on it.
            self._tell(
                f"the metric {group!r} failed after update {step} ({type(error).__name__}: {error})"
                " and is left out; training goes on"
            )
            return {}
        means = {f"{PREFIX}{name}": float(mean(of_clips)) for name, of_clips in values.items()}
        return {name: value for name, value in means.items() if np.isfinite(value)}

    def _values(
        self, measured: Measurements, rows: Sequence[int], counts: Sequence[int]
    ) -> MetricValues:
        return metric_values(measured, self._reference, self._shape, self._known, rows, counts)

    @functools.cached_property
    def _reference(self) -> Measurements:
        """Measurements of the clips that distances are to."""
        compared = self._evaluator.comparison
        groups = [name for name in self._groups if find(name).compare]
        return self._measure_source("reference", compared.reference, compared.num_reference, groups)

    @functools.cached_property
    def _real_values(self) -> MetricValues:
        """Metrics of the real clips whose captions are sampled."""
        compared, count = self._evaluator.comparison, self._num_real
        measured = self._measure_source("real", compared.real, count, self._groups)
        return self._values(measured, range(count), (self._num, count))

    def _measure_source(
        self, name: str, source: Any, count: int, groups: Sequence[str]
    ) -> Measurements:
        """Measures real clips, one group after the other.

        Raises:
            UserError: a group fails.
        """
        measured = {}
        for group in groups:
            try:
                measured |= self._evaluator.measure_source(
                    name, source, count, (group,), lambda *_: None
                )
            except UserError:
                raise
            except Exception as error:
                raise UserError(
                    f"evaluate.metrics: {group!r} cannot measure {name} clips "
                    f"({type(error).__name__}: {error})"
                ) from error
        return measured

    def _check_direction(self, name: str) -> None:
        """Checks that `checkpoint.best_is` is the direction in which a metric is better."""
        better = self._known[name].better
        chosen = "higher" if self._parts.retention.highest else "lower"
        if better and better != chosen:
            best_is = {"higher": "highest", "lower": "lowest"}
            raise UserError(
                f"checkpoint.best_is is {best_is[chosen]!r}, and {PREFIX}{name} is better where it "
                f"is {better}; set checkpoint.best_is to {best_is[better]!r}"
            )
