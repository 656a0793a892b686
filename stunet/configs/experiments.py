"""Finds the experiments that come with stunet by their names.

They are the files of `experiments/` in a checkout. A wheel holds the same files as
`stunet/experiments/` (setup.py maps them), so that `--config quickstart` works wherever stunet is
installed.
"""

import ast
import pathlib
import runpy
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from stunet.errors import UserError, closest
from stunet.formatting import first_few


class Kind(NamedTuple):
    """Describes a kind of file: an experiment, a sweep or a protocol.

    Attributes:
        flag: option of the command line that takes such a file.
        noun: word for such a file in messages.
        use: clause that says which command takes such a file. "{file}" stands for the file, and
            "{members}" stands for the names of the first training runs of a sweep.
    """

    flag: str
    noun: str
    use: str


# By the function that a file defines.
KINDS = {
    "get_config": Kind("--config", "experiment", "`stunet train --config {file}` trains it"),
    "get_sweep": Kind(
        "--config",
        "sweep",
        "`stunet train --config {file} --member NAME` trains one of its members ({members}), "
        "`stunet sweep --config {file}` trains them all",
    ),
    "get_protocol": Kind(
        "--protocol", "protocol", "`stunet evaluate --protocol {file}` evaluates a run by it"
    ),
}


class Shipped(NamedTuple):
    """Describes a file that comes with stunet.

    Attributes:
        path: path of the file.
        function: name of the function that the file defines, a key of `KINDS`.
        summary: first line of the file's docstring.
    """

    path: pathlib.Path
    function: str
    summary: str


def shipped() -> dict[str, Shipped]:
    """Returns every experiment, sweep and protocol that comes with stunet, by name.

    A name is the path below `experiments/` without `.py`, such as "quickstart" or
    "sweeps/temporal_downsampling". The files are parsed, but not executed.
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
        text: a path or a name. If `text` ends in `:argument`, the result ends in it too.
        function: key of `KINDS`. The error message suggests files that define this function.

    Raises:
        UserError: there is neither such a file nor such a name, or the file is not in Python.
    """
    file, colon, argument = text.partition(":")
    path, (flag, noun, _) = pathlib.Path(file), KINDS[function]
    # Names without a suffix may be Python too.
    if path.is_file() and path.suffix in (".py", ""):
        return text
    known = shipped()
    for name, entry in known.items():
        if file in (name, entry.path.stem):
            return f"{entry.path}{colon}{argument}"
    hint = f"give a Python file with {function}()"
    if near := _beside(path, function):
        raise UserError(f"{flag}: {_what(path)}; did you mean {near!r}?")
    if path.exists():
        raise UserError(f"{flag}: {_what(path)}; {hint}")
    wanted = {entry.path.stem: name for name, entry in known.items() if entry.function == function}
    hint += f", or one of {', '.join(wanted.values())}"
    part = next((stem for stem in wanted if len(path.stem) > 3 and path.stem in stem), None)
    if nearest := closest(path.stem, wanted) or part:
        hint = f"did you mean {wanted[nearest]!r}?"
    raise UserError(f"{flag}: no file {file!r}, and no {noun} of that name; {hint}")


def call(text: str, function: str) -> Any:
    """Runs a file and returns what its function `function` returns.

    Args:
        text: a path or a name. If `text` ends in `:argument`, the function gets `argument`.
        function: a key of `KINDS`.

    Raises:
        UserError: there is no such file, it does not define the function, or it raises.
    """
    path, *arguments = find(text, function).split(":", 1)
    try:
        defined = runpy.run_path(path)
        if function in defined:
            return defined[function](*arguments)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:  # Whatever the file itself raises.
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: {type(error).__name__}: {reason}") from error
    flag, noun, _ = KINDS[function]
    for other in KINDS.keys() & defined.keys():
        kind = KINDS[other]
        members = _members(defined[other], *arguments) if other == "get_sweep" else ""
        use = kind.use.format(file=text, members=members)
        raise UserError(f"{flag}: {text} is {_a(kind.noun)}, not {_a(noun)}; {use}")
    raise UserError(f"{path} does not define {function}(), as the file of {_a(noun)} does")


def start_from(experiment: str) -> ConfigDict:
    """Returns the config of an experiment, which another experiment can change.

    Args:
        experiment: name of an experiment that comes with stunet, or path of a file.

    Raises:
        UserError: there is no such experiment.
    """
    return call(experiment, "get_config")


def listing(function: str) -> str:
    """Returns a table of the files that define `function`, with the name and summary of each."""
    rows = {name: e.summary for name, e in shipped().items() if e.function == function}
    width = max(map(len, rows), default=0)
    return "\n".join(f"{name:{width}}  {summary}" for name, summary in rows.items())


def _beside(path: pathlib.Path, function: str) -> str | None:
    """Returns a file near `path` that the user may have meant, or None if there is none."""
    candidates = [path.parent / f"{path.stem}.py"]
    if function == "get_config":
        candidates.append(path / "config.json")
    return next((str(file) for file in candidates if file.is_file()), None)


def _what(path: pathlib.Path) -> str:
    """Returns a clause that says why a path is no Python file, such as "... is a directory"."""
    if path.is_dir():
        return f"{str(path)!r} is a directory"
    return f"{str(path)!r} is not a Python file" if path.exists() else f"no file {str(path)!r}"


def _members(get_sweep: Any, *arguments: str) -> str:
    """Returns the names of the first members (training runs) of a sweep, for a message."""
    try:
        found = get_sweep(*arguments)
        # A `Sweep` holds its members and steps. Steps have names too, and no config.
        entries = getattr(found, "entries", found)
        names = [repr(entry.name) for entry in entries if hasattr(entry, "config")]
    except Exception as error:  # Whatever the file itself raises.
        return f"which cannot be listed: {type(error).__name__}"
    return first_few(names)


def _a(noun: str) -> str:
    """Returns a noun with its article, such as "an experiment"."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
