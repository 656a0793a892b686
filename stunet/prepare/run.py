"""Turns videos into a set of shots, from which training cuts clips of any length and size."""

import array
import contextlib
import dataclasses
import functools
import json
import os
import shutil
import time
from collections.abc import Iterator
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
from stunet.prepare import inputs, parts, texts
from stunet.prepare.engines import Engine, processes, serial
from stunet.prepare.progress import Counter
from stunet.prepare.shards import (
    Manifest,
    Video,
    is_done,
    is_whole,
    read_manifest,
    write_shard,
)

# No camera of films takes more, and a picture that stays for seconds would fill a disk.
_MAX_FPS = 1000
_GOES_ON = ", and it goes on"
# Videos of each kind that the summary names. The manifests name all.
_MAX_LISTED = 20
_DEFAULT = Spec()


@dataclasses.dataclass
class PrepareSummary:
    """Counts what is in a set of shots, and names the first videos that are not.

    Attributes:
        output_dir: directory of the set.
        shots: number of shots.
        seconds: length of all shots together.
        held_out_seconds: seconds that are held out for validation.
        videos: number of videos that gave at least one shot.
        added: number of videos that this command added to the list.
        captioned: number of videos that gave a shot and have a caption.
        skipped: number of videos that could not be read.
        cuts: number of cuts, which no shot spans.
        too_short: number of videos without a stretch that is long enough for a shot.
        left_out_seconds: seconds in stretches that are too short for a shot.
        reasons: the first videos that were skipped, and why.
        notes: sentences about the input, and about the first videos with something to say of.
        num_bytes: size of the files of shots.
        shards: number of these files.
        remade: number of shards that were damaged and made again.
        wall_seconds: seconds that this command took.
    """

    output_dir: Path
    shots: int = 0
    seconds: float = 0.0
    held_out_seconds: float = 0.0
    videos: int = 0
    added: int = 0
    captioned: int = 0
    skipped: int = 0
    cuts: int = 0
    too_short: int = 0
    left_out_seconds: float = 0.0
    reasons: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    num_bytes: int = 0
    shards: int = 0
    remade: int = 0
    wall_seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.output_dir}: {self.shots:,} shots of {_span(self.seconds)}, of which "
            f"{_span(self.held_out_seconds)} are held out, from {self.videos:,} videos "
            f"({self.captioned:,} with a caption), {self.num_bytes / 2**20:,.1f} MiB, in "
            f"{self.wall_seconds:,.1f} s"
        ]
        lines += [f"skipped {reason}" for reason in self.reasons]
        if self.skipped > len(self.reasons):
            lines.append(f"and {self.skipped - len(self.reasons):,} more were skipped")
        lines += self.notes
        if self.cuts:
            lines.append(f"{self.cuts:,} cuts were found, and no shot spans one")
        if self.too_short:
            lines.append(f"{self.too_short:,} videos are too short for a shot")
        if self.left_out_seconds:
            lines.append(
                f"{_span(self.left_out_seconds)} in stretches that are too short are in no shot"
            )
        if self.remade:
            lines.append(f"{self.remade:,} damaged shards were made again")
        return "\n".join(lines)

    def add(self, manifest: Manifest, spec: Spec) -> None:
        """Counts what a shard holds."""
        self.shards += 1
        self.num_bytes += manifest.bytes
        self.shots += len(manifest.frames)
        self.seconds += sum(manifest.frames) / spec.fps
        for video in manifest.videos:
            if video.skipped:
                self.skipped += 1
                if len(self.reasons) < _MAX_LISTED:
                    self.reasons.append(video.skipped)
                continue
            self.videos += bool(video.shots)
            self.captioned += bool(video.shots and video.captions)
            self.cuts += video.cuts
            self.too_short += not video.shots
            self.left_out_seconds += video.left_out / spec.fps
            if video.notes and len(self.notes) < _MAX_LISTED:
                self.notes.append(f"{video.path}: {'; '.join(video.notes)}")


def prepare(
    input_dir: str | Path,
    output_dir: str | Path,
    spec: Spec = _DEFAULT,
    *,
    text_encoder: str = "bytes",
    encode_text: texts.EncodeText | None = None,
    val_fraction: float | int = 0.1,
    val_seconds: float | int = 5.0,
    workers: int | None = None,
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
        text_encoder: name of the text encoder.
        encode_text: encodes captions to the states that are stored. None stores no states.
        val_fraction: share of the time that is held out for validation, in [0, 1).
        val_seconds: length of each stretch that is held out (`stunet.data.shots.slots.held_out`).
        workers: number of processes; None means one for each processor.
        verify: compare the files that are there with their digests, and make damaged ones again.
        progress: show how far the work is.

    Raises:
        UserError: there are no videos, an argument is out of range, `output_dir` holds something
            else or is being written by another process, or the disk is full.
    """
    started = time.monotonic()
    input_dir, output = Path(input_dir), Path(output_dir)
    _check(spec, val_fraction, val_seconds, workers)
    given = inputs.find(input_dir)
    with _claimed(output, spec):
        plan = parts.extend(output, given)
        missing, damaged = _missing(output, plan.parts, verify)
        engine = _engine(workers, len(missing))
        _write_shards(output, spec, missing, engine, progress)
        summary = PrepareSummary(output, added=plan.added, remade=damaged, notes=[*given.notes])
        if plan.changed:
            summary.notes.append(
                f"{plan.changed:,} videos have other captions than in an earlier call; theirs stay "
                "as they were"
            )
        if plan.repeated:
            summary.notes.append(f"{plan.repeated:,} rows name a video that an earlier row names")
        index = _index(output, plan.parts, spec, summary)
        if not summary.shots:
            reason = next(iter(summary.reasons), f"all are shorter than {spec.min_seconds:g} s")
            # Nothing is worth keeping, and a second try must not find these videos done.
            shutil.rmtree(output)
            raise UserError(f"no video of {input_dir} gave a shot: {reason}")
        index = dataclasses.replace(
            index, held_out=held_out(index.frames, spec.fps, val_fraction, val_seconds)
        )
        summary.held_out_seconds = float(index.held_out.sum() / spec.fps)
        if encode_text is not None:
            summary.notes += texts.write_states(output, plan.parts, text_encoder, encode_text)
        layout.write_index(output, index)
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
def _claimed(output: Path, spec: Spec) -> Iterator[None]:
    """Context manager that makes the directory of a set, and keeps other processes from writing it.

    Raises:
        UserError: the directory holds something else, or shots that were made in another way, or
            another process is writing it.
    """
    if not holds_shots(output):
        check_vacant(output)
    check_writable(output, "choose a place in which you may create directories")
    output.mkdir(parents=True, exist_ok=True)
    refusal = f"another `stunet prepare` is writing {output}; wait until it ends"
    with locked(output, refusal), full_disk_explained(output, "what is done stays", _GOES_ON):
        if holds_shots(output):
            _check_same(output, read_spec(output), spec)
        else:
            with atomic(output / layout.SPEC_FILE) as partial:
                partial.write_text(json.dumps(dataclasses.asdict(spec), indent=1) + "\n")
        _remove_leftovers(output)
        try:
            yield
        finally:
            _remove_leftovers(output)


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
    for pattern in (".*.partial-*", "*/.*.partial-*", "text/*/.*.partial-*"):
        for file in output.glob(pattern):
            file.unlink(missing_ok=True)


def _missing(output: Path, count: int, verify: bool) -> tuple[set[int], int]:
    """Returns the numbers of the parts whose shards must be made, and how many are damaged."""
    there = [part for part in range(count) if layout.manifest_file(output, part).is_file()]
    check = is_whole if verify else is_done
    damaged = {part for part in there if not check(output, part)}
    return set(range(count)) - set(there) | damaged, len(damaged)


def _engine(workers: int | None, count: int) -> Engine:
    workers = min(workers or os.cpu_count() or 1, count)
    return processes(workers) if workers > 1 else serial


def _write_shards(
    output: Path, spec: Spec, missing: set[int], engine: Engine, progress: bool
) -> None:
    """Makes the shards of the missing parts, and shows how far it is."""
    if not missing:
        return
    total = sum(len(part.entries) for part in parts.read(output) if part.number in missing)
    counter = Counter(total, progress)
    work = functools.partial(write_shard, output=output, spec=spec)
    todo = (part for part in parts.read(output) if part.number in missing)
    try:
        for _, event in engine(work, todo):
            if isinstance(event, Video):
                counter.add(event.frames, bool(event.skipped))
    finally:
        counter.close()


def _index(output: Path, count: int, spec: Spec, summary: PrepareSummary) -> Index:
    """Reads all manifests, counts what they describe, and returns an index without a split."""
    frames, height, width = (array.array("i") for _ in range(3))
    records, sizes = array.array("q"), array.array("q")
    for part in range(count):
        manifest = read_manifest(output, part)
        summary.add(manifest, spec)
        frames.extend(manifest.frames)
        height.extend(manifest.height)
        width.extend(manifest.width)
        records.append(len(manifest.frames))
        sizes.append(manifest.bytes)
    shots = [np.array(column, np.int32) for column in (frames, height, width)]
    shards = [np.array(column, np.int64) for column in (records, sizes)]
    return Index(*shots, np.zeros(len(frames), np.int32), *shards)


def _span(seconds: float) -> str:
    """Returns a length of time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"
