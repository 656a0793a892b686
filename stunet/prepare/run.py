"""Turns videos into a set of shots, from which training cuts clips of any length and size."""

import contextlib
import dataclasses
import functools
import heapq
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from stunet.data.shots import layout
from stunet.data.shots.layout import Index, Spec, holds_shots, read_spec
from stunet.data.shots.slots import held_out
from stunet.errors import UserError
from stunet.files import (
    atomic,
    check_vacant,
    check_writable,
    full_disk_explained,
    locked,
)
from stunet.prepare import inputs, latents, parts, texts
from stunet.prepare.engines import Engine, processes, serial
from stunet.prepare.filters import REASONS, Filters, check, decide
from stunet.prepare.gather import Gathered, gather, locate
from stunet.prepare.kinds import VIDEOS, Kind
from stunet.prepare.progress import Counter
from stunet.prepare.shards import Done, is_done, is_whole, write_manifest, write_shard
from stunet.prepare.summary import Dropped, PrepareSummary, Slow
from stunet.stores import large, mirror, objects
from stunet.stores.addresses import address, portable
from stunet.stores.workdir import alone

# No camera of films takes more, and a picture that stays for seconds would fill a disk.
_MAX_FPS = 1000
# Slowest videos that the summary holds.
_SLOWEST = 10
_GOES_ON = ", and it goes on"
_DEFAULT, _NO_FILTERS = Spec(), Filters()


def prepare(
    input_dir: str | Path,
    output_dir: str | Path,
    spec: Spec = _DEFAULT,
    *,
    kind: Kind = VIDEOS,
    filters: Filters = _NO_FILTERS,
    text_encoder: str = "bytes",
    encode_text: texts.EncodeText | None = None,
    encodings: Sequence[latents.Encoding] = (),
    val_fraction: float | int = 0.1,
    val_seconds: float | int = 5.0,
    workers: int | None = None,
    engine: Engine | None = None,
    verify: bool = False,
    progress: bool = True,
) -> PrepareSummary:
    """Writes the shots of all videos of `input_dir`, or of those that a set does not hold yet.

    The work is done in parts, each of which becomes one file. Whatever stops the function, the same
    call goes on and loses no more than the parts in progress. The files are equal bit for bit,
    whatever the number of workers.

    Args:
        input_dir: folder of videos, list of videos, or tar files (`stunet.prepare.inputs.find`).
        output_dir: directory of the set of shots. It may exist if an earlier call made it.
        spec: how shots are made. It must be the same in each call for one `output_dir`.
        kind: kind of the files to read in folders and tar files: videos or pictures.
        filters: which shots are dropped. Another call may give others, and decodes nothing for it.
        text_encoder: name of the text encoder.
        encode_text: encodes captions to the states that are stored. None stores no states.
        encodings: how pictures are encoded to latents that are stored; empty stores none.
        val_fraction: share of the time that is held out for validation, in [0, 1).
        val_seconds: length of each stretch that is held out (`stunet.data.shots.slots.held_out`).
        workers: number of processes; None means one for each processor.
        engine: runs the work instead of these processes, as `stunet.prepare.cluster` does.
        verify: compare the files that are there with their digests, and make damaged ones again.
        progress: show how far the work is.

    Raises:
        UserError: there are no videos, an argument is out of range, `output_dir` holds something
            else or is being written by another process, all shots are dropped, or the disk is full.
    """
    started = time.monotonic()
    input_dir, output = Path(input_dir), Path(output_dir)
    _check(spec, val_fraction, val_seconds, workers)
    check(filters, spec.side)
    given = inputs.find(input_dir, kind)
    with _claimed(output, spec) as upload:
        plan = parts.extend(output, given)
        upload()
        missing, damaged = _missing(output, plan.parts, verify)
        engine = engine or _engine(workers, len(missing))
        slowest = _write_shards(output, spec, missing, engine, progress, upload)
        summary = PrepareSummary(
            output, added=plan.added, remade=damaged, notes=[*given.notes], slowest=slowest
        )
        if plan.changed:
            summary.notes.append(
                f"{plan.changed:,} videos have other captions than in an earlier call; theirs stay "
                "as they were"
            )
        if plan.repeated:
            summary.notes.append(f"{plan.repeated:,} rows name a video that an earlier row names")
        gathered = gather(output, lambda manifest: summary.add(manifest, spec.fps))
        summary.gathered = gathered
        columns = gathered.columns
        if not len(columns.frames):
            reason = next(iter(summary.reasons), f"all are shorter than {spec.min_seconds:g} s")
            # Nothing is worth keeping, and a second try must not find these videos done.
            _remove(output)
            raise UserError(f"no video of {input_dir} gave a shot: {reason}")
        decisions = decide(columns, filters)
        summary.dropped = list(_dropped(output, gathered, decisions, spec.fps))
        frames = np.where(decisions == 0, columns.frames, np.int32(0))
        if not frames.any():
            reasons = "; ".join(map(str, summary.dropped))
            raise UserError(f"no shot of {output} is left: {reasons}; lower these thresholds")
        held = held_out(frames, spec.fps, val_fraction, val_seconds)
        summary.shots = int(np.count_nonzero(frames))
        summary.seconds, summary.held_out_seconds = (
            float(count.sum() / spec.fps) for count in (frames, held)
        )
        if encode_text is not None:
            summary.notes += texts.write_states(output, plan.parts, text_encoder, encode_text)
        index = Index(frames, columns.height, columns.width, held, gathered.records, gathered.bytes)
        layout.write_index(output, index)
        upload()
        for encoding in encodings:
            # Last: the set is complete without latents, and encoding them takes long.
            made = latents.write_latents(output, spec, index, encoding, progress)
            upload()
            summary.notes.append(f"latents are stored of {made}")
    summary.wall_seconds = time.monotonic() - started
    return summary


def _check(spec: Spec, val_fraction: float, val_seconds: float, workers: int | None) -> None:
    """Raises a UserError if an argument is out of range."""
    spec.make_codec()
    if not 0 <= val_fraction < 1:
        raise UserError(f"val_fraction must be at least 0 and below 1, not {val_fraction}")
    positive = {"side": spec.side, "fps": spec.fps, "min_seconds": spec.min_seconds}
    positive |= {"max_seconds": spec.max_seconds, "val_seconds": val_seconds}
    positive |= {"workers": 1 if workers is None else workers}
    for name, value in positive.items():
        if not 0 < value < 1e6:
            raise UserError(f"{name} must be above 0 and below 1,000,000, not {value}")
    if not 0 <= spec.cut_threshold <= 255:
        raise UserError(f"cut_threshold must be from 0 to 255, not {spec.cut_threshold}")
    if spec.fps > _MAX_FPS:
        raise UserError(f"fps is {spec.fps:g}; at most {_MAX_FPS} frames per second are made")
    if spec.max_seconds < spec.min_seconds:
        raise UserError(
            f"max_seconds is {spec.max_seconds:g} and min_seconds {spec.min_seconds:g}; "
            "max_seconds must not be the smaller one"
        )


@contextlib.contextmanager
def _claimed(output: Path, spec: Spec) -> Iterator[Callable[[], None]]:
    """Context manager that makes the directory of a set, and keeps other processes from writing it.

    Yields:
        A function that uploads all files but the shards, if the directory is in a bucket.

    Raises:
        UserError: the directory holds something else, or shots that were made in another way, or
            another process is writing it.
    """
    refusal = f"another `stunet prepare` is writing {output}; wait until it ends"
    with contextlib.ExitStack() as stack:
        upload = _nothing
        if address(output):
            upload = stack.enter_context(_claimed_in_bucket(output, refusal))
        elif not holds_shots(output):
            check_vacant(output)
        check_writable(output, "choose a place in which you may create directories")
        output.mkdir(parents=True, exist_ok=True)
        stack.enter_context(locked(output, refusal))
        stack.enter_context(full_disk_explained(output, "what is done stays", _GOES_ON))
        if holds_shots(output):
            _check_same(output, read_spec(output), spec)
        else:
            with atomic(output / layout.SPEC_FILE) as partial:
                partial.write_text(json.dumps(dataclasses.asdict(spec), indent=1) + "\n")
        _remove_leftovers(output)
        try:
            yield upload
        finally:
            _remove_leftovers(output)


def _nothing() -> None:
    """Uploads nothing: the directory is on a disk."""


@contextlib.contextmanager
def _claimed_in_bucket(output: Path, refusal: str) -> Iterator[Callable[[], None]]:
    """Does the part of `_claimed` that concerns the bucket, and copies what describes the set."""
    where = address(output)
    if layout.SPEC_FILE not in objects.listing(where):
        mirror.check_vacant(output)

    def tell(line: str) -> None:
        print(f"stunet prepare: {line}", file=sys.stderr)

    with alone(output, refusal, refusal, tell) as lease:
        mirror.refresh(output, only=layout.describes)
        # What a killed process has finished here and not uploaded is made again.
        for file in output.glob("**/*.array_record"):
            file.unlink()

        def upload() -> None:
            lease.check(where)
            mirror.push(output, only=layout.describes)

        yield upload


def _remove(output: Path) -> None:
    """Removes a set of shots, in its bucket too."""
    if where := address(output):
        objects.remove(where, objects.listing(where))
    shutil.rmtree(output)


def _check_same(output: Path, there: Spec, asked: Spec) -> None:
    for field in dataclasses.fields(Spec):
        old, new = (getattr(spec, field.name) for spec in (there, asked))
        if old != new:
            flag = "--" + field.name.replace("_", "-")
            raise UserError(
                f"{output} holds shots that were made with {flag} {old}, not {new}; give the same, "
                "or choose another place"
            )


def _remove_leftovers(output: Path) -> None:
    """Removes the temporary files that a killed process left."""
    for pattern in (
        ".*.partial-*",
        "*/.*.partial-*",
        "text/*/.*.partial-*",
        "latents/*/.*.partial-*",
    ):
        for file in output.glob(pattern):
            if file.is_dir():
                shutil.rmtree(file, ignore_errors=True)
            else:
                file.unlink(missing_ok=True)


def _missing(output: Path, count: int, verify: bool) -> tuple[set[int], int]:
    """Returns the numbers of the parts whose shards must be made, and how many are damaged."""
    there = [part for part in range(count) if layout.manifest_file(output, part).is_file()]
    sizes = large.sizes(output, "shards/*.array_record")
    check = is_whole if verify else functools.partial(is_done, sizes=sizes)
    damaged = {part for part in there if not check(output, part)}
    return set(range(count)) - set(there) | damaged, len(damaged)


def _engine(workers: int | None, count: int) -> Engine:
    workers = min(workers or os.cpu_count() or 1, count)
    return processes(workers) if workers > 1 else serial


def _write_shards(
    output: Path,
    spec: Spec,
    missing: set[int],
    engine: Engine,
    progress: bool,
    upload: Callable[[], None],
) -> list[Slow]:
    """Makes the shards of the missing parts, and writes and uploads the manifest of each.

    Returns:
        The videos that took longest.
    """
    slowest: list[Slow] = []
    if not missing:
        return slowest
    total = sum(len(part.entries) for part in parts.read(output) if part.number in missing)
    counter = Counter(total, progress)
    work = functools.partial(write_shard, output=portable(output), spec=spec)
    todo = (part for part in parts.read(output) if part.number in missing)
    try:
        for part, event in engine(work, todo):
            if isinstance(event, Done):
                video = event.video
                counter.add(video.frames, bool(video.skipped))
                slowest.append(Slow(event.seconds, video.path, video.frames))
                slowest = heapq.nlargest(_SLOWEST, slowest)
            else:
                write_manifest(output, part.number, event)
                upload()
    finally:
        counter.close()
    return slowest


def _dropped(
    output: Path, gathered: Gathered, decisions: np.ndarray, fps: float
) -> Iterator[Dropped]:
    """Yields what each filter drops."""
    for place, (reason, _) in enumerate(REASONS.values(), 1):
        numbers = np.flatnonzero(decisions == place)
        if len(numbers):
            _, _, video, begin = locate(output, gathered, int(numbers[0]))
            seconds = float(gathered.columns.frames[numbers].sum() / fps)
            yield Dropped(reason, numbers, seconds, f"{video.path} at {begin:.1f} s")
