"""What pages say and show is what the code does: prompts, paths and the README's example."""

import itertools
import pathlib
import re

import pytest

from stunet import configs
from stunet.data.sources import make_source
from stunet.data.synthetic.moving_digits import caption
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
def trained_on():
    """The captions of the clips of the quickstart's first 400 updates."""
    config = configs.load(str(ROOT / "experiments" / "quickstart.py"))
    source = make_source(make_parts(config).dataset, "train")
    return {caption(source.truth(i)) for i in range(400 * config.train.batch_size)}


@pytest.mark.parametrize("page", [*PAGES, NOTEBOOK, ROOT / "Makefile"], ids=name)
def test_prompts_are_captions_that_the_quickstart_is_trained_on(page, trained_on):
    assert {*PROMPT.findall(page.read_text())} <= trained_on


def test_the_quickstart_is_trained_on_every_caption_that_its_page_allows(trained_on):
    text = (ROOT / "docs" / "start" / "quickstart.md").read_text()
    _, section = text.split("## Which captions it knows")
    rows = re.findall(r"^\| (?:digit|direction|speed) \|(.*)$", section, re.MULTILINE)
    digits, directions, speeds = (re.findall(r"`([^`]*)`", row) for row in rows)
    allowed = itertools.product(digits, directions, ("", *speeds))
    assert {f"{digit} {direction}{speed}" for digit, direction, speed in allowed} == trained_on
    assert len(trained_on) == 120


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
