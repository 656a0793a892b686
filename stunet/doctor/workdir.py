"""Checks the working directory of a run or of a sweep."""

import os
import pathlib
import shutil
import time
from collections.abc import Iterator, Sequence

from stunet import configs
from stunet.data.sources import Dataset, Spread, make_source
from stunet.doctor.findings import Finding, checked, wrong
from stunet.errors import UserError
from stunet.files import UNFINISHED_CHECKPOINT, locked
from stunet.stores.addresses import address
from stunet.sweep.workdir import read_manifest
from stunet.train.measured import metric_lines
from stunet.train.measured.clock import read_began
from stunet.train.parts import make_parts
from stunet.train.saved import checkpoint_files, checkpoint_names
from stunet.train.saved.checkpoints import silence_late_failures

# Records that are read of each split, evenly spaced.
MOST_RECORDS = 1_000


def check(workdir: pathlib.Path) -> Iterator[Finding]:
    """Yields findings about a working directory, without changing anything in it."""
    if not workdir.is_dir():
        yield wrong("workdir", f"{workdir} is no directory", "give the --workdir of a training")
        return
    try:
        manifest = read_manifest(workdir)
    except UserError as error:
        yield wrong("sweep.json", str(error), "run the `stunet sweep` that made it again")
        return
    if manifest is None:
        yield from _run(workdir)
        return
    names = [entry.name for entry in manifest.entries if not entry.command]
    trained = [name for name in names if (workdir / name / "config.json").exists()]
    yield Finding("sweep.json", f"{len(trained)} of {len(names)} members have begun")
    for name in trained:
        yield Finding("member", str(workdir / name))
        yield from _run(workdir / name)


def _run(workdir: pathlib.Path) -> Iterator[Finding]:
    try:
        checkpoint_names.check_path(workdir)
        with locked(workdir, "a training is running here"):
            is_running = False
    except UserError as error:
        is_running = True
        yield Finding("workdir", str(error))
    yield _place(workdir)
    remedy = "restore the file from a copy; without it the run cannot continue"
    try:
        config = configs.read(workdir / "config.json")
        yield Finding("config.json", "is a config of this version of stunet")
    except (OSError, UserError) as error:
        config = None
        yield wrong("config.json", str(error), remedy)
    yield _metrics(workdir / "metrics.jsonl")
    yield checked("clock.json", lambda: _clock(workdir))
    yield from _checkpoints(workdir, is_running)
    if config is not None:
        yield from _data(config)


def _place(workdir: pathlib.Path) -> Finding:
    """Checks that the directory is writable and that its disk has room for further checkpoints."""
    if where := address(workdir):
        return Finding("bucket", f"{where} can be read")
    if not os.access(workdir, os.W_OK):
        return wrong("disk", f"{workdir} may not be written", "change its owner or its rights")
    free = shutil.disk_usage(workdir).free
    steps = checkpoint_names.steps(workdir)
    if not steps:
        return Finding("disk", f"{free / 2**30:.1f} GiB are free")
    newest = checkpoint_names.place(workdir) / str(steps[0])
    size = sum(file.stat().st_size for file in newest.rglob("*") if file.is_file())
    said = f"{free / 2**30:.1f} GiB are free, and a checkpoint takes {size / 2**30:.2f}"
    # Old checkpoints are removed only after a new one is complete.
    return wrong("disk", said, "free some space") if free < 2 * size else Finding("disk", said)


def _checkpoints(workdir: pathlib.Path, is_running: bool) -> Iterator[Finding]:
    """Yields a finding for each checkpoint, newest first.

    Also yields findings about checkpoints that were set aside as damaged, and about unfinished
    checkpoints.
    """
    silence_late_failures()
    steps = checkpoint_names.steps(workdir)
    if not steps:
        yield Finding("checkpoints", "there are none yet")
    for step in steps:
        subject = f"checkpoint {step}"
        try:
            verdict = checkpoint_files.verify(workdir, step)
        except UserError as error:
            yield wrong(subject, str(error))
            continue
        if is_running and step not in checkpoint_names.steps(workdir):
            continue  # The training has removed it meanwhile.
        if verdict.problem:
            remedy = (
                f"`stunet train` goes on from checkpoint {min(steps)} or a later one that is whole"
                if step > min(steps)
                else f"remove {checkpoint_names.place(workdir) / str(step)}"
            )
            yield wrong(subject, verdict.problem, remedy)
        elif verdict.arrays:
            yield Finding(subject, f"{verdict.arrays} arrays equal their digests")
        else:
            yield Finding(subject, "can be read; it has no digests that would verify it")
    place = checkpoint_names.place(workdir)
    if aside := sorted(place.glob("*.damaged")):
        yield Finding("checkpoints", f"{aside[0].name} was set aside as damaged; remove it")
    if not is_running and (partial := sorted(place.glob(f"*{UNFINISHED_CHECKPOINT}"))):
        yield Finding("checkpoints", f"{len(partial)} are unfinished; the next run removes them")


def _metrics(file: pathlib.Path) -> Finding:
    """Checks that each line of `metrics.jsonl` can be read, and that updates are in order."""
    if not file.exists():
        return Finding("metrics.jsonl", "is not there yet")
    try:
        lines = metric_lines.read(file)
    except UserError as error:
        return wrong("metrics.jsonl", str(error))
    steps = [values["step"] for values, _ in lines.values]
    remedy = "the lines after the newest checkpoint are written again when the run continues"
    if damaged := metric_lines.damage(file, lines):
        return wrong("metrics.jsonl", damaged, remedy)
    if steps != sorted(steps):
        return wrong("metrics.jsonl", "its updates are not in order", "restore it from a copy")
    return Finding("metrics.jsonl", f"{len(steps)} lines, up to update {max(steps, default=0)}")


def _clock(workdir: pathlib.Path) -> str:
    """Returns a line that says when the run began.

    Raises:
        UserError: `clock.json` is damaged, or names a time in the future.
    """
    began = read_began(workdir)
    if began is None:
        return "is not there yet"
    if began > time.time():
        raise UserError(
            f"the run began on {_date(began)}, which is still to come; set this machine's clock"
        )
    return f"the run began on {_date(began)}"


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _data(config: configs.Experiment) -> Iterator[Finding]:
    """Checks that the records of each split are complete and readable, and yields findings.

    A run reads no held-out clips of the further sources of a mixture.
    """
    parts = make_parts(config)
    yield from _source("data", parts.dataset, ("train", "val"))
    for of in parts.sources:
        if of.dataset != parts.dataset:
            yield from _source(f"data.mix.{of.name}", of.dataset, ("train",))


def _source(name: str, dataset: Dataset, splits: Sequence[str]) -> Iterator[Finding]:
    if not dataset.is_stored:
        yield Finding(name, f"is drawn by {dataset.source}, and needs no files")
        return
    for split in splits:
        yield checked(f"{name}, {split}", lambda split=split: _split(dataset, split))


def _split(dataset: Dataset, split: str) -> str:
    """Opens a split, reads some of its records, and returns a line that counts them.

    Opening a split also compares its number of records with the number that the data set states.

    Raises:
        UserError: the split or a record is damaged, or does not fit the config.
    """
    source = make_source(dataset, split)
    some = Spread(source, MOST_RECORDS)
    for index in range(len(some)):
        some[index]
    return f"{len(source)} records, as many as the data set says; {len(some)} of them were read"
