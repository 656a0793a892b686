"""Clips are the right frames of the right shots; what is random depends on the position alone."""

import itertools
import shutil

import numpy as np
import pytest
from videos import make_video

from stunet.data import pipeline
from stunet.data.draws import random_words
from stunet.data.shots import layout
from stunet.data.shots.source import ShotClips
from stunet.data.sources import Dataset, make_source
from stunet.data.spec import ClipSpec, TextSpec
from stunet.errors import UserError
from stunet.nn.text import text_encoder
from stunet.prepare.run import prepare

FPS = 12.0
TEXT = TextSpec("bytes", 8, 16)


def counting(frames, height=32, width=48):
    """Returns pictures whose brightness tells their number, with a dark left edge."""
    pictures = np.empty((frames, height, width, 3), np.uint8)
    pictures[:] = (40 + 2 * np.arange(frames))[:, None, None, None]
    pictures[:, :, : width // 4] //= 2
    return pictures


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """A raw set of two shots, of 96 and 60 frames, of which the last 24 of each are held out."""
    place = tmp_path_factory.mktemp("source")
    make_video(place / "videos" / "a.mkv", counting(96), 12, codec="ffv1")
    make_video(place / "videos" / "b.mkv", counting(60), 12, codec="ffv1")
    (place / "videos" / "a.txt").write_text("rising")
    spec = layout.Spec(fps=FPS, codec="raw", quality=0, group=1)
    options = dict(val_fraction=0.3, val_seconds=2, progress=False, workers=1)
    prepare(place / "videos", place / "shots", spec, **options)
    return place / "shots"


def opened(shots, split="train", frames=8, fps=FPS, height=32, width=48, channels=3, **options):
    clip = ClipSpec(frames, height, width, channels, fps)
    return ShotClips(shots, split, clip, TEXT, **options)


def numbers(video):
    """Returns the number of each picture that a clip shows."""
    return np.rint((video[:, :, -1].mean((1, 2)) - 40) / 2).astype(int).tolist()


def spread(count):
    """Returns evenly spaced words of 64 bits."""
    return [i * 2**64 // count for i in range(count)]


def test_clips_follow_each_other_through_the_shots(shots):
    source = opened(shots)
    assert len(source) == 72 // 8 + 36 // 8
    seen = [numbers(source[i]["video"]) for i in range(len(source))]
    assert seen[:9] == np.arange(72).reshape(9, 8).tolist()
    assert seen[9:] == np.arange(32).reshape(4, 8).tolist()
    held = opened(shots, "val")
    assert [numbers(held[i]["video"])[0] for i in range(len(held))] == [72, 80, 88, 36, 44, 52]
    assert (source[0]["caption"], source[9]["caption"]) == ("rising", "")


def test_a_lower_rate_and_a_smaller_size_need_no_new_preparing(shots):
    clip = opened(shots, frames=5, fps=4.0, height=8, width=12)[0]["video"]
    assert clip.shape == (5, 8, 12, 3)
    assert numbers(clip) == [0, 3, 6, 9, 12]
    grey = opened(shots, channels=1)[0]["video"]
    assert grey.shape == (8, 32, 48, 1)
    assert numbers(grey) == list(range(8))


def test_drawn_clips_lie_anywhere_in_their_shot_and_never_in_what_is_held_out(shots):
    source, words = opened(shots), spread(100)
    begins = [
        {numbers(source.draw(slot, [word, 0, 0, 0])["video"])[0] for word in words}
        for slot in (0, 8, 9)
    ]
    assert begins[0] == begins[1] == set(range(72 - 7))
    assert begins[2] == set(range(36 - 7))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    """A set with a wide video of 48 frames, and a tall one of 36, of which nothing is held out."""
    place = tmp_path_factory.mktemp("shapes")
    make_video(place / "videos" / "tall.mkv", counting(36, 48, 32), 12, codec="ffv1")
    make_video(place / "videos" / "wide.mkv", counting(48, 32, 48), 12, codec="ffv1")
    spec = layout.Spec(fps=FPS, codec="raw", quality=0, group=1)
    prepare(place / "videos", place / "shots", spec, val_fraction=0.0, progress=False, workers=1)
    return place / "shots"


def test_each_shot_goes_to_the_shapes_for_which_it_loses_little(shapes):
    def clips(height, width, max_crop):
        return len(opened(shapes, height=height, width=width, max_crop=max_crop))

    tall, wide = 36 // 8, 48 // 8
    assert clips(24, 16, 0) == tall
    assert clips(16, 24, 0) == wide
    # A square keeps two thirds of either, and the other shape 4/9.
    assert clips(16, 16, 0.34) == clips(16, 24, 0.6) == clips(16, 24, 1) == tall + wide
    assert clips(16, 24, 0.5) == wide
    sentence = "no shot of .* fits clips of 16x16 pixels: the nearest would lose 33% of its picture"
    with pytest.raises(UserError, match=f"{sentence}, and data.max_crop is 0.3; raise it"):
        clips(16, 16, 0.3)


def test_crop_and_mirroring_are_drawn(shots):
    words = [[0, 0, word, side] for word in spread(20) for side in range(2)]

    def edges(**options):
        """Returns the columns at which the dark edge ends in each of several drawn clips."""
        source = opened(shots, height=16, width=16, **options)
        clips = [source.draw(0, word)["video"][0, 0, :, 0].astype(int) for word in words]
        return {tuple((clip > clip.max() * 0.8).tolist()) for clip in clips}

    assert len(edges()) == 1
    assert len(edges(crop="random")) == 7  # 24 columns for 16, and an edge of 6
    assert len(edges(crop="random", mirror=True)) == 13
    centre = opened(shots, height=16, width=16)[0]["video"]
    np.testing.assert_array_equal(
        opened(shots, height=16, width=16, crop="random", mirror=True)[0]["video"], centre
    )


def test_batches_depend_on_seed_and_position_alone(shots):
    source = opened(shots, height=16, width=16, crop="random", mirror=True)
    streams = [pipeline.Stream(source, seed=5)]

    def videos(count, begin=0, rows=None, threads=3):
        batches = pipeline.TrainBatches([pipeline.Feed(streams, 4, rows)], threads)
        batches.set_state({"global_next_index": begin})
        return np.stack([b["video"] for b in itertools.islice(batches, count)])

    whole = videos(8)
    np.testing.assert_array_equal(videos(5, begin=12, threads=0), whole[3:])
    for process in range(2):
        rows = range(process, 4, 2)
        np.testing.assert_array_equal(videos(8, rows=rows), whole[:, process::2])
    assert len(np.unique(whole.reshape(32, -1), axis=0)) > 26  # of 13 slots, in 3 epochs


def test_num_clips_fixes_the_clips_and_the_stride_keeps_the_draws(shots):
    data = dict(source="clips", text=TEXT, seed=0)
    options = dict(path=str(shots), crop="centre", mirror=False)
    keyframes = ClipSpec(3, 16, 16, 3, FPS, stride=5)
    source = make_source(Dataset(clip=keyframes, options=options, **data), "train")
    drawn = {tuple(numbers(source.draw(0, random_words(0, i))["video"])) for i in range(50)}
    assert len(drawn) > 10
    assert {c - b for a, b, c in drawn} == {b - a for a, b, c in drawn} == {5}
    fixed = make_source(Dataset(clip=keyframes, options=options, num_clips=2, **data), "train")
    batches = pipeline.TrainBatches([pipeline.Feed([pipeline.Stream(fixed, seed=0)], 2)])
    first, second = (np.sort(next(batches)["video"].ravel()) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_captions_without_stored_states_are_encoded(shots):
    example = opened(shots)[0]
    states, mask = text_encoder("bytes", 8, 16)(["rising"])
    np.testing.assert_array_equal(example["text"], states[0])
    np.testing.assert_array_equal(example["text_mask"], mask[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"frames": 80}, "no clip of 6.67 s in the split 'train', whose longest stretch has 6.00"),
        ({"frames": 30, "split": "val"}, "a larger --val-seconds"),
        ({"fps": 24.0}, "have 12 frames per second, and data.fps is 24"),
        ({"split": "test"}, "has no split 'test'"),
    ],
)
def test_clips_that_the_shots_do_not_hold_are_refused(shots, options, message):
    with pytest.raises(UserError, match=message):
        opened(shots, **options)


def test_damage_is_said_by_file_and_record(shots, tmp_path):
    copy = shutil.copytree(shots, tmp_path / "copy")
    shard = layout.shard_file(copy, 0)
    content = shard.read_bytes()
    shard.write_bytes(content[: len(content) // 2] + b"\0\1\2" + content[len(content) // 2 + 3 :])
    with pytest.raises(
        UserError,
        match=r"record 0 of .*000000.array_record is damaged \(.*\); copy the file again, or "
        "remove it and run the same `stunet prepare` again",
    ):
        opened(copy)[0]
    shard.write_bytes(content[:-1])
    with pytest.raises(UserError, match=r"000000.array_record is damaged or cut short"):
        opened(copy)
    shard.unlink()
    with pytest.raises(UserError, match=r"000000.array_record is missing"):
        opened(copy)
    (copy / layout.INDEX_FILE).write_bytes(b"no index")
    with pytest.raises(UserError, match=r"index.safetensors is damaged"):
        opened(copy)
    (copy / layout.INDEX_FILE).unlink()
    with pytest.raises(UserError, match="is not complete"):
        opened(copy)
    (copy / layout.SPEC_FILE).write_text('{"format": 99}')
    with pytest.raises(UserError, match="has the format 99"):
        opened(copy)
