"""A run on stored latents trains on them, and everything outside the network deals with frames."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny
import tiny_autoencoder
from from_config import train
from videos import make_video, scene

from stunet import configs
from stunet.data import media
from stunet.data.draws import random_words
from stunet.data.mixtures import open_streams
from stunet.data.pipeline import Feed, TrainBatches
from stunet.data.shots.layout import Spec
from stunet.data.sources import make_source
from stunet.data.spec import make_autoencoder
from stunet.errors import UserError
from stunet.evaluate import run as evaluation
from stunet.export import formats
from stunet.generate import masked, style, text, video
from stunet.nn import autoencoder
from stunet.parallel import mesh as meshes
from stunet.prepare.latents import Encoding
from stunet.prepare.run import prepare
from stunet.report import pictures
from stunet.train import loop
from stunet.train.objectives.spaces import Latents
from stunet.train.parts import make_parts, read_parts, with_fingerprint

SPEC = Spec(side=32, fps=8.0, min_seconds=0.5, cut_threshold=0.0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with an autoencoder of factor 2, another one, and shots with latents."""
    place = tmp_path_factory.mktemp("latents")
    for seed, name in enumerate(("vae", "other")):
        tiny_autoencoder.write(place / name, "AutoencoderKL", seed)
    for seed in range(3):
        make_video(place / "videos" / f"{seed}.mp4", scene(seed, 40), 8)
        (place / "videos" / f"{seed}.txt").write_text(f"a scene {seed}")
    encodings = [Encoding(autoencoder.read(place / "vae"), 16, 16)]
    options = dict(val_fraction=0.3, val_seconds=1, progress=False, workers=1)
    prepare(place / "videos", place / "shots", SPEC, encodings=encodings, **options)
    return place


def config(place, **groups) -> configs.Config:
    """Returns the config of a run on latents of 8x8, as `tiny` sees pixels of 8x8."""
    latents = dict(
        data=dict(source="clips", path=str(place / "shots"), channels=3, height=16, width=16),
        autoencoder=dict(path=str(place / "vae"), factor=2, channels=2),
        sample=dict(threshold="none", num=2, steps=2),
        train=dict(steps=4, schedule="constant"),
        model=tiny.ONE_LEVEL_KEYS,
        log=dict(every=1, validate_every=4, validate_clips=4, sample_every=4),
        checkpoint=dict(every=2, keep=2),
    )
    return tiny.config(**{k: v | groups.pop(k, {}) for k, v in latents.items()}, **groups)


@pytest.fixture(scope="module")
def workdir(place):
    train(config(place), place / "run")
    return place / "run"


def test_the_network_sees_latents_and_everyone_else_frames(place, workdir):
    parts = read_parts(workdir)
    assert parts.clip.shape == (4, 16, 16, 3)
    assert parts.denoiser.clip.shape == (4, 8, 8, 2)
    assert parts.denoiser.network.out_channels == 2
    vae = autoencoder.read(place / "vae")
    assert parts.config.autoencoder.fingerprint == vae.fingerprint
    estimates = []
    clips, _ = text.text_to_video(
        workdir, ["a", "b"], seed=3, on_step=lambda done, total, clips: estimates.append(clips)
    )
    assert clips.shape == (2, *parts.clip.shape)
    latents = np.asarray(estimates[-1].latents)
    assert latents.shape == (2, *parts.denoiser.clip.shape)
    np.testing.assert_array_equal(clips, np.clip(vae.decode(latents), -1, 1))
    np.testing.assert_array_equal(clips, np.asarray(estimates[-1]))


def test_previews_and_reports_show_frames(workdir, monkeypatch):
    losses = [line["val/loss"] for line in tiny.metrics(workdir) if "val/loss" in line]
    assert len(losses) == 1
    assert np.isfinite(losses).all()
    assert sorted(file.name for file in (workdir / "samples").iterdir()) == [
        "step_00000004.gif",
        "step_00000004_xt.png",
    ]
    shown, write = [], media.write_gif
    monkeypatch.setattr(
        media,
        "write_gif",
        lambda file, clips, *rest: shown.append(clips) or write(file, clips, *rest),
    )
    assert pictures.real_clips(workdir / "config.json")
    assert (shown[0].shape, shown[0].dtype) == ((2, 4, 16, 16, 3), np.uint8)


def test_an_evaluation_compares_frames(workdir):
    measured = evaluation.evaluate(workdir, num=2, metrics="pixels", out=workdir / "judged")
    values = [mean for of in (measured.generated, measured.real) for mean in of.values()]
    assert values
    assert all(len(value) == 2 for value in values)


def test_a_run_that_goes_on_ends_bit_for_bit_where_it_would_have(place, workdir):
    train(config(place, train=dict(steps=2)), place / "half")
    # Previews alone need the autoencoder, which may be in another place.
    longer = config(place, autoencoder=dict(path="elsewhere"), log=dict(sample_every=0))
    loop.train(make_parts(with_fingerprint(longer)), place / "half", changing=["train.steps"])
    runs = [text.load_unconditioned(directory) for directory in (workdir, place / "half")]
    assert [run.checkpoint for run in runs] == [4, 4]
    jax.tree.map(np.testing.assert_array_equal, *(run.params for run in runs))


def test_examples_depend_on_the_seed_and_their_position_alone(place):
    def clips(batch_size, threads, seed=0):
        (streams,) = open_streams(make_parts(config(place)).buckets, seed)
        batches = TrainBatches([Feed(streams, batch_size)], threads)
        found = np.concatenate([next(batches)["video"] for _ in range(24 // batch_size)])
        batches.close()
        return found

    assert clips(4, 0).dtype == np.float32
    np.testing.assert_array_equal(clips(4, 0), clips(6, 2))
    assert not np.array_equal(clips(4, 0), clips(4, 0, seed=1))


def test_drawn_clips_are_encoded_when_they_are_read(place):
    parts = make_parts(config(place, data=dict(source="moving_digits", path="")))
    vae, of_pixels = autoencoder.read(place / "vae"), make_source(parts.dataset.of_pixels, "val")
    source = make_source(parts.dataset, "val")
    latents = vae.encode(of_pixels[3]["video"].astype(np.float32) / 127.5 - 1)
    with meshes.use(meshes.make_mesh(parts.layout)):
        np.testing.assert_allclose(source[3]["video"], latents.mean, atol=1e-5)
    drawn = source.draw(3, random_words(0, 9))["video"]
    noise = (drawn - latents.mean) / latents.std
    assert noise.std() == pytest.approx(1, abs=0.1)
    np.testing.assert_array_equal(drawn, source.draw(3, random_words(0, 9))["video"])
    assert with_fingerprint(parts.config).autoencoder.fingerprint == vae.fingerprint


def test_editing_a_clip_begins_with_its_latents(place, workdir):
    run = text.load_unconditioned(workdir)
    frames = np.linspace(-1, 1, 4 * 16 * 16 * 3, dtype=np.float32).reshape(1, 4, 16, 16, 3)
    vae = autoencoder.read(place / "vae")
    through = np.clip(vae.decode(vae.encode(frames).mean), -1, 1)
    slightly = video.edit(run, ["a"], frames, 1e-4)
    strongly = video.edit(run, ["a"], frames, 0.9)
    errors = [np.abs(clips - through).mean() for clips in (slightly, strongly)]
    assert errors[0] < 0.1 * errors[1]
    np.testing.assert_array_equal(video.edit(run, ["a"], frames, 0), frames)


@pytest.fixture(scope="module")
def masked_run(place):
    """A run on latents, untrained, whose network is given parts of clips."""
    masks = dict(image=0.5, inpaint=0.3, cinemagraph=0.2)
    of_tasks = config(place, masks=masks, train=dict(steps=1), log=dict(sample_every=0, every=1))
    train(configs.replace(of_tasks, {"log.validate_every": 0}), place / "masked")
    return masked.load_masked(place / "masked")


def test_given_pixels_come_back_bit_for_bit(place, masked_run):
    rng = np.random.default_rng(0)
    frames = rng.uniform(-1, 1, (1, 4, 16, 16, 3)).astype(np.float32)
    box = np.zeros((16, 16), bool)
    box[3:12, 5:14] = True
    painted = masked.inpaint(masked_run, ["a"], frames, box)
    np.testing.assert_array_equal(painted[:, :, ~box], frames[:, :, ~box])
    assert not np.isclose(painted[:, :, box], frames[:, :, box]).any()
    begun = masked.image_to_video(masked_run, ["a"], frames[:, 0])
    np.testing.assert_array_equal(begun[:, 0], frames[:, 0])
    moving = masked.cinemagraph(masked_run, ["a"], frames[:, 0], box)
    np.testing.assert_array_equal(moving[:, :, ~box], np.repeat(frames[:, :1], 4, 1)[:, :, ~box])


def test_the_network_is_given_latents_and_the_mask_that_diffusers_gives(masked_run, monkeypatch):
    seen = []

    def sample(run, prompts, clean, **_):
        seen.append(clean)
        return np.zeros((1, 4, 16, 16, 3), np.float32)

    monkeypatch.setattr(masked, "sample_clips", sample)
    rng = np.random.default_rng(0)
    frames, hole = rng.uniform(-1, 1, (1, 4, 16, 16, 3)).astype(np.float32), rng.random((16, 16))
    masked.inpaint(masked_run, ["a"], frames, hole > 0.5)
    ((latents, mask),) = seen
    np.testing.assert_array_equal(latents, masked_run.parts.space.load().encode(frames).mean)
    torch = pytest.importorskip("torch")
    theirs = torch.nn.functional.interpolate(torch.tensor(hole > 0.5)[None, None].float(), (8, 8))
    np.testing.assert_array_equal(mask[0, :, :, :, 0], 1 - np.repeat(theirs[0].numpy(), 4, 0))
    tiny_hole = np.zeros((16, 16), bool)
    tiny_hole[3, 3] = True
    with pytest.raises(
        UserError, match="misses all latents, which stand for 2x2 pixels each; make"
    ):
        masked.inpaint(masked_run, ["a"], frames, tiny_hole)


def test_what_does_not_decode_the_latents_is_refused(place, workdir, tmp_path):
    parts = read_parts(workdir)
    other = dataclasses.replace(parts.space.autoencoder, path=str(place / "other"))
    with pytest.raises(UserError, match="is not the one whose latents the run denoises"):
        Latents(other).load()
    with pytest.raises(UserError, match=r"set autoencoder\.factor and"):
        make_autoencoder(dataclasses.replace(parts.space.autoencoder, channels=4))
    missing = dataclasses.replace(parts.space.autoencoder, path=str(place / "none"))
    with pytest.raises(UserError, match=r"autoencoder\.path: .*none.*config.json"):
        Latents(missing).load()
    with pytest.raises(UserError, match="holds no latents of 16x16 pixels by the autoencoder f00d"):
        train(config(place, autoencoder=dict(fingerprint="f00d")), tmp_path)
    with pytest.raises(UserError, match="programs hold no autoencoder to decode them"):
        formats.FORMATS["stablehlo"].write(formats.Request(workdir, {}, (), None), tmp_path)
    public = formats.Request(workdir, {}, (), None, public=True)
    with pytest.raises(UserError, match="must name the directory of the autoencoder; leave --p"):
        formats.FORMATS["safetensors"].write(public, tmp_path)
    run = text.load_unconditioned(workdir)
    space = Latents(dataclasses.replace(other, fingerprint="f00d"))
    styled = dataclasses.replace(run, parts=dataclasses.replace(parts, space=space))
    with pytest.raises(UserError, match=r"and the style latents of .*other f00d; train both"):
        style.stylise(run, styled, ["a"], [0.5])


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (dict(data=dict(crop="random")), "data.crop is 'random'; latents are stored of the centre"),
        (dict(data=dict(mirror=True)), "data.mirror is True; latents of a picture are not those"),
        (dict(sample=dict(threshold="static")), "sample.threshold is 'static'; latents are not b"),
        (
            dict(distil=dict(steps=2), train=dict(init_from="x")),
            "distil.threshold is 'static'; latents are not bounded",
        ),
    ],
)
def test_what_needs_pixels_is_refused(place, groups, message):
    with pytest.raises(UserError, match=f"autoencoder.path is set and {message}"):
        configs.resolve(dataclasses.asdict(config(place, **groups)))
