"""Defines the parts of a sweep: members, which are trained, and steps, which run after them.

The file of a sweep has a function `get_sweep()`, which returns a list of members and steps, or a
`Sweep`. Examples are in `experiments/sweeps/`. This sweep compares two values, each with three
seeds:

    def get_sweep():
        grid = {"model.temporal_resize_init": ("nearest", "he"), "seed": (0, 1, 2)}
        return product(base, grid)
"""

import ast
import collections
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from stunet import configs
from stunet.configs import experiments
from stunet.errors import UserError, choose, closest
from stunet.formatting import first_few
from stunet.sweep.curves import Curves

# Names become directories and are pasted into shells.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")
_RESERVED_NAMES = ("sweep.json", "report.html")


@dataclasses.dataclass(frozen=True)
class Member:
    """A training run of a sweep.

    Attributes:
        name: name of the run, and of its directory inside the directory of the sweep.
        config: config of the run. In `train.init_from`, "{sweep}" stands for the sweep's directory.
        group: name of a group of members, such as those with the same data. The report compares
            members of the same group. Members whose group is "" form one group.
        label: name of the member's arm in the report, such as "global cascade". It must read well
            after "the". An arm is a set of members that differ only in the seed. Arms of two groups
            with the same label have the same colour. If the label is "", the report uses the
            member's name without the seed.
        after: names of the members and steps that the run needs, such as the member whose weights
            it begins with. They come earlier in the sweep.
    """

    name: str
    config: configs.Experiment | ConfigDict
    group: str = ""
    label: str = ""
    after: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Step:
    """A command that runs after other members and steps of the sweep.

    Attributes:
        name: name of the step. Its output goes to `name`/log.txt in the sweep's directory.
        command: arguments of `stunet`. "{sweep}" in them stands for the sweep's directory.
        after: names of the members and steps that the command needs. They come earlier in the
            sweep.
        makes: file that the command writes, relative to the sweep's directory. The step is done
            once this file exists.
        group: group of the step in the report; see `Member`.
        label: name of the step's arm in the report; see `Member`.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...]
    makes: str
    group: str = ""
    label: str = ""


Entry = Member | Step


@dataclasses.dataclass(frozen=True)
class Sweep:
    """A sweep, which `get_sweep()` may return in place of a list of its members and steps.

    Attributes:
        entries: members and steps, in an order in which they can run.
        curves: curves over a property of each clip, such as its speed, which the report draws.
        predictions: sentences that say what the author expects of the sweep, for example one for
            each arm. `sweep.json` notes them before the first member trains. The report shows them
            before the results.
        question: what the sweep asks. `load` takes it from the first line of the file's docstring.
    """

    entries: Sequence[Entry]
    curves: tuple[Curves, ...] = ()
    predictions: tuple[str, ...] = ()
    question: str = ""


def product(
    base: configs.Experiment | ConfigDict, grid: Mapping[str, Sequence[Any]], name: str = ""
) -> list[Member]:
    """Returns a member for each combination of values; the values of the last key change fastest.

    Args:
        base: config that the members share.
        grid: values of each key, such as {"model.temporal_resize_init": ("nearest", "he"), "seed":
            (0, 1)}.
        name: beginning of every member's name. The values of keys that differ follow, such as
            "temporal_resize_init=he,seed=0".
    """
    shown = [key for key, values in grid.items() if len(values) > 1]
    short = [key.rsplit(".", 1)[-1] for key in shown]
    labels = {
        key: last if short.count(last) == 1 else key for key, last in zip(shown, short, strict=True)
    }
    members = []
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        parts = [f"{label}={_as_text(chosen[key])}" for key, label in labels.items()]
        members.append(Member(",".join([name] * bool(name) + parts), replace(base, chosen)))
    return members


def evaluations(members: Sequence[Member], *options: str) -> list[Step]:
    """Returns a step for each member that samples clips of the trained network and measures them.

    The measurements are written to the member's directory, so that they count as the member's own.

    Args:
        members: members of the sweep.
        options: further arguments of `stunet evaluate`, such as "--num", "128".
    """
    return [
        Step(
            f"{member.name},evaluation",
            ("evaluate", "--workdir", f"{{sweep}}/{member.name}", *options),
            (member.name,),
            f"{member.name}/evaluation.json",
            member.group,
        )
        for member in members
    ]


def replace(config: configs.Experiment | ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """Returns a copy of a config with some values changed. `load` checks the new values later.

    Args:
        config: the config to copy.
        values: new values by key, such as {"train.steps": 100}.
    """
    changed = ConfigDict(_to_dict(config), type_safe=False)
    for key, value in values.items():
        configs.set_key(changed, key, value)
    return changed


def load(path: str, overrides: Sequence[str] = ()) -> Sweep:
    """Reads the file of a sweep and checks all its members and steps.

    Args:
        path: a Python file with `get_sweep()`, or the name of a sweep that comes with stunet. If
            the path or name ends in `:argument`, `get_sweep` is called with `argument`.
        overrides: flags such as `--config.train.steps=100`, which apply to every member.

    Returns:
        The sweep, whose members have resolved configs.

    Raises:
        UserError: there is no such file or it raises; the sweep has no members; two entries have
            the same name; a config is refused; a step needs something that does not come before
            it; two arms have the same label; curves compare an arm that the sweep does not have.
    """
    found = experiments.call(path, "get_sweep")
    sweep = found if isinstance(found, Sweep) else Sweep(found)
    entries = sweep.entries
    if not isinstance(entries, (list, tuple)) or not any(isinstance(e, Member) for e in entries):
        raise UserError(f"{path}: get_sweep() must return a list with at least one Member")
    checked, seen = [], set()
    for entry in entries:
        checked.append(_check_entry(entry, seen, overrides))
        seen.add(entry.name)
    _check_labels(checked)
    _check_report(sweep)
    return dataclasses.replace(sweep, entries=checked, question=_question(path))


def _question(path: str) -> str:
    """Returns the first line of the docstring of a sweep's file; `path` is as for `load`."""
    file = experiments.find(path, "get_sweep").split(":", 1)[0]
    source = pathlib.Path(file).read_text(encoding="utf-8")
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find(path: str, name: str, overrides: Sequence[str] = ()) -> Member:
    """Reads the file of a sweep and returns one of its members.

    Args:
        path: as for `load`.
        name: name of the member.
        overrides: as for `load`.

    Raises:
        UserError: the sweep has no such member, or `load` refuses it.
    """
    members = {e.name: e for e in load(path, overrides).entries if isinstance(e, Member)}
    if name in members:
        return members[name]
    nearest = closest(name, members)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    names = first_few([repr(member) for member in members])
    raise UserError(f"{path} has no member {name!r}; {hint}its members are {names}")


def arms(entries: Sequence[Entry]) -> dict[str, str]:
    """Returns a dict from the name of each member and step to the name of its arm.

    Members whose configs differ only in the seed are one arm. The arm has the name of its members,
    without the seed. Steps are one arm if their names differ only in the seed of the members that
    they need.
    """
    found, seed_of, same_config = {}, seeds(entries), collections.defaultdict(list)
    for entry in entries:
        if isinstance(entry, Member):
            text = str(_to_dict(entry.config) | {"seed": None})
            for name in entry.after:
                # The config may name the member of the same seed whose weights it begins with.
                text = text.replace(f"/{name}", f"/{_without_seed(name, seed_of[name])}")
            same_config[text].append(entry.name)
        else:
            found[entry.name] = _without_seed(entry.name, seed_of[entry.name])
    groups = [*same_config.values()]
    short = [{_without_seed(name, seed_of[name]) for name in members} for members in groups]
    for members, names in zip(groups, short, strict=True):
        # Members of one arm may have several short names, and two arms may share one. The arm then
        # has the name of its first member.
        is_unique = len(names) == 1 and sum(names <= others for others in short) == 1
        found |= dict.fromkeys(members, names.pop() if is_unique else members[0])
    return found


def seeds(entries: Sequence[Entry]) -> dict[str, int | None]:
    """Returns the seed of each member and step, by name.

    A step has the seed of the members that it needs, or None if these members have several seeds.
    """
    found = {}
    for entry in entries:
        if isinstance(entry, Member):
            found[entry.name] = _to_dict(entry.config)["seed"]
        else:
            needed = {found[name] for name in entry.after}
            found[entry.name] = needed.pop() if len(needed) == 1 else None
    return found


def _without_seed(name: str, seed: int | None) -> str:
    """Returns a name such as "width=8,seed=1" without its seed."""
    return re.sub(rf"(^|[,_-])seed=?{seed}(?!\d)", "", name).lstrip(",_-") or name


def _check_labels(entries: Sequence[Entry]) -> None:
    """Raises UserError if two arms of a group have the same label, or one arm has two labels."""
    arm_of, by_label, by_arm = arms(entries), {}, {}
    for entry in entries:
        arm = arm_of[entry.name]
        other = by_label.setdefault((entry.group, entry.label), arm) if entry.label else arm
        if other != arm:
            raise UserError(
                f"the arms {other!r} and {arm!r} have the same label {entry.label!r}; give "
                "each its own label"
            )
        if by_arm.setdefault(arm, entry.label) != entry.label:
            raise UserError(
                f"the arm {arm!r} has the labels {by_arm[arm]!r} and {entry.label!r}; give all its "
                "members the same label"
            )


def _check_report(sweep: Sweep) -> None:
    """Raises UserError if the report cannot show the sweep's curves or predictions."""
    for key, kind in (("curves", Curves), ("predictions", str)):
        values = getattr(sweep, key)
        if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
            raise UserError(f"{key} of Sweep are {values!r}; give a tuple of {kind.__name__}")
    labels = {entry.label: entry for entry in sweep.entries if entry.label}
    groups = {entry.group: entry for entry in sweep.entries}
    for curves in sweep.curves:
        for label in itertools.chain.from_iterable(curves.pairs):
            choose(labels, label, "label in pairs of Curves")
        for expected in curves.expected:
            choose(labels, expected.label, "label in expected of Curves")
            if expected.group:
                choose(groups, expected.group, "group in expected of Curves")


def _check_entry(entry: Entry, seen: set[str], overrides: Sequence[str]) -> Entry:
    """Checks a member or step, and resolves the config of a member.

    Args:
        entry: the member or step.
        seen: names of the members and steps before it.
        overrides: as for `load`.
    """
    if not isinstance(entry, Entry):
        raise UserError(
            f"get_sweep() returns a list with {entry!r}; it may hold Members and Steps only"
        )
    kind, name = type(entry).__name__.lower(), entry.name
    if not NAME.fullmatch(name) or name in _RESERVED_NAMES:
        raise UserError(
            f"a {kind} cannot have the name {name!r}, since its directory has the same name; use "
            "letters, digits and _.,=+-"
        )
    if name in seen:
        raise UserError(f"two entries of the sweep have the name {name!r}; give each its own name")
    for other in entry.after:
        if other not in seen:
            raise UserError(
                f"{kind} {name!r} needs {other!r}, which is not before it in the sweep; name a "
                "member or step that get_sweep() lists earlier"
            )
    if isinstance(entry, Step):
        return entry
    try:
        config = configs.override(configs.resolve(_to_dict(entry.config)), overrides)
        configs.check_data(config)
    except UserError as error:
        raise UserError(f"member {name!r}: {error}") from error
    return dataclasses.replace(entry, config=config)


def _to_dict(config: configs.Experiment | ConfigDict) -> dict[str, Any]:
    """Returns a config as nested dicts."""
    return config.to_dict() if isinstance(config, ConfigDict) else dataclasses.asdict(config)


def _as_text(value) -> str:
    """Returns a value as part of a name. An "x" joins the items of a tuple."""
    return "x".join(map(_as_text, value)) if isinstance(value, (tuple, list)) else str(value)
