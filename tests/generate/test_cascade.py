"""The keyframe cascade: what each window sees, how windows form clips, which runs fit together.

A formula stands in for the network. It has the same inputs, so that its output shows them.
"""

import dataclasses
import json
import pathlib

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step
import tiny
from from_config import make_mesh, parts_with_network

from stunet import cli, configs
from stunet.errors import UserError
from stunet.evaluate.run import evaluate
from stunet.generate import cascade
from stunet.generate.text import Run, text_to_video
from stunet.train.parts import make_parts
from stunet.train.saved.checkpoints import Checkpoints

# One level, which compiles fast; attention over time connects all frames of a window.
MODEL = dict(channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,))
SAMPLE = dict(threshold="none", guidance_scale=1.0)


def tsr(frames, **groups):
    """Returns a run that fills in windows of `frames` frames, with keyframes 3 frames apart."""
    groups = {
        "model": MODEL,
        "data": dict(frames=frames),
        "tsr": dict(stride=3, max_augmentation=0.5),
        "diffusion": dict(prediction="x0"),
        "sample": SAMPLE,
    } | groups
    return tiny.config(**groups)


WINDOWED, GLOBAL = tsr(4), tsr(10)
KEYFRAMES = tiny.config(model=MODEL, data=dict(frames=4, stride=3))
RNG = np.random.default_rng(0)
GIVEN = RNG.uniform(-1, 1, (2, 4, 8, 8, 1)).astype(np.float32)


def interpolating(inputs):
    """Returns x0 of clips that change linearly between keyframes."""
    given, stride = inputs[..., 1:2][:, ::3], 3
    weight = jnp.arange(stride).reshape(-1, 1, 1, 1) / stride
    between = given[:, :-1, None] * (1 - weight) + given[:, 1:, None] * weight
    between = between.reshape(len(given), -1, *given.shape[2:])
    return jnp.concatenate([between, given[:, -1:]], axis=1)


def averaging(inputs):
    """Returns the mean of the keyframes for every frame."""
    mean = inputs[..., 1:2].sum(1, keepdims=True) / inputs[..., 2:3].sum(1, keepdims=True)
    return jnp.broadcast_to(mean, inputs[..., :1].shape)


def check_pair(keyframes, tsr):
    cascade.check_pair(make_parts(keyframes), make_parts(tsr))


@pytest.fixture
def fill():
    """Returns `fill(config, network)`, which fills in the keyframes GIVEN, or others."""

    def fill(config, network, given=GIVEN, prompts=("a", "b"), **options):
        parts = parts_with_network(config, lambda params, inputs, *others: network(inputs))
        mesh = make_mesh(config, jax.devices()[:1])
        return cascade.fill(Run(parts, {}, mesh), given, prompts, **options)

    return fill


@pytest.mark.parametrize(("config", "borders"), [(WINDOWED, (3, 6)), (GLOBAL, ())])
def test_a_perfect_denoiser_of_true_keyframes_gives_the_truth(fill, config, borders):
    at = np.arange(10) / 3
    before, weight = np.minimum(at.astype(int), 2), (at - np.minimum(at.astype(int), 2))
    weight = weight[:, None, None, None]
    truth = GIVEN[:, before] * (1 - weight) + GIVEN[:, before + 1] * weight
    filled = fill(config, interpolating)
    np.testing.assert_allclose(filled.clips, truth, atol=1e-5)
    assert filled.borders == borders
    assert filled.stride == 3


@pytest.mark.parametrize("config", [WINDOWED, GLOBAL])
def test_given_frames_come_back_bit_by_bit(fill, config):
    filled = fill(config, averaging, augmentation=0.5)
    np.testing.assert_array_equal(filled.clips[:, ::3], GIVEN)
    assert not (filled.clips[:, 1::3] == GIVEN[:, :-1]).any()


def test_only_its_own_keyframes_change_a_window_and_all_change_the_whole_clip(fill):
    other = GIVEN.copy()
    other[:, 2] = RNG.uniform(-1, 1, other[:, 2].shape)
    windowed, changed = (fill(WINDOWED, averaging, given).clips for given in (GIVEN, other))
    np.testing.assert_array_equal(windowed[:, :4], changed[:, :4])  # keyframes 0 and 1
    assert (windowed[:, 4:6] != changed[:, 4:6]).all()
    assert (windowed[:, 7:9] != changed[:, 7:9]).all()
    whole, changed = (fill(GLOBAL, averaging, given).clips for given in (GIVEN, other))
    assert (whole[:, 1:3] != changed[:, 1:3]).all()


def test_windows_have_noise_of_their_own_and_clips_do_not_depend_on_their_company(fill):
    both = fill(WINDOWED, lambda inputs: inputs[..., :1]).clips
    hidden = both[:, np.arange(10) % 3 > 0].reshape(6, -1)
    assert np.abs(np.corrcoef(hidden) - np.eye(6)).max() < 0.5
    alone = fill(WINDOWED, lambda inputs: inputs[..., :1], GIVEN[:1], ["a"]).clips
    np.testing.assert_allclose(alone[0], both[0], atol=1e-5)


def test_the_network_is_told_the_augmentation_that_its_keyframes_have(fill):
    seen = fill(GLOBAL, lambda inputs: inputs[..., 3:4] * inputs[..., 2:3].mean(), augmentation=0.4)
    hidden = np.arange(10) % 3 > 0
    np.testing.assert_allclose(seen.clips[:, hidden], 0.4 * 0.4, atol=1e-5)
    zeros = np.zeros((40, 4, 8, 8, 1), np.float32)
    config = dataclasses.replace(GLOBAL, sample=dataclasses.replace(GLOBAL.sample, steps=1))
    seen = fill(config, averaging, zeros, ["a"] * 40, augmentation=0.4)
    # The mean of 4 keyframes of zeros, with noise of standard deviation sin(0.2 pi).
    assert seen.clips[:, 1].std() == pytest.approx(np.sin(0.2 * np.pi) / 2, rel=0.1)


def test_windows_of_more_keyframes_make_up_clips_too(fill):
    given = RNG.uniform(-1, 1, (2, 5, 8, 8, 1)).astype(np.float32)
    long, short = (fill(tsr(frames), interpolating, given) for frames in (7, 4))
    assert (long.borders, short.borders) == ((6,), (3, 6, 9))
    np.testing.assert_allclose(long.clips, short.clips, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (GIVEN[:, :3], {}, r"3 keyframes, which windows of 4 \(10 frames\).* do 4, 7, 10"),
        (GIVEN[:, :, :4], {}, r"keyframes are 4x8x1 .* fills in 8x8x1"),
        (GIVEN[:1], {}, r"2 prompts for the keyframes of 1"),
        (GIVEN, dict(augmentation=0.6), r"augmentation is 0.6; .* 0 to 0.5"),
    ],
)
def test_keyframes_that_do_not_suit_the_run(fill, given, options, sentence):
    with pytest.raises(UserError, match=sentence):
        fill(GLOBAL, averaging, given, **options)


@pytest.mark.parametrize(
    ("keyframes", "run", "sentence"),
    [
        ({}, KEYFRAMES, "no temporal super-resolution network"),
        (dict(data=dict(stride=5)), WINDOWED, r"5 frames apart \(data.stride\).* when 3 apart"),
        ({}, tsr(4, data=dict(frames=4, stride=2)), r"3 frames apart .* when 6 apart"),
        (dict(data=dict(frames=3, stride=3)), GLOBAL, r"3 keyframes, which windows of 4"),
        (dict(data=dict(stride=3, width=16)), WINDOWED, r"data.width is 16 .* and 8 of"),
        (dict(text=dict(dim=32)), WINDOWED, r"text encoder is .*'dim': 32.*'dim': 16"),
    ],
)
def test_runs_that_do_not_go_together(keyframes, run, sentence):
    check_pair(KEYFRAMES, WINDOWED)
    check_pair(KEYFRAMES, GLOBAL)
    ours = {k: dataclasses.replace(getattr(KEYFRAMES, k), **v) for k, v in keyframes.items()}
    with pytest.raises(UserError, match=sentence):
        check_pair(dataclasses.replace(KEYFRAMES, **ours), run)


def test_runs_whose_text_encoder_lies_elsewhere_go_together():
    def text(config, encoder, fingerprint="12ab"):
        there = dataclasses.replace(config.text, encoder=encoder, fingerprint=fingerprint)
        return dataclasses.replace(config, text=there)

    here = text(WINDOWED, "t5:/here")
    check_pair(text(KEYFRAMES, "t5:/there"), here)
    with pytest.raises(UserError, match="text encoder is"):
        check_pair(text(KEYFRAMES, "t5:/there", "34cd"), here)
    with pytest.raises(UserError, match="text encoder is"):
        check_pair(text(KEYFRAMES, "t5:/there", ""), text(WINDOWED, "t5:/here", ""))


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory, quickly_compiled_convolutions):
    """Makes untrained runs with a checkpoint each: keyframes, windowed, and with another stride."""
    made = {}
    for name, config in (("keyframes", KEYFRAMES), ("tsr", WINDOWED)):
        made[name] = tmp_path_factory.mktemp(name)
        configs.write(config, made[name] / "config.json")
        state = test_step.random_state(config, make_mesh(config))
        with Checkpoints(made[name]) as checkpoints:
            checkpoints.save(state, {"global_next_index": 0})
            checkpoints.wait()
    return made


def test_the_command_writes_whole_clips_at_the_full_rate(workdirs, tmp_path, capsys):
    arguments = ["sample", "text", "--workdir", workdirs["keyframes"], "--tsr", workdirs["tsr"]]
    arguments += ["--prompt", "a 3 moving left", "--num", 2, "--out", tmp_path, "--steps", 1]
    assert cli.main([str(a) for a in arguments]) == 0
    stem = tmp_path / "a_3_moving_left_seed0_cascade"
    assert str(stem) in capsys.readouterr().out
    with av.open(f"{stem}.mp4") as container:
        assert container.streams.video[0].average_rate == WINDOWED.data.fps
        assert len(list(container.decode(video=0))) == 10
    settings = json.loads(pathlib.Path(f"{stem}.json").read_text())
    asked = {"tsr": str(workdirs["tsr"]), "augmentation": 0.27, "checkpoint": 0}
    assert settings | asked == settings
    assert all(tmp_path.joinpath(f"{stem.name}{end}").stat().st_size for end in (".gif", "_xt.png"))


def test_the_clips_keep_the_keyframes_that_the_first_run_alone_samples(workdirs):
    seen, prompts = [], ["a 3 moving left", "an 8 moving up"]
    filled = cascade.cascade(
        workdirs["keyframes"],
        workdirs["tsr"],
        prompts,
        seed=3,
        steps=1,
        on_step=lambda done, total, clips: seen.append((done, total)),
    )
    alone, _ = cascade.keyframes(workdirs["keyframes"], prompts, seed=3, steps=1)
    np.testing.assert_array_equal(filled.clips[:, ::3], alone)
    assert filled.borders == (3, 6)
    assert seen == [(1, 2), (2, 2)]


def test_an_augmentation_that_was_not_learnt_is_told_before_keyframes_are_sampled(workdirs):
    def stop(done, total):
        pytest.fail("it samples")

    pair = workdirs["keyframes"], workdirs["tsr"]
    with pytest.raises(UserError, match=r"augmentation is 0.6; .* 0 to 0.5"):
        cascade.cascade(*pair, ["a"], augmentation=0.6, on_step=stop)
    # An evaluation does the same.
    with pytest.raises(UserError, match=r"augmentation is 0.6; .* 0 to 0.5"):
        evaluate(pair[0], tsr=pair[1], augmentation=0.6, metrics="pixels", num=1, on_step=stop)


def test_mistaken_directories(workdirs, capsys):
    both = ["--prompt", "a", "--workdir", str(workdirs["tsr"])]
    assert cli.main(["sample", "text", *both]) == 1
    assert "fills in the frames between keyframes" in capsys.readouterr().err
    assert cli.main(["sample", "text", *both, "--augmentation", "0.1"]) == 1
    assert "give --tsr too" in capsys.readouterr().err
    both = ["--tsr", str(workdirs["keyframes"]), "--workdir", str(workdirs["keyframes"])]
    assert cli.main(["sample", "text", "--prompt", "a", *both]) == 1
    assert "holds no temporal super-resolution network" in capsys.readouterr().err
    with pytest.raises(UserError, match="holds no training run"):
        cascade.cascade(workdirs["keyframes"] / "samples", workdirs["tsr"], ["a"])
    with pytest.raises(UserError, match="temporal super-resolution"):
        text_to_video(workdirs["tsr"], ["a"])
