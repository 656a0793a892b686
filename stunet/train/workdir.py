"""Makes sure that only one config, and only one training at a time, uses a working directory.

A few keys of the config may change when the run continues, if the user names them. `config.json`
has the present values. Each line of `changes.jsonl` says what changed, and after which update.
"""

import contextlib
import json
import pathlib
import sys
from collections.abc import Collection, Iterator
from typing import Protocol

from stunet import configs
from stunet.errors import UserError
from stunet.files import check_writable, locked, refusal_explained
from stunet.parallel import hosts
from stunet.stores import mirror
from stunet.stores.workdir import opened


class Upload(Protocol):
    """Uploads what the first process wrote to a working directory in a bucket."""

    def __call__(self, wait: bool = False) -> None:
        """Begins an upload, or with `wait` ends only when all is uploaded.

        Raises:
            UserError: the bucket takes nothing for too long, or another training has taken over the
                directory.
        """


@contextlib.contextmanager
def copied(workdir: pathlib.Path) -> Iterator[Upload]:
    """Context manager in which a working directory in a bucket has a copy in every process.

    No other training uses the directory meanwhile. The copies of all processes but the first serve
    for reading only. For a directory that is not in a bucket, nothing is done.

    Raises:
        UserError: another training uses the directory, or the bucket cannot be read or written.
    """
    if not hosts.is_first():
        hosts.wait_for_all("working directory copied")
        mirror.pull(workdir)
        yield lambda wait=False: None
        return
    with opened(workdir, lambda line: print(f"stunet train: {line}", file=sys.stderr)) as uploads:
        hosts.wait_for_all("working directory copied")

        def upload(wait: bool = False) -> None:
            if uploads:
                uploads.flush() if wait else uploads.request()

        yield upload


@contextlib.contextmanager
def claimed(
    config: configs.Experiment, workdir: pathlib.Path, changing: Collection[str] = ()
) -> Iterator[None]:
    """Context manager in which no other run can use `workdir`.

    Args:
        config: config of the run.
        workdir: working directory of the run.
        changing: keys whose values may differ from the values in the run's `config.json`.

    Raises:
        UserError: the directory belongs to another config, this process may not write to it,
            another training is running in it, or it holds no run although `changing` names keys.
    """
    with contextlib.ExitStack() as stack:
        remedy = "choose a --workdir in which you may create files"
        if hosts.is_first():
            check_writable(workdir, remedy)
        with refusal_explained(workdir, remedy):
            note_config(config, workdir, changing)
            if hosts.is_first():
                # A second run would take the first one's unfinished checkpoints for what a killed
                # run left, and remove them.
                busy = (
                    f"a training is running in {workdir}; wait for it, or choose another --workdir"
                )
                stack.enter_context(locked(workdir, busy))
        yield


def note_config(
    config: configs.Experiment, workdir: pathlib.Path, changing: Collection[str] = ()
) -> None:
    """Writes the config to `workdir`. If a config is there already, checks that both agree.

    Only the first process writes. The other processes wait until the file is written, and check
    that they see the same config. The keys in `changing` need not agree: `config.json` keeps their
    old values until `note_changes` replaces them.

    Args:
        config: config of the run.
        workdir: working directory of the run.
        changing: keys whose values may differ from the values in the run's `config.json`.

    Raises:
        UserError: the directory belongs to another config, it holds no run although `changing`
            names keys, or the processes do not all have the same directory and config.
    """
    file = workdir / "config.json"
    if hosts.is_first():
        if file.exists():
            _check_same(configs.read(file), config, workdir, changing)
        elif changing:
            raise UserError(
                f"--change {next(iter(changing))}: {workdir} holds no run that could continue; "
                "give its --workdir, or --config.KEY=VALUE to start one"
            )
        else:
            workdir.mkdir(parents=True, exist_ok=True)
            configs.write(config, file)
        # An equal config is not written again: others may be reading it.
        if configs.read(file) != (kept := _unchanged(config, file, changing)):
            configs.write(kept, file)
        mirror.push(workdir)
    hosts.wait_for_all("workdir claimed")
    if not hosts.is_first():
        mirror.pull(workdir)
    if not file.exists():
        raise UserError(
            f"{workdir} is not the directory that process 0 sees; "
            "choose a --workdir on a file system that all processes share"
        )
    _check_agreement(_unchanged(config, file, changing), file)


def note_changes(config: configs.Experiment, workdir: pathlib.Path, step: int) -> list[str]:
    """Records in `workdir` which keys of the run's config change after update `step`.

    Call this function only inside the context of `claimed`.

    Returns:
        A sentence for each key that changes.

    Raises:
        UserError: the processes have different configs.
    """
    file, changed = workdir / "config.json", {}
    if hosts.is_first():
        changed = configs.changes(configs.read(file), config)
    if changed:
        # First the changes: a run that is killed in between notes them once more.
        with (workdir / "changes.jsonl").open("a") as lines:
            for key, (before, after) in changed.items():
                change = {"step": step, "key": key, "before": before, "after": after}
                lines.write(json.dumps(change) + "\n")
        configs.write(config, file)
        mirror.push(workdir)
    hosts.wait_for_all("changes noted")
    if not hosts.is_first():
        mirror.pull(workdir)
    _check_agreement(config, file)
    return [
        f"{key} is {after!r} after update {step}; it was {before!r}"
        for key, (before, after) in changed.items()
    ]


def _check_same(
    old: configs.Experiment,
    new: configs.Experiment,
    workdir: pathlib.Path,
    changing: Collection[str],
) -> None:
    changed = configs.changes(old, new)
    if "train.beta1" in changed and old.train.optimizer in configs.KEEP_BETA1:
        raise UserError(
            f"train.beta1 is {new.train.beta1} here and {old.train.beta1} in {workdir}; the state "
            f"of {old.train.optimizer!r} depends on it: give the same value, or start another run"
        )
    refused = [key for key in changed if key not in changing]
    if not refused:
        return
    kept = _with_values(new, old, changing)
    named = [key for key in refused if key in configs.MAY_CHANGE_BY_NAME]
    flags = " ".join(f"--change {key}" for key in named)
    remedy = f"; to change {' and '.join(named)} from here on, add {flags}" if named else ""
    raise UserError(
        f"{workdir} belongs to another config: {'; '.join(configs.differences(old, kept))}; "
        f"choose another --workdir or the same values{remedy}"
    )


def _unchanged(
    config: configs.Experiment, file: pathlib.Path, changing: Collection[str]
) -> configs.Experiment:
    """Returns `config`, in which the keys in `changing` have the values that `file` holds."""
    return _with_values(config, configs.read(file), changing) if changing else config


def _with_values(
    config: configs.Experiment, other: configs.Experiment, keys: Collection[str]
) -> configs.Experiment:
    values = configs.flatten(other)
    return configs.replace(config, {key: values[key] for key in keys})


def _check_agreement(config: configs.Experiment, file: pathlib.Path) -> None:
    if configs.read(file) != config:
        raise UserError(
            f"{file}, which process 0 has just written, is not this process's config; "
            "start all processes with the same --config and values"
        )
