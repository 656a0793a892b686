"""The single pass against cascades: equal operations, and what perfect networks make."""

import pathlib
import runpy

import numpy as np
import pytest
from from_config import model_flops

from stunet.errors import UserError
from stunet.sweep import members

FILE = pathlib.Path(__file__).parents[2] / "experiments" / "sweeps" / "single_pass_vs_cascade.py"
SWEEP = runpy.run_path(str(FILE))
# The largest one counts operations for long.
QUESTIONS = [name for name in SWEEP["QUESTIONS"] if name != "gpu"]


def test_ideal_shares_are_those_of_simulated_networks():
    """A perfect network draws from the clips of the data that have the same keyframes."""
    bins, windows, rng = (0.25, 0.5, 1.0, 1.75), 3, np.random.default_rng(0)
    turns = rng.choice([-1, 1], 400_000) * np.exp(
        rng.uniform(np.log(bins[0]), np.log(bins[-1]), 400_000)
    )
    # Clips whose keyframes look alike, within a five hundredth of a turn.
    looks = np.floor((turns % 2) * 250).astype(int)
    order = np.argsort(looks, kind="stable")
    firsts = np.searchsorted(looks[order], np.arange(501))
    low, high = firsts[looks], firsts[looks + 1]
    drawn = turns[order[rng.integers(low, high, (windows, len(turns)))]]
    # In these clips, a window chose the truth if it is as fast, within the width of a look.
    right = np.abs(drawn - turns) < 0.01
    steady = np.abs(drawn - drawn[:1]).max(0) < 0.01
    found = SWEEP["ideal_shares"](bins, windows)
    places = np.digitize(np.abs(turns), bins) - 1
    for name, share in {
        "steady": steady,
        "steady and right": right.all(0),
        "right": right[0],
    }.items():
        simulated = [share[places == i].mean() for i in range(len(bins) - 1)]
        assert found[name] == pytest.approx(simulated, abs=0.015)


def test_an_unknown_question_is_refused():
    with pytest.raises(UserError, match="unknown question 'speed'; did you mean 'speeds'"):
        SWEEP["get_sweep"]("speed")


# Counting the operations of their networks takes a minute or more.
LONG = ("paths", "noise")


@pytest.mark.slow
@pytest.mark.parametrize(
    "question", [pytest.param(q, marks=[pytest.mark.long] * (q in LONG)) for q in QUESTIONS]
)
def test_arms_train_with_equal_operations(question):
    entries = members.load(f"{FILE}:{question}").entries
    first = [e for e in entries if isinstance(e, members.Member) and e.name.endswith("seed=0")]
    spent = {e.name: e.config.train.steps * model_flops(e.config) for e in first}
    for name, operations in spent.items():
        group, network = name.split(",")[:2]
        whole = spent[f"{group},single_pass,seed=0"]
        share = 1 if network == "single_pass" else 0.5
        assert operations == pytest.approx(share * whole, rel=2e-3)


@pytest.mark.slow
def test_networks_on_real_videos_measure_no_loss_on_fewer_clips_than_a_batch():
    held_out = 3  # experiments/real_clips.py
    for entry in members.load(f"{FILE}:real").entries:
        if isinstance(entry, members.Member):
            enough = entry.config.train.batch_size <= held_out
            assert enough or not entry.config.log.validate_every, entry.name
