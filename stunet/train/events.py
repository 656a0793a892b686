"""Defines after which updates a run reports, saves, validates and samples."""

import dataclasses
from collections.abc import Collection


@dataclasses.dataclass(frozen=True)
class Due:
    """Says what is due after one update.

    Attributes:
        report: True to write a line of metrics.
        save: True to write a checkpoint.
        validate: True to measure the loss on held-out clips.
        preview: True to sample clips.
        snapshot: True to write a snapshot of averaged weights.
        evaluate: True to measure the metrics of sampled clips.
    """

    report: bool = False
    save: bool = False
    validate: bool = False
    preview: bool = False
    snapshot: bool = False
    evaluate: bool = False


@dataclasses.dataclass(frozen=True)
class Events:
    """Says when each event of a run happens.

    Attributes:
        steps: number of updates in the run.
        report_every: updates from one line of metrics to the next.
        save_every: updates from one checkpoint to the next.
        validate_every: updates from one validation to the next; 0 never validates.
        preview_every: updates from one sampling of clips to the next; 0 never samples.
        trace: numbers of the updates to trace for a profile; the first update is 1.
        save_seconds: largest age of the last checkpoint, in seconds; 0 sets no limit.
        snapshot_every: updates from one snapshot of averaged weights to the next; 0 writes none.
        evaluate_every: updates from one evaluation to the next; 0 never evaluates.
    """

    steps: int
    report_every: int
    save_every: int
    validate_every: int
    preview_every: int
    trace: range = range(0)
    save_seconds: float = 0.0
    snapshot_every: int = 0
    evaluate_every: int = 0

    def due(self, step: int, stop: bool, save: bool = False) -> Due:
        """Returns what is due after update `step`.

        The run always reports and saves after its last update. It also validates, evaluates and
        writes a snapshot then, unless the number of updates from one to the next is 0. If a signal
        stops the run earlier, the run reports and saves. It then validates only if a validation is
        due anyway, because validation takes long. It does not evaluate, which takes longer: an
        evaluation that is due is done when the run continues.

        Args:
            step: number of updates done.
            stop: True if the run stops after this update.
            save: True if the last checkpoint is too old.
        """
        last = step == self.steps
        save = save or stop or last or step % self.save_every == 0
        return Due(
            report=save or step % self.report_every == 0,
            save=save,
            validate=bool(self.validate_every) and (last or step % self.validate_every == 0),
            preview=bool(self.preview_every) and step % self.preview_every == 0,
            snapshot=bool(self.snapshot_every) and (last or step % self.snapshot_every == 0),
            evaluate=bool(self.evaluate_every)
            and (last or (step % self.evaluate_every == 0 and not stop)),
        )

    def missed(self, step: int, measured: Collection[str]) -> Due:
        """Returns which measurements were due after update `step` and were not made.

        A run that is stopped or killed after it saved a checkpoint may not have come to them. They
        are due when the run continues from this checkpoint.

        Args:
            step: number of updates done.
            measured: names of the metrics that were measured after this update.
        """
        due = self.due(step, stop=False) if step else Due()
        groups = {name.partition("/")[0] for name in measured}
        return Due(
            validate=due.validate and "val" not in groups,
            evaluate=due.evaluate and "eval" not in groups,
        )
