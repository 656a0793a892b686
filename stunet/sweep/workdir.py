"""Writes and reads the directory of a sweep.

The directory holds `sweep.json` and a working directory for each member (training run).
`NAME/config.json` is written before the member NAME runs, and the member reads its config there.
Members therefore do not read the Python file that defines the sweep. `NAME/log.txt` holds what the
process of the member prints.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn

import msgspec

from stunet import configs, jsonfiles
from stunet.errors import UserError
from stunet.files import atomic, refusal_explained
from stunet.source_code import commit
from stunet.stores.addresses import shown
from stunet.sweep.curves import Curves
from stunet.sweep.members import NAME, Entry, Member, Step, Sweep, arms, seeds
from stunet.train.measured import clock, metric_lines
from stunet.train.saved.checkpoint_names import check_path, steps

# A directory within that of the sweep; "" is the sweep's own, of a single run.
EntryName = Annotated[str, msgspec.Meta(pattern=rf"\A({NAME.pattern})?\Z", max_length=255)]


class ManifestEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A member or a step, as `sweep.json` describes it.

    Attributes:
        name: name of the member or step, and of its directory.
        arm: name of the arm, a set of entries that differ only in the seed.
        seed: the seed. None if the entry needs members of several seeds.
        command: arguments of `stunet`, for a step; empty for a member.
        after: names of the members and steps that the entry needs.
        makes: file that a step writes, relative to the sweep's directory.
        group: the report compares entries of the same group.
        label: name of the arm in the report. If it is "", the report makes a name.
    """

    name: EntryName
    arm: str
    seed: int | None
    command: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    makes: str = ""
    group: str = ""
    label: str = ""


class Prediction(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A sentence that says what a sweep is expected to show.

    Attributes:
        sentence: the sentence.
        noted: when `sweep.json` first held the sentence, in seconds since 1970.
    """

    sentence: str
    noted: Annotated[float, msgspec.Meta(ge=0, lt=2**40)]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of `sweep.json`.

    Attributes:
        command: arguments of `stunet` that made the sweep.
        commit: commit of this program at which the sweep began, if it is known.
        entries: members (training runs) and steps (commands that run after them).
        question: what the sweep asks, in a sentence; "" if the sweep's file has no question.
        curves: curves over a property of each clip, which the report draws.
        predictions: what the author of the sweep expects of it.
    """

    command: tuple[str, ...]
    commit: str | None
    entries: tuple[ManifestEntry, ...]
    question: str = ""
    curves: tuple[Curves, ...] = ()
    predictions: tuple[Prediction, ...] = ()


def claim(workdir: pathlib.Path, sweep: Sweep, command: Sequence[str]) -> None:
    """Writes the sweep to `workdir`, or checks that `workdir` already holds it.

    Entries that `workdir` does not hold yet are added to it. Once a member has begun to train, the
    predictions that `workdir` holds stay there.

    Args:
        workdir: directory of the sweep.
        sweep: the sweep, from `members.load`.
        command: arguments of `stunet` that started the sweep.

    Raises:
        UserError: the directory belongs to another sweep or to a single run, it cannot be written,
            or its path cannot hold checkpoints.
    """
    entries = sweep.entries
    for entry in entries:
        check_path(workdir / entry.name)
    old = read_manifest(workdir)
    if old is None and (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds a single training run; choose another --workdir")
    new = {entry.name: entry for entry in manifest_entries(entries)}
    for before in old.entries if old else ():
        if before.name not in new:
            _refuse(workdir, f"{before.name} is there and not here")
        if before.command != new[before.name].command:
            _refuse(workdir, f"step {before.name} has another command there")
    to_write = {}
    for member in entries:
        if isinstance(member, Member):
            file, config = config_file(workdir, member), config_of(workdir, member)
            if file.exists():
                there = configs.read(file)
                if config != member.config:
                    # The sweep's directory may have been moved since.
                    key = "train.init_from"
                    config = configs.replace(config, {key: configs.flatten(there)[key]})
                if differences := configs.differences(there, config):
                    _refuse(workdir, f"in member {member.name}, {'; '.join(differences)}")
                # Training may have written fingerprints there meanwhile.
                for key in configs.FINGERPRINTS:
                    if not configs.flatten(config)[key]:
                        config = configs.replace(config, {key: configs.flatten(there)[key]})
            to_write[file] = config
    with refusal_explained(workdir, "choose a --workdir in which you may create files"):
        workdir.mkdir(parents=True, exist_ok=True)
        for file, config in to_write.items():
            configs.write(config, file)
        manifest = Manifest(
            command=old.command if old else tuple(command),
            commit=old.commit if old else commit(),
            entries=tuple(new.values()),
            question=sweep.question,
            curves=sweep.curves,
            predictions=_predictions(workdir, old, sweep),
        )
        with atomic(workdir / "sweep.json") as partial:
            partial.write_text(json.dumps(msgspec.to_builtins(manifest), indent=2) + "\n")


def _predictions(
    workdir: pathlib.Path, old: Manifest | None, sweep: Sweep
) -> tuple[Prediction, ...]:
    """Returns the sweep's predictions, and those of `old` that may no longer be removed."""
    before = {prediction.sentence: prediction for prediction in (old.predictions if old else ())}
    has_begun = any((workdir / entry.name / clock.FILE).exists() for entry in sweep.entries)
    sentences = dict.fromkeys((*(before if has_begun else ()), *sweep.predictions))
    return tuple(before.get(s, Prediction(s, time.time())) for s in sentences)


def read_manifest(workdir: pathlib.Path) -> Manifest | None:
    """Reads `sweep.json` of a directory. Returns None if there is no such file.

    Raises:
        UserError: the file was not written by `claim`.
    """
    file = workdir / "sweep.json"
    if not file.exists():
        return None
    try:
        return jsonfiles.read(file, Manifest)
    except UserError as error:
        raise UserError(f"{file} is not a sweep of this version of stunet ({error})") from error


def manifest_entries(entries: Sequence[Entry]) -> list[ManifestEntry]:
    """Returns members and steps as `sweep.json` describes them."""
    arm, seed = arms(entries), seeds(entries)

    def of_step(e: Entry) -> dict[str, Any]:
        return {} if isinstance(e, Member) else dict(command=tuple(e.command), makes=e.makes)

    return [
        ManifestEntry(
            e.name,
            arm[e.name],
            seed[e.name],
            after=tuple(e.after),
            group=e.group,
            label=e.label,
            **of_step(e),
        )
        for e in entries
    ]


def arguments(workdir: pathlib.Path, entry: Entry) -> list[str]:
    """Returns the arguments of the command `stunet` that runs a member or step of the sweep."""
    if isinstance(entry, Step):
        return [word.replace("{sweep}", shown(str(workdir))) for word in entry.command]
    file = config_file(workdir, entry)
    return ["train", "--config", str(file), "--workdir", str(file.parent)]


def config_of(workdir: pathlib.Path, member: Member) -> configs.Experiment:
    """Returns a member's config, with the sweep's directory in place of "{sweep}"."""
    key = "train.init_from"
    given = configs.flatten(member.config)[key]
    if "{sweep}" not in given:
        return member.config
    return configs.replace(member.config, {key: given.replace("{sweep}", shown(str(workdir)))})


def config_file(workdir: pathlib.Path, member: Member) -> pathlib.Path:
    """Returns the file from which a member reads its config."""
    return workdir / member.name / "config.json"


def is_done(workdir: pathlib.Path, entry: Entry) -> bool:
    """Returns whether a step has written its file, or a member has saved its last update."""
    if isinstance(entry, Step):
        return (workdir / entry.makes).exists()
    saved = steps(workdir / entry.name)
    return max(saved, default=0) >= configs.flatten(entry.config)["train.steps"]


def find_done(workdir: pathlib.Path, entries: Sequence[Entry]) -> set[str]:
    """Returns the names of the members and steps that need not run (again).

    Those are done themselves, or they exist for others alone, all of which are done. So the
    checkpoints of a member may be deleted once its evaluations are there, and a sweep goes on from
    results that were copied without checkpoints.
    """
    needed_by: dict[str, list[Entry]] = {}
    for entry in entries:
        for name in entry.after:
            needed_by.setdefault(name, []).append(entry)

    def need_not_run(entry: Entry) -> bool:
        users = needed_by.get(entry.name, [])
        return is_done(workdir, entry) or (bool(users) and all(map(need_not_run, users)))

    return {entry.name for entry in entries if need_not_run(entry)}


def last_metrics(workdir: pathlib.Path, name: str) -> dict[str, float]:
    """Returns the newest complete line of the metrics of member `name`; empty if there is none."""
    file = workdir / name / metric_lines.FILE
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 8192))
            content = opened.read()
    except OSError:
        return {}
    # The first line may be cut, and a run that is writing may have cut the last one.
    complete = metric_lines.parse(content).values
    return next((values for values, _ in reversed(complete) if "loss" in values), {})


def _refuse(workdir: pathlib.Path, why: str) -> NoReturn:
    """Raises UserError: the directory holds another sweep."""
    raise UserError(f"{workdir} holds another sweep: {why}; choose another --workdir")
