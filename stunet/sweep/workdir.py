"""What the directory of a sweep holds: `sweep.json`, and a working directory for each member.

`NAME/config.json` is written before the member runs, and is the config that it reads: once a sweep
has begun, nothing depends on its file. `NAME/log.txt` is what its process prints.
"""

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Sequence
from typing import Any

import stunet
from stunet import configs
from stunet.errors import UserError
from stunet.files import atomic, refusal_explained
from stunet.sweep.members import Entry, Member, Step, arms, seeds


@dataclasses.dataclass(frozen=True)
class Noted:
    """A member or a step, as `sweep.json` has it.

    Attributes:
        name: its directory.
        arm: what it is one seed of.
        seed: which one; None: not of a single seed.
        command: arguments of `stunet`, for a step; empty for a member.
        after: names of what a step needs.
        makes: the file that a step leaves.
        group: what the report compares it within.
        label: name of the arm in the report; "" leaves it to the report.
    """

    name: str
    arm: str
    seed: int | None
    command: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    makes: str = ""
    group: str = ""
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """The contents of `sweep.json`.

    Attributes:
        command: arguments of `stunet` that made the sweep.
        commit: commit of this program at which the sweep began, if it is known.
        entries: members and steps.
        question: what the sweep asks, in a sentence; "" if its file does not say.
    """

    command: tuple[str, ...]
    commit: str | None
    entries: tuple[Noted, ...]
    question: str = ""


def claim(
    workdir: pathlib.Path, entries: Sequence[Entry], command: Sequence[str], question: str = ""
) -> None:
    """Notes the sweep in `workdir`, or checks that it is the one noted there, which may have grown.

    Args:
        workdir: of the sweep.
        entries: of `members.load`.
        command: arguments of `stunet` that this sweep came from.
        question: what the sweep asks, for the report's title.

    Raises:
        UserError: the directory belongs to another sweep or to a single run, or may not be written.
    """
    old = read_manifest(workdir)
    if old is None and (workdir / "config.json").exists():
        raise UserError(f"{workdir} holds a single training run; choose another --workdir")
    noted = {entry.name: entry for entry in note(entries)}
    for was in old.entries if old else ():
        now = noted.get(was.name)
        if now is None:
            _refuse(workdir, f"{was.name} is there and not here")
        if was.command != now.command:
            _refuse(workdir, f"the command of {was.name} is another there")
    written = {}
    for member in entries:
        if isinstance(member, Member):
            file, config = config_file(workdir, member), member.config
            if file.exists():
                there = configs.read(file)
                if differences := configs.differences(there, config):
                    _refuse(workdir, f"of {member.name}, {'; '.join(differences)}")
                # Its training may have written the text encoder's fingerprint there since.
                key = "text.fingerprint"
                if not configs.flatten(config)[key]:
                    config = configs.replace(config, {key: configs.flatten(there)[key]})
            written[file] = config
    with refusal_explained(workdir, "choose a --workdir in which you may create files"):
        workdir.mkdir(parents=True, exist_ok=True)
        for file, config in written.items():
            configs.write(config, file)
        manifest = Manifest(
            command=old.command if old else tuple(command),
            commit=old.commit if old else commit(),
            entries=tuple(noted.values()),
            question=question,
        )
        with atomic(workdir / "sweep.json") as partial:
            partial.write_text(json.dumps(dataclasses.asdict(manifest), indent=2) + "\n")


def read_manifest(workdir: pathlib.Path) -> Manifest | None:
    """The sweep noted in `workdir`, if there is one.

    Raises:
        UserError: `sweep.json` is not one of this program's.
    """
    file = workdir / "sweep.json"
    if not file.is_file():
        return None
    try:
        raw = json.loads(file.read_text())
        entries = tuple(Noted(**_tuples(entry)) for entry in raw.pop("entries"))
        return Manifest(entries=entries, **_tuples(raw))
    except (json.JSONDecodeError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{file} is not a sweep of this program ({error})") from error


def note(entries: Sequence[Entry]) -> list[Noted]:
    """What `sweep.json` says of members and steps."""
    arm, seed = arms(entries), seeds(entries)

    def step(e: Entry) -> dict[str, Any]:
        if isinstance(e, Member):
            return {}
        return dict(command=tuple(e.command), after=tuple(e.after), makes=e.makes)

    return [
        Noted(e.name, arm[e.name], seed[e.name], **step(e), group=e.group, label=e.label)
        for e in entries
    ]


def arguments(workdir: pathlib.Path, entry: Entry) -> list[str]:
    """The arguments of `stunet` that run a member or a step."""
    if isinstance(entry, Step):
        return [word.replace("{sweep}", str(workdir)) for word in entry.command]
    file = config_file(workdir, entry)
    return ["train", "--config", str(file), "--workdir", str(file.parent)]


def config_file(workdir: pathlib.Path, member: Member) -> pathlib.Path:
    return workdir / member.name / "config.json"


def is_done(workdir: pathlib.Path, entry: Entry) -> bool:
    """Whether a step has made its file, or a member's newest checkpoint is its last update's."""
    if isinstance(entry, Step):
        return (workdir / entry.makes).exists()
    # Read without Orbax, which would load JAX: it names a checkpoint so once it is complete.
    found = (workdir / entry.name / "checkpoints").glob("*")
    steps = [int(path.name) for path in found if path.name.isdigit()]
    return max(steps, default=0) >= configs.flatten(entry.config)["train.steps"]


def last_metrics(workdir: pathlib.Path, name: str) -> dict[str, Any]:
    """The newest complete line of a member's metrics, or nothing."""
    file = workdir / name / "metrics.jsonl"
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - 8192))
            lines = opened.read().decode(errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            continue
        if "loss" in values:
            return values
    return {}


def commit() -> str | None:
    """The commit of this program's source, if it lies in a git repository of its own."""
    package = pathlib.Path(stunet.__file__).parent

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(package), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", "__init__.py")
        changed = git("status", "--porcelain", "--untracked-files=no", ".")
        return git("rev-parse", "--short=12", "HEAD") + (" and changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _refuse(workdir: pathlib.Path, why: str) -> None:
    raise UserError(f"{workdir} holds another sweep: {why}; choose another --workdir")


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
