"""What pages say and show is what the code does: prompts, paths and the README's example."""

import pathlib
import re

import pytest

from stunet import configs
from stunet.data.sources import make_source
from stunet.train.parts import make_parts

ROOT = pathlib.Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEBOOK = ROOT / "docs" / "how-to" / "sampling.ipynb"
PROMPT = re.compile(r"\ban? \d moving \w+(?:, (?:slowly|fast))?")
# A file in a folder of the repository, as a word of a page.
PATH = re.compile(
    r"(?<![\w./<-])(?:stunet|tests|experiments|benchmarks|examples|launch|docs)/[\w./-]+\.\w+"
)


def name(page: pathlib.Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def learned():
    """The captions of the clips that the quickstart trains on."""
    config = configs.load(str(ROOT / "experiments" / "quickstart.py"))
    source = make_source(make_parts(config).dataset, "train")
    assert len(source) == config.data.num_clips
    return [source[i]["caption"] for i in range(len(source))]


@pytest.mark.parametrize("page", [*PAGES, NOTEBOOK, ROOT / "Makefile"], ids=name)
def test_prompts_are_captions_that_the_quickstart_learned(page, learned):
    assert {*PROMPT.findall(page.read_text())} <= {*learned}


def test_the_quickstart_lists_the_captions_that_it_learned(learned):
    text = (ROOT / "docs" / "start" / "quickstart.md").read_text()
    _, listed = text.split("## The 32 captions")
    found = re.findall(r"`([^`]+)`(?: \((\d) clips\))?", listed)
    assert sorted(caption for caption, n in found for _ in range(int(n or 1))) == sorted(learned)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_a_page_names_are_there(page):
    text = page.read_text()
    # A recipe that writes a file begins with its name.
    new = re.findall(r"^```python\n# (\S+)$", text, re.MULTILINE)
    for path in {*PATH.findall(text)} - {*new}:
        if "NAME" not in path:
            assert (ROOT / path).exists(), path


def test_the_readmes_example_runs():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    seen = {}
    exec(code, seen)
    assert seen["prediction"].shape == (1, 16, 32, 32, 3)
    assert code.count("\n") <= 12
