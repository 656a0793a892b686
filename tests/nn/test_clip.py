"""CLIP's text models and tokenizer equal those of transformers, as Stable Diffusion uses them."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest

from stunet import configs
from stunet.data.spec import TextSpec
from stunet.errors import UserError
from stunet.nn.text import text_encoder, tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tiny_clip = pytest.importorskip("tiny_clip")

CAPTIONS = ["a dog runs", "The CAT's 12  dogs,\tand 猫🎬 ...", "x <|endoftext|> y"]
LENGTH = 20


def their_tokenizer(folder, padding):
    return transformers.CLIPTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), pad_token=padding
    )


def their_ids(folder, padding, length=LENGTH):
    settings = dict(padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    return their_tokenizer(folder, padding)(CAPTIONS, **settings).input_ids


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A pipeline's folder with both text models of Stable Diffusion XL, and the models."""
    root = tmp_path_factory.mktemp("pipeline")
    first = tiny_clip.model(0)
    second = tiny_clip.model(1, projection=24, hidden_act="gelu")
    for model, number in ((first, ""), (second, "_2")):
        model.save_pretrained(root / f"text_encoder{number}")
    tiny_clip.save_tokenizer(root / "tokenizer")
    tiny_clip.save_tokenizer(root / "tokenizer_2", padding="!")
    return root, first, second


def reference(model, ids):
    with torch.no_grad():
        return model(ids, output_hidden_states=True)


@pytest.mark.parametrize(("folder", "padding"), [("tokenizer", None), ("tokenizer_2", "!")])
@pytest.mark.parametrize("length", [LENGTH, 8])
def test_ids_equal_those_of_transformers(saved, folder, padding, length):
    file = tokenizer.find(saved[0] / folder.replace("tokenizer", "text_encoder"))
    assert file == saved[0] / folder / "vocab.json"
    ours = tokenizer.load(file, length, 1000, pads=True).encode_batch(CAPTIONS)
    theirs = their_ids(file.parent, padding or tiny_clip.END, length)
    assert [caption.ids for caption in ours] == theirs.tolist()


def test_states_are_those_that_stable_diffusion_1_and_2_attend_to(saved):
    root, model, _ = saved
    states, mask = text_encoder(f"clip:{root / 'text_encoder'}", LENGTH)(CAPTIONS)
    theirs = reference(model, their_ids(root / "tokenizer", tiny_clip.END))
    theirs = theirs.last_hidden_state.numpy()
    assert mask.all()
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(states, theirs, atol=1e-4, rtol=0)


def test_states_and_pooled_text_are_those_of_stable_diffusion_xl(saved, capsys):
    root, *models = saved
    encode = text_encoder(f"sdxl:{root}", LENGTH)
    states, mask = encode(CAPTIONS)
    ids = [their_ids(root / "tokenizer", tiny_clip.END), their_ids(root / "tokenizer_2", "!")]
    theirs = [reference(model, of) for model, of in zip(models, ids, strict=True)]
    expected = np.concatenate([of.hidden_states[-2] for of in theirs], axis=-1)
    np.testing.assert_allclose(states[:, 1:], expected, atol=1e-4, rtol=0)
    pooled = theirs[1].text_embeds.numpy()
    width = pooled.shape[1]
    np.testing.assert_allclose(states[:, 0, :width], pooled, atol=1e-4, rtol=0)
    assert not states[:, 0, width:].any()
    assert mask.all()
    assert encode.dim == 2 * tiny_clip.DIM
    assert states.shape[1:] == TextSpec(f"sdxl:{root}", LENGTH, encode.dim).shape
    assert not any(part.any() for part in encode([""]))
    assert encode.is_cut("a " * LENGTH)
    encode(["a " * LENGTH])
    assert capsys.readouterr().err.count("'a a a") == 1


def test_an_old_checkpoint_whose_config_names_another_end_token(saved, tmp_path):
    root = saved[0]
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "text_encoder_2" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"eos_token_id": 2}))
    old, new = (text_encoder(f"sdxl:{place}", LENGTH)(CAPTIONS)[0] for place in (tmp_path, root))
    np.testing.assert_allclose(old, new, atol=1e-5)


def test_the_fingerprint_depends_on_the_padding(saved, tmp_path):
    folder = saved[0] / "text_encoder"
    before = text_encoder(f"clip:{folder}", LENGTH).fingerprint
    place = saved[0] / "tokenizer" / "special_tokens_map.json"
    kept = place.read_text()
    place.write_text('{"pad_token": {"content": "!"}}')
    assert text_encoder(f"clip:{folder}", LENGTH).fingerprint != before
    place.write_text(kept)


def test_the_published_text_models_have_these_widths():
    """Shapes from the published configs; no weights are made."""
    import jax

    from stunet.nn.text.clip import clip

    published = {
        "Stable Diffusion 1": dict(hidden_size=768, num_attention_heads=12, num_hidden_layers=12),
        "Stable Diffusion 2": dict(
            hidden_size=1024, num_attention_heads=16, num_hidden_layers=23, hidden_act="gelu"
        ),
    }
    for name, sizes in published.items():
        width = sizes["hidden_size"]
        config = dict(model_type="clip_text_model", intermediate_size=4 * width, **sizes)
        architecture = clip(config, name)
        ids = jax.ShapeDtypeStruct((1, 77), np.int32)
        mask = jax.ShapeDtypeStruct((1, 77), bool)
        shapes = jax.eval_shape(architecture.module.init, jax.random.key(0), ids, mask)
        count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        with torch.device("meta"):
            model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**config))
        assert count == sum(parameter.numel() for parameter in model.parameters())


def test_a_config_takes_the_encoders_by_name(saved):
    raw = {"text": dict(encoder=f"sdxl:{saved[0]}", dim=2 * tiny_clip.DIM, max_length=LENGTH)}
    text = configs.resolve(raw).text
    assert text_encoder(text.encoder, text.max_length, text.dim).max_length == LENGTH
    assert dataclasses.asdict(text)["encoder"] == f"sdxl:{saved[0]}"


def test_the_fingerprint_of_xl_depends_on_both_text_models(saved, tmp_path):
    root = saved[0]
    before = text_encoder(f"sdxl:{root}", LENGTH).fingerprint
    # Directories of stored states are named by these 16 digits.
    assert re.fullmatch("[0-9a-f]{16}", before)
    shutil.copytree(root, tmp_path, dirs_exist_ok=True)
    assert text_encoder(f"sdxl:{tmp_path}", LENGTH).fingerprint == before
    tiny_clip.model(2, projection=24).save_pretrained(tmp_path / "text_encoder_2")
    assert text_encoder(f"sdxl:{tmp_path}", LENGTH).fingerprint != before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "clip"}, "model_type 'clip'; the text model of CLIP has 'clip_text_model'"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"num_attention_heads": 5}, "5 heads for hidden_size 32"),
        ({"num_hidden_layers": 4}, "no weight 'text_model.encoder.layers.3"),
        ({"intermediate_size": 50}, r"has the shape \(32, 48\) where config.json says \(32, 50\)"),
    ],
)
def test_a_wrong_folder_is_refused_in_a_sentence(saved, tmp_path, change, message):
    saved[1].save_pretrained(tmp_path / "text_encoder")
    tiny_clip.save_tokenizer(tmp_path / "tokenizer")
    file = tmp_path / "text_encoder" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(UserError, match=message):
        text_encoder(f"clip:{tmp_path / 'text_encoder'}", LENGTH)(CAPTIONS)


def test_a_missing_or_wrong_part_is_named(saved, tmp_path):
    root, first, _ = saved
    with pytest.raises(UserError, match=r"no folder .*text_encoder, which .* 'sdxl' needs"):
        text_encoder(f"sdxl:{tmp_path}", LENGTH)
    with pytest.raises(UserError, match="max_length is 77; 'clip' takes 20"):
        text_encoder(f"clip:{root / 'text_encoder'}", 77)
    for number in ("", "_2"):
        first.save_pretrained(tmp_path / f"text_encoder{number}")
        tiny_clip.save_tokenizer(tmp_path / f"tokenizer{number}")
    with pytest.raises(UserError, match="no CLIPTextModelWithProjection"):
        text_encoder(f"sdxl:{tmp_path}", LENGTH)
    (tmp_path / "tokenizer" / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"merges.txt cannot be read"):
        text_encoder(f"clip:{tmp_path / 'text_encoder'}", LENGTH)
