"""Shots are measured, and dropped for what a person would drop them for."""

import dataclasses
import hashlib

import numpy as np
import pytest
from PIL import Image
from videos import make_video, noise, scene

from stunet.data.shots.layout import Spec, read_index, read_spec, shard_file
from stunet.data.shots.records import unpack
from stunet.data.shots.shards import Shards
from stunet.data.shots.source import ShotClips
from stunet.data.spec import ClipSpec, TextSpec
from stunet.errors import UserError
from stunet.prepare import shards
from stunet.prepare.bars import find_window
from stunet.prepare.copies import earlier
from stunet.prepare.filters import REASONS, Filters
from stunet.prepare.looks import measure, seen
from stunet.prepare.run import prepare
from stunet.prepare.stretches import WHOLE

SPEC = Spec(side=64, fps=10.0, min_seconds=0.5, cut_threshold=0.0)
ONE = {"progress": False, "workers": 1}
ALL = Filters(0.02, 16, 2, 33, 0.2)


def smooth(seed, size=256):
    """Returns a random smooth picture, uint8 [size, size, 3]."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8))
    return np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))


def moving(seed, frames=20, speed=1.0, height=96, width=128):
    """Returns a window that moves over a smooth picture, by `speed` pixels to the right a frame."""
    picture = smooth(seed)
    lefts = [round(i * speed) for i in range(frames)]
    return np.stack([picture[:height, left : left + width] for left in lefts])


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Returns a folder in which each filter finds one video."""
    folder = tmp_path_factory.mktemp("filters") / "videos"
    make_video(folder / "a.mp4", moving(1))
    make_video(folder / "b_still.mp4", moving(2, speed=0))
    make_video(folder / "c_dark.mp4", moving(3) // 16)
    make_video(folder / "d_flat.mp4", 120 + moving(4) // 32)
    make_video(folder / "e_small.mp4", moving(5, height=32, width=48))
    make_video(folder / "f_copy.mp4", moving(1)[:, ::2, ::2], codec="mpeg4")
    make_video(folder / "g.mp4", moving(6, speed=3))
    (folder / "h_broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:3000])
    return folder


def sources(output):
    """Returns the path of the video of each shot that is kept, and the shots' pictures."""
    spec, index = read_spec(output), read_index(output)
    reader = Shards([shard_file(output, part) for part in range(len(index.records))])
    found, number = [], 0
    for shard, count in enumerate(index.records):
        for record in range(count):
            shot = unpack(reader.read(shard, record))
            frames = spec.make_codec().decode(
                shot.packets, range(len(shot.packets)), shot.height, shot.width
            )
            pictures = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])
            if index.frames[number]:
                found.append((shot.source, pictures))
            number += 1
    return found


def test_each_filter_drops_and_counts_its_video_and_decodes_nothing(videos, tmp_path, monkeypatch):
    whole = prepare(videos, tmp_path / "out", SPEC, **ONE)
    assert (whole.shots, whole.dropped, whole.skipped) == (7, [], 1)
    before = {file: file.read_bytes() for file in tmp_path.glob("out/shards/*")}
    monkeypatch.setattr(shards, "encode_shots", None)
    expected = ("b_still.mp4", "c_dark.mp4", "d_flat.mp4", "e_small.mp4", "f_copy.mp4")
    for name, video, (reason, _) in zip(vars(ALL), expected, REASONS.values(), strict=True):
        filters = Filters(**{name: getattr(ALL, name)})
        summary = prepare(videos, tmp_path / "out", SPEC, filters=filters, **ONE)
        (dropped,) = summary.dropped
        assert (dropped.reason, len(dropped.numbers), dropped.seconds) == (reason, 1, 2.0)
        assert dropped.example == f"{video} at 0.0 s"
        assert f"dropped 1 shot of 2.0 s ({reason}): {video} at 0.0 s" in str(summary)
        assert (summary.shots, summary.seconds) == (6, 12.0)
        assert video not in [source for source, _ in sources(tmp_path / "out")]
    assert {file: file.read_bytes() for file in tmp_path.glob("out/shards/*")} == before
    summary = prepare(videos, tmp_path / "out", SPEC, filters=ALL, **ONE)
    assert [d.example.split()[0] for d in summary.dropped] == list(expected)
    kept = read_index(tmp_path / "out").frames
    assert [source for source, _ in sources(tmp_path / "out")] == ["a.mp4", "g.mp4"]
    clip, text = ClipSpec(2, 32, 32, 3, 10.0), TextSpec("bytes", 8, 8)
    assert len(ShotClips(tmp_path / "out", "train", clip, text)) <= kept.sum() // 2 == 20
    assert prepare(videos, tmp_path / "out", SPEC, **ONE).shots == 7


def test_the_bytes_with_all_filters_do_not_depend_on_the_workers(videos, tmp_path):
    spec = dataclasses.replace(SPEC, crop_bars=True)
    for workers in (1, 3):
        out = tmp_path / f"out{workers}"
        prepare(videos, out, spec, filters=ALL, progress=False, workers=workers)
    digests = [
        {
            file.relative_to(out).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in sorted(out.rglob("*"))
            if file.is_file()
        }
        for out in (tmp_path / "out1", tmp_path / "out3")
    ]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 8 * 2 + 3


def test_videos_that_are_added_drop_none_that_was_kept(videos, tmp_path):
    make_video(tmp_path / "in" / "m.mp4", moving(1))
    prepare(tmp_path / "in", tmp_path / "out", SPEC, filters=ALL, **ONE)
    before = read_index(tmp_path / "out")
    make_video(tmp_path / "in" / "a.mp4", moving(1)[:, ::2, ::2])
    summary = prepare(tmp_path / "in", tmp_path / "out", SPEC, filters=ALL, **ONE)
    assert summary.dropped[0].example.startswith("a.mp4")
    after = read_index(tmp_path / "out")
    for name in ("frames", "held_out"):
        np.testing.assert_array_equal(getattr(after, name)[:1], getattr(before, name))


def test_a_set_of_which_nothing_is_left_stays_and_says_so(videos, tmp_path):
    with pytest.raises(UserError, match=r"is left: dropped 7 shots .*too little motion"):
        prepare(videos, tmp_path / "out", SPEC, filters=Filters(min_motion=1e6), **ONE)
    assert len(list(tmp_path.glob("out/shards/*.json"))) == 8
    assert prepare(videos, tmp_path / "out", SPEC, **ONE).shots == 7


@pytest.mark.parametrize(
    ("filters", "message"),
    [
        (Filters(min_motion=-1), "min_motion must be at least 0 and finite"),
        (Filters(min_brightness=256), "min_brightness must be at least 0 and at most 255"),
        (Filters(min_difference=10), "min_difference must be at least 0 and at most 1"),
        (Filters(min_size=65), "min_size is 65, and the shorter side of shots has at most 64"),
    ],
)
def test_thresholds_out_of_range_are_refused(videos, tmp_path, filters, message):
    with pytest.raises(UserError, match=message):
        prepare(videos, tmp_path / "out", SPEC, filters=filters, **ONE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("contrast", [1.0, 0.3])
@pytest.mark.parametrize("size", [64, 128, 256])
@pytest.mark.parametrize("direction", [(0, 1), (1, 0), (0.7, -0.7)])
def test_motion_is_that_of_the_content(contrast, size, direction):
    shorter_sides, fps, frames = 0.25, 10, 20
    picture, step = smooth(7, 2 * size), shorter_sides * size / fps
    pictures = []
    for i in range(frames):
        top, left = (round(size / 2 + step * d * (i - frames / 2)) for d in direction)
        pictures.append(picture[top : top + size, left : left + size] * contrast)
    entries = ((p.astype(np.uint8), 1) for p in pictures)
    looks = [(entry.look, True) for entry in seen(entries)]
    assert measure(looks, fps).motion == pytest.approx(shorter_sides, rel=0.5)
    # Each picture shown twice moves half as fast.
    twice = [(look, new) for look, _ in looks for new in (True, False)]
    assert measure(twice, fps).motion == pytest.approx(measure(looks, fps).motion / 2, rel=0.1)


def boxed(pictures, rows, columns):
    return np.pad(pictures, ((0, 0), (rows, rows), (columns, columns), (0, 0)))


@pytest.mark.parametrize(("rows", "columns"), [(24, 0), (0, 33), (14, 22)])
def test_bars_are_cut_off_and_change_nothing_else(tmp_path, rows, columns):
    pictures = moving(8, 30)
    make_video(tmp_path / "plain" / "a.mp4", pictures)
    make_video(tmp_path / "boxed" / "a.mp4", boxed(pictures, rows, columns + columns % 2))
    spec = dataclasses.replace(SPEC, crop_bars=True)
    summaries, shots = [], []
    for name in ("plain", "boxed"):
        summaries.append(prepare(tmp_path / name, tmp_path / f"{name}.out", spec, **ONE))
        shots += sources(tmp_path / f"{name}.out")
    assert [summary.cropped for summary in summaries] == [0, 1]
    assert "black bars were cut off from 1 video" in str(summaries[1])
    (_, plain), (_, cut) = shots
    assert plain.shape == cut.shape == (30, 64, 86, 3)
    error = np.mean((plain.astype(float) - cut) ** 2)
    assert 10 * np.log10(255**2 / error) > 33
    hashes = [
        shards.read_manifest(tmp_path / f"{name}.out", 0).shots[0].hash
        for name in ("plain", "boxed")
    ]
    differing = bin(int(hashes[0], 16) ^ int(hashes[1], 16)).count("1")
    assert differing < 0.1 * 256


def test_dark_content_is_no_bar(tmp_path):
    fading = moving(9, 30) * np.linspace(0, 1, 30)[:, None, None, None]
    black = moving(9, 30) * 0
    aside = boxed(moving(9, 30), 0, 0)
    aside[:, :40] = 0  # ground that is dark on one side alone
    late = boxed(moving(9, 30), 24, 0)
    late[20:, 10:14, 20:60] = 200  # something is shown in the bar later on
    for name, pictures in {"fading": fading, "black": black, "aside": aside, "late": late}.items():
        path = tmp_path / f"{name}.mkv"
        make_video(path, pictures.astype(np.uint8), codec="ffv1")
        assert find_window(path, WHOLE) is None, name


def test_copies_are_found_by_hash_and_only_in_other_videos():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 256, (600, 32), np.uint8)
    originals = rng.integers(0, 300, 100)
    flips = rng.random((100, 256)) < 0.03
    hashes[500:] = hashes[originals] ^ np.packbits(flips, axis=1)
    videos = np.arange(600)
    videos[500] = videos[originals[0]]
    found = earlier(hashes, videos, 25)
    assert (found[:500] == -1).all()
    assert found[500] == -1
    hit = found[501:] >= 0
    assert hit.mean() > 0.97
    # The earlier shot is the original, or an earlier copy of it.
    original = np.concatenate([np.arange(500), originals])
    np.testing.assert_array_equal(original[found[501:][hit]], originals[1:][hit])
    np.testing.assert_array_equal(earlier(hashes[:550], videos[:550], 25), found[:550])
    assert (earlier(hashes, videos, 0) == -1).all()


def test_other_videos_are_no_copies(tmp_path):
    for seed in range(6):
        make_video(tmp_path / "in" / f"{seed}.mp4", scene(seed, 20))
        make_video(tmp_path / "in" / f"noise{seed}.mp4", noise(20, seed, size=64))
    filters = Filters(min_difference=0.2)
    assert prepare(tmp_path / "in", tmp_path / "out", SPEC, filters=filters, **ONE).shots == 12
