"""`stunet.load` gives the clips of `stunet sample text` to Python."""

import subprocess
import sys

import numpy as np
import pytest
import stand_in

import stunet
from stunet import cli
from stunet.errors import UserError
from stunet.generate.text import text_to_video

CONFIG = stand_in.config(data=dict(fps=10.0, stride=2))
PROMPTS = ["a 3", "a 7"]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    stand_in.save(CONFIG, workdir)
    return workdir


@pytest.fixture
def model(workdir, monkeypatch):
    # The clip depends on the number of calls of the network, and so on `steps`.
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.9 * inputs[..., :1])
    return stunet.load(str(workdir))


def test_one_caption_gives_a_clip_and_a_list_a_batch(model, workdir, capsys):
    both = model.sample(PROMPTS, seed=3)
    expected, _ = text_to_video(workdir, PROMPTS, seed=3)
    np.testing.assert_array_equal(both, expected)
    assert both.shape == (2, 4, 8, 8, 1)
    assert "sampling: 100%" in capsys.readouterr().err
    one = model.sample(PROMPTS[0], seed=3, progress=False)
    np.testing.assert_allclose(one, both[0], atol=1e-6)
    assert capsys.readouterr().err == ""


def test_settings_replace_the_runs_own(model, workdir):
    longer = model.sample(PROMPTS, steps=5, progress=False)
    expected, _ = text_to_video(workdir, PROMPTS, steps=5)
    np.testing.assert_array_equal(longer, expected)
    assert np.abs(longer - model.sample(PROMPTS, progress=False)).max() > 0.01
    assert stunet.load(workdir, steps=5).run.parts.sampling.steps == 5


@pytest.mark.parametrize("seed", [-1, 2**31, 2**63])
def test_a_seed_is_one_that_a_config_could_have(model, capsys, seed):
    for last in (0, 2**31 - 1):
        assert model.sample("a 3", seed=last, progress=False).shape == (4, 8, 8, 1)
    with pytest.raises(UserError, match=f"the seed is {seed}; it must be 0 to 2147483647"):
        model.sample("a 3", seed=seed)
    for command in (["sample", "text", "--prompt", "a"], ["evaluate"]):
        # The seed is checked before the directory.
        assert cli.main([*command, "--workdir", "nowhere", "--seed", str(seed)]) == 1
        said = capsys.readouterr().err
        assert said.endswith(f" the seed is {seed}; it must be 0 to 2147483647\n")
        assert said.count("\n") == 1


def test_clips_play_at_the_rate_of_keyframes(model):
    assert model.fps == 5.0


def test_a_directory_without_a_run(tmp_path):
    with pytest.raises(UserError, match="holds no training run"):
        stunet.load(tmp_path)


def test_importing_the_package_imports_nothing_heavy():
    check = "import sys, stunet; print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
