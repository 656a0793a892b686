"""A folder of videos becomes a complete data set or none. No clip is lost, doubled or misnamed."""

import errno
import json
import os
import pathlib
import pickle
import shutil

import av
import numpy as np
import pytest
import tensorflow_datasets as tfds
from from_config import make_source

from stunet import configs, files
from stunet.data.clips import ClipRecords
from stunet.data.spec import TextSpec, make_encoder
from stunet.errors import UserError
from stunet.nn.text import text_encoder
from stunet.prepare import cutting, geometry, run, writing
from stunet.prepare.decode import decode_clips
from stunet.prepare.finding import FoundVideos, find_videos
from stunet.prepare.run import prepare
from stunet.train.parts import make_parts, with_fingerprint

CASES = pathlib.Path(__file__).parent / "cases"
SIZE = {"frames": 4, "fps": 10, "height": 16, "width": 16}
QUIET = {"progress": False, "workers": 2}


def make_video(path, frames, seed=0, size=32):
    """Writes smooth noise, so that no two frames are the same."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height = stream.width = size
        stream.pix_fmt = "yuv420p"
        for _ in range(frames):
            array = np.kron(
                rng.integers(0, 256, (4, 4, 3)), np.ones((size // 4, size // 4, 1))
            ).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    return path


def encode_text(captions):
    """Returns states and a mask that depend on nothing but the lengths of the captions."""
    lengths = [len(caption) for caption in captions]
    states = np.stack([np.full((6, 8), n, np.float32) for n in lengths])
    return states, np.stack([np.arange(6) < n for n in lengths])


encode_text.is_cut = lambda caption: len(caption) > 6


@pytest.fixture
def folder(tmp_path):
    videos = tmp_path / "videos"
    make_video(videos / "a.mp4", 50, seed=1)  # 12 clips and 2 frames
    make_video(videos / "deep" / "b.mp4", 41, seed=2)  # 10 clips and 1 frame
    make_video(videos / "c.mp4", 3, seed=3)  # no clip
    lines = [{"file": "a.mp4", "caption": "first"}, {"file": "deep/b.mp4", "caption": "second"}]
    (videos / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return videos


def test_round_trip_gives_every_clip_once(folder, tmp_path):
    summary = prepare(folder, tmp_path / "out", **SIZE, encode_text=encode_text, **QUIET)
    expected = {}
    for name in ("a.mp4", "deep/b.mp4"):
        for i, clip in enumerate(decode_clips(folder / name, 4, 10, 16, 16)):
            expected[f"{name}#{i}"] = clip
    builder = tfds.builder_from_directory(tmp_path / "out")
    found = {}
    for split in ("train", "val"):
        records = ClipRecords(tmp_path / "out", split)
        stored = builder.as_data_source(split)
        assert len(records) == len(stored) == builder.info.splits[split].num_examples
        for i, by_tfds in enumerate(stored):
            example, source = records[i], by_tfds["source"].decode()
            assert source not in found
            found[source] = split
            np.testing.assert_array_equal(example["video"], expected[source])
            np.testing.assert_array_equal(by_tfds["video"], expected[source])
            assert example["caption"] == ("first" if source.startswith("a") else "second")
            states, mask = encode_text([example["caption"]])
            np.testing.assert_array_equal(example["text"], states[0])
            np.testing.assert_array_equal(example["text_mask"], mask[0])
    assert found.keys() == expected.keys()
    held_out = {source for source, split in found.items() if split == "val"}
    assert held_out == {"a.mp4#10", "a.mp4#11", "deep/b.mp4#9"}  # the ends of the videos
    assert (summary.train_clips, summary.val_clips, summary.videos) == (19, 3, 2)
    assert (summary.captioned, summary.dropped_frames, summary.too_short) == (2, 6, ["c.mp4"])
    assert summary.folder_notes == ["1 video(s) have no caption: c.mp4"]
    assert "19 clips" in str(summary)
    assert "c.mp4" in str(summary)
    # The files of raw clips are gone, that of the short video too.
    left = {path.name.partition(".")[0] for path in (tmp_path / "out").iterdir()}
    assert left == {"clips-train", "clips-val", "clips", "videos", "dataset_info", "features"}


def test_stored_states_are_those_of_the_encoder_and_another_encoder_is_refused(folder, tmp_path):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    tiny_t5 = pytest.importorskip("tiny_t5")
    here, there, other = (tmp_path / name for name in ("t5", "copy", "other"))
    tiny_t5.save(here)
    tiny_t5.save(other, seed=1)
    shutil.copytree(here, there)
    encoder = text_encoder(f"t5:{here}", 16)
    prepare(
        folder,
        tmp_path / "out",
        **SIZE,
        encode_text=encoder,
        text_encoder=f"t5:{here}",
        text_fingerprint=encoder.fingerprint,
        **QUIET,
    )

    def config(place):
        data = {"source": "clips", "path": str(tmp_path / "out"), "channels": 3}
        text = {"encoder": f"t5:{place}", "max_length": 16, "dim": tiny_t5.DIM}
        model = {"temporal_factors": (1, 1, 1, 1)}
        return configs.resolve({"data": data | SIZE, "text": text, "model": model})

    # The encoder may have moved. While states are read from records, it need not exist at all.
    for place in (there, tmp_path / "nowhere"):
        noted = with_fingerprint(config(place))
        assert noted.text.fingerprint == encoder.fingerprint
        example = make_source(noted, "val")[0]
    states, mask = make_encoder(make_parts(with_fingerprint(config(there))).denoiser.text)(
        [example["caption"]]
    )
    np.testing.assert_allclose(example["text"], states[0], atol=1e-5)
    np.testing.assert_array_equal(example["text_mask"], mask[0])
    text = noted.text
    with pytest.raises(UserError, match="not the one used in training"):
        make_encoder(TextSpec(f"t5:{other}", 16, text.dim, text.fingerprint))
    with pytest.raises(UserError, match="other weights or another tokenizer"):
        ClipRecords(tmp_path / "out", "val", text_encoder="t5:x", text_fingerprint="12ab")
    with pytest.raises(UserError, match="not 'minilm'"):
        ClipRecords(tmp_path / "out", "val", text_encoder="minilm")


def test_workers_and_shard_size_do_not_change_what_is_read(folder, tmp_path):
    prepare(folder, tmp_path / "one", **SIZE, progress=False, workers=1)
    prepare(folder, tmp_path / "many", **SIZE, progress=False, workers=3, shard_bytes=10_000)
    assert len(list((tmp_path / "many").glob("*train*"))) > 2
    one, many = (ClipRecords(tmp_path / name, "train") for name in ("one", "many"))
    assert len(one) == len(many)
    for i in range(len(one)):
        np.testing.assert_array_equal(one[i]["video"], many[i]["video"])


@pytest.mark.parametrize("lengths", [[8], [4, 4], [4, 4, 4, 4], [4, 400], [40] * 3])
@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.5])
def test_held_out_share_is_right_to_one_clip(tmp_path, monkeypatch, lengths, fraction):
    videos = {f"{i}.mp4": length // 4 for i, length in enumerate(lengths)}
    monkeypatch.setattr(run, "find_videos", lambda _: FoundVideos(dict.fromkeys(videos, "")))
    monkeypatch.setattr(
        cutting,
        "decode_clips",
        lambda path, *_: _FakeClips(videos[path.name]),
    )
    summary = prepare(tmp_path, tmp_path / "out", **SIZE, val_fraction=fraction, **QUIET)
    clips = sum(videos.values())
    assert summary.train_clips + summary.val_clips == clips
    assert summary.train_clips >= 1
    assert summary.val_clips >= 1
    assert abs(summary.val_clips - fraction * clips) <= 1


class _FakeClips:
    def __init__(self, clips):
        self.clips, self.dropped_frames = clips, 0

    def __iter__(self):
        return iter([np.zeros((4, 16, 16, 3), np.uint8)] * self.clips)

    def notes(self):
        return []


def test_nothing_is_held_out_on_request_or_from_a_single_clip(tmp_path):
    make_video(tmp_path / "in" / "a.mp4", 4)
    summary = prepare(tmp_path / "in", tmp_path / "out", **SIZE, **QUIET)
    assert (summary.train_clips, summary.val_clips) == (1, 0)
    make_video(tmp_path / "in" / "b.mp4", 40)
    summary = prepare(tmp_path / "in", tmp_path / "more", **SIZE, val_fraction=0, **QUIET)
    assert (summary.train_clips, summary.val_clips) == (11, 0)


def test_corrupt_video_is_skipped_and_named(folder, tmp_path):
    content = (folder / "a.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(content[: len(content) // 2])
    (folder / "z.avi").write_text("no video at all")
    summary = prepare(folder, tmp_path / "out", **SIZE, **QUIET)
    assert summary.skipped.keys() == {"broken.mp4", "z.avi"}
    assert "broken.mp4" in str(summary)
    assert summary.train_clips + summary.val_clips == 22
    noted = json.loads((tmp_path / "out" / "videos.json").read_text())
    assert noted["skipped"].keys() == {"broken.mp4", "z.avi"}
    assert noted["too_short"] == ["c.mp4"]
    assert [(v["file"], v["train"] + v["val"]) for v in noted["videos"]] == [
        ("a.mp4", 12),
        ("deep/b.mp4", 10),
    ]


def test_opening_records_does_not_load_the_list_of_videos(folder, tmp_path):
    out = tmp_path / "out"
    prepare(folder, out, **SIZE, **QUIET)
    assert "b.mp4" not in (out / "clips.json").read_text()
    # Earlier versions wrote the list into clips.json.
    former = json.loads((out / "videos.json").read_text())
    former["videos"] *= 1000
    former |= json.loads((out / "clips.json").read_text())
    (out / "clips.json").write_text(json.dumps(former))
    (out / "videos.json").unlink()
    records = ClipRecords(out, "val")
    assert (len(records), records.fps) == (3, SIZE["fps"])
    assert len(pickle.dumps(records)) < 10_000


def test_file_names_that_are_not_utf8_are_escaped(folder, tmp_path):
    odd = [os.fsdecode(name) for name in (b"caf\xe9.mp4", b"broken\xe9.mp4", b"short\xe9.mp4")]
    try:
        shutil.copy(folder / "a.mp4", folder / odd[0])
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (folder / odd[1]).write_text("no video at all")
    shutil.copy(folder / "c.mp4", folder / odd[2])
    # JSON escapes: of the name, and of half a surrogate pair in a caption.
    (folder / "captions.jsonl").write_text(json.dumps({"file": odd[0], "caption": "a \ud83d"}))
    summary = prepare(folder, tmp_path / "out", **SIZE, encode_text=encode_text, **QUIET)
    assert (summary.train_clips + summary.val_clips, summary.captioned) == (34, 1)
    assert summary.skipped.keys() == {r"broken\udce9.mp4"}
    assert r"short\udce9.mp4" in str(summary)
    str(summary).encode()
    builder = tfds.builder_from_directory(tmp_path / "out")
    stored = [e for split in ("train", "val") for e in builder.as_data_source(split)]
    captions = {e["source"].decode(): e["caption"].decode() for e in stored}
    assert captions[r"caf\udce9.mp4#0"] == r"a \ud83d"
    (folder / "captions.jsonl").write_text(json.dumps({"file": r"caf\udce9.mp4", "caption": "x"}))
    assert find_videos(folder).captions[odd[0]] == "x"


def test_a_video_that_fails_unexpectedly_is_skipped(folder, tmp_path, monkeypatch):
    failure, make = ValueError("no such\npixel format"), geometry.orientation

    def failing(frame):
        if frame.width == 36:
            raise failure
        return make(frame)

    make_video(folder / "a.mp4", 50, size=36)
    monkeypatch.setattr(geometry, "orientation", failing)
    summary = prepare(folder, tmp_path / "out", **SIZE, **QUIET)
    assert summary.train_clips + summary.val_clips == 10
    assert "ValueError: no such pixel format" in summary.skipped["a.mp4"]
    assert "a.mp4" in summary.skipped["a.mp4"]
    failure = MemoryError()
    with pytest.raises(MemoryError):
        prepare(folder, tmp_path / "more", **SIZE, **QUIET)


def test_an_input_without_usable_videos_is_refused(tmp_path):
    empty = tmp_path / "empty"
    with pytest.raises(UserError, match="no folder"):
        prepare(empty, tmp_path / "out", **SIZE)
    empty.mkdir()
    (empty / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"empty holds no video; videos .* end in .*\.mp4"):
        prepare(empty, tmp_path / "out", **SIZE)
    (empty / "bad.mp4").write_text("hello")
    with pytest.raises(UserError, match=r"gave a clip of 4 frames: .*bad\.mp4"):
        prepare(empty, tmp_path / "out", **SIZE, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"name": "My-clips"}, "lower case"),
        ({"frames": 0}, "frames must be positive"),
        ({"channels": 2}, "channels must be"),
        ({"height": -1}, "height"),
    ],
)
def test_arguments_out_of_range_are_refused(folder, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        prepare(folder, tmp_path / "out", **{**SIZE, **change}, **QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_existing_output_is_refused_unless_empty(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    prepare(folder, out, **SIZE, **QUIET)
    with pytest.raises(UserError, match="exists already"):
        prepare(folder, out, **SIZE, **QUIET)


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError(errno.ENOSPC, "No space left on device"), UserError),
        (RuntimeError("write() failed: No space left on device; at byte 5"), UserError),
        (RuntimeError("a bug"), RuntimeError),
    ],
)
def test_interrupted_prepare_leaves_nothing(folder, tmp_path, monkeypatch, failure, raised):
    write, written = writing.ClipWriter.write, []

    def fail_late(self, split, example):
        if len(written) == 15:
            raise failure
        written.append(split)
        write(self, split, example)

    monkeypatch.setattr(writing.ClipWriter, "write", fail_late)
    with pytest.raises(raised) as error:
        prepare(folder, tmp_path / "out", **SIZE, **QUIET)
    if raised is UserError:
        assert "is full" in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_a_full_disk_is_named_and_left_empty(folder, small_disk):
    disk = small_disk(32)
    with pytest.raises(UserError, match=f"the disk that holds {disk} is full"):
        prepare(folder, disk / "out", **SIZE, **QUIET)
    assert list(disk.iterdir()) == []


def test_what_a_killed_prepare_leaves_is_not_a_data_set(folder, tmp_path, monkeypatch):
    # A killed process does not clean up. A failed rmtree stands in for the kill.
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(writing.ClipWriter, "close", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(folder, tmp_path / "out", **SIZE, **QUIET)
    assert not (tmp_path / "out").exists()
    (left,) = tmp_path.glob(".out.partial-*")
    with pytest.raises(UserError, match="not a TFDS data set"):
        ClipRecords(left, "train")


def test_captions_that_the_encoder_cuts_are_counted(folder, tmp_path):
    (folder / "c.txt").write_text("seven letters and more")
    summary = prepare(folder, tmp_path / "out", **SIZE, encode_text=encode_text, **QUIET)
    sentence = "1 captions are longer than the text encoder takes"
    assert sentence in str(summary)
    noted = json.loads((tmp_path / "out" / "videos.json").read_text())
    assert noted["folder_notes"][-1].startswith(sentence)


def test_what_repeats_or_breaks_off_is_said(tmp_path):
    shutil.copytree(CASES, tmp_path / "in")
    summary = prepare(tmp_path / "in", tmp_path / "out", **SIZE | {"fps": 8}, **QUIET)
    assert summary.skipped.keys() == {"audio_cover.mp4", "corrupt_mid.mp4"}
    assert summary.notes.keys() == {"gap.mkv", "two.mpg"}
    assert summary.train_clips + summary.val_clips == (3 * 32 + 64 + 2 * 8) // 4
    assert "stays for 3,600 s" in str(summary)
    # The source has 8 pictures a second.
    summary = prepare(tmp_path / "in", tmp_path / "more", **SIZE | {"fps": 24}, **QUIET)
    assert "64 of 96 frames repeat" in str(summary)
    assert (
        "repeat" in json.loads((tmp_path / "more" / "videos.json").read_text())["notes"]["hlg.mp4"]
    )
