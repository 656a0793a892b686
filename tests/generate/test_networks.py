"""A directory of several networks gives each task the one that it needs, wherever it lies."""

import pathlib
import shutil

import numpy as np
import pytest
import stand_in

import stunet
from stunet import cli
from stunet.errors import UserError
from stunet.generate import networks

CLIPS = dict(stand_in.MODEL, temporal=True, temporal_attention_blocks=0)
KINDS = {
    "base": dict(model=CLIPS),
    "masks": dict(model=CLIPS, masks=stand_in.SHARES),
    "upscale": dict(model=CLIPS, upscale=dict(factor=2)),
    "pictures": dict(data=dict(frames=1)),
}
WANTED = {
    **dict.fromkeys(("text", "video", "style"), "base"),
    **dict.fromkeys(("image", "inpaint", "cinemagraph"), "masks"),
    "upscale": "upscale",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> pathlib.Path:
    """The working directory of each kind of network, as a sweep leaves them."""
    root = tmp_path_factory.mktemp("runs")
    for name, groups in KINDS.items():
        stand_in.save(stand_in.config(**groups), root / name)
    (root / "gallery").mkdir()
    (root / "sweep.json").write_text("{}")
    return root


@pytest.fixture(scope="module")
def files(runs, tmp_path_factory) -> pathlib.Path:
    """The weights of each network."""
    root = tmp_path_factory.mktemp("files")
    for name in KINDS:
        words = ["export", "--workdir", str(runs / name), "--out", str(root / name)]
        assert cli.main([*words, "--format", "safetensors", "--dtype", "bfloat16"]) == 0
    return root


@pytest.mark.parametrize("task", WANTED)
def test_each_task_gets_its_network(runs, files, task):
    assert networks.find(runs, task) == runs / WANTED[task]
    assert networks.find(files, task) == files / WANTED[task] / "params.safetensors"


def test_the_tasks_of_a_directory_are_those_of_its_networks(runs):
    assert networks.find_tasks(runs) == {task: runs / WANTED[task] for task in WANTED}
    assert list(networks.find_tasks(runs / "base")) == ["text", "video", "style"]
    assert networks.find_tasks(runs / "upscale") == {"upscale": runs / "upscale"}


def test_a_network_that_is_named_is_taken(runs, files):
    assert networks.find(runs / "pictures", "text") == runs / "pictures"
    weights = files / "pictures" / "params.safetensors"
    for place in (files / "pictures", weights):
        assert networks.find(place, "text") == weights


def test_without_a_network_of_captions_alone_one_with_masks_makes_clips(files, tmp_path):
    shutil.copytree(files / "masks", tmp_path / "masks")
    assert networks.find(tmp_path, "text").parent.name == "masks"
    with pytest.raises(UserError, match=r"no network for this task \(conditioned on: upscale\)"):
        networks.find(tmp_path, "upscale")


def test_two_that_fit_have_to_be_told_apart(files, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(files / "base", tmp_path / name)
    with pytest.raises(UserError, match=r"several networks .* give one of .*one, .*two"):
        networks.find(tmp_path, "text")


def test_a_directory_without_networks_is_told_so_by_its_reader(tmp_path):
    assert networks.find(tmp_path, "text") == tmp_path
    assert networks.find(tmp_path / "nowhere", "text") == tmp_path / "nowhere"
    with pytest.raises(UserError, match="holds no training run"):
        stunet.load(tmp_path)


@pytest.fixture
def installed(files, tmp_path, monkeypatch) -> pathlib.Path:
    """An empty folder to work in, beside an installed stunet that ships the networks."""
    package, here = tmp_path / "package", tmp_path / "here"
    shutil.copytree(files, package / "pretrained" / "mini")
    here.mkdir()
    monkeypatch.setattr(networks, "_PACKAGE", package)
    monkeypatch.chdir(here)
    return package / "pretrained" / "mini"


def test_networks_that_come_with_stunet_are_found_by_name(installed, capsys):
    assert networks.shipped() == ["mini"]
    words = ["sample", "text", "--workdir", "mini", "--prompt", "a 3", "--steps", "1"]
    assert cli.main(words) == 0, capsys.readouterr().err
    # Nothing is written where stunet is installed.
    assert pathlib.Path("samples", "a_3_seed0.gif").is_file()
    assert not list(installed.rglob("samples"))
    clip = stunet.load("mini").sample("a 3", progress=False)
    named = stunet.load("mini/base").sample("a 3", progress=False)
    np.testing.assert_array_equal(clip, named)


def test_a_directory_of_the_users_own_wins_over_a_name(installed, runs):
    shutil.copytree(runs / "base", "mini")
    assert networks.find(pathlib.Path("mini"), "text") == pathlib.Path("mini")
