"""An autoencoder trains as any network does, and diffusers loads what is exported of it."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.linen import unbox
from from_config import train

from stunet import configs
from stunet.data.sources import make_source
from stunet.errors import UserError
from stunet.evaluate import run as evaluation
from stunet.export import formats
from stunet.generate import networks, text
from stunet.nn import autoencoder
from stunet.parallel import mesh as meshes
from stunet.plan import chips, search
from stunet.report import pictures as pictures_of_report
from stunet.train import loop
from stunet.train.objectives.reconstruction import Reconstruction
from stunet.train.parts import make_parts, read_parts
from stunet.train.saved import trained

KEYS = dict(
    autoencoder=dict(level_features=(4, 8), channels=2, groups=4, kl_weight=1e-4),
    data=dict(channels=3, frames=2, height=8, width=8),
    train=dict(steps=6, batch_size=4, warmup_steps=0, schedule="constant", learning_rate=3e-3),
    log=dict(every=1, validate_every=6, validate_clips=4, sample_every=6, trackers=()),
    checkpoint=dict(every=3),
    sample=dict(num=3),
)


def config(**changes) -> configs.Config:
    """Returns the config of an autoencoder of factor 2, with changes written `group=dict(...)`."""
    groups = {group: KEYS.get(group, {}) for group in {*KEYS, *changes}}
    return configs.resolve({k: v | changes.get(k, {}) for k, v in groups.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("autoencoder")


@pytest.fixture(scope="module")
def workdir(place):
    train(config(), place / "run")
    return place / "run"


@pytest.fixture(scope="module")
def exported(place, workdir):
    formats.export(formats.FORMATS["autoencoder"], workdir, place / "vae", sample={})
    return place / "vae"


def frames(workdir, split="val", num=4):
    """Returns the frames of clips of a run's data, -1..1."""
    source = make_source(read_parts(workdir).dataset, split)
    return np.concatenate([source[i]["video"] for i in range(num)]).astype(np.float32) / 127.5 - 1


def test_the_loss_falls_and_held_out_clips_are_measured(workdir):
    lines = tiny.metrics(workdir)
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    (held_out,) = [line for line in lines if "val/loss" in line]
    assert held_out["val/kl"] > 0
    # The root of the mean square is no smaller than the mean absolute error.
    error = held_out["val/loss"] - 1e-4 * held_out["val/kl"] / 6
    assert held_out["val/psnr"] < 20 * np.log10(2 / error) + 1


def test_the_loss_is_the_error_and_the_weighted_divergence():
    """Against torch's divergence, for an autoencoder whose latents are pictures' pixels."""
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    mean, log_variance, noise, clips = rng.normal(size=(4, 3, 2, 4, 4, 3)).astype(np.float32)
    model = SimpleNamespace(
        encode=lambda params, clips: (mean, log_variance), decode=lambda params, latents: latents
    )
    std = np.exp(log_variance / 2)
    normal = torch.distributions.Normal
    nats = torch.distributions.kl_divergence(
        normal(torch.tensor(mean), torch.tensor(std)), normal(0.0, 1.0)
    ).numpy()
    for error, power in (("l1", 1), ("l2", 2)):
        values = np.abs(mean + std * noise - clips) ** power + 0.3 * nats
        losses = Reconstruction(model, error, 0.3).loss(None, clips, noise)
        np.testing.assert_allclose(losses, values.mean((1, 2, 3, 4)), rtol=1e-5)


def test_previews_show_clips_beside_their_reconstructions(workdir):
    names = [file.name for file in sorted((workdir / "samples").iterdir())]
    assert names == ["step_00000006.gif", "step_00000006_xt.png"]
    parts = read_parts(workdir)
    source = make_source(parts.dataset, "val")
    shown = parts.preview.begin([source[i] for i in range(2)])
    params = jax.eval_shape(parts.model.init_params, jax.random.key(0))
    zeros = unbox(jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), params))
    clips = parts.preview.to_frames(np.asarray(shown.compute(zeros, shown.inputs)))
    originals, made = np.split(clips, 2, axis=3)
    np.testing.assert_allclose(originals.reshape(4, 8, 8, 3), frames(workdir, num=2), atol=1e-6)
    assert not made.any()


def test_a_run_that_goes_on_ends_bit_for_bit_where_it_would_have(place, workdir):
    train(config(train=dict(steps=3)), place / "half")
    loop.train(make_parts(config()), place / "half", changing=["train.steps"])
    mesh = meshes.make_mesh(read_parts(workdir).layout)
    with meshes.use(mesh):
        (whole, _), (resumed, step) = (
            trained.restore(of, read_parts(of), mesh) for of in (workdir, place / "half")
        )
    assert step == 6
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


def test_diffusers_loads_what_is_exported_and_computes_the_same(workdir, exported):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    theirs = diffusers.AutoencoderKL.from_pretrained(exported).eval()
    ours, pictures = autoencoder.read(exported), frames(workdir)
    shift, scale = (
        torch.tensor(theirs.config[name]).view(-1, 1, 1) for name in ("latents_mean", "latents_std")
    )
    with torch.no_grad():
        latents = theirs.encode(torch.tensor(pictures).permute(0, 3, 1, 2)).latent_dist
        means = ((latents.mean - shift) / scale).permute(0, 2, 3, 1).numpy()
        decoded = theirs.decode(latents.mean).sample.permute(0, 2, 3, 1).numpy()
    found = ours.encode(pictures)
    np.testing.assert_allclose(found.mean, means, atol=1e-4)
    np.testing.assert_allclose(ours.decode(found.mean), decoded, atol=1e-4)


def test_each_channel_of_exported_latents_has_mean_0_and_deviation_1(workdir, exported):
    latents = autoencoder.read(exported).encode(frames(workdir, "train", 512), at_once=64)
    drawn = latents.sample(np.random.default_rng(0).standard_normal(latents.mean.shape))
    np.testing.assert_allclose(drawn.mean((0, 1, 2)), 0, atol=0.02)
    np.testing.assert_allclose(drawn.std((0, 1, 2)), 1, rtol=0.02)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            dict(autoencoder=dict(path="vae")),
            "autoencoder.level_features and autoencoder.path, 'vae', a",
        ),
        (
            dict(autoencoder=dict(level_features=(4, 6))),
            r"autoencoder.level_features\[1\] is 6; it must be a",
        ),
        (dict(data=dict(width=7)), "data.width is 7; it must be a multiple of 2"),
        (dict(model=dict(channels=8)), "model.channels is 8; the run trains an autoencoder, which"),
        (dict(masks=dict(image=1.0)), "masks.image is 1.0; the run trains an autoencoder"),
        (dict(evaluate=dict(every=6)), "evaluate.every is 6; the run trains an autoencoder"),
        (dict(train=dict(init_from="x")), "train.init_from is 'x'; the run trains an autoencoder"),
        (dict(sample=dict(steps=6)), "sample.steps is 6; .* leave sample.steps at 0"),
    ],
)
def test_what_only_denoisers_have_is_refused(groups, message):
    with pytest.raises(UserError, match=message):
        config(**groups)


def test_what_needs_a_denoiser_says_what_to_do_instead(workdir, tmp_path):
    tasks = [
        lambda: text.text_to_video(workdir, ["a 7"]),
        lambda: evaluation.evaluate(workdir, num=1),
        lambda: formats.FORMATS["diffusers-unet"].write(
            formats.Request(workdir, {}, (), None), tmp_path
        ),
        lambda: search.rank(make_parts(config()), chips.find("rtx4090:1", 1, True)),
        lambda: networks.find_tasks(workdir),
    ]
    for task in tasks:
        with pytest.raises(UserError, match="this is the training of an autoencoder, which makes"):
            task()
    assert pictures_of_report.real_clips(workdir / "config.json") is None


def test_a_denoiser_is_not_exported_as_an_autoencoder(tmp_path):
    configs.write(tiny.config(), tmp_path / "config.json")
    with pytest.raises(
        UserError, match=r"trains no autoencoder, since autoencoder\.level_features"
    ):
        formats.FORMATS["autoencoder"].write(
            formats.Request(tmp_path, {}, (), None), tmp_path / "out"
        )
