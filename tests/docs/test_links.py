"""Every link of a page leads to a file that is there, in the checkout as on the site."""

import importlib.util
import pathlib
import re
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
HOOKS = ROOT / "docs" / "hooks"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def hook(name: str):
    """Returns a module of docs/hooks, which is no package."""
    spec = importlib.util.spec_from_file_location(f"hooks_{name}", HOOKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def links(page: pathlib.Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [link for link in LINK.findall(text) if "://" not in link and not link.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file(page):
    generated = {"reference/config.md", "reference/commands.md"}
    for link in links(page):
        target = (page.parent / link.partition("#")[0]).resolve()
        made = target.is_relative_to(ROOT / "docs") and (
            target.relative_to(ROOT / "docs").as_posix() in generated
        )
        assert made or target.exists(), link


def test_every_page_is_in_the_navigation():
    config = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[1:]:
        assert page.relative_to(ROOT / "docs").as_posix() in config


def test_links_out_of_docs_are_mended_for_the_site():
    mended = hook("links").mended
    page = "how-to/training.md"
    module = "[code](../../stunet/nn/lora.py)"
    assert mended(module, page) == "[code](../reference/api/nn.md#stunet.nn.lora)"
    assert mended("[a config](../../experiments/quickstart.py)", page) == "a config"
    assert mended("[Plan](plan.md#memory)", page) == "[Plan](plan.md#memory)"
    assert mended(f"```\n{module}\n```", page) == f"```\n{module}\n```"
    assert mended("[two\nlines](docs/a.md)", "index.md") == "[two\nlines](a.md)"
    assert mended("[Train](docs/how-to/training.md)", "index.md") == "[Train](how-to/training.md)"
