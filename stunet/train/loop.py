"""Loops over the updates of a training run, and does what is due between them."""

import pathlib
from collections.abc import Collection

import jax

from stunet.parallel import hosts
from stunet.train.events import Due
from stunet.train.measured.evaluation import MakeEvaluation
from stunet.train.parts import Parts
from stunet.train.run import Run, set_up
from stunet.train.saved import snapshots
from stunet.train.state import TrainState


def train(
    parts: Parts,
    workdir: pathlib.Path,
    changing: Collection[str] = (),
    compiled: pathlib.Path | None = None,
    make_evaluation: MakeEvaluation | None = None,
) -> int:
    """Trains until the last update, beginning from the latest checkpoint in `workdir`, if any.

    After SIGTERM, SIGINT or SIGHUP, the run finishes the update in progress, saves a checkpoint and
    ends. Further signals change nothing. With several processes, the signal may reach only one of
    them. A few updates later, all processes stop after the same update and save a checkpoint.

    Args:
        parts: network, data set and settings of the run. `parts.config` must hold the fingerprints
            of its encoders (see `stunet.train.parts.with_fingerprint`).
        workdir: working directory of the run.
        changing: keys of the config whose values may differ from those in `workdir`. New values
            hold from the next update on.
        compiled: file that keeps the compiled step (see `stunet.train.program.compiled_beside`);
            None to compile the step.
        make_evaluation: makes the evaluation of a run whose config asks for one.

    Returns:
        The number of updates done.

    Raises:
        UserError: the data or the devices do not fit the config, `workdir` belongs to another
            config or cannot be written, `train.init_from` holds no weights that fit, or `compiled`
            cannot be written. Also raised if the loss is not finite, too many updates were skipped,
            or the disk is full.
    """
    steps = parts.events.steps
    if parts.events.evaluate_every and make_evaluation is None:
        raise ValueError("the config asks for evaluations, which need make_evaluation")
    with set_up(parts, workdir, changing, compiled, make_evaluation) as (run, state):
        step, stop = run.first_step, False
        # A process that was stopped after it saved this checkpoint did not come to it.
        _measure(run, state, step, parts.events.missed(step, run.metrics.measured))
        run.clock.begin()
        while step < steps and not stop:
            # The first update compiles, which may take long.
            run.watchdog.begin(f"update {step + 1}", is_slow=step == run.first_step)
            if run.profile.begins_with(step + 1):
                jax.block_until_ready(state)
                with run.clock.aside():
                    run.profile.start()
            with run.profile.update(step + 1):
                batch = run.next_batch()
                with run.reporter.compiling():
                    state, measured = run.update(state, batch)
            step += 1
            run.reporter.add(step, measured, batch["video"].shape)

            stop = run.should_stop()
            due = parts.events.due(step, stop, run.should_save())
            ends_trace = run.profile.is_running and (stop or run.profile.ends_with(step))
            if due == Due() and not ends_trace:
                continue
            # Wait for the pending updates first, so that their time is not counted as other work.
            jax.block_until_ready(measured)
            run.watchdog.begin(f"what is due after update {step}", is_slow=True)
            with run.clock.aside():
                if ends_trace:
                    run.progress.write(run.profile.stop())
                if due.report:
                    run.reporter.report(step)
                    run.upload()
                if due.snapshot:
                    # Before the checkpoint: a run that continues from it has this snapshot.
                    run.checkpoints.wait()
                    snapshots.save(run.workdir, state)
                if due.save:
                    # Before the checkpoint: a run that continues from it has these metrics.
                    run.upload(wait=True)
                    run.checkpoints.save(state, run.batches.get_state(), run.metrics.values)
                    run.save_timer.saved()
                _measure(run, state, step, due)
                if due.preview:
                    run.preview(state.ema_params, step, run.metrics)
        run.watchdog.begin("the end of the run", is_slow=True)
        run.checkpoints.wait()
        if step < steps:
            run.progress.write(
                f"stopped after update {step}; the same command continues from there"
            )
        if hosts.is_first() and step > run.first_step:
            run.progress.write(run.clock.summary())
    return step


def _measure(run: Run, state: TrainState, step: int, due: Due) -> None:
    """Measures what is due: losses of held-out clips, metrics of sampled clips."""
    if due.validate:
        run.metrics.scalars(step, run.validate(state.ema_params, state.teacher_params))
    if due.evaluate:
        with run.clock.evaluating():
            values = run.evaluation.measure(state.ema_params, step)
        run.metrics.scalars(step, values | run.clock.measure_evaluations())
