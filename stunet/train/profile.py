"""Traces of chosen updates, for xprof: what the host and the devices do in them, and when."""

import contextlib
import pathlib
import shutil

import jax

from stunet import configs


class Profile:
    """Traces the updates that `config.profile` asks for, as far as they are still to come.

    The trace lies in `profile/` of the working directory, whole or not at all. Other processes than
    the first trace nothing, since they do the same.

    Args:
        asked: which updates.
        workdir: of the run.
        step: updates done.
        write: whether this is the first process.
    """

    def __init__(self, asked: configs.Profile, workdir: pathlib.Path, step: int, write: bool):
        begin = max(asked.start, step + 1)
        self._updates = range(begin, asked.start + asked.steps if write else begin)
        self._is_late = write and asked.steps > 0 and not self._updates
        self._directory = workdir / "profile"
        self._partial = workdir / ".profile.partial"
        self._is_running = False
        self._update = step

    def __enter__(self) -> "Profile":
        return self

    def __exit__(self, *_) -> None:
        if self._is_running:  # The run ends with an error, which is what is to be said.
            with contextlib.suppress(Exception):
                self.stop()

    def overlooked(self) -> str | None:
        """What to do if the run is past the updates, and there is no trace of any."""
        if self._is_late and not self._directory.exists():
            return f"no update is traced: set profile.start above {self._update}"
        return None

    def update(self, update: int) -> jax.profiler.StepTraceAnnotation:
        """Within: the host does what belongs to this update, counted from 1."""
        self._update = update
        return jax.profiler.StepTraceAnnotation("train", step_num=update)

    def begins_with(self, update: int) -> bool:
        return update in self._updates[:1]

    def ends_with(self, update: int) -> bool:
        return update in self._updates[-1:]

    @property
    def is_running(self) -> bool:
        return self._is_running

    def start(self) -> None:
        """Traces from here on. The devices must have done all that they were given."""
        # A process that was killed while it traced has left what it had.
        shutil.rmtree(self._partial, ignore_errors=True)
        options = jax.profiler.ProfileOptions()
        # Of each call of a Python function: many times the rest, and it slows the host down.
        options.python_tracer_level = 0
        jax.profiler.start_trace(self._partial, profiler_options=options)
        self._is_running = True

    def stop(self) -> str:
        """Writes the trace, of all that the devices were given, which must be done. Returns a line
        that says where it lies.

        Raises:
            whatever writing it raises.
        """
        self._is_running = False
        name = f"updates_{self._updates[0]}_to_{self._update}"
        # As xprof looks for them.
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
