"""Weights of a file stand for those of the run that they were exported from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_in
from from_config import make_mesh
from safetensors.numpy import load_file, save_file

from stunet import cli
from stunet.errors import UserError
from stunet.generate import text, upscale
from stunet.parallel import mesh as meshes
from stunet.train import trained
from stunet.train.parts import read_parts

CONFIG = stand_in.config()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
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
