"""What a sweep is made of: named configs to train, and commands that run once these are done.

`experiments/sweeps/NAME.py` has `get_sweep()`, which returns a list of them. A sweep that asks one
question of three seeds is

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
from stunet.errors import UserError, closest
from stunet.formatting import first_few

# Names are directories, and are pasted into shells.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.,=+-]*")
_OTHERS_FILES = ("sweep.json", "report.html")


@dataclasses.dataclass(frozen=True)
class Member:
    """A training run, in the directory `name` of the sweep's.

    Attributes:
        name: of the run.
        config: that it trains by.
        group: what the report compares it within, such as the kind of data; "": all there is.
        label: name of its arm in the report, such as "global cascade", which reads well after
            "the". Arms of two groups that share a label share a colour. By default the report makes
            a name from the member's.
    """

    name: str
    config: configs.Experiment | ConfigDict
    group: str = ""
    label: str = ""


@dataclasses.dataclass(frozen=True)
class Step:
    """A command that runs when others of the sweep are done.

    Attributes:
        name: its output goes to `name`/log.txt in the sweep's directory.
        command: arguments of `stunet`, in which "{sweep}" stands for the sweep's directory.
        after: names of the members and steps that it needs, which come earlier in the sweep.
        makes: the file that it leaves, within the sweep's directory. Once that is there the command
            is done.
        group: as a member's.
        label: as a member's.
    """

    name: str
    command: tuple[str, ...]
    after: tuple[str, ...]
    makes: str
    group: str = ""
    label: str = ""


Entry = Member | Step


def product(
    base: configs.Experiment | ConfigDict, grid: Mapping[str, Sequence[Any]], name: str = ""
) -> list[Member]:
    """A member for each combination of values; the last key's change fastest.

    Args:
        base: what the members share.
        grid: values by key, as {"model.temporal_resize_init": ("nearest", "he"), "seed": (0, 1)}.
        name: of the whole product. A member's name is that and the keys that differ, as
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
        parts = [f"{label}={_word(chosen[key])}" for key, label in labels.items()]
        members.append(Member(",".join([name] * bool(name) + parts), replace(base, chosen)))
    return members


def replace(config: configs.Experiment | ConfigDict, values: Mapping[str, Any]) -> ConfigDict:
    """The config with the values of some keys changed, as {"train.steps": 100}, not yet checked."""
    changed = ConfigDict(_plain(config), type_safe=False)
    for key, value in values.items():
        configs.set_key(changed, key, value)
    return changed


def load(path: str, overrides: Sequence[str] = ()) -> list[Entry]:
    """Reads a sweep file and checks all of it.

    Args:
        path: a Python file with `get_sweep()`, or the name of a sweep that comes with stunet;
            either may be followed by `:argument` for it.
        overrides: `--config.a.b=value` flags, for every member.

    Returns:
        Members, their configs checked, and steps, in an order in which they could run.

    Raises:
        UserError: no such file, what it raises, an empty sweep, two of one name, a config that is
        refused, a step that needs what does not come before it, a label of two arms.
    """
    entries = experiments.call(path, "get_sweep")
    if not isinstance(entries, (list, tuple)) or not any(isinstance(e, Member) for e in entries):
        raise UserError(f"{path}: get_sweep() returns no member; it must return a list of them")
    checked, seen = [], set()
    for entry in entries:
        checked.append(_checked(entry, seen, overrides))
        seen.add(entry.name)
    _check_labels(checked)
    return checked


def question(path: str) -> str:
    """Returns the first line of a sweep file's docstring, which says what the sweep asks.

    Args:
        path: as for `load`; the file must be there.
    """
    file = experiments.find(path, "get_sweep").split(":", 1)[0]
    source = pathlib.Path(file).read_text()
    return (ast.get_docstring(ast.parse(source)) or "").partition("\n")[0]


def find(path: str, name: str, overrides: Sequence[str] = ()) -> Member:
    """Reads a sweep file and returns one of its members.

    Args:
        path: as for `load`.
        name: name of the member.
        overrides: as for `load`.

    Raises:
        UserError: the sweep has no such member, or as `load`.
    """
    members = {e.name: e for e in load(path, overrides) if isinstance(e, Member)}
    if name in members:
        return members[name]
    nearest = closest(name, members)
    hint = f"did you mean {nearest!r}? " if nearest else ""
    names = first_few([repr(member) for member in members])
    raise UserError(f"{path} has no member {name!r}; {hint}its members are {names}")


def arms(entries: Sequence[Entry]) -> dict[str, str]:
    """The arm of each member and step, by name: what differs in the seed alone is one arm.

    An arm is called as its members are, without their seed. Steps, whose commands name other runs
    for every seed, are one arm if they are called alike but for the seed of what they need.
    """
    found, of_seed, same = {}, seeds(entries), collections.defaultdict(list)
    for entry in entries:
        if isinstance(entry, Member):
            same[str(_plain(entry.config) | {"seed": None})].append(entry.name)
        else:
            found[entry.name] = _without_seed(entry.name, of_seed[entry.name])
    called = [{_without_seed(name, of_seed[name]) for name in group} for group in same.values()]
    for group, names in zip(same.values(), called, strict=True):
        alone = len(names) == 1 and sum(names <= others for others in called) == 1
        found |= dict.fromkeys(group, names.pop() if alone else group[0])
    return found


def seeds(entries: Sequence[Entry]) -> dict[str, int | None]:
    """The seed of each member, and that of what each step needs if it is but one, by name."""
    found = {}
    for entry in entries:
        if isinstance(entry, Member):
            found[entry.name] = _plain(entry.config)["seed"]
        else:
            needed = {found[name] for name in entry.after}
            found[entry.name] = needed.pop() if len(needed) == 1 else None
    return found


def _without_seed(name: str, seed: int | None) -> str:
    return re.sub(rf"(^|[,_-])seed=?{seed}(?!\d)", "", name).lstrip(",_-") or name


def _check_labels(entries: Sequence[Entry]) -> None:
    """Raises UserError if two arms of a group have the same label, or one arm has two."""
    arm_of, by_label, by_arm = arms(entries), {}, {}
    for entry in entries:
        arm = arm_of[entry.name]
        other = by_label.setdefault((entry.group, entry.label), arm) if entry.label else arm
        if other != arm:
            raise UserError(f"{other!r} and {arm!r} have the same label {entry.label!r}")
        if by_arm.setdefault(arm, entry.label) != entry.label:
            raise UserError(f"{arm!r} has the labels {by_arm[arm]!r} and {entry.label!r}")


def _checked(entry: Entry, seen: set[str], overrides: Sequence[str]) -> Entry:
    if not isinstance(entry, Entry):
        raise UserError(f"the sweep holds {entry!r}; it may hold Members and Steps")
    kind, name = type(entry).__name__.lower(), entry.name
    if not _NAME.fullmatch(name) or name in _OTHERS_FILES:
        raise UserError(
            f"a {kind} cannot be called {name!r}; it is a directory, of letters, digits and _.,=+-"
        )
    if name in seen:
        raise UserError(f"two of the sweep are called {name!r}; give each a name of its own")
    if isinstance(entry, Step):
        for other in entry.after:
            if other not in seen:
                raise UserError(f"step {name!r} is to run after {other!r}, which is not before it")
        return entry
    try:
        config = configs.override(configs.resolve(_plain(entry.config)), overrides)
        configs.check_data(config)
    except UserError as error:
        raise UserError(f"member {name!r}: {error}") from error
    return dataclasses.replace(entry, config=config)


def _plain(config: configs.Experiment | ConfigDict) -> dict[str, Any]:
    return config.to_dict() if isinstance(config, ConfigDict) else dataclasses.asdict(config)


def _word(value) -> str:
    """A value as a part of a name."""
    return "x".join(map(_word, value)) if isinstance(value, (tuple, list)) else str(value)
