"""The schedule of a run: after which updates it reports, saves, validates and samples."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Due:
    """Says what is due after one update.

    Attributes:
        report: write a line of metrics.
        save: write a checkpoint.
        validate: measure the loss on held-out clips.
        preview: sample clips.
    """

    report: bool
    save: bool
    validate: bool
    preview: bool


@dataclasses.dataclass(frozen=True)
class Events:
    """Says how often each event happens, in updates.

    Attributes:
        steps: number of updates in the run.
        report_every: updates between lines of metrics.
        save_every: updates between checkpoints.
        validate_every: updates between validations; 0 for none.
        preview_every: updates between sampled clips; 0 for none.
        trace: updates that are traced, counted from 1.
        save_seconds: seconds after which a checkpoint is saved in any case; 0 for never.
    """

    steps: int
    report_every: int
    save_every: int
    validate_every: int
    preview_every: int
    trace: range = range(0)
    save_seconds: float = 0.0

    def due(self, step: int, stop: bool, save: bool = False) -> Due:
        """Returns what is due after update `step`.

        After the last update of the run, it is always reported, saved and validated. If a signal
        stops the run earlier, it is reported and saved. It is not validated then, because that
        takes long.

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
        )
