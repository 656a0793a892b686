"""LoRA files change text models of CLIP as up times down, added to their weights, changes them.

What is expected is computed with transformers' own models, whose weights have the change added.
"""

import copy
import json
import weakref

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import tiny_clip
import torch
import transformers
from safetensors.numpy import load_file, save_file

from stunet.errors import UserError
from stunet.nn.text import text_encoder
from stunet.weights import lora_files

RANK, LENGTH, SCALE = 2, 20, 0.7
PLACES = ("self_attn.q_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
LAYERS = [f"text_model.encoder.layers.{i}.{place}" for i in range(2) for place in PLACES]
CAPTIONS = ["a dog runs", "and cat's"]


def factors(model, seed):
    """Returns random factors (up, down) for layers of a text model."""
    rng, state, made = np.random.default_rng(seed), weights(model), {}
    for layer in LAYERS:
        out, inputs = state[f"{layer}.weight"].shape
        shapes = (out, RANK), (RANK, inputs)
        made[layer] = tuple(rng.normal(0, 0.3, shape).astype(np.float32) for shape in shapes)
    return made


def weights(model):
    """Returns a model's weights, under the names that published files have."""
    state = model.state_dict()
    added = "" if any(name.startswith("text_model.") for name in state) else "text_model."
    return {f"{added}{name}": value for name, value in state.items()}


def kohya(prefix):
    def form(made):
        tensors = {}
        for layer, (up, down) in made.items():
            name = f"{prefix}_{layer.replace('.', '_')}"
            tensors |= {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down}
            tensors[f"{name}.alpha"] = np.array(3, np.float32)
        return tensors

    return form


def named(prefix, up_name, down_name):
    def form(made):
        return {
            f"{prefix}.{layer}.{end}.weight": value
            for layer, pair in made.items()
            for end, value in zip((up_name, down_name), pair, strict=True)
        }

    return form


PEFT = "lora_B", "lora_A"
METADATA = {
    "unet.lora_alpha": 9,
    "text_encoder.lora_alpha": 4,
    "text_encoder.alpha_pattern": {"layers.0.mlp.fc1": 6},
}
# Name -> (tensors of factors, metadata, s of a layer).
FORMATS = {
    "kohya": (kohya("lora_te"), {}, lambda layer: 1.5),
    "kohya_of_sdxl": (kohya("lora_te1"), {}, lambda layer: 1.5),
    "peft": (named("text_encoder", *PEFT), {}, lambda layer: 1),
    "peft_with_alphas": (
        named("text_encoder", *PEFT),
        METADATA,
        lambda layer: 3 if layer.endswith("layers.0.mlp.fc1") else 2,
    ),
    "diffusers_older": (
        named("text_encoder", "lora_linear_layer.up", "lora_linear_layer.down"),
        {"lora_alpha": 9},
        lambda layer: 1,
    ),
}


def with_change(model, made, scale):
    """Returns a copy of a text model, whose layers have the change `scale(layer)` up down."""
    changed = copy.deepcopy(model)
    state = weights(changed)
    with torch.no_grad():
        for layer, (up, down) in made.items():
            state[f"{layer}.weight"] += scale(layer) * torch.from_numpy(up @ down)
    return changed


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Returns a folder with a text model, and the model."""
    folder, made = tmp_path_factory.mktemp("text") / "text_encoder", tiny_clip.model()
    made.save_pretrained(folder)
    tiny_clip.save_tokenizer(folder.parent / "tokenizer")
    return folder, made


def written(directory, tensors, metadata=None):
    file = directory / "style.safetensors"
    save_file(tensors, file, {"lora_adapter_metadata": json.dumps(metadata or {})})
    return file


def changed(encoder, file, scale):
    lora = lora_files.read(file, {}, [of.shapes() for of in encoder.models])
    return encoder.changed(lora.of_texts(scale))


@pytest.mark.parametrize("name", FORMATS)
def test_states_are_those_of_transformers_with_the_change_added(model, tmp_path, name):
    form, metadata, scale = FORMATS[name]
    folder, theirs = model
    made = factors(theirs, 0)
    encoder = text_encoder(f"clip:{folder}", LENGTH)
    ours = changed(encoder, written(tmp_path, form(made), metadata), SCALE)
    ids = torch.tensor([ours._tokenize(caption).ids for caption in CAPTIONS])
    with torch.no_grad():
        model = with_change(theirs, made, lambda layer: SCALE * scale(layer))
        want = model(ids).last_hidden_state.numpy()
    got, mask = ours(CAPTIONS)
    assert mask.all()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())
    assert np.abs(encoder(CAPTIONS)[0] - got).max() > 0.1


def test_both_text_models_of_stable_diffusion_xl_are_changed(tmp_path):
    models = tiny_clip.model(), tiny_clip.model(1, projection=24, hidden_act="gelu")
    made = [factors(model, seed) for seed, model in enumerate(models)]
    for end, model in zip(("", "_2"), models, strict=True):
        model.save_pretrained(tmp_path / f"text_encoder{end}")
        tiny_clip.save_tokenizer(tmp_path / f"tokenizer{end}", "!" if end else tiny_clip.END)
    tensors = kohya("lora_te1")(made[0]) | kohya("lora_te2")(made[1])
    encoder = text_encoder(f"sdxl:{tmp_path}", LENGTH)
    got, _ = changed(encoder, written(tmp_path, tensors), 1.0)(CAPTIONS)
    wanted = []
    with torch.no_grad():
        for model, of, ours in zip(models, made, encoder.models, strict=True):
            ids = torch.tensor([ours._tokenize(caption).ids for caption in CAPTIONS])
            made_of_it = with_change(model, of, lambda layer: 1.5)
            wanted.append(made_of_it(ids, output_hidden_states=True))
    pooled = wanted[1].text_embeds.numpy()
    states = np.concatenate([of.hidden_states[-2].numpy() for of in wanted], axis=-1)
    limit = 1e-4 * np.abs(states).max()
    np.testing.assert_allclose(got[:, 0, :24], pooled, rtol=0, atol=limit)
    np.testing.assert_allclose(got[:, 1:], states, rtol=0, atol=limit)


@pytest.mark.parametrize(("prefix", "number"), [("lora_te", 0), ("lora_te1", 0), ("lora_te2", 1)])
def test_names_of_kohya_mean_what_diffusers_takes_them_for(model, tmp_path, prefix, number):
    """A file of kohya changes the same weights as what diffusers converts it to.

    Diffusers converts it to the names of its own older files, and returns alpha separately.
    """
    convert = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    made = factors(model[1], 0)
    tensors = {name: torch.from_numpy(value) for name, value in kohya(prefix)(made).items()}
    theirs, alphas = convert._convert_non_diffusers_lora_to_diffusers(dict(tensors))
    assert set(alphas.values()) == {3.0}
    shapes = [of.shapes() for of in text_encoder(f"clip:{model[0]}", LENGTH).models] * 2
    ours = lora_files.read(written(tmp_path, kohya(prefix)(made)), {}, shapes).texts
    converted = {name: np.ascontiguousarray(value.numpy()) for name, value in theirs.items()}
    back = lora_files.read(written(tmp_path, converted), {}, shapes).texts
    assert [len(of) for of in ours] == [len(LAYERS) * (number == of) for of in range(2)]
    for name, found in ours[number].items():
        np.testing.assert_allclose(found.up, 3 / RANK * back[number][name].up, rtol=1e-6)
        np.testing.assert_array_equal(found.down, back[number][name].down)


def test_a_written_encoder_is_the_changed_one_for_transformers_too(model, tmp_path):
    folder, theirs = model
    made = factors(theirs, 0)
    encoder = text_encoder(f"clip:{folder}", LENGTH)
    ours = changed(encoder, written(tmp_path, kohya("lora_te")(made)), SCALE)
    out = tmp_path / "run" / "text_encoder"
    again = ours.write(out)
    assert again.fingerprint == text_encoder(f"clip:{out}", LENGTH).fingerprint
    assert again.fingerprint != encoder.fingerprint
    got, _ = again(CAPTIONS)
    np.testing.assert_array_equal(got, ours(CAPTIONS)[0])
    read, info = transformers.CLIPTextModel.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    tokenizer = transformers.CLIPTokenizer.from_pretrained(out)
    ids = tokenizer(CAPTIONS, padding="max_length", max_length=LENGTH, return_tensors="pt")
    wanted = with_change(theirs, made, lambda layer: SCALE * 1.5)
    for name, value in weights(wanted).items():
        np.testing.assert_allclose(weights(read)[name], value.detach(), rtol=0, atol=1e-6)
    with torch.no_grad():
        want = read(ids.input_ids).last_hidden_state.numpy()
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_text_model_without_changes_stays_bit_for_bit(model, tmp_path, dtype):
    """At scale 0, so do its files. With changes, weights keep the type of their files."""
    theirs, folder = copy.deepcopy(model[1]).to(dtype), tmp_path / "text_encoder"
    theirs.save_pretrained(folder)
    tiny_clip.save_tokenizer(tmp_path / "tokenizer")
    encoder = text_encoder(f"clip:{folder}", LENGTH)
    file = written(tmp_path, kohya("lora_te")(factors(model[1], 0)))
    same, other = (changed(encoder, file, scale) for scale in (0, SCALE))
    np.testing.assert_array_equal(same(CAPTIONS)[0], encoder(CAPTIONS)[0])
    assert same.write(tmp_path / "same").fingerprint == encoder.fingerprint
    assert other.write(tmp_path / "other").fingerprint != encoder.fingerprint
    before, after, beside = (
        load_file(place / "model.safetensors")
        for place in (folder, tmp_path / "same", tmp_path / "other")
    )
    assert before.keys() == after.keys() == beside.keys()
    for name, value in before.items():
        assert after[name].tobytes() == value.tobytes(), name
        assert after[name].dtype == beside[name].dtype == value.dtype
        plain = f"text_model.{name.removeprefix('text_model.').removesuffix('.weight')}"
        changes = plain in LAYERS
        assert (beside[name].tobytes() != value.tobytes()) == changes, name


def test_writing_holds_one_weight_at_a_time(model, tmp_path):
    seen = []

    def change(name, weight):
        seen.append(weakref.ref(weight))
        # The one before lives until this one takes its place.
        assert sum(ref() is not None for ref in seen) <= 2
        return weight

    text_encoder(f"clip:{model[0]}", LENGTH).changed([change]).write(tmp_path / "out")
    assert len(seen) == len(load_file(tmp_path / "out" / "model.safetensors")) > 40


def test_changes_of_other_text_models_are_refused(model, tmp_path):
    folder, theirs = model
    shapes = [of.shapes() for of in text_encoder(f"clip:{folder}", LENGTH).models]
    made = factors(theirs, 0)
    second = written(tmp_path, kohya("lora_te2")(made))
    with pytest.raises(UserError, match="changes a second text encoder, by 'lora_te2_text_model"):
        lora_files.read(second, {}, shapes)
    deep = {layer.replace("layers.1", "layers.11"): pair for layer, pair in made.items()}
    with pytest.raises(UserError, match=r"layers_11_.*which the run's text encoder does not have"):
        lora_files.read(written(tmp_path, kohya("lora_te")(deep)), {}, shapes)
    wide = {layer: (up, np.pad(down, ((0, 0), (0, 1)))) for layer, (up, down) in made.items()}
    with pytest.raises(UserError, match="the LoRA is for another text encoder"):
        lora_files.read(written(tmp_path, kohya("lora_te")(wide)), {}, shapes)
    with pytest.raises(UserError, match="holds no layer of a U-Net"):
        lora_files.read(second, {})
