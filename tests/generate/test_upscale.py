"""Super-resolution of clips of any length: what segments see, how they agree, what is held.

A stand-in for the network, which is told everything that the real one is, shows what it was given.
"""

import dataclasses
import gc
import tracemalloc
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from stunet import configs
from stunet.data import media
from stunet.data.sources import make_encoder
from stunet.diffusion import upscaling
from stunet.errors import UserError
from stunet.generate import upscale
from stunet.parallel import mesh as meshes
from stunet.train import sampling

FACTOR, FRAMES, OVERLAP = 4, 4, 2
CONFIG = tiny.config(
    data=dict(frames=FRAMES, height=16, width=16),
    upscale=dict(factor=FACTOR, max_augmentation=0.5),
    diffusion=dict(prediction="x0"),
    sample=dict(threshold="none", guidance_scale=1.0, steps=3),
)
RNG = np.random.default_rng(0)


def low_clip(frames):
    return RNG.uniform(-1, 1, (frames, 4, 4, 1)).astype(np.float32)


def given(inputs):
    """x0: the low-resolution clip as the network sees it, enlarged."""
    return inputs[..., 1:2]


def blending(inputs):
    """Of all that the network sees, and of the other frames of its segment: segments disagree."""
    noise = inputs[..., :1]
    around = 0.4 * noise.mean(1, keepdims=True) + 0.2 * jnp.roll(noise, 1, axis=1)
    return jnp.tanh(around + given(inputs) * (1 + inputs[..., 2:]))


@pytest.fixture
def upscaler_of(monkeypatch):
    """`upscaler_of(network, **settings of sampling)`."""

    def make(network, **sample):
        stand_in = types.SimpleNamespace(
            apply=lambda params, inputs, time, text, text_mask: network(inputs)
        )
        monkeypatch.setattr(sampling, "make_network", lambda config: stand_in)
        config = dataclasses.replace(CONFIG, sample=dataclasses.replace(CONFIG.sample, **sample))
        return upscale.make_upscaler(config, {}, meshes.make_mesh(config.mesh, jax.devices()[:1]))

    return make


@pytest.mark.parametrize(
    ("sampler", "segments"), [("ddim", 1), ("dpmpp_2m", 1), ("ancestral", 1), ("ddim", 3)]
)
def test_segments_without_overlap_are_what_plain_sampling_gives(upscaler_of, sampler, segments):
    """To float rounding: one is the whole clip, several are the rows of a batch."""
    upscaler = upscaler_of(blending, sampler=sampler)
    low = low_clip(segments * FRAMES)
    found = upscale.upscale(upscaler, low, "a", overlap=0, augmentation=0.3, seed=5).clip
    text, mask = make_encoder(CONFIG.text)(["a"] * segments)
    rows = low.reshape(segments, FRAMES, *low.shape[1:])
    plain = sampling.make_sampler(upscaler.config)({}, text, mask, 5, rows, 0.3)
    *_, expected = plain
    np.testing.assert_allclose(found, np.concatenate(np.clip(expected, -1, 1)), atol=1e-5)
    assert found.std() > 0.1


@pytest.mark.parametrize("frames", [1, 3, 4, 5, 6, 11, 30])
def test_clips_of_any_length_are_enlarged_frame_by_frame(upscaler_of, frames):
    low = low_clip(frames)
    found = upscale.upscale(upscaler_of(given), low, overlap=OVERLAP)
    np.testing.assert_allclose(found.clip, upscaling.enlarge(low[None], FACTOR)[0], atol=1e-5)
    assert found.segments.frames == max(frames, FRAMES)


def test_overlapping_segments_agree_where_separate_ones_jump(upscaler_of):
    """Each segment's frames take the brightness of its own noise (Lumiere, fig. 14)."""
    upscaler = upscaler_of(lambda inputs: 0 * inputs[..., :1] + inputs[..., :1].mean((1, 2, 3, 4)))
    low = np.zeros((40, 4, 4, 1), np.float32)
    largest = {}
    for overlap in (0, OVERLAP):
        found = upscale.upscale(upscaler, low, overlap=overlap, seed=1)
        largest[overlap] = np.abs(np.diff(found.clip.mean((1, 2, 3)))).max()
    assert largest[OVERLAP] < 0.75 * largest[0]


def test_how_many_segments_are_denoised_at_once_changes_nothing(upscaler_of):
    upscaler, low = upscaler_of(blending), low_clip(15)
    one, four, many = (
        upscale.upscale(upscaler, low, overlap=OVERLAP, batch_size=size).clip for size in (1, 4, 32)
    )
    np.testing.assert_allclose(one, four, atol=1e-5)
    np.testing.assert_allclose(one, many, atol=1e-5)


def test_what_comes_later_does_not_change_the_noise_that_a_frame_begins_with(upscaler_of):
    upscaler, low = upscaler_of(blending), low_clip(12)
    whole = upscale.upscale(upscaler, low, overlap=0).clip
    part = upscale.upscale(upscaler, low[:8], overlap=0).clip
    np.testing.assert_allclose(part, whole[:8], atol=1e-5)


def test_all_segments_see_the_same_corrupted_clip_and_its_level(upscaler_of):
    upscaler, low = upscaler_of(given), low_clip(14)
    apart, together, clean = (
        upscale.upscale(upscaler, low, overlap=overlap, augmentation=level).clip
        for overlap, level in ((0, 0.2), (3, 0.2), (0, 0.0))
    )
    np.testing.assert_allclose(apart, together, atol=1e-5)
    assert np.abs(apart - clean).mean() > 0.1
    told = upscaler_of(lambda inputs: inputs[..., 2:])
    np.testing.assert_allclose(upscale.upscale(told, low, augmentation=0.2).clip, 0.2, atol=1e-5)


def test_weights_of_the_average_are_used(upscaler_of):
    upscaler, low = upscaler_of(blending), low_clip(10)
    uniform, ramp = (
        upscale.upscale(upscaler, low, weights=name).clip for name in ("uniform", "ramp")
    )
    assert np.abs(uniform - ramp).max() > 1e-3


def test_160_frames_in_the_memory_of_a_batch_of_segments_and_a_few_clips(upscaler_of):
    """What devices hold, and the programs, are those of 40 frames; the host's memory grows by less
    than four clips."""
    upscaler, held, traced = upscaler_of(blending, steps=1), {}, {}

    def on_step(done, total):
        held[frames] = max(held.get(frames, 0), sum(array.nbytes for array in jax.live_arrays()))

    for frames in (12, 40, 160):  # The first compiles.
        low = low_clip(frames)
        gc.collect()
        tracemalloc.start()
        found = upscale.upscale(upscaler, low, overlap=OVERLAP, batch_size=8, on_step=on_step)
        traced[frames] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(found.clip) == 160
    assert held[40] == held[160]
    assert {program._cache_size() for program in upscaler.parts} == {1}
    assert traced[160] - traced[40] < 4.5 * found.clip[40:].nbytes


@pytest.mark.parametrize(
    ("low", "options", "sentence"),
    [
        (low_clip(8)[:, :3], {}, r"clip is 8x3x4x1, and the run enlarges frames of 4x4x1"),
        (low_clip(8)[:0], {}, r"clip is 0x4x4x1"),
        (low_clip(8), dict(overlap=4), r"overlap is 4 frames; segments of 4 overlap by 0 to 3"),
        (low_clip(8), dict(augmentation=0.6), r"augmentation is 0.6; .* 0 to 0.5"),
        (low_clip(8), dict(weights="hann"), r"unknown weights .*ramp, uniform"),
    ],
)
def test_what_does_not_suit_the_run(upscaler_of, low, options, sentence):
    with pytest.raises(UserError, match=sentence):
        upscale.upscale(upscaler_of(given), low, **options)


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
    low = upscale.read_low(tmp_path / "a.mp4", config)
    assert low.dtype == np.float32
    np.testing.assert_allclose(low, clips[0], atol=0.05)


def test_a_video_of_another_size_is_answered_in_a_sentence(tmp_path):
    clips = np.zeros((1, 2, 16, 24, 1), np.float32)
    media.write_mp4(tmp_path / "a.mp4", clips, 8, upscale=1)
    with pytest.raises(UserError, match=r"16x24 pixels .* enlarges 4x4 to 16x16; .*4x4, or of a"):
        upscale.read_low(tmp_path / "a.mp4", CONFIG)
    with pytest.raises(UserError, match="there is no file"):
        upscale.read_low(tmp_path / "b.mp4", CONFIG)
