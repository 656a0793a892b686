"""Networks on latents that enlarge clips, or fill in frames, are given latents of what they get.

A formula stands in for the network. It has the same inputs, so that its output shows them.
"""

import dataclasses

import jax
import ml_dtypes
import numpy as np
import pytest
import tiny
import tiny_autoencoder
from from_config import make_mesh, parts_with_network, train
from videos import make_video, scene

from stunet import configs
from stunet.data.draws import random_words
from stunet.data.shots.layout import Spec
from stunet.data.sources import make_source
from stunet.data.spec import make_autoencoder
from stunet.diffusion import multidiffusion
from stunet.errors import UserError
from stunet.generate import cascade, text, upscale
from stunet.nn import autoencoder
from stunet.prepare.latents import Encoding
from stunet.prepare.run import prepare
from stunet.train import program
from stunet.train.parts import make_parts, read_parts

FACTOR = 4
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with an autoencoder of factor 2, and shots with latents of both kinds."""
    place = tmp_path_factory.mktemp("enlarged")
    tiny_autoencoder.write(place / "vae", "AutoencoderKL")
    for seed in range(2):
        make_video(place / "videos" / f"{seed}.mp4", scene(seed, 20), 8)
    vae = autoencoder.read(place / "vae")
    options = dict(val_fraction=0.4, val_seconds=1, progress=False, workers=1)
    encodings = [Encoding(vae, 16, 16), Encoding(vae, 16, 16, FACTOR)]
    spec = Spec(side=32, fps=8.0, min_seconds=0.5, cut_threshold=0.0)
    prepare(place / "videos", place / "shots", spec, encodings=encodings, **options)
    return place


def config(place, **groups) -> configs.Config:
    """Returns the config of a run on latents of 8x8, of frames of 16x16 in RGB."""
    latents = dict(
        data=dict(channels=3, height=16, width=16),
        autoencoder=dict(path=str(place / "vae"), factor=2, channels=2),
        sample=dict(threshold="none", guidance_scale=1.0, num=1, steps=2),
        diffusion=dict(prediction="x0"),
        model=tiny.ONE_LEVEL_KEYS,
        train=dict(steps=1, schedule="constant"),
    )
    return tiny.config(**{k: v | groups.pop(k, {}) for k, v in latents.items()}, **groups)


def enlarging(place, **groups) -> configs.Config:
    return config(place, upscale=dict(factor=FACTOR, max_augmentation=0.5), **groups)


def autoencoder_of(place):
    """Returns the autoencoder that runs read too, so that it is compiled once."""
    return make_autoencoder(make_parts(config(place)).dataset.autoencoder)


def latents_of(place, frames):
    """Returns the means of the latents of frames."""
    return autoencoder_of(place).encode(frames).mean


def blurred(frames):
    """Returns frames that are shrunk and enlarged, by JAX's own resizing."""
    t, h, w, c = frames.shape
    low = frames.reshape(t, h // FACTOR, FACTOR, w // FACTOR, FACTOR, c).mean((2, 4))
    return np.asarray(jax.image.resize(low, frames.shape, "bilinear"))


def test_drawn_clips_come_with_latents_of_their_low_resolution(place):
    parts = make_parts(enlarging(place))
    source, of_pixels = (
        make_source(dataset, "train") for dataset in (parts.dataset, parts.dataset.of_pixels)
    )
    frames = of_pixels[1]["video"].astype(np.float32) / 127.5 - 1
    found = source[1]["video"]
    np.testing.assert_allclose(found[..., :2], latents_of(place, frames), atol=1e-5)
    np.testing.assert_allclose(found[..., 2:], latents_of(place, blurred(frames)), atol=1e-4)
    drawn = source.draw(1, random_words(0, 1))["video"]
    np.testing.assert_array_equal(drawn[..., 2:], found[..., 2:])
    assert (drawn[..., :2] != found[..., :2]).all()
    batch = program.abstract_batch(parts, make_mesh(parts.config, jax.devices()[:1]))
    assert batch["video"].shape[1:] == found.shape
    x0, (low, _) = parts.denoiser.conditioning.draw(jax.random.key(0), found[None])
    np.testing.assert_array_equal(x0[0], found[..., :2])
    assert low.shape == x0.shape
    np.testing.assert_array_equal(parts.denoiser.conditioning.clean(found[None])[0], found[..., 2:])


def test_stored_clips_come_with_stored_latents_of_their_low_resolution(place):
    stored = dict(source="clips", path=str(place / "shots"))
    dataset = make_parts(enlarging(place, data=stored)).dataset
    example = make_source(dataset, "train")[0]["video"]
    frames = make_source(dataset.of_pixels, "train")[0]["video"].astype(np.float32) / 127.5 - 1
    assert example.shape == (4, 8, 8, 4)
    expected = latents_of(place, blurred(frames)).astype(ml_dtypes.bfloat16)
    np.testing.assert_allclose(example[..., 2:], expected.astype(np.float32), atol=0.02)
    with pytest.raises(UserError, match=r"shrunk by 2 first, by .* and --latents-low 2, which"):
        make_source(dataclasses.replace(dataset, low_factor=2), "train")
    with pytest.raises(UserError, match="cannot be shrunk by 3; give --latents-low"):
        Encoding(make_autoencoder(dataset.autoencoder), 16, 16, 3).made()


def stand_in(config, network) -> text.Run:
    parts = parts_with_network(config, lambda params, inputs, *others: network(inputs))
    return text.Run(parts, {}, make_mesh(config, jax.devices()[:1]))


@pytest.mark.parametrize(("frames", "augmentation"), [(3, 0.0), (9, 0.0), (9, 0.4)])
def test_a_network_is_given_latents_of_the_enlarged_clip(place, frames, augmentation):
    """The network returns what it is given, so the clip is what these latents decode to."""
    upscaler = upscale.make_upscaler(stand_in(enlarging(place), lambda inputs: inputs[..., 2:4]))
    low = RNG.uniform(-1, 1, (frames, 4, 4, 3)).astype(np.float32)
    shown = []
    found = upscale.upscale(
        upscaler,
        low,
        augmentation=augmentation,
        on_step=lambda done, total, clip: shown.append(np.asarray(clip).shape),
    )
    enlarged = np.asarray(jax.image.resize(low, (frames, 16, 16, 3), "bilinear"))
    expected = np.clip(autoencoder_of(place).decode(latents_of(place, enlarged)), -1, 1)
    assert found.segments == multidiffusion.cover(max(frames, 4), 4, upscale.OVERLAP)
    assert set(shown) == {(1, frames, 16, 16, 3)}
    error = np.abs(found.clip - expected).max()
    assert error < 1e-4 if augmentation == 0 else error > 0.1


def test_a_run_on_latents_trains_and_enlarges_a_clip(place, quickly_compiled_convolutions):
    groups = dict(
        data=dict(source="clips", path=str(place / "shots")),
        model=dict(text_features=0),
        sample=dict(steps=1),
        log=dict(every=1),
    )
    train(enlarging(place, **groups), place / "run")
    assert np.isfinite(tiny.metrics(place / "run")[-1]["loss"])
    low = RNG.uniform(-1, 1, (7, 4, 4, 3)).astype(np.float32)
    found = upscale.upscale(upscale.load(place / "run"), low, batch_size=2)
    assert found.clip.shape == (7, 16, 16, 3)
    assert found.segments.starts == (0, 2, 3)
    base = config(place, data=dict(height=4, width=4), autoencoder=dict(path=""))
    upscale.check_base(make_parts(base), read_parts(place / "run"))


def test_keyframes_are_given_as_latents_and_come_back_bit_for_bit(place):
    groups = dict(tsr=dict(stride=3), data=dict(frames=4))
    seen = []

    def network(inputs):
        jax.debug.callback(lambda x: seen.append(np.asarray(x)), inputs)
        return inputs[..., 2:4]

    run = stand_in(config(place, **groups), network)
    keyframes = RNG.uniform(-1, 1, (1, 3, 16, 16, 3)).astype(np.float32)
    filled = cascade.fill(run, keyframes, ["a"])
    assert filled.clips.shape == (1, 7, 16, 16, 3)
    np.testing.assert_array_equal(filled.clips[:, ::3], keyframes)
    latents = latents_of(place, keyframes)[0]
    places = np.zeros((2, 4, 8, 8, 2), np.float32)
    places[:, 0], places[:, 3] = latents[:2], latents[1:]
    np.testing.assert_allclose(seen[0][..., 2:4], places, atol=1e-5)
    black = autoencoder_of(place).decode(np.zeros((1, 8, 8, 2), np.float32))
    np.testing.assert_allclose(filled.clips[0, 1], np.clip(black[0], -1, 1), atol=1e-4)
