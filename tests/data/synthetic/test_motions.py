"""Drawn objects are where the truth and the caption say."""

import dataclasses
import math
import re

import numpy as np
import pytest
from from_config import make_source

from stunet import configs
from stunet.data.synthetic.drawing import SHAPES, render
from stunet.data.synthetic.motions import MOTIONS, Motions, caption, place
from stunet.data.synthetic.movers import DIRECTIONS, PACES, Mover
from stunet.data.synthetic.stage import Stage
from stunet.data.synthetic.steady_motions import TURNS, Turner
from stunet.errors import UserError

KINDS = [(motion, height) for motion in MOTIONS for height in (16, 2, 1)]
KINDS = [kind for kind in KINDS if kind[0] != "rotate" or kind[1] == 16]
STEADY = [kind for kind in KINDS if kind[0] in ("glide", "cross", "bounce", "rotate")]


def stage(motion="glide", **options) -> Stage:
    return Stage(**{"motion": motion, "height": 16, "width": 16, "speed": 1.3} | options)


def source(
    motion="glide", *, split="train", frames=16, seed=0, length=None, caption_speed=False, **options
) -> Motions:
    settings = dict(seed=seed, length=length, caption_speed=caption_speed)
    return Motions(split, stage(motion, **options), frames, **settings)


def alone(clips: Motions, i: int, o: int) -> np.ndarray:
    """Draws clip i with its object o only, [t, h, w]."""
    truth = clips.truth(i)
    return render(clips.stage, [truth.movers[o].shape], truth.positions[o : o + 1]).astype(float)


def centre(clip: np.ndarray, axis: int) -> np.ndarray:
    """Returns the centre of brightness [t] along an axis of a torus, by the first Fourier mode."""
    profile = clip.sum(axis=2 if axis == 0 else 1)
    extent = profile.shape[1]
    return -np.angle(np.fft.fft(profile, axis=1)[:, 1]) * extent / (2 * np.pi) % extent


def apart(a, b, extent) -> np.ndarray:
    return np.abs((a - b + extent / 2) % extent - extent / 2)


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_drawn_objects_lie_where_the_truth_says(motion, height):
    clips = source(motion, height=height, spread=0.4)
    for i in range(30):
        for o, positions in enumerate(clips.truth(i).positions):
            drawn = alone(clips, i, o)
            for axis in (0, 1):
                extent = (height, 16)[axis]
                if extent < 4:
                    np.testing.assert_array_equal(positions[:, axis], (height - 1) / 2)
                    continue
                found = centre(drawn, axis)
                # A wall cuts off the end of an object's soft edge.
                within = 0.03 if clips.stage.wraps[axis] or motion == "rotate" else 0.07
                assert apart(found, positions[:, axis], extent).max() < within


@pytest.mark.parametrize(("motion", "height"), KINDS)
def test_velocities_are_the_slopes_of_the_positions(motion, height):
    clips = source(motion, height=height, spread=0.4)
    for i in range(30):
        for mover in clips.movers(i):
            # Small steps give the slope at the frame. A bounce lies between two frames.
            times = mover.phase + np.array([0.3, 0.3 + 1e-6]) / mover.period
            at, velocity = MOTIONS[motion].place(clips.stage, mover, times)
            np.testing.assert_allclose((at[1] - at[0]) / 1e-6, velocity[0], atol=1e-3)
            if (motion, height) in STEADY:
                speed = np.hypot(*velocity[0])
                assert speed == pytest.approx(mover.speed / (2 if motion == "rotate" else 1))


@pytest.mark.parametrize(("motion", "height"), STEADY)
def test_objects_are_back_after_a_period_and_not_before(motion, height):
    clips = source(motion, height=height, period=7, frames=15)
    for i in range(20):
        truth = clips.truth(i)
        np.testing.assert_array_equal(truth.periods, 7)
        video = clips[i]["video"].astype(int)
        np.testing.assert_array_equal(video[7:], video[:-7])
        for sooner in range(1, 7):
            assert np.abs(video[sooner:] - video[:-sooner]).max() > 50


def test_captions_say_which_way_the_pixels_move():
    seen = set()
    for i in range(80):
        clips = source("glide", frames=4)
        shape, direction = re.fullmatch(r"a (\w+) gliding (\w+)", clips[i]["caption"]).groups()
        axis, sign = {"left": (1, -1), "right": (1, 1), "up": (0, -1), "down": (0, 1)}[direction]
        position = centre(clips[i]["video"][..., 0].astype(float), axis)
        step = (np.diff(position) + 8) % 16 - 8
        np.testing.assert_allclose(step, sign * 1.3, atol=0.05)
        seen.add((shape, direction))
    assert len(seen) == len(SHAPES) * len(DIRECTIONS)


def test_clockwise_is_clockwise_on_a_screen():
    # From pointing right to pointing down, on a screen.
    arm = Turner("arm", "clockwise", speed=1, period=40, phase=0, across=0)
    positions, _ = place(stage("rotate"), arm, 11)
    assert positions[0, 1] > positions[10, 1] == pytest.approx(7.5)
    assert positions[10, 0] > positions[0, 0] == pytest.approx(7.5)
    assert {source("rotate").movers(i)[0].direction for i in range(20)} == set(TURNS)
    assert re.fullmatch(r"an arm turning (anti)?clockwise", source("rotate")[0]["caption"])


def test_balls_stay_between_the_walls_and_touch_both():
    for height in (16, 1):
        clips = source("bounce", height=height, period=10, frames=1000, spread=0.1)
        for i in range(10):
            video = clips[i]["video"][..., 0]
            axis = 0 if "up and down" in clips[i]["caption"] else 1
            lit = video.max(axis=2 - axis)
            assert min(lit[:, :2].max(), lit[:, -2:].max()) > 60
            # On a torus, an object that passes one wall would appear at the other.
            assert np.minimum(lit[:, 0], lit[:, -1]).max() == 0


@pytest.mark.parametrize("height", [16, 1])
def test_two_objects_of_different_shapes_pass_each_other(height):
    clips = source("cross", height=height, spread=0.3, frames=16)
    for i in range(30):
        first, second = clips.movers(i)
        assert first.shape != second.shape
        truth = clips.truth(i)
        axis = DIRECTIONS[first.direction][0]
        between = apart(*truth.positions[:, :, axis], 16)
        # They come nearer than they move in a frame, so they have met.
        assert between.min() <= 0.5 * (first.speed + second.speed) + 1e-9
        np.testing.assert_array_equal(*truth.positions[:, :, 1 - axis])
        a, b = (np.sign(v[:, axis]) for v in truth.velocities)
        np.testing.assert_array_equal(a, -b)
        drawn = np.maximum(alone(clips, i, 0), alone(clips, i, 1))
        np.testing.assert_array_equal(clips[i]["video"][..., 0], drawn)
    middle = np.full((1, 1, 2), (height - 1) / 2)
    flat = np.stack([render(clips.stage, [shape], middle).ravel() for shape in SHAPES]).astype(
        float
    )
    assert np.max(np.corrcoef(flat) - np.eye(len(flat))) < 0.9


@pytest.mark.parametrize("motion", ["glide", "cross", "bounce", "rotate"])
def test_keyframes_cannot_tell_some_speeds_apart(motion):
    """Forwards and backwards motion look the same at a period of twice the stride."""
    clips = source(motion, period=8, frames=17)
    mover = clips.movers(3)[0]
    length = mover.speed * mover.period
    # The other object starts at the same place and moves the other way.
    back = dataclasses.replace(mover, speed=length / (8 / 7), period=8 / 7)
    forth, back = (
        render(clips.stage, [m.shape], place(clips.stage, m, 17)[0][None]).astype(int)
        for m in (mover, back)
    )
    assert np.abs(forth[1::4] - back[1::4]).max(axis=(1, 2)).min() > 50
    np.testing.assert_allclose(forth[::4], back[::4], atol=1)


def test_speeds_and_both_directions_are_drawn_from_the_whole_range():
    for motion in ("glide", "bounce", "rotate"):
        clips = source(motion, speed=2.0, spread=0.5)
        movers = [clips.movers(i)[0] for i in range(400)]
        speeds = np.array([mover.speed for mover in movers])
        assert clips.stage.speeds == (1.0, 3.0)
        assert 1 <= speeds.min() < 1.05
        assert 2.95 < speeds.max() <= 3
        for direction in {mover.direction for mover in movers}:
            chosen = speeds[[mover.direction == direction for mover in movers]]
            assert chosen.min() < 1.2
            assert chosen.max() > 2.8
        assert np.histogram([m.phase for m in movers], 4, (0, 1))[0].min() > 60


def test_clips_are_a_function_of_seed_split_and_index():
    long = source(frames=40)[7]
    short = source(frames=16, length=8)[7]
    np.testing.assert_array_equal(long["video"][:16], short["video"])
    assert long["caption"] == short["caption"]
    drawn = {
        (seed, split, i): source(seed=seed, split=split).movers(i)
        for seed in range(3)
        for split in ("train", "val")
        for i in range(20)
    }
    assert len(set(drawn.values())) == len(drawn)
    # Another speed setting changes the speed and nothing else.
    slow, fast = source(speed=1.0).movers(5)[0], source(speed=3.0).movers(5)[0]
    assert dataclasses.replace(slow, speed=3.0, period=16 / 3) == fast
    # A resumed run must see the same clips, so this may never change.
    (mover,) = source(seed=1, spread=0.5).movers(123_456)
    assert mover == Mover(
        shape="dot",
        direction="right",
        speed=0.8328012039778014,
        period=19.212268094207133,
        phase=0.41279886408161626,
        across=10.0,
    )


def test_shapes_lengths_and_colours():
    example = source(frames=5, height=20, width=9)[0]
    assert example.keys() == {"video", "caption"}
    assert example["video"].shape == (5, 20, 9, 1)
    assert example["video"].dtype == np.uint8
    colour = Motions("train", stage(), 5, channels=3)[0]["video"]
    assert colour.shape == (5, 16, 16, 3)
    assert (colour == colour[..., :1]).all()
    assert (len(source()), len(source(split="val"))) == (1_000_000, 1_000)
    with pytest.raises(IndexError):
        source(length=3)[3]


def test_octaves_spread_the_logarithm_of_the_speed_evenly():
    clips = source(period=16.0, width=32, height=32, octaves=2)
    periods = np.array([clips.truth(i).periods[0] for i in range(4000)])
    assert clips.stage.speeds == (0.5, 8.0)
    shares = np.histogram(np.log2(periods), [2, 3, 4, 5, 6])[0] / len(periods)
    np.testing.assert_allclose(shares, 0.25, atol=0.03)


def test_captions_tell_the_speed_only_on_request():
    stage_of = dict(width=32, height=32, period=16.0, octaves=2)
    for motion in ("glide", "cross", "rotate"):
        clips = source(motion, **stage_of)
        told = Motions("train", clips.stage, 16, caption_speed=True)
        for i in range(20):
            assert clips[i]["caption"] == caption(clips.movers(i))
            plain = told[i]["caption"]
            for words in ("very slowly", "slowly", "very fast", "fast"):
                plain = plain.replace(f", {words}", "")
            assert plain == clips[i]["caption"]


def test_words_stand_for_equal_parts_of_the_logarithm():
    clips = source(width=32, height=32, period=16.0, octaves=2)
    told = Motions("train", clips.stage, 16, caption_speed=True)
    found = {}
    for i in range(600):
        (mover,) = told.movers(i)
        words = told[i]["caption"].partition(mover.direction)[2].removeprefix(", ")
        found.setdefault(words, []).append(math.log2(mover.speed / 2))
    assert found.keys() == set(PACES)
    edges = np.linspace(-2, 2, 6)
    for words, least, largest in zip(PACES, edges[:-1], edges[1:], strict=True):
        assert least <= min(found[words]) < least + 0.1
        assert largest - 0.1 < max(found[words]) <= largest


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"motion": "glid"}, "'glid'; did you mean 'glide'"),
        ({"split": "test"}, "'test'.*train, val"),
        ({"width": 7}, "4 pixels on a canvas 7"),
        ({"size": 1}, "at least 2"),
        ({"motion": "rotate", "height": 1}, "8 rows.*1x16"),
        ({"speed": 8}, r"0\.5 of a turn per frame.*below 8 pixels"),
        ({"speed": 7, "spread": 0.2}, r"below 6\.67 pixels"),
        ({"period": 2}, "the period must be above 2 frames"),
        ({"motion": "bounce", "speed": 11}, "below 11 pixels"),
        ({"spread": 1.0}, "stand still"),
        ({"spread": 0.5, "octaves": 1}, "by 0.5 and by 1 octaves; set one"),
        ({"period": 7, "octaves": 2}, "the period must be above 8 frames"),
        ({"frames": 0}, "frames"),
        ({"seed": -1}, "seed"),
        ({"caption_speed": True}, "captions are to say how fast.*spread speeds by octaves"),
    ],
)
def test_values_out_of_range_are_refused_with_a_reason(options, message):
    with pytest.raises(UserError, match=message):
        source(**options)


def test_a_config_makes_the_source_it_names():
    data = {"source": "motions", "motion": "bounce", "height": 1, "width": 32, "frames": 8}
    raw = {
        "data": data | {"period": 6.0, "speed_spread": 0.25, "object_size": 3.0, "channels": 1},
        "model": {"channel_multipliers": (1,), "attention_levels": (False,)}
        | {"temporal_factors": (1,)},
        "seed": 4,
    }
    made = make_source(configs.resolve(raw), "val")
    spread = raw | {"data": raw["data"] | {"speed_spread": 0.0, "speed_octaves": 1.5}}
    octaves = make_source(configs.resolve(spread), "val").stage
    assert octaves == Stage("bounce", 1, 32, size=3.0, period=6.0, octaves=1.5)
    assert made.stage == Stage("bounce", 1, 32, size=3.0, period=6.0, spread=0.25)
    spread["data"]["caption_speed"] = True
    told = make_source(configs.resolve(spread), "val")
    assert told[5]["caption"] == caption(told.movers(5), with_speed=True)
    expected = Motions("val", made.stage, 8, seed=4)[5]
    example = make_source(configs.resolve(raw), "val")[5]
    np.testing.assert_array_equal(example["video"], expected["video"])
    assert example["text"].shape == (64, 64)
    assert math.isclose(made.stage.speeds[0], 2 * 28 / 6 * 0.75)
