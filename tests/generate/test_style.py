"""Clips of interpolated networks: alpha 0 is the run itself, and all alphas share the noise."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import test_step
import tiny
from from_config import make_mesh
from PIL import Image

from stunet import cli, configs
from stunet.errors import UserError
from stunet.generate import style, text
from stunet.train.parts import make_parts
from stunet.train.saved.checkpoints import Checkpoints

# One level without text, which compiles fast.
CONFIG = tiny.config(
    model=dict(
        channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), text_features=0
    ),
    sample=dict(steps=1, guidance_scale=1.0),
)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory, quickly_compiled_convolutions):
    """Makes untrained runs with a checkpoint each, in which all weights differ."""
    made = {}
    for name, factor in {"base": 1.0, "style": 0.5}.items():
        made[name] = tmp_path_factory.mktemp(name)
        configs.write(CONFIG, made[name] / "config.json")
        state = test_step.random_state(CONFIG, make_mesh(CONFIG))
        params = jax.tree.map(lambda leaf, factor=factor: factor * leaf, state.params)
        with Checkpoints(made[name]) as checkpoints:
            checkpoints.save(dataclasses.replace(state, ema=params), {"global_next_index": 0})
            checkpoints.wait()
    return made


def test_alpha_0_is_the_run_itself_and_others_are_not(workdirs):
    run, other = text.load(workdirs["base"]), text.load(workdirs["style"])
    prompts, seen = ["a", "b"], []
    clips = style.stylise(
        run, other, prompts, [0, 0.5, 1], seed=3, on_step=lambda *step: seen.append(step[:2])
    )
    plain = text.sample_clips(run, prompts, seed=3)
    np.testing.assert_array_equal(clips[:2], plain)
    assert clips.shape == (6, *plain.shape[1:])
    for i in (2, 4):
        assert np.abs(clips[i : i + 2] - clips[i - 2 : i]).max() > 0.01
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_the_command_lays_out_a_sheet_over_alpha(workdirs, tmp_path, capsys):
    arguments = ["sample", "style", "--workdir", workdirs["base"], "--prompt", "a 3"]
    arguments += ["--style-workdir", workdirs["style"], "--out", tmp_path]
    alphas = ["--alpha", 0.5, "--alpha", 1]
    assert cli.main([str(a) for a in [*arguments, *alphas]]) == 0
    written = {file.suffix: file for file in tmp_path.glob("a_3_seed0_style_*")}
    assert written.keys() == {".gif", ".mp4", ".png", ".json"}
    # There is a row for each alpha, and a column for each prompt, here one.
    for sheet in (".gif", ".png"):
        with Image.open(written[sheet]) as image:
            assert image.height > (1.9 if sheet == ".gif" else 0.9) * image.width
    assert str(written[".gif"]) in capsys.readouterr().out
    settings = json.loads(written[".json"].read_text())
    assert (settings["style"], settings["alphas"]) == (str(workdirs["style"]), [0.5, 1])
    assert cli.main([str(a) for a in [*arguments, "--alpha", 2]]) == 1
    assert "alpha is 2; it lies in 0" in capsys.readouterr().err


def test_another_text_encoder_is_refused(workdirs):
    def of(**changed):
        changed = dataclasses.replace(CONFIG.text, **changed)
        return make_parts(dataclasses.replace(CONFIG, text=changed))

    run = text.load(workdirs["base"])
    with pytest.raises(UserError, match=r"text encoder is .*'dim': 16.* style's .*'dim': 32"):
        style.stylise(run, dataclasses.replace(run, parts=of(dim=32)), ["a"], [0.5])
    # The same encoder in another directory is accepted; the error is the next mistake.
    here, there = (
        dataclasses.replace(run, parts=of(encoder=f"t5:/{place}", fingerprint="12ab"))
        for place in ("here", "there")
    )
    with pytest.raises(UserError, match="alpha is 2"):
        style.stylise(here, there, ["a"], [2])
