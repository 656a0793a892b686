"""Super-resolution of clips of any length: what segments see, how they agree, memory.

A formula stands in for the network. It has the same inputs, so that its output shows them.
"""

import dataclasses
import functools
import gc
import json
import pathlib
import tracemalloc

import av
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_step
import tiny
from from_config import make_mesh, parts_with_network

from stunet import cli, configs
from stunet.data import media
from stunet.data.sources import make_encoder
from stunet.errors import UserError
from stunet.generate import text, upscale
from stunet.train import sampling
from stunet.train.parts import make_parts
from stunet.train.saved.checkpoints import Checkpoints

FACTOR, FRAMES, OVERLAP = 4, 4, 2
JOINED = pathlib.Path(__file__).parents[1] / "prepare" / "cases" / "two.mpg"
CONFIG = tiny.config(
    data=dict(frames=FRAMES, height=16, width=16),
    upscale=dict(factor=FACTOR, max_augmentation=0.5),
    diffusion=dict(prediction="x0"),
    sample=dict(threshold="none", guidance_scale=1.0, steps=3),
)
RNG = np.random.default_rng(0)


def low_clip(frames):
    return RNG.uniform(-1, 1, (frames, 4, 4, 1)).astype(np.float32)


LONG = low_clip(30)


def given(inputs):
    """Returns the enlarged low-resolution clip, as the network sees it, for x0."""
    return inputs[..., 1:2]


def blending(inputs):
    """Returns an x0 that depends on all inputs and all frames of a segment.

    So overlapping segments disagree.
    """
    noise = inputs[..., :1]
    around = 0.4 * noise.mean(1, keepdims=True) + 0.2 * jnp.roll(noise, 1, axis=1)
    return jnp.tanh(around + given(inputs) * (1 + inputs[..., 2:]))


def brightness(inputs):
    """Returns the mean of a segment's noise for each of its frames."""
    return 0 * inputs[..., :1] + inputs[..., :1].mean((1, 2, 3, 4), keepdims=True)


def level(inputs):
    return inputs[..., 2:]


@functools.cache  # Compiled once, for clips of any length.
def upscaler_of(network, **sample):
    config = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, **sample))
    mesh = make_mesh(config, jax.devices()[:1])
    parts = parts_with_network(config, lambda params, inputs, *others: network(inputs))
    sample = sampling.make_sampler(parts.denoiser, parts.sampling)
    return upscale.make_upscaler(text.Run(parts, {}, mesh)), sample


@pytest.mark.parametrize(
    ("sampler", "segments"),
    [("ddim", 1), ("dpmpp_2m", 1), ("ancestral", 1), ("ddim", 3), ("heun", 3), ("unipc", 3)],
)
def test_segments_without_overlap_are_what_plain_sampling_gives(sampler, segments):
    """Holds to float rounding.

    One segment is the clip itself; several segments are the rows of a batch in plain sampling.
    """
    upscaler, sample = upscaler_of(blending, sampler=sampler)
    low = low_clip(segments * FRAMES)
    found = upscale.upscale(upscaler, low, "a", overlap=0, augmentation=0.3, seed=5).clip
    text, mask = make_encoder(make_parts(CONFIG).denoiser.text)(["a"] * segments)
    rows = low.reshape(segments, FRAMES, *low.shape[1:])
    *_, expected = sample({}, text, mask, 5, rows, 0.3)
    np.testing.assert_allclose(found, np.concatenate(np.clip(expected, -1, 1)), atol=1e-5)
    assert found.std() > 0.1


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 6, 11, 30])
def test_clips_of_any_length_are_enlarged_frame_by_frame(frames):
    found = upscale.upscale(upscaler_of(given)[0], LONG[:frames], overlap=OVERLAP)
    expected = jax.image.resize(LONG, (30, 16, 16, 1), "bilinear")
    np.testing.assert_allclose(found.clip, expected[:frames], atol=1e-5)
    assert found.segments.frames == max(frames, FRAMES)


def test_overlapping_segments_agree_where_separate_ones_jump():
    """All frames of a segment get the brightness of its own noise (cf. Lumiere, fig. 14)."""
    upscaler, _ = upscaler_of(brightness)
    low = np.zeros((40, 4, 4, 1), np.float32)
    largest = {}
    for overlap in (0, OVERLAP):
        found = upscale.upscale(upscaler, low, overlap=overlap, seed=1)
        largest[overlap] = np.abs(np.diff(found.clip.mean((1, 2, 3)))).max()
    assert largest[OVERLAP] < 0.75 * largest[0]


def test_how_many_segments_are_denoised_at_once_changes_nothing():
    (upscaler, _), low = upscaler_of(blending), low_clip(15)
    one, four, many = (
        upscale.upscale(upscaler, low, overlap=OVERLAP, batch_size=size).clip for size in (1, 4, 32)
    )
    np.testing.assert_allclose(one, four, atol=1e-5)
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_what_comes_later_does_not_change_the_noise_that_a_frame_begins_with():
    (upscaler, _), low = upscaler_of(blending), low_clip(12)
    whole = upscale.upscale(upscaler, low, overlap=0).clip
    part = upscale.upscale(upscaler, low[:8], overlap=0).clip
    np.testing.assert_allclose(part, whole[:8], atol=1e-5)


def test_all_segments_see_the_same_corrupted_clip_and_its_level():
    (upscaler, _), low = upscaler_of(given), low_clip(14)
    apart, together, clean = (
        upscale.upscale(upscaler, low, overlap=overlap, augmentation=level).clip
        for overlap, level in ((0, 0.2), (3, 0.2), (0, 0.0))
    )
    np.testing.assert_allclose(apart, together, atol=1e-5)
    assert np.abs(apart - clean).mean() > 0.1
    told, _ = upscaler_of(level)
    np.testing.assert_allclose(upscale.upscale(told, low, augmentation=0.2).clip, 0.2, atol=1e-5)


def test_weights_of_the_average_are_used():
    (upscaler, _), low = upscaler_of(blending), low_clip(10)
    uniform, ramp = (
        upscale.upscale(upscaler, low, weights=name).clip for name in ("uniform", "ramp")
    )
    assert np.abs(uniform - ramp).max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("many", [400, pytest.param(640, marks=pytest.mark.long)])
def test_many_frames_in_the_memory_of_a_batch_of_segments_and_a_few_clips(many):
    """Devices hold as much with many frames as with 40, and run the same programs.

    The memory of the host grows by three clips and the low-resolution clip.
    """
    (upscaler, _), held, traced = upscaler_of(blending, steps=1), {}, {}

    def on_step(done, total, clip):
        if done > 10 and done % 20:  # Looking takes longer than the step.
            return
        # Objects in reference cycles are collected only now and then.
        gc.collect()
        held[frames] = max(held.get(frames, 0), sum(array.nbytes for array in jax.live_arrays()))

    for frames in (12, 40, many):  # The first clip compiles the programs.
        low = low_clip(frames)
        gc.collect()
        tracemalloc.start()
        found = upscale.upscale(upscaler, low, overlap=OVERLAP, batch_size=2, on_step=on_step)
        traced[frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(found.clip) == many
    assert held[40] == held[many]
    assert {program._cache_size() for program in upscaler.functions} == {1}
    # The rest are a few batches of segments that are not yet freed.
    assert traced[many] - traced[40] < 3.6 * found.clip[40:].nbytes


@pytest.mark.parametrize(
    ("low", "options", "sentence"),
    [
        (low_clip(8)[:, :3], {}, r"clip is 8x3x4x1, and the run enlarges frames of 4x4x1"),
        (low_clip(8)[:0], {}, r"clip is 0x4x4x1"),
        (low_clip(8), dict(overlap=4), r"overlap is 4 frames; segments of 4 overlap by 0 to 3"),
        (low_clip(8), dict(augmentation=0.6), r"augmentation is 0.6; .* 0 to 0.5"),
        (low_clip(8), dict(seed=-1), r"the seed is -1; it must be 0 to 2147483647"),
        (low_clip(8), dict(weights="hann"), r"unknown weights .*ramp, uniform"),
    ],
)
def test_what_does_not_suit_the_run(low, options, sentence):
    with pytest.raises(UserError, match=sentence):
        upscale.upscale(upscaler_of(given)[0], low, **options)


def test_a_run_that_does_not_enlarge_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no training run"):
        upscale.load(tmp_path)
    configs.write(tiny.config(), tmp_path / "config.json")
    with pytest.raises(UserError, match=r"no super-resolution network \(upscale.factor is 1\)"):
        upscale.load(tmp_path)


@pytest.mark.parametrize("times", [1, FACTOR, 6])
def test_videos_of_the_low_resolution_and_of_multiples_of_it_are_read(tmp_path, times):
    config = tiny.config(
        data=dict(height=64, width=96), upscale=dict(factor=FACTOR), model=dict(patch_size=1)
    )
    ramp = np.linspace(-0.8, 0.8, 16 * 24).reshape(1, 1, 16, 24, 1)
    clips = (ramp * np.linspace(1, -1, 9).reshape(1, 9, 1, 1, 1)).astype(np.float32)
    media.write_mp4(tmp_path / "a.mp4", clips, config.data.fps, upscale=times, crf=4)
    low = upscale.read_low(tmp_path / "a.mp4", make_parts(config))
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, clips[0], atol=0.05)


def test_a_video_of_another_size_is_answered_in_a_sentence(tmp_path):
    clips = np.zeros((1, 2, 16, 24, 1), np.float32)
    media.write_mp4(tmp_path / "a.mp4", clips, 8, upscale=1)
    with pytest.raises(UserError, match=r"16x24 pixels .* enlarges 4x4 to 16x16; .*4x4, or of a"):
        upscale.read_low(tmp_path / "a.mp4", make_parts(CONFIG))
    with pytest.raises(UserError, match="there is no file"):
        upscale.read_low(tmp_path / "b.mp4", make_parts(CONFIG))


def test_a_video_whose_clock_starts_again_is_refused():
    """Its frames would be enlarged as if they followed each other."""
    data = dict(height=96, width=128, fps=8.0)
    config = tiny.config(data=data, upscale=dict(factor=2), model=dict(patch_size=1))
    with pytest.raises(UserError, match=r"two\.mpg is not one clip: its timestamps start again"):
        upscale.read_low(JOINED, make_parts(config))


# One level without text, which compiles fast.
MODEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), text_features=0
)
SAMPLE = dict(steps=1, guidance_scale=1.0)


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory, quickly_compiled_convolutions):
    """Makes untrained runs with a checkpoint each: one enlarges 4x4 to 8x8, one is its base."""
    made = {}
    for name, groups in {
        "ssr": dict(upscale=dict(factor=2)),
        "base": dict(data=dict(height=4, width=4, digit_size=8, source="motions", object_size=2)),
    }.items():
        made[name] = tmp_path_factory.mktemp(name)
        config = tiny.config(model=MODEL, sample=SAMPLE, **groups)
        configs.write(config, made[name] / "config.json")
        state = test_step.random_state(config, make_mesh(config))
        with Checkpoints(made[name]) as checkpoints:
            checkpoints.save(state, {"global_next_index": 0})
            checkpoints.wait()
    return made


def sample(*arguments):
    return cli.main(["sample", "upscale", *(str(a) for a in arguments)])


def test_the_command_enlarges_a_video_of_any_length(workdirs, tmp_path, capsys):
    clips = np.zeros((1, 11, 4, 4, 1), np.float32)
    media.write_mp4(tmp_path / "Some video.mp4", clips, 8, upscale=4)
    options = ["--video", tmp_path / "Some video.mp4", "--overlap", 1, "--augmentation", 0.1]
    assert sample("--workdir", workdirs["ssr"], *options, "--out", tmp_path) == 0
    stem = tmp_path / "no_prompt_seed0_some_video_upscaled"
    assert str(stem) in capsys.readouterr().out
    with av.open(f"{stem}.mp4") as container:
        assert len(list(container.decode(video=0))) == 11
    settings = json.loads(tmp_path.joinpath(f"{stem.name}.json").read_text())
    assert settings["segments"] == [0, 3, 6, 7]
    assert (settings["overlap"], settings["augmentation"]) == (1, 0.1)
    assert settings["sample"]["guidance_scale"] == 0  # There is no caption to guide by.
    assert all(tmp_path.joinpath(f"{stem.name}{end}").stat().st_size for end in (".gif", "_xt.png"))


def test_the_command_enlarges_what_a_base_makes(workdirs, tmp_path):
    options = ["--base", workdirs["base"], "--prompt", "a disc", "--num", 2, "--out", tmp_path]
    assert sample("--workdir", workdirs["ssr"], *options) == 0
    settings = json.loads(tmp_path.joinpath("a_disc_seed0_upscaled.json").read_text())
    assert settings["base"] == str(workdirs["base"])
    assert settings["augmentation"] == upscale.AUGMENTATION
    assert settings["segments"] == [0]


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--overlap", 4, "overlap is 4 frames"),
        ("--weights", "hann", "unknown weights"),
        ("--augmentation", 2, "augmentation is 2; the network has learnt 0 to"),
    ],
)
def test_what_does_not_suit_the_run_is_told_before_the_base_samples(
    workdirs, tmp_path, monkeypatch, capsys, option, value, sentence
):
    monkeypatch.setattr(text, "sample_clips", lambda *args, **options: pytest.fail("it samples"))
    options = ["--base", workdirs["base"], "--prompt", "a disc", "--out", tmp_path, option, value]
    assert sample("--workdir", workdirs["ssr"], *options) == 1
    assert sentence in capsys.readouterr().err


def test_runs_that_do_not_go_together(workdirs, tmp_path, capsys):
    options = ["--workdir", workdirs["ssr"], "--base", workdirs["ssr"], "--prompt", "a"]
    assert sample(*options) == 1
    assert "clips whose height is 8, and the super-resolution" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        sample("--workdir", workdirs["ssr"])
    assert "one of the arguments --video --base is required" in capsys.readouterr().err
