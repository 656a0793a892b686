"""Says what a run measures of sampled clips while it trains.

The room `stunet.evaluate` measures. It stands above this one, so `stunet.train.loop.train` is given
a function of that room, `stunet.evaluate.in_training.make_evaluation`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Protocol


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """Says what each evaluation measures.

    Attributes:
        metrics: names of groups of metrics.
        num: number of clips to sample.
    """

    metrics: tuple[str, ...]
    num: int


class Evaluation(Protocol):
    """Measures sampled clips while a run trains. Every process must call each method."""

    def begin(self) -> None:
        """Prepares for the first evaluation, before the first update.

        Raises:
            UserError: a metric cannot be measured, or `checkpoint.keep_best` names none of them.
        """

    def measure(self, params: Any, step: int) -> dict[str, float]:
        """Samples clips and returns their metrics in every process, such as {"eval/speed": 1.2}.

        Args:
            params: averaged parameters of the network, on the run's mesh, which is in use.
            step: number of updates that the parameters have had.
        """


# A function of a run's `Parts`, its working directory, the mesh of its devices, and a function that
# tells the user a sentence.
MakeEvaluation = Callable[..., Evaluation]
