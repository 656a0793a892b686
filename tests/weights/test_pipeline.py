"""A whole pipeline of Stable Diffusion is inflated: text, latents and noise are those of its parts.

The pipeline is one of diffusers with random weights.
"""

import json
import shutil

import jax
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers
import tiny_autoencoder
import tiny_clip
import tiny_unet
import torch
import transformers
from safetensors.numpy import load_file
from test_inflate import WEIGHTS, checkpoint, jit, run

from stunet import configs
from stunet.data.spec import make_encoder
from stunet.errors import UserError
from stunet.train.parts import make_parts
from stunet.train.sampling import make_functions
from stunet.weights import pipeline
from stunet.weights.diffusers_config import to_stunet

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")

FRAMES, STEPS, SCALE = 4, 3, 3.0
UNET = tiny_unet.small("sd21", in_channels=2, out_channels=2, cross_attention_dim=tiny_clip.DIM)
# As in Stable Diffusion 2.1, with what the paper on zero terminal SNR adds.
SCHEDULER = dict(
    _class_name="DDIMScheduler",
    beta_start=0.00085,
    beta_end=0.012,
    beta_schedule="scaled_linear",
    clip_sample=False,
    prediction_type="v_prediction",
    rescale_betas_zero_snr=True,
    set_alpha_to_one=False,
    timestep_spacing="trailing",
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns the folder of a pipeline, its U-Net and its text model."""
    folder = tmp_path_factory.mktemp("pipelines") / "stable"
    unet = tiny_unet.save(folder / "unet", UNET)
    text = tiny_clip.model()
    text.save_pretrained(folder / "text_encoder")
    tiny_clip.save_tokenizer(folder / "tokenizer")
    tiny_autoencoder.write(folder / "vae", "AutoencoderKL")
    write(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    write(folder / "model_index.json", {"_class_name": "StableDiffusionPipeline"})
    return folder, unet, text


def write(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def inflate(folder, out) -> int:
    blocks = "--config.model.temporal_attention_blocks=1"
    return run("inflate", "--t2i", folder, "--out", out, "--frames", FRAMES, blocks)


@pytest.fixture(scope="module")
def inflated(saved, tmp_path_factory):
    out = tmp_path_factory.mktemp("inflated") / "run"
    assert inflate(saved[0], out) == 0
    return out


def test_the_config_names_the_parts_and_has_their_numbers(saved, inflated):
    folder, config = saved[0], configs.read(inflated / "config.json")
    assert (config.text.encoder, config.text.dim) == (f"clip:{folder}/text_encoder", 32)
    assert config.text.max_length == 20
    assert config.autoencoder.path == str(folder / "vae")
    assert (config.autoencoder.factor, config.autoencoder.channels) == (2, 2)
    # 8x8 latents of 2x2 pixels.
    assert (config.data.height, config.data.width, config.data.channels) == (16, 16, 3)
    assert (config.diffusion.schedule, config.diffusion.prediction) == ("scaled_linear", "v")
    assert config.diffusion.zero_terminal_snr
    assert pipeline.read(folder).found == (
        "vae: AutoencoderKL, 2 channels for each square of 2x2 pixels",
        "text_encoder: CLIP, 20 tokens of 32 features",
        "scheduler: DDIMScheduler, betas 0.00085 to 0.012, the last step pure noise; the U-Net "
        "predicts v",
    )
    assert len(config.text.fingerprint) == len(config.autoencoder.fingerprint) == 16


def test_the_first_step_of_a_static_clip_is_that_of_diffusers(saved, inflated):
    """Holds for text, guidance, U-Net and scheduler together, in each frame."""
    folder, unet, text = saved
    config, params = checkpoint(inflated)
    sample = {"sampler": "ddim", "steps": STEPS, "guidance_scale": SCALE}
    parts = make_parts(configs.replace(config, {f"sample.{k}": v for k, v in sample.items()}))
    functions = make_functions(parts.denoiser, parts.sampling)
    states, mask = make_encoder(parts.denoiser.text)(["a dog runs"])
    noise = np.random.default_rng(0).normal(size=(1, 1, 8, 8, 2)).astype(np.float32)
    first, _ = functions.first(jax.random.split(jax.random.key(0), 1), None, 0.0)
    first = first._replace(x=jax.numpy.asarray(noise.repeat(FRAMES, 1)))

    @jit
    def step(params, text, mask):
        x0 = functions.estimate(params, text, mask, (), first.x, 0)
        return functions.update(jax.random.key(0), first, x0, 0).x

    got = step(params, states, mask)

    scheduler = diffusers.DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(STEPS)
    tokenizer = transformers.CLIPTokenizer(
        vocab=str(folder / "tokenizer" / "vocab.json"),
        merges=str(folder / "tokenizer" / "merges.txt"),
        pad_token=tiny_clip.END,
    )
    tokens = tokenizer(["a dog runs"], padding="max_length", max_length=20, return_tensors="pt")
    x = torch.from_numpy(noise[0].transpose(0, 3, 1, 2))
    with torch.no_grad():
        caption = text(tokens.input_ids).last_hidden_state
        time = scheduler.timesteps[0]
        with_text, without = (unet(x, time, c).sample for c in (caption, 0 * caption))
        guided = without + SCALE * (with_text - without)
        want = scheduler.step(guided, time, x).prev_sample.numpy().transpose(0, 2, 3, 1)
    for frame in np.asarray(got[0]):
        np.testing.assert_allclose(frame, want[0], rtol=0, atol=1e-4 * np.abs(want).max())


def test_the_way_back_is_bit_for_bit(saved, inflated, tmp_path):
    out = tmp_path / "unet"
    assert run("export", "--workdir", inflated, "--format", "diffusers-unet", "--out", out) == 0
    given, written = load_file(saved[0] / "unet" / WEIGHTS), load_file(out / WEIGHTS)
    assert given.keys() == written.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
    config = json.loads((out / "config.json").read_text())
    assert {key: config[key] for key in UNET} == UNET


def test_the_u_net_alone_takes_the_autoencoder_beside_it(saved):
    folder = saved[0] / "unet"
    assert pipeline.read(folder) == pipeline.Pipeline(folder, {}, ())
    config = to_stunet(UNET, str(folder / "config.json"), FRAMES)
    assert config.autoencoder.path == str(saved[0] / "vae")
    assert config.autoencoder.factor == 8


def pickled(folder):
    (folder / "text_encoder" / "model.safetensors").rename(folder / "text_encoder" / "model.bin")


def changed(place, **keys):
    def change(folder):
        content = json.loads((folder / place).read_text())
        write(folder / place, content | keys)

    return change


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: shutil.rmtree(d / "scheduler"), "lacks the folder scheduler, which a Stable"),
        (lambda d: shutil.rmtree(d / "tokenizer"), "lacks the folder tokenizer, which a Stable"),
        (pickled, "text_encoder has neither model.safetensors nor .* pickled weights"),
        (
            changed("model_index.json", _class_name="StableDiffusionXLPipeline"),
            "is of a StableDiffusionXLPipeline; a StableDiffusionPipeline can be inflated",
        ),
        (
            changed("scheduler/scheduler_config.json", _class_name="FlowMatchScheduler"),
            "is of a FlowMatchScheduler, which is not known here; choose one of DDIMScheduler",
        ),
        (
            changed("scheduler/scheduler_config.json", beta_schedule="squaredcos_cap_v2"),
            "'beta_schedule' 'squaredcos_cap_v2': what can be read has 'scaled_linear' or 'linear'",
        ),
        (
            changed("scheduler/scheduler_config.json", beta_start="small"),
            "scheduler_config.json is damaged: expected float, got str at 'beta_start'",
        ),
        (
            changed("unet/config.json", in_channels=4),
            "vae has latents of 2 channels, and the U-Net beside it takes 4; take both from one",
        ),
        (
            changed("unet/config.json", cross_attention_dim=1024),
            "token states of 32 features, and the U-Net beside it attends to 1024; take both",
        ),
    ],
)
def test_what_cannot_be_inflated_is_named(saved, damage, sentence, tmp_path):
    folder = shutil.copytree(saved[0], tmp_path / "stable")
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        pipeline.read(folder)
