"""Sets up a training run: makes the objects and functions that the training loop uses."""

import contextlib
import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax

from stunet import configs, signals
from stunet.data import pipeline
from stunet.data.mixtures import open_streams
from stunet.errors import UserError
from stunet.files import check_writable, full_disk_explained
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.source_code import commit
from stunet.train import program
from stunet.train.measured import trackers
from stunet.train.measured.clock import Clock, read_began
from stunet.train.measured.evaluation import Evaluation, MakeEvaluation
from stunet.train.measured.flops import model_flops
from stunet.train.measured.metrics import Metrics, Progress
from stunet.train.measured.preview import make_preview
from stunet.train.measured.profile import Profile
from stunet.train.measured.reporting import IN_FLIGHT, Reporter
from stunet.train.measured.trackers.tracker import RunInfo
from stunet.train.measured.validation import make_validation
from stunet.train.parts import Parts
from stunet.train.saved import initial, snapshots
from stunet.train.saved.checkpoint_names import check_path
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import SaveTimer
from stunet.train.state import TrainState, abstract_state, count_parameters
from stunet.train.step import Step
from stunet.train.watchdog import Watchdog
from stunet.train.workdir import Upload, claimed, copied, note_changes


@dataclasses.dataclass(frozen=True)
class Run:
    """Holds the objects and functions that the training loop uses.

    Attributes:
        workdir: working directory of the run.
        first_step: number of updates that were done before this process began.
        update: maps (state, batch) to (state, metrics); jitted, and donates the state.
        batches: the training batches of this process.
        next_batch: returns the next batch, laid out on the mesh.
        should_stop: tells whether the processes have agreed to stop now. Call this function exactly
            once after each update.
        should_save: tells whether the processes have agreed to save now because the last checkpoint
            is too old. Call this function exactly once after each update.
        save_timer: measures the age of the last checkpoint.
        upload: uploads what was written to a working directory in a bucket, and waits for it on
            request (`stunet.train.workdir.copied`).
        checkpoints, metrics, progress, profile, reporter, clock: objects that write, show and
            measure what the run does.
        watchdog: ends the process if the run makes no progress.
        validate: maps parameters of the network and of its teacher to losses on held-out clips;
            None if the run never validates.
        evaluation: measures clips that it samples; None if the run never evaluates.
        preview: writes pictures of what the given parameters do; None if the run shows none.
    """

    workdir: pathlib.Path
    first_step: int
    update: Step
    batches: pipeline.TrainBatches
    next_batch: Callable[[], dict[str, jax.Array]]
    should_stop: Callable[[], bool]
    should_save: Callable[[], bool]
    save_timer: SaveTimer
    upload: Upload
    checkpoints: Checkpoints
    metrics: Metrics
    progress: Progress
    profile: Profile
    reporter: Reporter
    clock: Clock
    watchdog: Watchdog
    validate: Callable[[Any, Any], dict[str, float]] | None
    evaluation: Evaluation | None
    preview: Callable[[Any, int, Metrics], None] | None


@contextlib.contextmanager
def set_up(
    parts: Parts,
    workdir: pathlib.Path,
    changing: Collection[str],
    compiled: pathlib.Path | None,
    make_evaluation: MakeEvaluation | None,
) -> Iterator[tuple[Run, TrainState]]:
    """Context manager that sets up a run. `stunet.train.loop.train` describes the arguments.

    Yields:
        The objects and functions that the loop uses, and the state before the loop's first update.
    """
    check_path(workdir)
    if compiled is not None and not compiled.exists():
        check_writable(compiled.parent, "choose another place for --compiled")
    trackers.check(parts.trackers)
    clock, events, is_first = Clock(), parts.events, hosts.is_first()
    mesh = _mesh(parts)

    def tell(sentence: str) -> None:
        progress.write(sentence)  # The progress bar is made when the state is there.

    with contextlib.ExitStack() as stack:
        # At the end, a second signal must not cut short what the first one asked for.
        stack.enter_context(signals.handlers_kept())
        watchdog = stack.enter_context(Watchdog(parts.watchdog_seconds, hosts.tell_failure))
        streams = open_streams(parts.buckets, parts.seed)
        validate = _validation(parts, mesh) if events.validate_every else None
        preview = _preview(parts, workdir, mesh) if events.preview_every else None
        evaluation = None
        if events.evaluate_every:
            evaluation = make_evaluation(parts, workdir, mesh, tell)
        upload = stack.enter_context(copied(workdir))
        if not (workdir / "config.json").exists():
            initial.check(parts, mesh)
        kept, again = "complete checkpoints are untouched", ", which continues from the latest"
        stack.enter_context(full_disk_explained(workdir, kept, again))
        stack.enter_context(claimed(parts.config, workdir, changing))
        damage = [clock.note(workdir)] if is_first else []
        stack.enter_context(meshes.use(mesh, parts.layout.context_axis))
        checkpoints = stack.enter_context(Checkpoints(workdir, parts.retention))
        batches = pipeline.TrainBatches(_feeds(parts, streams, mesh), parts.num_threads)
        stack.callback(batches.close)

        abstract = abstract_state(parts.model, parts.optimizer, mesh)
        update = program.jit_step(parts, abstract)
        if (checkpoints.latest() or 0) < events.steps:
            update = stack.enter_context(
                program.compiled_beside(update, parts, abstract, mesh, compiled, tell)
            )
        if checkpoints.latest() is None:
            state, notes = initial.first_state(parts, abstract, mesh), ()
        else:
            state, position, notes = checkpoints.restore(abstract)
            notes = (*notes, *batches.set_state(position))
        step = int(state.step)
        if step > events.steps:
            raise UserError(
                f"{workdir} has done {step} updates, more than train.steps, which is "
                f"{events.steps}; give a larger number"
            )
        if events.snapshot_every:
            snapshots.drop_later(workdir, step)
        changes = note_changes(parts.config, workdir, step)
        shown = _trackers(parts, workdir, tell, step) if is_first else None
        metrics = stack.enter_context(
            Metrics(workdir, step, is_first, tracked=parts.retention.best, trackers=shown)
        )
        clock.resume(metrics.last)
        profile = stack.enter_context(Profile(events.trace, workdir, step, write=is_first))
        progress = stack.enter_context(Progress(events.steps, step, show=is_first))
        damage += [metrics.damage]
        first = _first_line(abstract, mesh, step), _buckets_line(parts)
        for line in filter(None, (*damage, *notes, *first, *changes, profile.overlooked())):
            progress.write(line)
        reporter = stack.enter_context(
            Reporter(
                metrics,
                progress,
                clock,
                checkpoints,
                sources=[of.name for of in parts.sources],
                skip_limit=parts.skip_limit,
                count_flops=lambda: _flops_by_shape(parts),
                devices=mesh.devices,
                write=is_first,
            )
        )
        if evaluation:
            evaluation.begin()
        stops = signals.note_stops()
        stop_agreement = hosts.Agreement(mesh, lag=IN_FLIGHT)
        save_agreement = hosts.Agreement(mesh, lag=IN_FLIGHT)
        save_timer = SaveTimer(events.save_seconds)

        def should_save() -> bool:
            # Clocks differ from host to host, so one of them counts.
            return bool(events.save_seconds) and save_agreement(is_first and save_timer.asks())

        def next_batch() -> dict[str, jax.Array]:
            with clock.waiting(), jax.profiler.TraceAnnotation("wait for data"):
                batch = next(batches)
            return meshes.shard_batch(batch, mesh)

        run = Run(
            workdir=workdir,
            first_step=step,
            update=update,
            batches=batches,
            next_batch=next_batch,
            # A signal that comes after the question is answered after the next update.
            should_stop=lambda: stop_agreement(bool(stops)),
            should_save=should_save,
            save_timer=save_timer,
            upload=upload,
            checkpoints=checkpoints,
            metrics=metrics,
            progress=progress,
            profile=profile,
            reporter=reporter,
            clock=clock,
            watchdog=watchdog,
            validate=validate,
            evaluation=evaluation,
            preview=preview,
        )
        yield run, state


def _mesh(parts: Parts) -> jax.sharding.Mesh:
    """Returns the mesh of all devices.

    Raises:
        UserError: the devices do not fit the config's mesh, or batches do not split over them.
    """
    mesh = meshes.make_mesh(parts.layout)
    meshes.check_batch(parts.batch_size, parts.accumulate, mesh)
    for bucket in parts.buckets:
        what = f"data.clips_per_update for clips of {bucket.name}"
        meshes.check_batch(bucket.batch_size, parts.accumulate, mesh, what)
    return mesh


def _feeds(parts: Parts, streams: Sequence[Any], mesh: jax.sharding.Mesh) -> list[pipeline.Feed]:
    """Returns what this process reads of each bucket's clips."""
    return [
        pipeline.Feed(
            streams=of,
            batch_size=bucket.batch_size,
            rows=hosts.batch_rows(meshes.batch_sharding(mesh), bucket.batch_size),
            name=bucket.name,
            weight=bucket.weight,
        )
        for bucket, of in zip(parts.buckets, streams, strict=True)
    ]


def _trackers(
    parts: Parts, workdir: pathlib.Path, tell: Callable[[str], None], step: int
) -> trackers.Trackers:
    # A copy of the working directory is the same run.
    named = f"{workdir.resolve().name} {read_began(workdir)}"
    run = RunInfo(
        workdir=workdir.resolve(),
        id=hashlib.sha256(named.encode()).hexdigest()[:12],
        config=configs.flatten(parts.config),
        commit=commit(),
    )
    return trackers.Trackers(parts.trackers, run, tell, step)


def _validation(parts: Parts, mesh: jax.sharding.Mesh) -> Callable[[Any, Any], dict[str, float]]:
    return make_validation(
        parts.objective,
        parts.dataset,
        mesh,
        clips=parts.validation_clips,
        batch_size=parts.batch_size,
        seed=parts.seed,
        num_threads=parts.num_threads,
    )


def _preview(
    parts: Parts, workdir: pathlib.Path, mesh: jax.sharding.Mesh
) -> Callable[[Any, int, Metrics], None]:
    return make_preview(parts.preview, parts.dataset, workdir, mesh, parts.preview_clips)


def _buckets_line(parts: Parts) -> str:
    """Returns a line about the batches of each shape; "" if all batches have one shape."""
    total = sum(bucket.weight for bucket in parts.buckets)
    kinds = [
        f"{bucket.weight / total:.1%} with {bucket.batch_size} clips of {bucket.name}"
        for bucket in parts.buckets
    ]
    return f"batches: {', '.join(kinds)} (frames, rows, columns)" if len(kinds) > 1 else ""


def _flops_by_shape(parts: Parts) -> dict[tuple[int, ...], int]:
    """Counts the floating-point operations of an update, by the shape of its batch of clips."""
    counted = {}
    for one in map(parts.only, parts.buckets):
        shape = one.model.clip_shape(one.batch_size)
        counted[shape] = model_flops(one.model, one.batch_size, one.objective.more_passes)
    return counted


def _first_line(abstract: TrainState, mesh: jax.sharding.Mesh, step: int) -> str:
    """Returns a line with the number of parameters, the devices, and the number of updates done."""
    trained, frozen = map(count_parameters, (abstract.params, abstract.frozen))
    frozen_note = f" ({frozen:,} of them frozen)" if frozen else ""
    kind = mesh.devices.flat[0].device_kind
    return (
        f"{trained + frozen:,} parameters{frozen_note} on {mesh.size} {kind} device(s); "
        f"from update {step} on"
    )
