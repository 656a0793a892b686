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
    # A checkpoint samples with the states it was trained with: this number may never change.
    assert zlib.crc32(states.astype("<f4").tobytes()) == 0xEA0F2713


def test_states_do_not_depend_on_the_company_or_on_what_came_before():
    captions = ["a 3 moving left", "", "eine 7", "a 3 moving left"]
    together, mask = text_encoder("bytes", 24, 32)(captions)
    for caption, states in zip(captions, together, strict=True):
        alone, _ = text_encoder("bytes", 24, 32)([caption])
        np.testing.assert_array_equal(alone[0], states)
    # Callers may write on what they were given.
    encode = text_encoder("bytes", 24, 32)
    encode(captions)[0][:] = 0
    np.testing.assert_array_equal(encode(captions)[0], together)
    assert mask.sum(1).tolist() == [15, 0, 6, 15]


def test_tokens_have_unit_rms_and_padding_is_zero():
    states, mask = text_encoder("bytes", 40, 48)(["a 5 moving up", "a 7 moving right, slowly"])
    assert states.shape == (2, 40, 48)
    np.testing.assert_allclose(np.sqrt((states[mask] ** 2).mean(-1)), 1, rtol=1e-6)
    assert not states[~mask].any()


def test_case_is_folded_and_order_matters():
    lower, upper = pooled(["a 3 moving left", "A 3 Moving LEFT"])
    np.testing.assert_array_equal(lower, upper)
    one, other = pooled(["a 3 and a 7", "a 7 and a 3"])
    assert np.abs(one - other).max() > 0.05


def test_left_and_right_are_different_directions():
    left, right = pooled(["a 3 moving left", "a 3 moving right"])
    assert left @ right / np.linalg.norm(left) / np.linalg.norm(right) < 0.85


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
        # The ridge keeps the probe off directions in which the captions hardly vary.
        gram = seen.T @ seen + 0.01 * np.eye(seen.shape[1])
        weights = np.linalg.solve(gram, seen.T @ targets[~held_out])
        assert (np.argmax(features @ weights, 1) == labels).all()


def test_long_captions_are_cut_and_empty_ones_have_no_token():
    encode = text_encoder("bytes", 8, 16)
    states, mask = encode(["a 3 moving left", "a 3 movi", ""])
    np.testing.assert_array_equal(states[0], states[1])
    assert mask.sum(1).tolist() == [8, 8, 0]
    assert encode([])[0].shape == (0, 8, 16)


def test_any_unicode_is_encoded():
    captions = ["ein Größenmaß", "猫が走る", "🎬", "\ud800"]
    states, mask = text_encoder("bytes", 32, 16)(captions)
    assert mask.sum(1).tolist() == [len(c.lower().encode(errors="replace")) for c in captions]
    assert np.isfinite(states).all()


def test_wide_states_do_not_repeat_themselves():
    # Signs come in words of 64.
    states = text_encoder("bytes", 64, 256)(["the quick brown fox jumps over the lazy dog"])[0][0]
    blocks = states[:43].reshape(43, 4, 64)
    for one, other in itertools.combinations(range(4), 2):
        assert abs((blocks[:, one] * blocks[:, other]).mean()) < 0.1


def test_mistakes_are_named():
    with pytest.raises(UserError, match=r"'t6'.*bytes"):
        text_encoder("t6", 8, 16)
    with pytest.raises(UserError, match="dim"):
        text_encoder("bytes", 8, 4)
    with pytest.raises(TypeError, match="list"):
        text_encoder("bytes", 8, 16)("a 3 moving left")
