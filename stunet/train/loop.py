"""The training run, top to bottom: data, state, updates, and what is written of them."""

import concurrent.futures
import contextlib
import pathlib
import signal
import threading
from collections import deque
from collections.abc import Iterator

import jax
import numpy as np

from stunet import configs
from stunet.data import media, pipeline, sources
from stunet.errors import UserError
from stunet.files import full_disk_explained, locked, refusal_explained
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.train import initial
from stunet.train.checkpoints import Checkpoints
from stunet.train.clock import Clock, utilisation
from stunet.train.conditioning import conditioning
from stunet.train.flops import model_flops
from stunet.train.metrics import Metrics, Progress
from stunet.train.profile import Profile
from stunet.train.sampling import make_sampler
from stunet.train.state import abstract_state, count_parameters
from stunet.train.step import jit_train_step, make_validation_step, to_float

# Updates that the host may be ahead of the devices: enough to hide its work, few enough to hold no
# memory.
_IN_FLIGHT = 2

_FULL_DISK = (
    "complete checkpoints are untouched: free some space and run the same command again, which "
    "continues from the latest"
)


def train(config: configs.Config, workdir: pathlib.Path) -> int:
    """Trains until `train.steps`, continuing what `workdir` holds. Returns the number of updates
    done.

    SIGTERM and SIGINT end the run after the update in progress, with a checkpoint of it. With
    several processes one of them is enough, and all stop after the same update, a few later.

    Raises:
        UserError: data or mesh do not fit the config, `workdir` belongs to another config,
        `train.init_from` holds no weights that fit, the loss is not finite, the disk is full,
        `workdir` may not be written.
    """
    clock = Clock()
    config = sources.with_fingerprint(config)
    mesh = meshes.make_mesh(config.mesh)
    meshes.check_batch(config.train, mesh)
    train_source = sources.make_source(config, "train")
    validate, preview = make_validation(config), make_preview(config, workdir, mesh)
    if not (workdir / "config.json").exists():
        initial.check(config, mesh)
    is_first = hosts.is_first()

    with contextlib.ExitStack() as stack:
        stack.enter_context(full_disk_explained(workdir, _FULL_DISK))
        with refusal_explained(workdir, "choose a --workdir in which you may create files"):
            claim_workdir(config, workdir)
            if is_first:
                # A second run would take the first one's unfinished checkpoints for what a killed
                # run left, and remove them.
                busy = (
                    f"a training is running in {workdir}; wait for it, or choose another --workdir"
                )
                stack.enter_context(locked(workdir, busy))
                clock.note(workdir)
        stack.enter_context(meshes.use(mesh, config.mesh.context_axis))
        checkpoints = stack.enter_context(Checkpoints(workdir, config.checkpoint.keep))
        batches = pipeline.train_batches(
            train_source,
            seed=config.seed,
            batch_size=config.train.batch_size,
            rows=hosts.batch_rows(meshes.batch_sharding(mesh), config.train.batch_size),
            num_threads=config.data.num_threads,
        )
        stack.callback(batches.close)

        abstract = abstract_state(config, mesh)
        if checkpoints.latest() is None:
            state = initial.first_state(config, mesh)
        else:
            state, position = checkpoints.restore(abstract)
            batches.set_state(position)
        step = int(state.step)
        metrics = stack.enter_context(Metrics(workdir, step, write=is_first))
        clock.resume(metrics.last)
        profile = stack.enter_context(Profile(config.profile, workdir, step, write=is_first))
        progress = stack.enter_context(Progress(config.train.steps, step, show=is_first))
        device_kind = mesh.devices.flat[0].device_kind
        trained, frozen = map(count_parameters, (abstract.params, abstract.frozen))
        of_them = f" ({frozen:,} of them frozen)" if frozen else ""
        progress.write(
            f"{trained + frozen:,} parameters{of_them} on {mesh.size} {device_kind} device(s); "
            f"from update {step} on"
        )
        if overlooked := profile.overlooked():
            progress.write(overlooked)
        update = jit_train_step(config, abstract)
        stopped = stack.enter_context(_stop_signals())
        agreed = hosts.StopAgreement(mesh, lag=_IN_FLIGHT)
        # Counting takes seconds, which the host has while the devices compute.
        counting = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        pending = deque()

        clock.begin()
        stop, begun_at = False, step
        while step < config.train.steps and not stop:
            if profile.begins_with(step + 1):
                jax.block_until_ready(state)
                with clock.aside():
                    profile.start()
            with profile.update(step + 1):
                with clock.waiting(), jax.profiler.TraceAnnotation("wait for data"):
                    batch = next(batches)
                state, measured = update(state, meshes.shard_batch(batch, mesh))
            step += 1
            pending.append((step, measured))
            if clock.is_compiling:
                jax.block_until_ready(measured)
                if is_first:
                    operations = counting.submit(model_flops, config)
            elif len(pending) > _IN_FLIGHT:
                jax.block_until_ready(pending[-1 - _IN_FLIGHT][1])
            clock.updated()
            progress.update(step)

            # Asked once an update: a signal that comes later is the next update's.
            stop = agreed(stopped.is_set())
            log, done = config.log, step == config.train.steps
            save = stop or done or step % config.checkpoint.every == 0
            report = save or step % log.every == 0
            validates = log.validate_every and (done or step % log.validate_every == 0)
            previews = log.sample_every and step % log.sample_every == 0
            traced = profile.is_running and (stop or profile.ends_with(step))
            if not (report or validates or previews or traced):
                continue
            # What follows is not the updates', but would wait for them.
            jax.block_until_ready(measured)
            with clock.aside():
                if traced:
                    progress.write(profile.stop())
                if report:
                    values = _mean_of_finite(pending, checkpoints) | clock.measure()
                    pending.clear()
                    seconds = values["seconds_per_step"]
                    values["clips_per_second"] = config.train.batch_size / seconds
                    if is_first:
                        values |= utilisation(operations.result() / mesh.size, seconds, device_kind)
                    metrics.scalars(step, values)
                    progress.report(values["loss"], values["clips_per_second"])
                if save:
                    checkpoints.save(state, batches.get_state())
                if validates:
                    metrics.scalars(step, validate(state.averaged, mesh))
                if previews:
                    preview(state.averaged, step, metrics)
        checkpoints.wait()
        if step < config.train.steps:
            progress.write(f"stopped after update {step}; the same command continues from there")
        if is_first and step > begun_at:
            progress.write(clock.summary())
    return step


def claim_workdir(config: configs.Config, workdir: pathlib.Path) -> None:
    """Notes the config in `workdir`, or checks that it is the one noted there.

    The first process does; the others wait, and check that they see the same.

    Raises:
        UserError: the directory belongs to another config, or the processes share neither it nor
        their config.
    """
    file = workdir / "config.json"
    if hosts.is_first():
        if file.exists():
            differences = configs.differences(configs.read(file), config)
            if differences:
                raise UserError(
                    f"{workdir} belongs to another config: {'; '.join(differences)}; "
                    "choose another --workdir or the same values"
                )
        # Not written anew for nothing: others may be reading it.
        if not file.exists() or configs.read(file) != config:
            workdir.mkdir(parents=True, exist_ok=True)
            configs.write(config, file)
    hosts.wait_for_all("workdir claimed")
    if not file.exists():
        raise UserError(
            f"{workdir} is not the directory that process 0 sees; "
            "choose a --workdir on a file system that all processes share"
        )
    if configs.read(file) != config:
        raise UserError(
            f"{file}, which process 0 has just written, is not this process's config; "
            "start all processes with the same --config and values"
        )


def make_validation(config: configs.Config):
    """Returns `validate(params, mesh) -> {"val/loss": ..., ...}` over held-out clips, or None."""
    log, train = config.log, config.train
    if not log.validate_every:
        return None
    source = sources.make_source(config, "val")
    # The batch of training, which is known to fit and to split; fewer clips than asked for if there
    # are no more.
    count = max(1, min(log.validate_clips, len(source)) // train.batch_size)
    if count * train.batch_size > len(source):
        raise UserError(
            f"there are {len(source)} held-out clips, fewer than one batch of {train.batch_size}; "
            "set log.validate_every to 0, or prepare more clips"
        )
    source = sources.sample(source, count * train.batch_size, config.data)
    step = jax.jit(make_validation_step(config))

    def validate(params, mesh) -> dict[str, float]:
        batches = pipeline.eval_batches(
            source,
            train.batch_size,
            count,
            rows=hosts.batch_rows(meshes.batch_sharding(mesh), train.batch_size),
            num_threads=config.data.num_threads,
        )
        losses = [jax.device_get(step(params, meshes.shard_batch(b, mesh))) for b in batches]
        means = {f"val/{k}": float(np.mean([x[k] for x in losses])) for k in losses[0]}
        return means | {"val/loss": float(np.mean(list(means.values())))}

    return validate


def make_preview(config: configs.Config, workdir: pathlib.Path, mesh: jax.sharding.Mesh):
    """Returns `preview(params, step, metrics)`: clips for held-out captions into `samples/`.

    A super-resolution network enlarges the held-out clips themselves, made small, or fills in what
    is between their keyframes.
    """
    if not config.log.sample_every:
        return None
    held_out = sources.make_source(config, "val")
    source = sources.sample(held_out, config.sample.num, config.data)
    examples = [source[i] for i in range(min(config.sample.num, len(source)))]
    text, mask = (np.stack([e[k] for e in examples]) for k in ("text", "text_mask"))
    # A network without text saw no captions, and its samples show none.
    captions = [e["caption"] for e in examples] if config.model.text_features else None
    sample, given = make_sampler(config), None
    if clean := conditioning(config).clean:
        given = clean(to_float(np.stack([e["video"] for e in examples])), config)
    # Filled up, so that they split over the mesh: else every chip would compute all of them.
    ways = meshes.batch_ways(mesh)
    rows = np.resize(np.arange(len(examples)), -(-len(examples) // ways) * ways)
    first = jax.jit(lambda clips: clips[: len(examples)])

    def preview(params, step: int, metrics: Metrics) -> None:
        inputs = jax.tree.map(lambda x: meshes.split_rows(x, rows, mesh), (text, mask, given))
        *_, clips = sample(params, *inputs[:2], config.seed, inputs[2])
        clips = hosts.whole(first(clips))
        if hosts.is_first():
            stem = workdir / "samples" / f"step_{step:08d}"
            stem.parent.mkdir(exist_ok=True)
            media.write_gif(f"{stem}.gif", clips, configs.frame_rate(config.data), captions)
            media.write_xt(f"{stem}_xt.png", clips, captions)
            metrics.picture(step, "samples/clips", f"{stem}.gif")
            metrics.picture(step, "samples/xt", f"{stem}_xt.png")

    return preview


def _mean_of_finite(pending, checkpoints: Checkpoints) -> dict[str, float]:
    """The mean of each metric over the updates pending.

    Raises:
        UserError: a value is not finite; names the update, and the last good checkpoint.
    """
    fetched = [(step, jax.device_get(values)) for step, values in pending]
    for step, values in fetched:
        broken = [k for k, v in values.items() if not np.isfinite(v)]
        if broken:
            good = checkpoints.latest()
            kept = (
                "there is no checkpoint yet"
                if good is None
                else (f"the last good checkpoint is {checkpoints.directory / str(good)}")
            )
            raise UserError(
                f"update {step}: {' and '.join(broken)} is not finite; {kept}; try a lower "
                "train.learning_rate, more train.warmup_steps, or float32"
            )
    means = {k: float(np.mean([v[k] for _, v in fetched])) for k in fetched[0][1]}
    return means | {"learning_rate": float(fetched[-1][1]["learning_rate"])}


@contextlib.contextmanager
def _stop_signals() -> Iterator[threading.Event]:
    """Within: SIGTERM and SIGINT set the event instead of ending the process."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return
    before = {
        s: signal.signal(s, lambda *_: stopped.set()) for s in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
