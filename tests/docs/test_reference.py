"""The reference that the site generates names every key, every command and every module."""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from stunet import configs

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def reference():
    file = ROOT / "docs" / "hooks" / "reference.py"
    spec = importlib.util.spec_from_file_location("hooks_reference", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_key_is_there_with_its_default_and_meaning(reference):
    page = reference.config_page()
    row = r"^\| \[`([\w.]+)`\]\S+?<br>default `(.*?)`<br>(.*?) \| (.*) \|$"
    rows = re.findall(row, page, re.MULTILINE)
    fields = dict(configs.fields())
    assert sorted(name for name, *_ in rows) == sorted(fields)
    for name, default, values, meaning in rows:
        assert default == repr(fields[name].default).replace("'", '"')
        assert meaning == fields[name].metadata["doc"]
        for choice in fields[name].metadata["choices"] or ():
            assert str(choice) in values


def test_the_help_of_each_command_is_there(reference):
    page = reference.commands_page()
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "stunet.cli", "sweep", "--help"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert printed.stdout.strip() in page
    titles = re.findall(r"^#+ (stunet .*)$", page, re.MULTILINE)
    assert {"stunet train", "stunet sample", "stunet sample text"} <= {*titles}


def test_every_module_is_on_the_page_of_its_room(reference):
    files = {
        file.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for file in (ROOT / "stunet").rglob("*.py")
        if not file.name.startswith("_")
    }
    there = {name for room in reference.api_rooms() for name in reference.api_modules(room)}
    rooms_without = tuple(f"stunet.{name}" for name in reference.WITHOUT_API)
    assert {name for name in files if not name.startswith(rooms_without)} <= there
    config = (ROOT / "mkdocs.yml").read_text()
    for room in reference.api_rooms():
        assert f"reference/api/{room}.md" in config
