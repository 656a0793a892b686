"""The recipes of docs/how-to/extend.md work: in a copy of the repository, their tests pass."""

import itertools
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "how-to" / "extend.md"
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.M | re.S))
# A package outside the repository (tests/test_extensions.py).
del SECTIONS["Without changing stunet"]
COPIED = ("stunet", "launch", "experiments", "tests", "benchmarks", "pyproject.toml", "setup.py")


def blocks(section: str, language: str) -> list[str]:
    """The blocks of a section in a language; "" is what a shell runs."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", SECTIONS[section], re.M | re.S)
    return [text for name, text in found if name == language]


def edit(root: pathlib.Path, diff: str) -> None:
    """Applies a block of `diff`, of which the first line names the file."""
    head, *lines = diff.splitlines()
    file = root / head.removeprefix("@@ ")
    old, new = (
        "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("", " ", sign)) for sign in "-+"
    )
    text = file.read_text()
    assert text.count(f"\n{old}") == 1, f"{file}: the place is not there once: {old!r}"
    file.write_text(text.replace(f"\n{old}", f"\n{new}"))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of all tests of the recipes, by file."""
    root = tmp_path_factory.mktemp("copy")
    for name in COPIED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, root / name)
    files, words = {}, set()
    for section in SECTIONS:
        for block in blocks(section, "python"):
            path = block.partition("\n")[0].removeprefix("# ")
            (root / path).write_text(block)
        for block in blocks(section, "diff"):
            edit(root, block)
        for command in blocks(section, ""):
            arguments = shlex.split(command.replace("\\\n", ""))
            # A recipe's word is in the name of its own tests, and in ids of those of the table.
            words |= {after for flag, after in itertools.pairwise(arguments) if flag == "-k"}
            files |= {argument: None for argument in arguments if argument.endswith(".py")}
    own = [file for file in files if not (ROOT / file).exists()]
    chosen = " or ".join([*words, *(pathlib.Path(file).stem for file in own)])
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "--no-header", *files, "-k", chosen]
    done = subprocess.run(
        command,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return re.findall(r"^PASSED (\S+?)::", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_recipe_works(section, results):
    tests = re.findall(r"tests/\S+\.py", "".join(blocks(section, "")))
    assert tests
    for file in tests:
        assert file in results
