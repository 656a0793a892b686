"""Schedules of the learning rate: their formulas, and what a config may ask for."""

import numpy as np
import pytest
import tiny
from from_config import learning_rate

from stunet import configs
from stunet.configs.combinations import check_combinations
from stunet.errors import UserError
from stunet.train.optim.learning_rates import SCHEDULES

STEPS, WARMUP, PEAK = 1000, 100, 1e-3


def rates(updates, **keys) -> np.ndarray:
    """Returns the learning rates of some updates, counted from 0."""
    numbers = dict(steps=STEPS, warmup_steps=WARMUP, learning_rate=PEAK)
    rate = learning_rate(tiny.config(train=numbers | keys))
    return np.array([float(rate(update)) for update in updates])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_every_schedule_rises_linearly_to_the_peak_and_never_rises_again(schedule):
    rising = rates(range(WARMUP + 1), schedule=schedule)
    np.testing.assert_allclose(rising, PEAK * np.arange(1, WARMUP + 2) / (WARMUP + 1), rtol=1e-5)
    after = rates(range(WARMUP, STEPS + 1, 50), schedule=schedule)
    assert np.all(np.diff(after) <= 0)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_without_a_warm_up_the_first_update_has_the_peak(schedule):
    keys = dict(decay_begin=10) if schedule == "inverse_sqrt" else {}
    assert rates([0], schedule=schedule, warmup_steps=0, **keys) == pytest.approx(PEAK)


def test_cosine_ends_at_its_final_share():
    found = rates([550, 1000, 2000], schedule="cosine", final_learning_rate=0.1)
    np.testing.assert_allclose(found, PEAK * np.array([0.55, 0.1, 0.1]), rtol=1e-4)


def test_constant_stays_at_the_peak_whatever_its_final_share():
    found = rates([100, 500, 999], schedule="constant", final_learning_rate=0.1)
    np.testing.assert_allclose(found, PEAK)


@pytest.mark.parametrize(("keys", "begin"), [({}, 800), (dict(decay_begin=500), 500)])
def test_wsd_is_constant_and_then_falls_by_the_square_root_of_its_progress(keys, begin):
    found = rates([150, begin], schedule="wsd", final_learning_rate=0.1, **keys)
    np.testing.assert_allclose(found, PEAK)
    quarter = begin + (STEPS - begin) // 4
    found = rates([quarter, STEPS], schedule="wsd", final_learning_rate=0.1, **keys)
    np.testing.assert_allclose(found, PEAK * np.array([1 - 0.9 / 2, 0.1]), rtol=1e-5)


def test_a_wsd_run_cut_short_has_the_rates_of_the_long_run_until_it_falls():
    before = range(0, 501, 25)
    short = rates(before, schedule="wsd", steps=600, decay_begin=500)
    np.testing.assert_array_equal(short, rates(before, schedule="wsd", steps=10_000))


@pytest.mark.parametrize(("keys", "begin"), [({}, WARMUP), (dict(decay_begin=400), 400)])
def test_inverse_sqrt_halves_when_updates_are_four_times_as_many(keys, begin):
    found = rates([begin, 4 * begin, 16 * begin], schedule="inverse_sqrt", **keys)
    np.testing.assert_allclose(found, PEAK / np.array([1, 2, 4]), rtol=1e-5)
    # The number of updates plays no part, so a longer run begins as a shorter one.
    longer = rates([4 * begin], schedule="inverse_sqrt", steps=STEPS + 1, **keys)
    np.testing.assert_array_equal(longer, found[1:2])


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (dict(decay_begin=50), "train.decay_begin is 50 and train.schedule 'cosine'"),
        (dict(schedule="constant", decay_begin=50), "which does not use it"),
        (dict(schedule="wsd", steps=50, decay_begin=50), "before the last of 50"),
        (dict(schedule="wsd", warmup_steps=9, decay_begin=8), "after the warm-up of 9 updates"),
        (dict(schedule="inverse_sqrt", warmup_steps=0), "set train.decay_begin to the update"),
    ],
)
def test_a_fall_that_no_update_could_have_is_refused(keys, sentence):
    with pytest.raises(UserError, match=sentence):
        check_combinations(tiny.config(train=dict(steps=100) | keys))


def test_other_programs_names_of_schedules_lead_to_ours():
    with pytest.raises(UserError, match="'wsd'"):
        configs.resolve({"train": {"schedule": "warmup_stable_decay"}})
