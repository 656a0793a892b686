"""Traces what the host and the devices do during chosen updates, for the viewer xprof."""

import contextlib
import pathlib
import shutil

import jax


class Profile:
    """Traces the chosen updates, except those up to update `step`, which are done already.

    The trace appears in `profile/` of the working directory when it is complete. Only the first
    process traces, because all processes do the same work.

    Args:
        updates: numbers of the updates to trace; the first update of a run is 1. Empty for none.
        workdir: working directory of the run.
        step: number of updates done.
        write: True in the first process.
    """

    def __init__(self, updates: range, workdir: pathlib.Path, step: int, write: bool):
        begin = max(updates.start, step + 1)
        self._updates = range(begin, updates.stop if write else begin)
        self._is_late = write and len(updates) > 0 and not self._updates
        self._directory = workdir / "profile"
        self._partial = workdir / ".profile.partial"
        self._is_running = False
        self._update = step

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._is_running:  # The run ends with an error, which is the one to report.
            with contextlib.suppress(Exception):
                self.stop()

    def overlooked(self) -> str | None:
        """Returns advice if all chosen updates were done, untraced, before this process began.

        Returns None in all other cases.
        """
        if self._is_late and not self._directory.exists():
            return f"no update is traced: set profile.start above {self._update}"
        return None

    def update(self, update: int) -> jax.profiler.StepTraceAnnotation:
        """Context manager that marks the host's work for update number `update`, counted from 1."""
        self._update = update
        return jax.profiler.StepTraceAnnotation("train", step_num=update)

    def begins_with(self, update: int) -> bool:
        """Tells whether `update` is the first one to trace."""
        return update in self._updates[:1]

    def ends_with(self, update: int) -> bool:
        """Tells whether `update` is the last one to trace."""
        return update in self._updates[-1:]

    @property
    def is_running(self) -> bool:
        """Tells whether updates are traced now."""
        return self._is_running

    def start(self) -> None:
        """Begins to trace. Before the call, wait until the devices have finished all updates."""
        # A process that was killed while it traced has left what it had.
        shutil.rmtree(self._partial, ignore_errors=True)
        options = jax.profiler.ProfileOptions()
        # A trace of each Python call is many times the size of the rest, and slows the host down.
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._partial, profiler_options=options)
        self._is_running = True

    def stop(self) -> str:
        """Writes the trace. Before the call, wait until the devices have finished all updates.

        Returns:
            A line that says where the trace lies.

        Raises:
            Exception: any error of writing the trace.
        """
        self._is_running = False
        name = f"updates_{self._updates[0]}_to_{self._update}"
        # xprof looks for traces there.
        target = self._directory / "plugins" / "profile" / name
        try:
            jax.profiler.stop_trace()
            (written,) = (self._partial / "plugins" / "profile").iterdir()
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(target, ignore_errors=True)
            written.rename(target)
        finally:
            shutil.rmtree(self._partial, ignore_errors=True)
        return (
            f"updates {self._updates[0]} to {self._update} are traced; to see them: "
            f"pip install xprof && xprof --logdir {self._directory}"
        )
