"""The networks that come with stunet do every task, and name no file of another machine."""

import pathlib

import numpy as np
import pytest

import stunet
from stunet import configs
from stunet.data.synthetic import looks
from stunet.generate import networks
from stunet.train.saved import weights_file

NAME = pathlib.Path("lumiere-mini")
FOLDER = pathlib.Path(__file__).parents[2] / "pretrained" / NAME
FILES = sorted(FOLDER.rglob("*.safetensors"))
WANTED = {
    **dict.fromkeys(("text", "image", "inpaint", "cinemagraph", "video", "style"), "masks"),
    "upscale": "upscale",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder that holds nothing of this name."""
    monkeypatch.chdir(tmp_path)


def test_they_are_small_and_described():
    assert networks.shipped() == [str(NAME)]
    card = (FOLDER / "README.md").read_text()
    assert all(f"`{file.relative_to(FOLDER)}`" in card for file in FILES)
    assert sum(file.stat().st_size for file in FILES) < 12 * 2**20


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.parent.name)
def test_their_configs_name_no_files(file):
    config = weights_file.read_header(file).config
    assert configs.paths_in(config) == {}
    assert file.read_bytes().count(b"/tmp/") == file.read_bytes().count(b"/home/") == 0


def test_each_task_finds_its_network():
    found = {task: file.parent.name for task, file in networks.find_tasks(NAME).items()}
    assert found == WANTED
    assert networks.find(NAME / "style_neon", "style").parent.name == "style_neon"


def test_the_ground_has_the_colour_of_the_prompt():
    model = stunet.load(NAME)
    for ground in ("red", "green"):
        clip = model.sample(f"a white 1 moving right, on {ground}", steps=8, progress=False)
        assert clip.shape == (16, 32, 32, 3)
        # The digit covers less than half of the pixels.
        middle = np.median((clip + 1) / 2, axis=(0, 1, 2))
        distances = {
            name: np.abs(middle - colour).sum() for name, colour in looks.GROUND_COLOURS.items()
        }
        assert min(distances, key=distances.get) == ground
