"""Collects the metrics of updates, and writes the means over several updates."""

import concurrent.futures
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from stunet.errors import UserError
from stunet.train.measured.clock import Clock, utilisation
from stunet.train.measured.metrics import Metrics, Progress
from stunet.train.measured.system import System
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.step import SUMS_OF_SOURCES

# Shape of a batch of clips, `[b, t, h, w, c]`.
Shape = tuple[int, ...]

# Updates that the host may be ahead of the devices: enough to hide its work, few enough to hold no
# memory.
IN_FLIGHT = 2


class Reporter:
    """Collects the metrics of updates until they are reported.

    Also keeps the host from running more than `IN_FLIGHT` updates ahead of the devices. A thread
    counts the floating-point operations of an update. Leaving the context waits for this thread.

    Args:
        metrics: writes the lines of metrics.
        progress: the progress bar.
        clock: measures the time that updates take.
        checkpoints: checkpoints of the run. If a metric is not finite, the error names the latest
            checkpoint.
        sources: names of the sources of clips. If there are several, `loss/NAME` is the mean loss
            of the clips of each.
        skip_limit: largest number of updates in a row that may be skipped.
        count_flops: counts the floating-point operations of an update, by the shape of its batch
            of clips. The call takes seconds.
        devices: the devices of the mesh.
        write: True in the one process that writes metrics.
    """

    def __init__(
        self,
        metrics: Metrics,
        progress: Progress,
        clock: Clock,
        checkpoints: Checkpoints,
        *,
        sources: Sequence[str],
        skip_limit: int,
        count_flops: Callable[[], dict[Shape, int]],
        devices: np.ndarray,
        write: bool,
    ):
        self._metrics, self._progress, self._clock = metrics, progress, clock
        self._checkpoints = checkpoints
        self._sources, self._skip_limit = sources, skip_limit
        self._count_flops, self._devices, self._write = count_flops, devices, write
        self._pending: deque[tuple[int, Any]] = deque()
        # Shapes of the batches since the last report.
        self._shapes: Counter[Shape] = Counter()
        # Counting takes seconds, which the host has while the devices compute.
        self._counting = concurrent.futures.ThreadPoolExecutor(1)
        self._flops: concurrent.futures.Future | None = None
        self._updates, self._system = 0, System()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, *_) -> None:
        self._counting.shutdown()

    def compiling(self) -> contextlib.AbstractContextManager:
        """Context manager that shows that the first update of this process compiles."""
        return contextlib.nullcontext() if self._updates else self._progress.compiling()

    def add(self, step: int, measured: dict[str, jax.Array], shape: Shape) -> None:
        """Takes the metrics of update `step`, which was made with clips of `shape` `[b t h w c]`.

        Waits if the host is more than `IN_FLIGHT` updates ahead of the devices.
        """
        self._pending.append((step, measured))
        self._shapes[shape] += 1
        if self._clock.is_compiling:
            jax.block_until_ready(measured)
            if self._write:
                self._flops = self._counting.submit(self._count_flops)
        elif len(self._pending) > IN_FLIGHT:
            jax.block_until_ready(self._pending[-1 - IN_FLIGHT][1])
        self._clock.updated()
        self._progress.update(step)
        self._updates += 1

    def report(self, step: int) -> None:
        """Writes the means over the updates since the last report as a line of metrics.

        Each skipped update is printed, and its values are in no mean.

        Raises:
            UserError: a metric is not finite, or too many updates in a row were skipped. The
                message names the update and the latest checkpoint, and says how to go on.
        """
        values = self._means() | self._clock.measure()
        seconds, clips = values["seconds_per_step"], self._mean(lambda shape: shape[0])
        values["clips_per_second"] = clips / seconds
        if self._write:
            share = self._mean(self._flops.result().get) / self._devices.size
            values |= utilisation(share, seconds, self._devices.flat[0].device_kind)
        self._metrics.scalars(step, values, self._system.measure())
        self._shapes.clear()
        # The first update compiles: its rate says nothing of the others.
        rate = values["clips_per_second"] if self._updates > 1 else None
        self._progress.report(values.get("loss"), rate, values.get("skipped_updates", 0))

    def _mean(self, of: Callable[[Shape], float]) -> float:
        """Returns the mean of a function of the batch's shape over the updates not yet reported."""
        return sum(of(shape) * n for shape, n in self._shapes.items()) / self._shapes.total()

    def _means(self) -> dict[str, float]:
        """Returns the mean of each metric over the pending updates, and removes these updates.

        The learning rate and the number of skipped updates are those of the last update.
        """
        fetched = [(step, jax.device_get(values)) for step, values in self._pending]
        self._pending.clear()
        taken, of_sources = [], []
        for step, values in fetched:
            sums = [values.pop(key) for key in SUMS_OF_SOURCES if key in values]
            if in_a_row := int(values.pop("in_a_row", 0)):
                self._note_skip(step, values, in_a_row)
                continue
            taken.append(values)
            of_sources += [sums] if sums else []
            if broken := _broken(values):
                raise UserError(
                    f"update {step}: {broken}; {self._latest()}; the same command fails at the "
                    "same update: to go on, add --change train.on_nonfinite=skip, or --change "
                    "train.learning_rate=VALUE with a lower rate, or both"
                )
        last = fetched[-1][1]
        means = {k: float(np.mean([v[k] for v in taken])) for k in last} if taken else {}
        counted = {k: int(last[k]) for k in ("skipped_updates",) if k in last}
        means |= self._means_of_sources(of_sources) if of_sources else {}
        return means | {"learning_rate": float(last["learning_rate"])} | counted

    def _means_of_sources(self, sums: Sequence[Sequence[np.ndarray]]) -> dict[str, float]:
        """Returns the mean loss of the clips of each source that some of the updates have seen.

        Args:
            sums: for each update, the sum of the losses of each source, and the number of its
                clips.
        """
        losses, clips = np.sum(sums, axis=0, dtype=np.float64)
        seen = zip(self._sources, losses, clips, strict=True)
        return {f"loss/{name}": float(loss / count) for name, loss, count in seen if count}

    def _note_skip(self, step: int, values: dict[str, np.ndarray], in_a_row: int) -> None:
        why = _broken(values) or f"the gradient's norm of {values['grad_norm']:.3g} is a spike"
        total = values["skipped_updates"]
        self._progress.write(f"update {step} is skipped ({total} so far): {why}")
        if in_a_row > self._skip_limit:
            raise UserError(
                f"update {step}: {in_a_row} updates in a row were skipped, more than "
                f"train.skip_limit allows ({why}); {self._latest()}; the same command skips the "
                "same updates: to go on, add --change train.learning_rate=VALUE with a lower rate, "
                "or --change with a higher train.skip_limit or train.skip_spikes"
            )

    def _latest(self) -> str:
        good = self._checkpoints.latest()
        if good is None:
            return "there is no checkpoint yet"
        return f"the last good checkpoint is {self._checkpoints.directory / str(good)}"


def _broken(values: dict[str, np.ndarray]) -> str:
    """Returns which of an update's values are not finite, in words; "" if all are finite.

    Norms of single layers are left out: the norm of the whole gradient stands for them.
    """
    whole = {name: value for name, value in values.items() if "/" not in name}
    names = [name for name, value in whole.items() if not np.isfinite(value)]
    return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not finite" if names else ""
