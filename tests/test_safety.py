"""No code that data hold or name is run: modules that would do so are not used."""

import ast
import pathlib

import pytest

import stunet

PACKAGE = pathlib.Path(stunet.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

# Modules whose readers run what they read, or that read with one.
RUNNING = {
    "cloudpickle",
    "cPickle",
    "dill",
    "joblib",
    "marshal",
    "pickle",
    "shelve",
    "torch",
    "yaml",
}
# Functions that run or import what they are given, and the files that may call them, with why.
CALLS = {
    "eval": (),
    "exec": (),
    "compile": (),
    "__import__": (),
    # Runs experiments, sweeps and protocols, as docs/explanation/safety.md says.
    "run_path": ("configs/experiments.py",),
    "run_module": (),
    # Imports the packages that stunet's own metadata list, and those that the user trusts by name
    # (tests/test_extensions.py).
    "import_module": ("doctor/installation.py", "extensions.py"),
    # TFDS's own readers of features.json import what it names. Here only nodes of known classes.
    "from_json": ("data/features.py",),
    "from_config": (),
    "builder_from_directory": (),
}
# JSON is parsed in one place. The other file turns a value of its own to JSON and back.
PARSES_JSON = ("jsonfiles.py", "evaluate/generator.py")


def called(tree: ast.Module) -> set[str]:
    """Returns the names of functions that a module calls, without what they belong to."""
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    names = {call.id for call in calls if isinstance(call, ast.Name)}
    # `re.compile` and compiling a lowered program are other functions than `compile`.
    return names | {c.attr for c in calls if isinstance(c, ast.Attribute) and c.attr != "compile"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_nothing_that_data_name_is_run(file):
    tree, name = ast.parse(file.read_text()), file.relative_to(PACKAGE).as_posix()
    imported = {
        alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
    }
    imported |= {n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert not {module.partition(".")[0] for module in imported} & RUNNING
    for function in called(tree) & CALLS.keys():
        assert name in CALLS[function], f"{name} calls {function}"
    assert "allow_pickle" not in file.read_text()
    loads = [
        n for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in ("load", "loads")
    ]
    if any(isinstance(n.value, ast.Name) and n.value.id == "json" for n in loads):
        assert name in PARSES_JSON, f"{name} parses JSON, which stunet.jsonfiles does"
