"""Clips sub-sampled in time or cut from longer ones consist of the right frames."""

import json

import numpy as np
import pytest
import tiny
from from_config import make_source
from read_records import ClipWriter

from stunet.data.synthetic.moving_digits import MovingDigits
from stunet.errors import UserError

TEXT_SHAPE = (24, 16)  # As in the tiny config.


def source(split="train", **data):
    return make_source(tiny.config(data=data), split)


@pytest.fixture
def records(tmp_path):
    """Writes five clips of 16 frames. All pixels of frame t of clip i are 20 i + t."""
    writer, rng = ClipWriter(tmp_path, "clips", shard_bytes=10**6), np.random.default_rng(0)
    for i in range(5):
        frames = np.arange(16, dtype=np.uint8)[:, None, None, None] + np.uint8(20 * i)
        video = np.broadcast_to(frames, (16, 8, 8, 1))
        text = rng.normal(size=TEXT_SHAPE).astype(np.float32)
        example = {"video": video, "caption": f"clip {i}", "source": f"x#{i}"}
        writer.write("train", example | {"text": text, "text_mask": np.ones(TEXT_SHAPE[:1], bool)})
    writer.close((16, 8, 8, 1), TEXT_SHAPE)
    (tmp_path / "clips.json").write_text(json.dumps({"fps": 8}))
    return dict(source="clips", path=str(tmp_path), fps=8.0)


def frame_values(clip):
    return clip["video"][:, 0, 0, 0].tolist()


@pytest.mark.parametrize("stride", [1, 3, 5])
def test_a_stride_of_n_takes_every_nth_frame_of_the_source(stride):
    whole, strided = source(frames=16), source(frames=15 // stride + 1, stride=stride)
    assert len(strided) == len(whole)
    for i in (0, 1, 77):
        np.testing.assert_array_equal(strided[i]["video"], whole[i]["video"][::stride])
        assert strided[i]["caption"] == whole[i]["caption"]
        np.testing.assert_array_equal(strided[i]["text"], whole[i]["text"])


def test_a_strided_clip_keeps_the_truth_of_the_source():
    digits = MovingDigits("train", 16, 8, 8)
    strided = source(frames=4, stride=5, num_clips=3)
    assert len(strided) == 3
    assert [strided.truth(i) for i in range(3)] == [digits.truth(i) for i in range(3)]


def test_pieces_share_one_frame_and_cover_the_clip():
    whole, cut = source(frames=16, num_clips=4), source(frames=6, cut_from=16, num_clips=4)
    assert len(cut) == 3 * len(whole)
    for i in range(4):
        pieces = [cut[3 * i + j]["video"] for j in range(3)]
        joined = np.concatenate([pieces[0], *(piece[1:] for piece in pieces[1:])])
        np.testing.assert_array_equal(joined, whole[i]["video"])
        assert cut[3 * i + 2]["caption"] == whole[i]["caption"]
    with pytest.raises(IndexError):
        cut[12]


def test_records_are_strided_and_cut(records):
    clips = source(**records, frames=4, stride=5)
    assert len(clips) == 5
    assert frame_values(clips[3]) == [60, 65, 70, 75]
    assert clips[3]["caption"] == "clip 3"
    clips = source(**records, frames=3, stride=2, cut_from=16)
    assert len(clips) == 15
    assert [frame_values(clips[i]) for i in (3, 4, 5)] == [[20, 22, 24], [24, 26, 28], [28, 30, 32]]


def test_records_of_another_length_are_refused_with_the_requested_frames(records):
    with pytest.raises(UserError, match=r"clips of 16 frames.* not 19 .*stride 6 spans 19 frames"):
        source(**records, frames=4, stride=6)
    with pytest.raises(UserError, match=r"clips of 16 frames.* not 31 .*cut_from.* is 31"):
        source(**records, frames=6, cut_from=31)
