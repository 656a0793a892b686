"""The encoder "bytes": its states never change, and they tell words and their order apart."""

import itertools
import zlib

import numpy as np
import pytest

from stunet.errors import UserError
from stunet.nn.text import text_encoder

DIRECTIONS = ["left", "right", "up", "down"]
SPEEDS = ["", ", slowly", ", fast"]


def pooled(captions, dim=64):
    states, mask = text_encoder("bytes", 64, dim)(captions)
    return (states * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)


def test_states_never_change():
    states, _ = text_encoder("bytes", 32, 64)(["a 3 moving left, fast"])
    # Checkpoints were trained on these states, so this number must never change.
    assert zlib.crc32(states.astype("<f4").tobytes()) == 0x769B708C


def test_states_do_not_depend_on_other_or_earlier_captions():
    captions = ["a 3 moving left", "", "eine 7", "a 3 moving left"]
    together, mask = text_encoder("bytes", 24, 32)(captions)
    for caption, states in zip(captions, together, strict=True):
        alone, _ = text_encoder("bytes", 24, 32)([caption])
        np.testing.assert_array_equal(alone[0], states)
    # Callers may overwrite the arrays that they get.
    encode = text_encoder("bytes", 24, 32)
    encode(captions)[0][:] = 0
    np.testing.assert_array_equal(encode(captions)[0], together)
    assert mask.sum(1).tolist() == [4, 0, 2, 4]


def test_tokens_have_equal_norm_and_padding_is_zero():
    states, mask = text_encoder("bytes", 40, 48)(["a 5 moving up", "a 7 moving right, slowly"])
    assert states.shape == (2, 40, 48)
    np.testing.assert_allclose(np.sqrt((states[mask] ** 2).mean(-1)), 1, rtol=0.1)
    assert not states[~mask].any()


def test_case_is_folded_and_order_matters():
    lower, upper = pooled(["a 3 moving left", "A 3 Moving LEFT"])
    np.testing.assert_array_equal(lower, upper)
    states, _ = text_encoder("bytes", 64, 64)(["a a"])
    assert np.abs(states[0, 0] - states[0, 1]).max() > 0.05


def test_words_of_one_stem_are_alike_and_others_are_not():
    states = text_encoder("bytes", 8, 512)(["moving moves left"])[0][0, :3]
    cosine = (states @ states.T) / np.square(states).sum(-1)
    assert cosine[0, 1] > 0.4
    assert abs(cosine[0, 2]) < 0.25


def test_directions_are_nearly_orthogonal():
    states = text_encoder("bytes", 8, 64)(["left right up down"])[0][0, :4]
    cosine = states @ states.T / 64
    assert np.abs(cosine - np.diag(np.diag(cosine))).max() < 0.5


def test_a_linear_probe_reads_digit_direction_and_speed():
    combinations = list(itertools.product(range(10), range(4), range(3)))
    captions = [
        f"{'an' if n == 8 else 'a'} {n} moving {DIRECTIONS[d]}{SPEEDS[s]}"
        for n, d, s in combinations
    ]
    features = np.pad(pooled(captions), ((0, 0), (0, 1)), constant_values=1)
    held_out = np.random.default_rng(0).permutation(len(captions)) < 24
    for labels in np.array(combinations).T:
        targets = np.eye(labels.max() + 1)[labels]
        seen = features[~held_out]
        # Ridge regression, so that the probe ignores directions in which captions hardly vary.
        gram = seen.T @ seen + 0.01 * np.eye(seen.shape[1])
        weights = np.linalg.solve(gram, seen.T @ targets[~held_out])
        assert (np.argmax(features @ weights, 1) == labels).all()


def test_long_captions_are_cut_and_empty_ones_have_no_token():
    encode = text_encoder("bytes", 3, 16)
    states, mask = encode(["a 3 moving left", "a 3 moving", ""])
    np.testing.assert_array_equal(states[0], states[1])
    assert mask.sum(1).tolist() == [3, 3, 0]
    assert encode([])[0].shape == (0, 3, 16)


def test_captions_that_are_cut_are_named_and_the_first_few_alone(capsys):
    encode = text_encoder("bytes", 3, 16)
    assert [encode.is_cut(caption) for caption in ("a 3 moving", "a 3 moving left")] == [0, 1]
    encode(["a 3 moving", ""])
    assert not capsys.readouterr().err
    encode([f"a {digit} moving left" for digit in range(10)])
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert "longer than 3 tokens (text.max_length)" in told[0]
    assert "'a 0 moving left'" in told[0]
    assert told[2].endswith("no further ones are named")


def test_any_unicode_is_encoded():
    captions = ["ein Größenmaß", "猫が走る", "🎬", "\ud800"]
    states, mask = text_encoder("bytes", 32, 16)(captions)
    assert mask.sum(1).tolist() == [2, 1, 1, 1]
    assert np.isfinite(states).all()


def test_wide_states_do_not_repeat_in_blocks_of_64():
    # Signs are generated in words of 64 bits.
    states = text_encoder("bytes", 64, 256)(["the quick brown fox jumps over the lazy dog"])[0][0]
    blocks = states[:9].reshape(9, 4, 64)
    for one, other in itertools.combinations(range(4), 2):
        assert abs((blocks[:, one] * blocks[:, other]).mean()) < 0.15


def test_errors_name_the_mistake():
    with pytest.raises(UserError, match=r"'t6'.*bytes"):
        text_encoder("t6", 8, 16)
    with pytest.raises(UserError, match="dim"):
        text_encoder("bytes", 8, 4)
    with pytest.raises(TypeError, match="list"):
        text_encoder("bytes", 8, 16)("a 3 moving left")
