"""A whole pipeline of Stable Diffusion is inflated: text, latents and noise are those of its parts.

The pipeline is one of diffusers with random weights.
"""

import dataclasses
import functools
import json
import pathlib
import shutil
from typing import NamedTuple

import flax.linen as nn
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
from safetensors.numpy import load_file, save_file
from test_inflate import WEIGHTS, checkpoint, jit, run

from stunet import configs
from stunet.data.sources import make_source
from stunet.data.spec import make_encoder
from stunet.errors import UserError
from stunet.generate import style
from stunet.generate.text import Run
from stunet.nn.parameters import EMPTY_TEXT
from stunet.parallel import mesh as meshes
from stunet.train.parts import make_parts
from stunet.train.program import abstract_batch
from stunet.train.sampling import make_functions
from stunet.weights import inflate as inflating
from stunet.weights import pipeline
from stunet.weights.diffusers_config import to_stunet

pytestmark = pytest.mark.usefixtures("quickly_compiled_convolutions")

FRAMES, STEPS, SCALE = 4, 3, 3.0
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


CAPTION = "a dog runs"


class Saved(NamedTuple):
    """A pipeline in a folder, with random weights: the parts as diffusers and transformers have it.

    Attributes:
        folder: where it is.
        flags: arguments of its U-Net.
        unet: the U-Net.
        texts: the text models.
    """

    folder: pathlib.Path
    flags: dict
    unet: torch.nn.Module
    texts: tuple[torch.nn.Module, ...]


def save(folder, kind) -> Saved:
    """Writes a pipeline of Stable Diffusion 2.1 or XL."""
    texts = (tiny_clip.model(),)
    if kind == "sdxl":
        texts += (tiny_clip.model(1, projection=24, hidden_act="gelu"),)
    latents = dict(in_channels=2, out_channels=2, cross_attention_dim=tiny_clip.DIM * len(texts))
    flags = tiny_unet.small(kind, **latents)
    for number, text in zip(("", "_2"), texts, strict=False):
        text.save_pretrained(folder / f"text_encoder{number}")
        tiny_clip.save_tokenizer(folder / f"tokenizer{number}", "!" if number else tiny_clip.END)
    tiny_autoencoder.write(folder / "vae", "AutoencoderKL")
    write(folder / "scheduler" / "scheduler_config.json", SCHEDULER)
    name = {"sd21": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}[kind]
    write(folder / "model_index.json", {"_class_name": name})
    return Saved(folder, flags, tiny_unet.save(folder / "unet", flags), texts)


def write(file, content):
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content))


def inflate(folder, out, *more) -> int:
    blocks = "--config.model.temporal_attention_blocks=1"
    return run("inflate", "--t2i", folder, "--out", out, "--frames", FRAMES, blocks, *more)


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory):
    """Returns the function that writes a pipeline of a kind, once."""
    return functools.cache(lambda kind: save(tmp_path_factory.mktemp(kind), kind))


@pytest.fixture(scope="module")
def saved(pipelines):
    return pipelines("sd21")


@pytest.fixture(scope="module", params=["sd21", "sdxl"])
def inflated(request, pipelines, tmp_path_factory):
    """Returns a pipeline, and the working directory of the run that it was inflated to."""
    out = tmp_path_factory.mktemp("inflated") / "run"
    given = pipelines(request.param)
    assert inflate(given.folder, out) == 0
    return given, out


def test_the_config_names_the_parts_and_has_their_numbers(inflated):
    (folder, *_, texts), out = inflated
    config = configs.read(out / "config.json")
    encoder = {1: f"clip:{folder}/text_encoder", 2: f"sdxl:{folder}"}[len(texts)]
    assert (config.text.encoder, config.text.dim) == (encoder, 32 * len(texts))
    assert config.text.max_length == 20
    assert config.model.pooled_text_features == (24 if len(texts) == 2 else 0)
    assert config.autoencoder.path == str(folder / "vae")
    assert (config.autoencoder.factor, config.autoencoder.channels) == (2, 2)
    # 8x8 latents of 2x2 pixels.
    assert (config.data.height, config.data.width, config.data.channels) == (16, 16, 3)
    assert (config.diffusion.schedule, config.diffusion.prediction) == ("scaled_linear", "v")
    assert config.diffusion.zero_terminal_snr
    assert pipeline.read(folder).found == (
        "vae: AutoencoderKL, 2 channels for each square of 2x2 pixels",
        {
            1: "text_encoder: CLIP, 20 tokens of 32 features",
            2: "text_encoder and text_encoder_2: CLIP, 20 tokens of 64 features, and a pooled text "
            "of 24",
        }[len(texts)],
        "scheduler: DDIMScheduler, betas 0.00085 to 0.012, the last step pure noise; the U-Net "
        "predicts v",
    )
    assert len(config.text.fingerprint) == len(config.autoencoder.fingerprint) == 16


def encoded(folder, texts, caption=CAPTION):
    """Returns the states of a caption and XL's further arguments, as the pipelines make them."""
    tokens, padding = [], (tiny_clip.END, "!")
    for number in range(len(texts)):
        place = folder / ("tokenizer_2" if number else "tokenizer")
        tokenizer = transformers.CLIPTokenizer(
            vocab=str(place / "vocab.json"),
            merges=str(place / "merges.txt"),
            pad_token=padding[number],
        )
        padded = dict(padding="max_length", max_length=20, return_tensors="pt")
        tokens.append(tokenizer([caption], **padded).input_ids)
    found = [text(ids, output_hidden_states=True) for text, ids in zip(texts, tokens, strict=True)]
    if len(texts) == 1:
        return found[0].last_hidden_state, {}
    sizes = torch.tensor([[16.0, 16, 0, 0, 16, 16]])
    states = torch.cat([text.hidden_states[-2] for text in found], dim=-1)
    return states, {"text_embeds": found[1].text_embeds, "time_ids": sizes}


def test_the_first_step_of_a_static_clip_is_that_of_diffusers(inflated):
    """Holds for text, sizes, guidance, U-Net and scheduler together, in each frame."""
    (folder, _, unet, texts), out = inflated
    config, params = checkpoint(out)
    sample = {"sampler": "ddim", "steps": STEPS, "guidance_scale": SCALE}
    parts = make_parts(configs.replace(config, {f"sample.{k}": v for k, v in sample.items()}))
    functions = make_functions(parts.denoiser, parts.sampling)
    states, mask = make_encoder(parts.denoiser.text)([CAPTION])
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
    x = torch.from_numpy(noise[0].transpose(0, 3, 1, 2))
    with torch.no_grad():
        caption, added = encoded(folder, texts)
        # Without text, the pipeline of XL has zeros for the states and for the pooled text. The
        # others encode an empty caption.
        nothing = {key: 0 * of if key == "text_embeds" else of for key, of in added.items()}
        empty = 0 * caption if added else encoded(folder, texts, "")[0]
        time = scheduler.timesteps[0]
        with_text, without = (
            unet(x, time, states, added_cond_kwargs=more).sample
            for states, more in ((caption, added), (empty, nothing))
        )
        guided = without + SCALE * (with_text - without)
        want = scheduler.step(guided, time, x).prev_sample.numpy().transpose(0, 2, 3, 1)
    for frame in np.asarray(got[0]):
        np.testing.assert_allclose(frame, want[0], rtol=0, atol=1e-4 * np.abs(want).max())


def test_a_lora_of_the_text_encoder_changes_what_is_sampled_with_it(
    inflated, tmp_path, monkeypatch, capsys
):
    out, used, empty = inflated[1], [], []

    def sample_clips(run, prompts, *, encode, **options):
        used.append((encode or make_encoder(run.parts.denoiser.text))(prompts)[0])
        empty.append(run.params.get(EMPTY_TEXT))
        return np.zeros((len(prompts), 1), np.float32)

    monkeypatch.setattr(style, "sample_clips", sample_clips)
    parts = make_parts(configs.read(out / "config.json"))
    tokens = parts.denoiser.network.empty_text_tokens
    params = {EMPTY_TEXT: make_encoder(parts.denoiser.text).empty()} if tokens else {}
    run_of = Run(parts, params, meshes.make_mesh(meshes.Layout(), jax.devices()[:1]))
    file = text_lora(tmp_path, len(inflated[0].texts))
    style.stylise_with_lora(run_of, file, [CAPTION], [0, 0.5, 1])
    before, half, whole = used
    np.testing.assert_array_equal(before, make_encoder(run_of.parts.denoiser.text)([CAPTION])[0])
    assert 0 < np.abs(half - before).max() < np.abs(whole - before).max()
    assert (tokens == 20) == (len(inflated[0].texts) == 1)
    if tokens:
        assert empty[0] is params[EMPTY_TEXT]
        # It is what a caption without words begins with: the state of the first special token.
        for states, caption in zip(empty, used, strict=True):
            np.testing.assert_allclose(states[0], caption[0, 0], rtol=0, atol=1e-4)
        assert 0 < np.abs(empty[1] - empty[0]).max() < np.abs(empty[2] - empty[0]).max()

    # A run that begins with the LoRA has the same text encoder, as a folder of its own.
    begun = tmp_path / "begun"
    monkeypatch.setattr(inflating, "_draw", zeros)
    assert inflate(inflated[0].folder, begun, "--lora", file, "--lora-scale", 0.5) == 0
    said = capsys.readouterr().out
    count = len(inflated[0].texts)
    assert f"{file}: merged into 0 weights of the U-Net, times 0.5" in said
    assert f"merged into {count} weights of the text encoder, in {begun}/text_encoder" in said
    config, params = checkpoint(begun)
    family = parts.denoiser.text.encoder.partition(":")[0]
    assert config.text.encoder == f"{family}:{begun}/text_encoder"
    assert config.text.fingerprint != parts.denoiser.text.fingerprint
    encode = make_encoder(make_parts(config).denoiser.text)
    np.testing.assert_array_equal(encode([CAPTION])[0], half)
    if tokens:
        np.testing.assert_array_equal(params[EMPTY_TEXT], empty[1])


def zeros(parts, leaves):
    """Stands in for the drawing of temporal weights, which would be compiled."""
    return {path: jax.numpy.zeros(leaf.shape, leaf.dtype) for path, leaf in leaves.items()}


def text_lora(directory, count):
    """Writes a LoRA file for one layer of each of the first `count` text models."""
    up, down = np.ones((48, 1), np.float32), np.ones((1, 32), np.float32)
    layers = [f"lora_te{i + 1}_text_model_encoder_layers_0_mlp_fc1" for i in range(count)]
    ends = {"lora_up": up, "lora_down": down}
    tensors = {f"{layer}.{end}.weight": ends[end] for layer in layers for end in ends}
    save_file(tensors, directory / "style.safetensors")
    return directory / "style.safetensors"


def test_a_disk_that_a_changed_text_encoder_fills(saved, tmp_path, small_disk, capsys):
    disk, file = small_disk(64), text_lora(tmp_path, 1)
    assert inflate(saved.folder, disk / "run", "--lora", file) == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert "is full; no unfinished files are left: free some space" in sentence
    assert not any(disk.iterdir())


def test_the_way_back_is_bit_for_bit(inflated, tmp_path):
    (folder, flags, *_), workdir = inflated
    out = tmp_path / "unet"
    assert run("export", "--workdir", workdir, "--format", "diffusers-unet", "--out", out) == 0
    given, written = load_file(folder / "unet" / WEIGHTS), load_file(out / WEIGHTS)
    assert given.keys() == written.keys()
    for name, value in given.items():
        np.testing.assert_array_equal(written[name], value, err_msg=name)
    config = json.loads((out / "config.json").read_text())
    if flags.get("addition_embed_type"):
        # Of float16, and of another kind of added embedding.
        flags = flags | dict(upcast_attention=False)
        flags.pop("addition_embed_type_num_heads")
    assert {key: config[key] for key in flags} == flags


def test_training_sees_and_drops_the_pooled_text_with_the_tokens(pipelines, tmp_path):
    folder = pipelines("sdxl").folder
    unet = json.loads((folder / "unet" / "config.json").read_text())
    place = str(folder / "unet" / "config.json")
    config = to_stunet(unet, place, FRAMES, more=pipeline.read(folder).keys)
    digits = {"data.source": "moving_digits", "data.digit_size": 8, "train.batch_size": 2}
    parts = make_parts(configs.replace(config, digits))
    example = make_source(parts.dataset, "train")[0]
    batch = {key: np.stack([example[key]] * 2) for key in ("video", "text", "text_mask")}
    expected = abstract_batch(parts, meshes.make_mesh(meshes.Layout(), jax.devices()[:1]))
    assert {key: (a.shape, a.dtype) for key, a in batch.items()} == {
        key: (a.shape, a.dtype) for key, a in expected.items()
    }
    assert np.abs(batch["text"][:, 0, :24]).min() > 0
    params = nn.unbox(jax.eval_shape(parts.denoiser.init_params, jax.random.key(0)))
    for dropout in (0.0, 1.0):
        objective = dataclasses.replace(parts.objective, caption_dropout=dropout)
        drawn = objective.draw(jax.random.key(0), batch)
        text, mask = drawn[4:6]
        np.testing.assert_array_equal(text, (1 - dropout) * batch["text"])
        assert mask.all() if dropout == 0 else not mask.any()
    assert jax.eval_shape(objective.loss, params, *drawn).shape == (2,)


def test_the_u_net_alone_takes_the_other_parts_beside_it(pipelines):
    for kind in ("sd21", "sdxl"):
        root, flags, *_ = pipelines(kind)
        folder = root / "unet"
        assert pipeline.read(folder) == pipeline.Pipeline(folder, {}, ())
        config = to_stunet(flags, str(folder / "config.json"), FRAMES)
        assert config.autoencoder.path == str(root / "vae")
        assert config.autoencoder.factor == 8
        assert config.text.encoder == ("bytes" if kind == "sd21" else f"sdxl:{root}")


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
            changed("model_index.json", _class_name="StableDiffusionXLImg2ImgPipeline"),
            "is of a StableDiffusionXLImg2ImgPipeline, such as the refiner .*; inflate the base",
        ),
        (
            changed("model_index.json", _class_name="StableDiffusionInpaintPipeline"),
            "is of a StableDiffusionInpaintPipeline, whose U-Net takes a mask .*; inflate the text",
        ),
        (
            changed("model_index.json", _class_name="KandinskyPipeline"),
            "is of a KandinskyPipeline; a StableDiffusionPipeline or a StableDiffusionXLPipeline",
        ),
        (
            changed("model_index.json", _class_name="StableDiffusionXLPipeline"),
            "lacks the folder text_encoder_2, which a StableDiffusionXLPipeline has",
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
    refused(saved, damage, sentence, tmp_path)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (
            lambda d: shutil.rmtree(d / "tokenizer_2"),
            "lacks the folder tokenizer_2, which a Stable",
        ),
        (
            changed("text_encoder_2/config.json", architectures=["CLIPTextModel"]),
            "text_encoder_2/config.json has no CLIPTextModelWithProjection among its",
        ),
        (
            lambda d: tiny_clip.model(projection=24).save_pretrained(d / "text_encoder"),
            "text_encoder/config.json has a CLIPTextModelWithProjection among its",
        ),
        (
            changed("unet/config.json", projection_class_embeddings_input_dim=64),
            "gives a pooled text of 24 features, and the U-Net beside it takes 16; take both from",
        ),
        (
            changed("unet/config.json", addition_time_embed_dim=None),
            "gives a pooled text of 24 features, and the U-Net beside it takes 0; take both from",
        ),
        (
            changed("text_encoder_2/config.json", projection_dim=48),
            "has projection_dim 48 above hidden_size 32; in Stable Diffusion XL both are 1280",
        ),
    ],
)
def test_what_cannot_be_inflated_of_stable_diffusion_xl_is_named(
    pipelines, damage, sentence, tmp_path
):
    refused(pipelines("sdxl"), damage, sentence, tmp_path)


def refused(saved, damage, sentence, tmp_path):
    folder = shutil.copytree(saved.folder, tmp_path / "stable")
    damage(folder)
    with pytest.raises(UserError, match=sentence):
        pipeline.read(folder)
