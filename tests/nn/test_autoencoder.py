"""Autoencoders equal those of diffusers, frame by frame and in tiles."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from stunet import tensorfiles
from stunet.errors import UserError
from stunet.nn import autoencoder

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

RNG = np.random.default_rng(0)
FRAMES = RNG.uniform(-1, 1, (3, 16, 24, 3)).astype(np.float32)
WEIGHTS = "diffusion_pytorch_model.safetensors"


def kl_flags(levels=3, **changes):
    flags = dict(
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        block_out_channels=(8, 16, 16)[:levels],
        norm_num_groups=4,
        sample_size=32,
    )
    return flags | changes


KINDS = {
    "Stable Diffusion": ("AutoencoderKL", kl_flags(layers_per_block=2)),
    "bare": (
        "AutoencoderKL",
        kl_flags(
            levels=2,
            latent_channels=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
            mid_block_add_attention=False,
            scaling_factor=0.36,
            shift_factor=0.12,
        ),
    ),
    "tiny": (
        "AutoencoderTiny",
        dict(
            encoder_block_out_channels=(8,) * 3,
            decoder_block_out_channels=(8,) * 3,
            num_encoder_blocks=(1, 2, 1),
            num_decoder_blocks=(2, 1, 1),
        ),
    ),
}


def make(name):
    kind, flags = KINDS[name]
    torch.manual_seed(0)
    model = getattr(diffusers, kind)(**flags).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # No weight is zero or one, as a missing one might be.
            parameter.add_(0.06 * torch.randn_like(parameter))
    return model


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    """Our autoencoder, and the model of diffusers from whose files it was read."""
    model, place = make(request.param), tmp_path_factory.mktemp("autoencoder")
    model.save_pretrained(place)
    return autoencoder.read(place), model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    place = tmp_path_factory.mktemp("saved") / "vae"
    make("bare").save_pretrained(place)
    return place


def torch_call(function, values):
    with torch.no_grad():
        return function(torch.tensor(values).permute(0, 3, 1, 2))


def numpy_of(tensor):
    return tensor.detach().permute(0, 2, 3, 1).numpy()


def their_latents(model, frames):
    """Returns the mean and standard deviation that diffusers computes, before the scaling."""
    encoded = torch_call(model.encode, frames)
    if not hasattr(encoded, "latent_dist"):
        return numpy_of(encoded.latents), 0.0
    return numpy_of(encoded.latent_dist.mean), numpy_of(encoded.latent_dist.std)


def test_latents_equal_those_of_diffusers(pair):
    ours, model = pair
    mean, std = their_latents(model, FRAMES)
    shift, scale = getattr(model.config, "shift_factor", None) or 0, model.config.scaling_factor
    latents = ours.encode(FRAMES, at_once=2)
    assert np.abs(mean).max() > 0.1
    np.testing.assert_allclose(latents.mean, (mean - shift) * scale, atol=1e-4, rtol=0)
    np.testing.assert_allclose(latents.std, std * scale * np.ones_like(mean), atol=1e-4, rtol=0)
    noise = np.ones_like(mean)
    np.testing.assert_array_equal(latents.sample(noise), latents.mean + latents.std)


def test_frames_equal_those_of_diffusers(pair):
    ours, model = pair
    latents = RNG.normal(size=(2, 4, 5, ours.architecture.latent_channels)).astype(np.float32)
    shift, scale = getattr(model.config, "shift_factor", None) or 0, model.config.scaling_factor
    theirs = numpy_of(torch_call(model.decode, latents / scale + shift).sample)
    assert np.abs(theirs).max() > 0.1
    np.testing.assert_allclose(ours.decode(latents), theirs, atol=1e-4, rtol=0)


def test_clips_are_computed_frame_by_frame(pair):
    ours, _ = pair
    together = ours.encode(FRAMES, at_once=2).mean
    clips = ours.encode(FRAMES.reshape(1, 3, *FRAMES.shape[1:]), at_once=2).mean
    np.testing.assert_array_equal(clips[0], together)
    np.testing.assert_allclose(ours.encode(FRAMES[1:2], at_once=2).mean, together[1:2], atol=1e-5)


def test_tiles_are_those_of_diffusers(saved):
    """Tiles of 32 pixels overlap by 8. At the edge, they may be as small as the overlap."""
    model, ours = make("bare"), autoencoder.read(saved)
    assert ours.architecture.tile == 32
    frames = RNG.uniform(-1, 1, (1, 56, 32, 3)).astype(np.float32)
    whole = ours.encode(frames)
    model.enable_tiling()
    mean, std = their_latents(model, frames)
    tiled, scale = ours.encode(frames, tile=32), model.config.scaling_factor
    shift = model.config.shift_factor
    np.testing.assert_allclose(tiled.mean, (mean - shift) * scale, atol=1e-4, rtol=0)
    np.testing.assert_allclose(tiled.std, std * scale, atol=1e-4, rtol=0)
    assert np.abs(tiled.mean - whole.mean).max() > 1e-3
    theirs = numpy_of(torch_call(model.decode, tiled.mean / scale + shift).sample)
    np.testing.assert_allclose(ours.decode(tiled.mean, tile=32), theirs, atol=1e-4, rtol=0)


def test_latents_may_have_a_mean_and_spread_for_each_channel(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    plain, file = autoencoder.read(saved), tmp_path / "config.json"
    mean, std = [0.5, -1.0], [2.0, 0.25]
    change = dict(latents_mean=mean, latents_std=std, shift_factor=None, scaling_factor=0.5)
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    scaled = autoencoder.read(tmp_path)
    z = plain.encode(FRAMES).mean / plain.architecture.scale + plain.architecture.shift
    latents = scaled.encode(FRAMES).mean
    np.testing.assert_allclose(latents, (z - mean) * 0.5 / std, atol=1e-5)
    np.testing.assert_allclose(
        scaled.decode(latents), plain.decode(plain.encode(FRAMES).mean), atol=1e-4
    )


def test_files_of_old_versions_are_read(tmp_path):
    make("Stable Diffusion").save_pretrained(tmp_path)
    new = autoencoder.read(tmp_path).params["encoder"]["mid_block.attentions.0"]
    names = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(tmp_path / WEIGHTS)
    for new_name, old in names.items():
        tensors = {k.replace(f".{new_name}.", f".{old}."): v for k, v in tensors.items()}
    assert "encoder.mid_block.attentions.0.proj_attn.weight" in tensors
    save_file(tensors, tmp_path / WEIGHTS)
    old = autoencoder.read(tmp_path).params["encoder"]["mid_block.attentions.0"]
    np.testing.assert_array_equal(old["to_out"]["kernel"], new["to_out"]["kernel"])


@pytest.mark.parametrize("name", ["AutoencoderKL", "AutoencoderTiny"])
def test_the_published_autoencoders_have_a_place_for_every_tensor(name):
    """Compares shapes alone. Stable Diffusion 1, 2 and XL have the same ones."""
    published = kl_flags(
        4, block_out_channels=(128, 256, 512, 512), layers_per_block=2, norm_num_groups=32
    )
    flags = (published | dict(down_block_types=["DownEncoderBlock2D"] * 4)) if "KL" in name else {}
    with torch.device("meta"):
        model = getattr(diffusers, name)(**flags)
    theirs = {k: tensorfiles.Header("F32", tuple(v.shape)) for k, v in model.state_dict().items()}
    architecture = autoencoder.KINDS[name](json.loads(json.dumps(flags)), name)
    assert autoencoder.headers(autoencoder.weight_shapes(architecture)) == theirs
    assert (architecture.factor, architecture.latent_channels) == (8, 4)


def of_config(**change):
    def apply(place):
        file = place / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))

    return apply


def of_weights(change):
    def apply(place):
        tensors = load_file(place / WEIGHTS)
        change(tensors)
        save_file(tensors, place / WEIGHTS)

    return apply


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (of_config(_class_name="VQModel"), "VQModel.*AutoencoderKL"),
        (of_config(act_fn="relu"), "has 'act_fn' 'relu'; what can be read has 'silu' or 'swish'"),
        (
            of_config(down_block_types=["AttnDownEncoderBlock2D", "DownEncoderBlock2D"]),
            "has 'down_block_types' .*; what can be read has 'DownEncoderBlock2D'",
        ),
        (of_config(use_attention=True), "'use_attention' True, which is not known here"),
        (of_config(block_out_channels=[8, 10]), "each must be a multiple of norm_num_groups, 4"),
        (of_config(latents_mean=[0.0]), r"latents_mean \[0.0\]; each latent channel needs one"),
        (
            of_config(latent_channels=3),
            r"has the shape \(16, 2, 3, 3\) where its config.json says \(16, 3,",
        ),
        (
            of_config(layers_per_block=2),
            r"has no weight '.*resnets.2.*' of shape .*, which its config.json",
        ),
        (of_config(layers_per_block="two"), "damaged: expected int"),
        (of_weights(lambda t: t.pop("decoder.conv_out.bias")), "no weight 'decoder.conv_out.bias'"),
        (of_weights(lambda t: t.update(x=np.zeros(2))), r"the weight 'x' of shape \(2,\), which"),
        (lambda place: (place / WEIGHTS).rename(place / "x.bin"), "pickled weights"),
        (lambda place: (place / WEIGHTS).write_bytes(b"x" * 99), "damaged"),
        (lambda place: (place / "config.json").unlink(), "config.json cannot be read"),
    ],
)
def test_a_wrong_folder_is_refused_in_a_sentence(saved, tmp_path, spoil, message):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message):
        autoencoder.read(tmp_path)


def test_wrong_sizes_are_refused_in_a_sentence(saved):
    ours = autoencoder.read(saved)
    with pytest.raises(UserError, match=r"15 rows, 24 columns .* multiples of 2 rows and columns"):
        ours.encode(FRAMES[:, :15])
    with pytest.raises(UserError, match=r"the latents have 3 channels; .* have 2"):
        ours.decode(FRAMES)
    with pytest.raises(UserError, match="the tile is 12; it must be a multiple of 8"):
        ours.encode(FRAMES, tile=12)
    with pytest.raises(UserError, match=r"a whole pipeline; its autoencoder is in .*vae"):
        autoencoder.read(saved.parent)
