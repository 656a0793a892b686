"""Compiles the train step beside other work, and saves it, so that a restart need not compile it.

A file holds one entry of JAX's own cache of compiled programs. Training puts the entry where JAX
looks for it, and JAX finds it by its key: a hash of the program, of the versions and of the
devices. So a program that does not fit is never run. JAX has a second way to save programs,
`jax.experimental.serialize_executable`, but that one loads pickles, which run code that they name.

The first line of a file is a header in JSON. It says what the program was compiled for, so that a
run that needs another program can say why not. The rest of the file is the entry.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import json
import os
import platform
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import jaxlib
import msgspec
from jax.experimental.compilation_cache import compilation_cache

from stunet import jsonfiles
from stunet.data.mixtures import Bucket
from stunet.errors import UserError
from stunet.files import atomic
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.train.objectives.objective import Batch
from stunet.train.parts import Parts
from stunet.train.state import TrainState, abstract_state
from stunet.train.step import Metrics, Step, jit_train_step

# JAX appends this to the key of an entry, to name its file.
_SUFFIX = "-cache"
_AS_USUAL = "the step is compiled as usual"
# JAX records this event when it takes a program from its cache.
_HIT = "/jax/compilation_cache/cache_hits"
# JAX writes and finds entries under these settings. If JAX's other caches were on, which only GPUs
# use, each key would depend on the path of the cache.
_SETTINGS = {
    "jax_enable_compilation_cache": True,
    "jax_persistent_cache_enable_xla_caches": "none",
    "jax_persistent_cache_min_compile_time_secs": 0.0,
}


@dataclasses.dataclass(frozen=True)
class _Target:
    """Describes what a step is compiled for. Two equal targets have the same program.

    Attributes:
        jax: version of jax.
        jaxlib: version of jaxlib, which holds the compiler for CPUs.
        backend: version of the backend, such as that of libtpu.
        device: JAX's name of the kind of device.
        devices: number of devices.
        processes: number of processes to which the devices belong.
        processor: digest of the processor's model and instructions, for CPUs; "" for other devices.
        flags: flags of the compiler from the environment, sorted.
        step: digest of the step before it is compiled (StableHLO).
    """

    jax: str
    jaxlib: str
    backend: str
    device: str
    devices: int
    processes: int
    processor: str
    flags: list[str]
    step: str


# Field of a target -> how a sentence names it, in the order in which fields are compared.
_NAMES = {
    "device": "another kind of device",
    "devices": "another number of devices",
    "processes": "another number of processes",
    "jax": "another version of jax",
    "jaxlib": "another version of jaxlib",
    "backend": "another version of the backend",
    "processor": "another processor",
    "flags": "other flags in XLA_FLAGS or LIBTPU_INIT_ARGS",
    "step": "another config or another version of stunet",
}


class _Header(msgspec.Struct, forbid_unknown_fields=True):
    """Holds the first line of a file.

    Attributes:
        target: what the step was compiled for.
        key: JAX's key of the entry.
        digest: SHA-256 of the header's other fields and of the entry.
    """

    target: _Target
    key: Annotated[str, msgspec.Meta(pattern=r"^[a-z_]+-[0-9a-f]{64}$")]
    digest: str


def abstract_batch(
    parts: Parts, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
) -> dict[str, Any]:
    """Returns shapes, dtypes and shardings of a global batch from the data pipeline.

    In a run with several buckets, `parts` are those of one bucket (`Parts.only`).
    """
    size, text = parts.batch_size, parts.dataset.text.shape
    shapes = {
        "video": (parts.model.clip_shape(size)[1:], parts.space.dtype),
        "text": (text, jnp.float32),
        "text_mask": (text[:1], jnp.bool_),
    }
    if len(parts.sources) > 1:
        shapes["source"] = ((), jnp.int32)
    sharding = meshes.batch_sharding(mesh)
    return {
        key: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=sharding)
        for key, (shape, dtype) in shapes.items()
    }


def jit_step(parts: Parts, state: TrainState) -> jax.stages.Wrapped:
    """Returns the update that a run does, jitted.

    Args:
        parts: network and settings of the run.
        state: the state of training, or its shapes and shardings.
    """
    return jit_train_step(
        parts.objective,
        parts.optimizer,
        state,
        seed=parts.seed,
        accumulate=parts.accumulate,
        sources=len(parts.sources),
        norms_by_layer=parts.norms_by_layer,
    )


def lower(parts: Parts, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Returns the update that a run does on `mesh`, ready to be compiled.

    This machine need not have the devices of the mesh. In a run with several buckets, `parts` are
    those of one bucket (`Parts.only`).
    """
    with meshes.use(mesh, parts.layout.context_axis):
        state = abstract_state(parts.model, parts.optimizer, mesh)
        return jit_step(parts, state).lower(state, abstract_batch(parts, mesh))


def save(lowered: jax.stages.Lowered, mesh: jax.sharding.Mesh, file: Path) -> None:
    """Compiles a step and writes it to a file, whole or not at all.

    All processes compile, and the first process writes.

    Args:
        lowered: the step, from `lower`. It must not have been compiled before.
        mesh: devices of the step.
        file: the file to write.

    Raises:
        UserError: JAX cannot save programs for these devices.
    """
    with tempfile.TemporaryDirectory(prefix="stunet_compile_") as name:
        with _cache_at(name):
            lowered.compile()
        if not hosts.is_first():
            return
        entries = list(Path(name).glob(f"*{_SUFFIX}"))
        if len(entries) != 1:
            kind = mesh.devices.flat[0].device_kind
            raise UserError(f"JAX cannot save programs that it has compiled for {kind} devices")
        entry = entries[0].read_bytes()
    header = _Header(_target(lowered, mesh), entries[0].name.removesuffix(_SUFFIX), "")
    header.digest = _digest(header, entry)
    with atomic(file) as partial:
        partial.write_bytes(msgspec.json.encode(header) + b"\n" + entry)


@contextlib.contextmanager
def compiled_beside(
    update: jax.stages.Wrapped,
    parts: Parts,
    state: TrainState,
    mesh: jax.sharding.Mesh,
    file: Path | None,
    tell: Callable[[str], None],
) -> Iterator[Step]:
    """Context manager that compiles the update in a thread, while the caller makes the state.

    The update of each bucket is a program of its own. The yielded function is like `update`, but
    its first call waits for all programs. With a file, the thread only traces and lowers the
    programs. The first call then takes each compiled program from its file (`file_of`). If there is
    no such file, it compiles the program and writes the file. If the file does not hold the program
    of this run, it compiles the program and leaves the file as it is.

    Leaving the context waits for the thread, but not if an error ends it: compiling may take longer
    than the user should wait for the error's message. The process ends when the compiler does.

    Args:
        update: the run's update, from `jit_step`.
        parts: network and settings of the run.
        state: shapes and shardings of the state.
        mesh: devices of the run.
        file: the file, which all processes share; None for no file. Take it only from people you
            trust: it is a program.
        tell: takes a sentence for the user, which says where a program comes from and why, or which
            of several programs is compiled.
    """

    def prepare(bucket: Bucket) -> jax.stages.Lowered:
        # JAX knows the mesh only in the thread that entered it.
        with meshes.use(mesh, parts.layout.context_axis):
            lowered = update.lower(state, abstract_batch(parts.only(bucket), mesh))
        # With a file, JAX's settings change while it compiles, for all threads.
        if file is None:
            lowered.compile()
        return lowered

    with _thread() as thread:
        pending = deque((bucket, thread.submit(prepare, bucket)) for bucket in parts.buckets)

        def run(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
            while pending:
                bucket, program = pending.popleft()
                lowered = program.result()
                if file is not None:
                    tell(_use(file_of(file, parts, bucket), lowered, mesh))
                elif len(parts.buckets) > 1:
                    number = len(parts.buckets) - len(pending)
                    tell(
                        f"the update on clips of {bucket.name} is compiled ({number} of "
                        f"{len(parts.buckets)})"
                    )
            # JAX keeps what it has lowered and compiled, so this call does neither again.
            return update(state, batch)

        yield run


@contextlib.contextmanager
def _thread() -> Iterator[concurrent.futures.Executor]:
    """Context manager of a thread, which an error does not wait for."""
    thread = concurrent.futures.ThreadPoolExecutor(1)
    try:
        yield thread
    except BaseException:
        thread.shutdown(wait=False, cancel_futures=True)
        raise
    thread.shutdown()


def file_of(file: Path, parts: Parts, bucket: Bucket) -> Path:
    """Returns the file that keeps the program of a bucket: `file`, if there is but one bucket."""
    return file if len(parts.buckets) == 1 else file.with_name(f"{file.name}.{bucket.name}")


def _use(file: Path, lowered: jax.stages.Lowered, mesh: jax.sharding.Mesh) -> str:
    """Compiles the step or takes it from the file; returns a sentence that says which, and why."""
    devices = mesh.devices.flat
    if devices[0].platform == "cpu" and jax.process_count() > 1:
        return f"CPUs of several processes cannot share a compiled step; {_AS_USUAL}"
    try:
        # Processes that compile for GPUs wait for one another, so all compile or none does.
        if hosts.first_text("there" if hosts.is_first() and file.exists() else ""):
            return _take(file, lowered, mesh)
        save(lowered, mesh, file)
        return f"{file} keeps the compiled step for the next start"
    except UserError as error:
        return f"{error}; {_AS_USUAL}"
    except OSError as error:
        return f"{error.filename}: {error.strerror}; {_AS_USUAL}"


def _take(file: Path, lowered: jax.stages.Lowered, mesh: jax.sharding.Mesh) -> str:
    """Takes the step from the file, if the file fits this run; returns a sentence about it.

    Raises:
        UserError: the file cannot be read, or does not hold the step of this run.
        OSError: the file's entry cannot be copied to JAX's cache.
    """
    header, entry = _read(file)
    ours = _target(lowered, mesh)
    for field, what in _NAMES.items():
        if getattr(header.target, field) != getattr(ours, field):
            was, now = (_shown(target, field) for target in (header.target, ours))
            raise UserError(f"{file} was compiled for {what}{was and f' ({was}, not {now})'}")
    with tempfile.TemporaryDirectory(prefix="stunet_compile_") as spare, _counted_hits() as hits:
        configured = jax.config.jax_compilation_cache_dir
        # Only JAX itself can write to a cache in a bucket.
        place = Path(spare if not configured or "://" in configured else configured)
        with atomic(place / f"{header.key}{_SUFFIX}") as partial:
            partial.write_bytes(entry)
        with _cache_at(str(place)):
            lowered.compile()
    if not hits:
        raise UserError(f"JAX does not know the key {header.key}, under which {file} has the step")
    return f"the compiled step comes from {file}"


@contextlib.contextmanager
def _counted_hits() -> Iterator[list[str]]:
    """Context manager that yields a list, to which each program from JAX's cache adds an item."""
    hits = []

    def note(event: str, **_: Any) -> None:
        hits.extend([event] * (event == _HIT))

    jax.monitoring.register_event_listener(note)
    try:
        yield hits
    finally:
        jax.monitoring.unregister_event_listener(note)


@contextlib.contextmanager
def _cache_at(directory: str) -> Iterator[None]:
    """Context manager in which JAX keeps programs in `directory`, under keys that omit its path."""
    settings = _SETTINGS | {"jax_compilation_cache_dir": directory}
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        # JAX reads the settings when it first uses the cache.
        compilation_cache.reset_cache()
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def _target(lowered: jax.stages.Lowered, mesh: jax.sharding.Mesh) -> _Target:
    device = mesh.devices.flat[0]
    flags = (os.environ.get(name, "").split() for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS"))
    return _Target(
        jax=jax.__version__,
        jaxlib=jaxlib.__version__,
        backend=device.client.platform_version,
        device=device.device_kind,
        devices=mesh.size,
        processes=len({one.process_index for one in mesh.devices.flat}),
        processor=_processor() if device.platform == "cpu" else "",
        flags=sorted(flag for given in flags for flag in given),
        step=_sha256(lowered.as_text().encode()),
    )


def _processor() -> str:
    """Returns a digest of the model and the instructions of this machine's processor.

    A program that was compiled for a CPU may use every instruction that the CPU has.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # Only Linux has this file.
        lines = [f"model name {platform.processor()}"]
    names = ("model name", "flags", "Features", "CPU part")
    return _sha256("\n".join(sorted({line for line in lines if line.startswith(names)})).encode())


def _read(file: Path) -> tuple[_Header, bytes]:
    """Reads a file from `save`.

    Raises:
        UserError: the file cannot be read or is damaged.
    """
    try:
        first, _, entry = file.read_bytes().partition(b"\n")
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror})") from error
    header = jsonfiles.parse(first, _Header, str(file))
    if header.digest != _digest(header, entry):
        raise UserError(f"{file} is damaged: its content does not have the digest in its header")
    return header, entry


def _digest(header: _Header, entry: bytes) -> str:
    fields = json.dumps([dataclasses.asdict(header.target), header.key], sort_keys=True)
    return _sha256(fields.encode() + entry)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _shown(target: _Target, field: str) -> str:
    """Returns the value of a target's field for a sentence; "" for a digest."""
    value = getattr(target, field)
    if field in ("processor", "step"):
        return ""
    return " ".join((" ".join(value) if field == "flags" else str(value)).split()) or "none"
