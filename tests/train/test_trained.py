"""Weights of a file stand for those of the run that they were exported from."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_in
from from_config import make_mesh
from safetensors.numpy import load_file, save_file

from stunet import cli, configs
from stunet.errors import UserError
from stunet.generate import text, upscale
from stunet.generate.model import load
from stunet.parallel import mesh as meshes
from stunet.train.parts import read_parts
from stunet.train.saved import trained

CONFIG = stand_in.config()
EARLIER = dataclasses.replace(CONFIG, seed=1)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    stand_in.save(EARLIER, workdir, step=3)
    stand_in.save(CONFIG, workdir, step=7)
    for dtype in ("float32", "bfloat16"):
        words = ["export", "--workdir", str(workdir), "--out", str(workdir / dtype)]
        assert cli.main([*words, "--format", "safetensors", "--dtype", dtype]) == 0
    return workdir


def restored(place):
    mesh = make_mesh(CONFIG)
    with meshes.use(mesh):
        return trained.restore(place, read_parts(place), mesh)


def test_a_file_gives_the_runs_parameters_and_updates(workdir):
    expected, steps = restored(workdir)
    found, noted = restored(workdir / "float32" / "params.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert steps == noted == 7


def test_half_precision_is_rounded_and_computes_in_the_runs_own(workdir):
    expected, _ = restored(workdir)
    found, _ = restored(workdir / "bfloat16" / "params.safetensors")
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(x.dtype), expected)
    jax.tree.map(np.testing.assert_array_equal, found, rounded)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def test_a_file_samples_the_runs_clips_beside_itself(workdir, capsys):
    file = workdir / "float32" / "params.safetensors"
    clips, _ = text.text_to_video(workdir, ["a 3"], seed=1)
    found, _ = text.text_to_video(file, ["a 3"], seed=1)
    np.testing.assert_array_equal(found, clips)
    words = ["sample", "text", "--workdir", str(file), "--prompt", "a 3", "--steps", "1"]
    assert cli.main(words) == 0, capsys.readouterr().err
    assert (file.parent / "samples" / "a_3_seed0.gif").is_file()


def test_a_super_resolution_network_is_read_from_a_file(tmp_path):
    config = stand_in.config(upscale=dict(factor=2))
    stand_in.save(config, tmp_path)
    words = ["export", "--workdir", str(tmp_path), "--out", str(tmp_path / "out")]
    assert cli.main([*words, "--format", "safetensors"]) == 0
    low = np.zeros((4, 4, 4, 1), np.float32)
    from_run, from_file = (
        upscale.upscale(upscale.load(place), low).clip
        for place in (tmp_path, tmp_path / "out" / "params.safetensors")
    )
    np.testing.assert_array_equal(from_run, from_file)


def test_files_without_a_config_or_of_another_network_are_refused(workdir, tmp_path):
    bare = tmp_path / "bare.safetensors"
    save_file(load_file(workdir / "float32" / "params.safetensors"), bare)
    with pytest.raises(UserError, match=r"bare.safetensors holds weights without their config"):
        read_parts(bare)
    with pytest.raises(UserError, match=r"nowhere.safetensors holds no training run"):
        read_parts(tmp_path / "nowhere.safetensors")


def test_a_public_file_names_nothing_of_this_machine(tmp_path):
    here = str(tmp_path)
    mixed = {"mine": {"source": "clips", "path": here, "weight": 1.0}}
    private = {"data.path": here, "train.init_from": here, "data.mix": mixed}
    stand_in.save(configs.replace(CONFIG, private), tmp_path, step=7)
    for name, options in (("mine", ()), ("public", ("--public",))):
        words = ["export", "--workdir", here, "--out", str(tmp_path / name), *options]
        assert cli.main([*words, "--format", "safetensors"]) == 0
    mine, public = (tmp_path / name / "params.safetensors" for name in ("mine", "public"))
    assert here.encode() in mine.read_bytes()
    assert here.encode() not in public.read_bytes()
    jax.tree.map(np.testing.assert_array_equal, restored(mine), restored(public))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    """Returns the directory of a run with the weights of the earlier checkpoint alone."""
    workdir = tmp_path_factory.mktemp("other")
    stand_in.save(EARLIER, workdir)
    return workdir


def sampled(place, **settings):
    return text.text_to_video(place, ["a 3"], seed=1, steps=2, **settings)[0]


def test_autoguidance_by_one_gives_the_runs_own_clips_and_reads_no_other_weights(workdir):
    missing = dict(autoguidance_from="missing", autoguidance_scale=1.0)
    np.testing.assert_array_equal(sampled(workdir, **missing), sampled(workdir))


def test_an_earlier_checkpoint_and_its_run_and_file_are_the_same_weaker_network(workdir, other):
    file = other / "out" / "params.safetensors"
    words = ["export", "--workdir", str(other), "--out", str(file.parent)]
    assert cli.main([*words, "--format", "safetensors"]) == 0
    clips = sampled(workdir, autoguidance_scale=2.0, autoguidance_from="3")
    assert np.abs(clips - sampled(workdir)).max() > 0.1
    for place in (other, file):
        found = sampled(workdir, autoguidance_scale=2.0, autoguidance_from=str(place))
        np.testing.assert_array_equal(found, clips)


def test_the_clips_of_autoguidance_are_noted_with_its_settings(workdir, capsys):
    words = ["sample", "text", "--workdir", str(workdir), "--prompt", "a 4", "--steps", "1"]
    assert cli.main([*words, "--autoguidance", "2", "--autoguidance-from", "3"]) == 0
    settings = json.loads((workdir / "samples" / "a_4_seed0.json").read_text())["sample"]
    assert (settings["autoguidance_scale"], settings["autoguidance_from"]) == (2, "3")


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (dict(autoguidance_from="5"), "no checkpoint after update 5 .* there are 3, 7"),
        (dict(autoguidance_from="nowhere"), "nowhere holds no training run"),
        ({}, "autoguidance_from empty; name a weaker version"),
    ],
)
def test_missing_weaker_weights(workdir, settings, problem):
    with pytest.raises(UserError, match=problem):
        sampled(workdir, autoguidance_scale=2.0, **settings)


def test_weaker_weights_of_another_network_or_for_a_file(workdir, tmp_path):
    stand_in.save(stand_in.config(diffusion=dict(prediction="eps")), tmp_path)
    with pytest.raises(UserError, match=r"another network: diffusion.prediction is 'eps' there"):
        sampled(workdir, autoguidance_scale=2.0, autoguidance_from=str(tmp_path))
    file = workdir / "float32" / "params.safetensors"
    with pytest.raises(UserError, match=r"3, which is a checkpoint .* file of weights"):
        sampled(file, autoguidance_scale=2.0, autoguidance_from="3")


def test_programs_and_mixtures_of_weights_take_no_autoguidance(workdir, tmp_path, capsys):
    config = stand_in.config(
        sample=dict(threshold="none", autoguidance_scale=2.0, autoguidance_from="0")
    )
    stand_in.save(config, tmp_path)
    words = ["export", "--workdir", str(tmp_path), "--format", "stablehlo"]
    assert cli.main([*words, "--out", str(tmp_path / "out")]) == 1
    words = ["sample", "style", "--workdir", str(tmp_path), "--style-workdir", str(workdir)]
    assert cli.main([*words, "--alpha", "0.5", "--prompt", "a 3"]) == 1
    said = re.findall("give --autoguidance 1", capsys.readouterr().err)
    assert len(said) == 2


def test_settings_that_ask_for_autoguidance_after_loading_are_refused(workdir):
    model = load(workdir)
    with pytest.raises(UserError, match="load the run with autoguidance_scale"):
        model.sample("a 3", steps=1, autoguidance_scale=2.0, autoguidance_from="3", progress=False)
    guided = load(workdir, autoguidance_scale=2.0, autoguidance_from="3")
    plain = guided.sample("a 3", seed=1, steps=2, autoguidance_scale=1.0, progress=False)
    np.testing.assert_array_equal(plain, sampled(workdir)[0])
