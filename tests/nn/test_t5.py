"""The T5 encoder equals transformers' `T5EncoderModel`, however the weights are stored."""

import json
import shutil

import jax
import numpy as np
import pytest

from stunet.errors import UserError
from stunet.nn.text import text_encoder
from stunet.nn.text.checkpoint import Checkpoint
from stunet.nn.text.t5 import relative_position_bucket, t5

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
tiny_t5 = pytest.importorskip("tiny_t5")


def read(directory):
    """Returns the jitted encoder, which takes (parameters, ids, mask), and the parameters."""
    architecture = t5(json.loads((directory / "config.json").read_text()), str(directory))
    return jax.jit(architecture.module.apply), Checkpoint(directory, architecture).read()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Returns a directory, and the model that is saved there."""
    directory = tmp_path_factory.mktemp("t5") / "saved"
    return directory, tiny_t5.save(directory)


@pytest.fixture(scope="module")
def encoded(saved):
    """Returns (encoder, parameters, ids, mask, states) for captions of 150, 20, 1 and 150 tokens.

    ids and mask are `[4, 150]`.
    """
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 64, (4, 150))
    mask = np.arange(150) < np.array([150, 20, 1, 150])[:, None]
    apply, params = read(saved[0])
    return apply, params, ids, mask, np.asarray(apply(params, ids, mask))


def test_states_equal_those_of_pytorch(saved, encoded):
    *_, ids, mask, ours = encoded
    theirs = tiny_t5.reference(saved[1], ids, mask)
    assert np.abs(theirs).max() > 1
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-4, rtol=0)


def test_padding_changes_nothing(encoded):
    apply, params, ids, mask, together = encoded
    # Another padded length, and a batch of its own.
    alone = apply(params, ids[1:2, :20], mask[1:2, :20])
    np.testing.assert_allclose(alone[0], together[1, :20], atol=1e-5)
    # Other ids in the padding.
    other = np.where(mask, ids, 63 - ids)
    np.testing.assert_array_equal(apply(params, other, mask)[mask], together[mask])


def test_shards_hold_the_same_weights_as_a_single_file(saved, tmp_path):
    saved[1].save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    assert not (tmp_path / "model.safetensors").exists()
    jax.tree.map(np.testing.assert_array_equal, read(saved[0])[1], read(tmp_path)[1])


def test_half_precision_weights_are_used_in_float32(encoded, tmp_path):
    half = tiny_t5.model().to(torch.bfloat16)
    half.save_pretrained(tmp_path)
    apply, params = read(tmp_path)
    assert params["params"]["block_0"]["q"]["kernel"].dtype == "bfloat16"
    ids, mask = encoded[2][:, :20], encoded[3][:, :20]
    ours = np.asarray(apply(params, ids, mask))
    theirs = tiny_t5.reference(half.float(), ids, mask)
    np.testing.assert_allclose(ours[mask], theirs[mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 40)])
def test_buckets_of_distances_equal_those_of_pytorch(buckets, max_distance):
    from transformers.models.t5.modeling_t5 import T5Attention

    distance = np.arange(-300, 301)
    theirs = T5Attention._relative_position_bucket(
        torch.tensor(distance), True, buckets, max_distance
    )
    ours = relative_position_bucket(distance, buckets, max_distance)
    np.testing.assert_array_equal(ours, theirs.numpy())


def config(**keys):
    """Returns a function that changes keys of the config.json in a directory."""

    def change(directory):
        file = directory / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | keys))

    return change


def without(name):
    """Returns a function that deletes a file from a directory."""
    return lambda directory: (directory / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "there is no folder"),
        (without("config.json"), r"config\.json cannot be read"),
        (lambda d: (d / "config.json").write_text("{"), r"config\.json is not JSON"),
        (config(feed_forward_proj="relu"), "'relu'; a T5-v1.1"),
        (config(model_type="umt5"), "'umt5'"),
        (config(d_model="wide"), "expected int, got str at 'd_model'"),
        (config(num_layers=4), r"no weight 'encoder\.block\.3"),
        (config(d_ff=40), r"shape \(32, 48\) where .* \(32, 40\)"),
        (without("model.safetensors"), "neither model.safetensors nor .*pickled weights"),
        (lambda d: (d / "model.safetensors").write_bytes(b"x" * 99), "safetensors is damaged"),
        (without("tokenizer.json"), "no tokenizer: put .*spiece.model there"),
        (lambda d: (d / "tokenizer.json").write_text("{}"), r"tokenizer\.json is damaged"),
        (config(vocab_size=8), "token ids up to 14 and .* 8 tokens"),
    ],
)
def test_errors_say_why_a_checkpoint_does_not_fit(saved, tmp_path, damage, message):
    shutil.copytree(saved[0], tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(UserError, match=message):
        text_encoder(f"t5:{tmp_path / 'copy'}", 8)(["a dog"])


def test_the_error_for_a_missing_shard_names_it(tmp_path):
    tiny_t5.save(tmp_path, max_shard_size="20KB")
    shard = sorted(tmp_path.glob("*.safetensors"))[0]
    shard.unlink()
    with pytest.raises(UserError, match=f"{shard.name} is missing"):
        text_encoder(f"t5:{tmp_path}", 8)
