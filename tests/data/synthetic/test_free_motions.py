"""Objects whose speed or direction changes do what physics, or their description, says."""

import collections
import math
import re

import numpy as np
import pytest

from stunet.data.synthetic.motions import Motions, caption, place
from stunet.data.synthetic.movers import DIRECTIONS
from stunet.data.synthetic.stage import Stage
from stunet.errors import UserError


def source(motion, *, split="train", frames=16, seed=0, **options) -> Motions:
    options = {"height": 16, "width": 16, "period": 10.0} | options
    return Motions(split, Stage(motion, **options), frames, seed=seed)


@pytest.mark.parametrize("height", [16, 1])
def test_falling_objects_keep_their_energy_under_one_gravity(height):
    clips = source("fall", height=height, frames=60)
    axis = clips.stage.axes[-1]
    largest = 4 * clips.stage.room(axis) / 10.0  # Speed at the floor after the largest drop.
    gravity = largest / (10.0 / 2)
    for i in range(30):
        truth = clips.truth(i)
        (mover,) = truth.movers
        down = 1 if height == 16 or mover.direction == "right" else -1
        floor = clips.stage.walls(axis)[1 if down == 1 else 0]
        heights = down * (floor - truth.positions[0, :, axis])
        assert heights.min() >= 0
        assert heights.max() <= clips.stage.room(axis) + 1e-9
        energy = truth.velocities[0, :, axis] ** 2 / 2 + gravity * heights
        np.testing.assert_allclose(energy, gravity * mover.drop)
        # Apart from bounces, the second difference is the acceleration.
        second = np.diff(heights, 2)
        assert np.mean(np.isclose(second, -gravity)) > 0.6
        if height == 16:
            sideways = np.diff(truth.positions[0, :, 1])
            assert np.sign(mover.drift) == DIRECTIONS[mover.direction][1]
            np.testing.assert_allclose((sideways - mover.drift + 8) % 16 - 8, 0, atol=1e-9)


def test_a_pendulum_hangs_on_a_rod_and_fades():
    clips = source("pendulum", frames=80)
    stage = clips.stage
    for i in range(20):
        truth = clips.truth(i)
        (mover,) = truth.movers
        away = truth.positions[0] - np.array(stage.pivot)
        np.testing.assert_allclose(np.hypot(*away.T), stage.rod)
        angle = np.arctan2(away[:, 1], away[:, 0])
        # A period later, each angle has shrunk by the damping.
        np.testing.assert_allclose(angle[10:], mover.damping * angle[:-10], atol=1e-9)
        assert np.abs(angle).max() <= stage.widest_swing + 1e-9
        for axis in (0, 1):
            least, largest = stage.walls(axis)
            assert least - 1e-9 <= truth.positions[0, :, axis].min()
            assert truth.positions[0, :, axis].max() <= largest + 1e-9


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8), (16, 12)])
def test_a_pendulum_stays_on_any_canvas(shape):
    stage = Stage("pendulum", *shape, size=4.0, period=10.0)
    for angle in np.linspace(-stage.widest_swing, stage.widest_swing, 9):
        at = np.array(stage.pivot) + stage.rod * np.array([math.cos(angle), math.sin(angle)])
        for axis in (0, 1):
            least, largest = stage.walls(axis)
            assert least - 1e-9 <= at[axis] <= largest + 1e-9


@pytest.mark.parametrize("height", [16, 1])
def test_a_random_path_stays_inside_and_in_its_band(height):
    frames = 2000
    clips = source("wander", height=height, frames=frames)
    window = np.hanning(frames)
    speeds = []
    for i in range(40):
        truth = clips.truth(i)
        for axis in clips.stage.axes:
            path = truth.positions[0, :, axis]
            least, largest = clips.stage.walls(axis)
            assert least <= path.min()
            assert path.max() <= largest
            power = np.abs(np.fft.rfft((path - path.mean()) * window)) ** 2
            frequency = np.fft.rfftfreq(frames)
            outside = (frequency > 1 / 10 + 0.002) | (frequency < 1 / 30 - 0.002)
            assert power[outside].sum() < 1e-4 * power.sum()
        speeds.append(np.square(truth.velocities[0]).sum(-1).mean())
    # Over many clips, the root mean square of the speed is as `Stage.speed` says.
    expected = clips.stage.path_length(1) / 10.0
    assert np.sqrt(np.mean(speeds)) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("height", [16, 1])
def test_an_object_turns_once_in_mid_clip_and_the_caption_does_not_say_where(height):
    frames, seen, turned_at = 20, collections.defaultdict(set), set()
    clips = source("turn", height=height, frames=frames)
    for i in range(200):
        truth = clips.truth(i)
        changes = np.flatnonzero(np.abs(np.diff(truth.velocities[0], axis=0)).max(-1)) + 1
        assert len(changes) == 1
        turned_at.add(changes[0])
        (mover,) = truth.movers
        first, then = (
            next(d for d, (axis, sign) in DIRECTIONS.items() if velocity[axis] * sign > 0)
            for velocity in truth.velocities[0][[0, -1]]
        )
        np.testing.assert_allclose(np.linalg.norm(truth.velocities[0], axis=-1), mover.speed)
        found = re.fullmatch(r"a (\w+) gliding (\w+), then turning", caption(truth.movers))
        assert found.group(2) == first != then
        seen[first].add(then)
    assert min(turned_at) == frames // 4
    assert max(turned_at) == 3 * frames // 4
    others = {first: len(then) for first, then in seen.items()}
    assert others == dict.fromkeys(DIRECTIONS, 3) if height == 16 else {"left": 1, "right": 1}


@pytest.mark.parametrize("motion", ["fall", "pendulum", "wander", "turn"])
def test_the_speed_setting_changes_time_and_not_the_path(motion):
    """At twice the speed, every second frame of the slow clip is a frame of the fast one."""
    slow, fast = (source(motion, period=period, frames=16) for period in (20.0, 10.0))
    for i in range(20):
        (one,), (other,) = slow.movers(i), fast.movers(i)
        assert other.speed == pytest.approx(2 * one.speed)
        assert other.period == pytest.approx(one.period / 2)
        if motion != "turn":
            many, few = place(slow.stage, one, 16)[0], place(fast.stage, other, 8)[0]
            np.testing.assert_allclose(many[::2], few, atol=1e-9)


@pytest.mark.parametrize("motion", ["fall", "pendulum", "wander", "turn"])
def test_clips_are_a_function_of_seed_split_and_index(motion):
    drawn = {
        (seed, split, i): source(motion, seed=seed, split=split).movers(i)
        for seed in range(2)
        for split in ("train", "val")
        for i in range(20)
    }
    assert len(set(drawn.values())) == len(drawn)
    assert drawn[1, "val", 3] == source(motion, seed=1, split="val").movers(3)


def test_actions_are_named():
    captions = {
        ("fall", 16): r"a \w+ bouncing on the floor, drifting (left|right)",
        ("fall", 1): r"a \w+ falling (left|right)",
        ("pendulum", 16): r"a \w+ swinging left and right",
        ("wander", 1): r"a \w+ wandering",
    }
    for (motion, height), words in captions.items():
        assert re.fullmatch(words, source(motion, height=height)[2]["caption"])


def test_a_period_may_be_shorter_than_the_one_that_is_set():
    # The smallest drop is half of the largest, and takes sqrt(1/2) of its time.
    assert source("fall", period=2.9).stage.periods[0] == pytest.approx(2.9 * math.sqrt(0.5))
    with pytest.raises(UserError, match=r"the period must be above 2\.83 frames"):
        source("fall", period=2.8)
    with pytest.raises(UserError, match="the period must be above 2 frames"):
        source("wander", period=2.0)
