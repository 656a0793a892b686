"""An exported run makes the clips of `stunet sample` without this package."""

import json
import os
import pathlib
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import stand_in
import tiny
from from_config import make_sampler
from jax import export
from safetensors.numpy import load_file

from stunet import cli, configs
from stunet.data.sources import make_encoder
from stunet.diffusion.prediction import PREDICTIONS
from stunet.export import programs
from stunet.export.card import X0
from stunet.generate import masked
from stunet.generate.text import text_to_video
from stunet.train import sampling
from stunet.train.parts import make_parts

SCRIPT = pathlib.Path(__file__).parents[2] / "examples" / "sample_exported.py"
PROMPTS = ["a 3 moving left", "a 7"]
# One level, which compiles fast. It sees all frames, and the caption in its time embedding.
CONFIG = tiny.config(
    model=dict(channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,)),
    sample=dict(steps=3, threshold="static"),
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    stand_in.save(CONFIG, workdir, step=7)
    return workdir


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    """Exports a run, and returns the directory and its card."""
    out = tmp_path_factory.mktemp("exported") / "out"
    arguments = ["export", "--workdir", workdir, "--out", out, "--format", "stablehlo"]
    arguments += ["--guidance", 3, *(word for p in PROMPTS for word in ("--prompt", p))]
    assert cli.main([str(a) for a in arguments]) == 0
    return out, json.loads((out / "card.json").read_text())


@pytest.fixture(scope="module")
def clips(workdir):
    """Returns the clips of `stunet sample text --guidance 3 --seed 5`."""
    return text_to_video(workdir, PROMPTS, seed=5, guidance_scale=3.0)[0]


def program(exported, name):
    directory, card = exported
    blob = (directory / card["programs"][name]["file"]).read_bytes()
    return export.deserialize(blob), load_file(directory / card["params"]["file"])


def test_the_example_makes_the_clips_of_sample_text_without_this_package(exported, clips, tmp_path):
    # Importing this package or its dependencies fails.
    absent = ("stunet", "flax", "optax", "orbax", "ml_collections", "absl", "jaxtyping")
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({absent}))\n"
        f"sys.argv = ['', {str(exported[0])!r}, '--seed', '5', '--out', 'clips.npy']\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )
    assert run.returncode == 0, run.stderr
    assert str(PROMPTS) in run.stdout
    found = np.load(tmp_path / "clips.npy")
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, clips, atol=2e-5)


def test_a_loop_written_from_the_card_makes_them_too(exported, clips):
    """Writes guided and clipped DDIM in NumPy, with four clips a call; the example has two."""
    denoiser, params = program(exported, "denoiser")
    card = exported[1]
    prompts = load_file(exported[0] / card["prompts"]["file"])
    both = {k: np.concatenate([v, np.zeros_like(v)]) for k, v in prompts.items()}
    settings, scale = card["sampling"], card["sampling"]["guidance_scale"]
    assert (settings["sampler"], settings["threshold"], scale) == ("ddim", "static", 3.0)
    levels = np.append(np.float32(settings["log_snr"]), np.inf)

    def amplitudes(log_snr):
        return np.sqrt(1 / (1 + np.exp(-log_snr))), np.sqrt(1 / (1 + np.exp(log_snr)))

    keys = sampling.row_keys(5, np.arange(2))
    x = np.stack([np.asarray(jax.random.normal(key, clips.shape[1:])) for key in keys])
    for time, level, following in zip(settings["times"], levels, levels[1:], strict=False):
        alpha, sigma = amplitudes(level)
        x_t = np.concatenate([x, x])
        times = np.full(4, time, np.float32)
        output = denoiser.call(params, x_t, times, both["text"], both["text_mask"])
        x0 = eval(card["diffusion"]["x0"], None, dict(locals()))
        x0 = np.clip(x0[2:] + scale * (x0[:2] - x0[2:]), -1, 1)
        alpha_s, sigma_s = amplitudes(following)
        x = alpha_s * x0 + sigma_s * (x - alpha * x0) / sigma
    np.testing.assert_allclose(x, clips, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_cards_formulas_are_those_of_the_predictions(prediction):
    drawn = np.random.default_rng(0).uniform(1, 2, (4, 3))
    output, x_t, alpha, sigma = jnp.asarray(drawn, jnp.float32)
    expected = PREDICTIONS[prediction].to_x0(output, x_t, alpha, sigma)
    np.testing.assert_allclose(eval(X0[prediction]), expected, rtol=1e-5)


def test_one_file_of_a_program_is_for_all_platforms_and_any_number_of_clips(exported):
    for name in ("denoiser", "sampler"):
        loaded, params = program(exported, name)
        assert loaded.platforms == ("cpu", "cuda", "tpu")
        (clips,) = loaded.out_avals
        assert not isinstance(clips.shape[0], int)
        described = exported[1]["programs"][name]["arguments"]
        of_params, rest = loaded.in_avals[: len(params)], loaded.in_avals[len(params) :]
        assert [a.shape for a in of_params] == [params[k].shape for k in sorted(params)]
        assert [list(map(str, a.shape)) for a in rest] == [
            list(map(str, d["shape"])) for d in described
        ]
        assert [str(a.dtype) for a in rest] == [d["dtype"] for d in described]
        # The files may be given to others, so they hold no paths of this machine.
        places = re.findall(r'loc\("([^"]*\.py)"', loaded.mlir_module())
        assert "stunet.py" in places
        assert not any("/" in place for place in places)


def test_the_card_says_what_was_exported(exported):
    directory, card = exported
    assert card["training_step"] == 7
    assert card["prompts"]["captions"] == PROMPTS
    assert configs.resolve(card["config"]).model == CONFIG.model
    assert card["text"]["encoder"] == "bytes"
    assert {p.name for p in directory.iterdir()} == {
        "card.json",
        "denoiser.jax_export",
        "sampler.jax_export",
        "params.safetensors",
        "prompts.safetensors",
    }
    assert card["programs"]["sampler"]["call"] == (
        "clips = sampler(params, text, text_mask, seed, first_row)"
    )


def linear(inputs, time):
    return 0.8 * inputs[..., :1] + 0.1 * inputs[..., -1:]


def test_later_noise_and_later_batches_are_those_of_the_host_loop(monkeypatch):
    stand_in.replace_network(monkeypatch, linear)
    config = stand_in.config(sample=dict(sampler="ancestral", steps=4, threshold="dynamic"))
    text, mask = np.zeros((3, 2, 16), np.float32), np.zeros((3, 2), bool)
    *_, expected = make_sampler(config)({}, text, mask, 9, first_row=5)
    parts = make_parts(config)
    loop = jax.jit(sampling.make_loop(parts.denoiser, parts.sampling))
    found = loop({}, text, mask, np.uint32(9), first_row=np.int32(5))
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - loop({}, text, mask, np.uint32(9))).max() > 0.1


def test_what_is_given_of_a_clip_comes_back_as_stunet_sample_puts_it_back(monkeypatch):
    stand_in.replace_network(monkeypatch, linear)
    config = stand_in.config(masks=stand_in.SHARES)
    parts = make_parts(config)
    sampler = programs.make_programs(parts.denoiser, parts.sampling, {})["sampler"]
    loaded = export.deserialize(programs.export_program(sampler, {}).serialize())
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 8, 8, 1)).astype(np.float32)
    run = stand_in.run(config)
    text, mask = make_encoder(parts.denoiser.text)(PROMPTS)
    given = np.zeros((2, 4, 8, 8, 1), bool)
    given[:, 0] = True
    clips = np.broadcast_to(picture[:, None], given.shape)
    found = loaded.call({}, text, mask, np.uint32(5), np.int32(0), clips, given)
    expected = masked.image_to_video(run, PROMPTS, picture, seed=5)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_array_equal(found[:, 0], clips[:, 0])


def test_half_precision_weights(workdir, exported, tmp_path):
    arguments = ["export", "--workdir", workdir, "--out", tmp_path / "half", "--dtype", "bfloat16"]
    assert cli.main([str(a) for a in [*arguments, "--format", "safetensors"]]) == 0
    (file,) = (tmp_path / "half").iterdir()
    whole, half = load_file(exported[0] / "params.safetensors"), load_file(file)
    assert half.keys() == whole.keys()
    for name, leaf in half.items():
        assert leaf.dtype.name == "bfloat16"
        np.testing.assert_array_equal(leaf, whole[name].astype(leaf.dtype))


@pytest.mark.parametrize(
    ("own", "sentence"),
    [
        (["--format", "stablehl"], "unknown format .* did you mean 'stablehlo'"),
        (["--format", "safetensors", "--prompt", "a"], "--prompt means nothing to --format safe"),
        (
            ["--format", "stablehlo", "--sampler", "leap"],
            "sample.sampler is 'leap'; choose",
        ),
    ],
)
def test_what_cannot_be_written_is_answered_in_a_sentence(workdir, tmp_path, capsys, own, sentence):
    out = tmp_path / "out"
    assert cli.main(["export", "--workdir", str(workdir), "--out", str(out), *own]) == 1
    said = capsys.readouterr().err
    assert re.search(sentence, said)
    assert said.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_network_that_needs_a_clip_is_not_exported(tmp_path, capsys):
    stand_in.save(stand_in.config(upscale=dict(factor=2)), tmp_path)
    out = ["--out", str(tmp_path / "out"), "--format", "stablehlo"]
    assert cli.main(["export", "--workdir", str(tmp_path), *out]) == 1
    assert "the network enlarges clips (upscale.factor is 2)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
