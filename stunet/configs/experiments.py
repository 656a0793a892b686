"""Finds the experiments that come with stunet by their names.

They are the files of `experiments/` in a checkout. A wheel holds the same files as
`stunet/experiments/` (setup.py maps them), so that `--config quickstart` works wherever stunet is
installed.
"""

import ast
import difflib
import pathlib
import runpy
from typing import NamedTuple

from ml_collections import ConfigDict

from stunet.errors import UserError


class Kind(NamedTuple):
    """Says what the files are that define one function.

    Attributes:
        flag: option of the command line that takes such a file.
        noun: word for such a file in messages.
    """

    flag: str
    noun: str


# By the function that a file defines.
KINDS = {
    "get_config": Kind("--config", "experiment"),
    "get_sweep": Kind("--config", "sweep"),
    "get_protocol": Kind("--protocol", "protocol"),
}


class Shipped(NamedTuple):
    """Describes a file that comes with stunet.

    Attributes:
        path: where the file lies.
        function: the key of `KINDS` that the file defines.
        summary: first line of the file's docstring.
    """

    path: pathlib.Path
    function: str
    summary: str


def shipped() -> dict[str, Shipped]:
    """Returns every experiment, sweep and protocol that comes with stunet, by name.

    A name is the path below `experiments/` without `.py`, such as "quickstart" or
    "sweeps/temporal_downsampling". No file is run.
    """
    package = pathlib.Path(__file__).parents[1]
    folder = package / "experiments"  # in a wheel
    if not folder.is_dir():
        folder = package.parent / "experiments"  # in a checkout
    found = {}
    for path in sorted(folder.rglob("*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in module.body if isinstance(node, ast.FunctionDef)}
        for function in KINDS.keys() & functions:
            summary = (ast.get_docstring(module) or "").partition("\n")[0]
            name = path.relative_to(folder).with_suffix("").as_posix()
            found[name] = Shipped(path, function, summary)
    return found


def find(text: str, function: str = "get_config") -> str:
    """Returns the path of the file that the user means.

    A path to a file always wins over a name. The name of a sweep needs no "sweeps/" before it.

    Args:
        text: a path or a name, optionally followed by `:argument`, which is kept.
        function: the key of `KINDS` that is wanted. It decides what the message suggests.

    Raises:
        UserError: there is neither such a file nor such a name.
    """
    file, colon, argument = text.partition(":")
    if pathlib.Path(file).is_file():
        return text
    known = shipped()
    for name, entry in known.items():
        if file in (name, entry.path.stem):
            return f"{entry.path}{colon}{argument}"
    flag, noun = KINDS[function]
    wanted = {entry.path.stem: name for name, entry in known.items() if entry.function == function}
    close = difflib.get_close_matches(pathlib.Path(file).stem, wanted, n=1)
    hint = f"give a Python file with {function}(), or one of {', '.join(wanted.values())}"
    if close:
        hint = f"did you mean {wanted[close[0]]!r}?"
    raise UserError(f"{flag}: no file {file!r}, and no {noun} of that name; {hint}")


def start_from(experiment: str) -> ConfigDict:
    """Returns the config of an experiment, for the `get_config()` of another to change.

    Args:
        experiment: name or path of the experiment, as `find` takes it.

    Raises:
        UserError: there is no such experiment.
    """
    path, _, argument = find(experiment).partition(":")
    return runpy.run_path(path)["get_config"](*[argument] * bool(argument))


def listing(function: str) -> str:
    """Returns a table of the files that define `function`, a line for each: name and summary."""
    rows = {name: e.summary for name, e in shipped().items() if e.function == function}
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:{width}}  {summary}" for name, summary in rows.items())
