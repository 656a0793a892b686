"""Clips of any ArrayRecord data set are read as they were stored, or refused with a message."""

import base64
import concurrent.futures
import io
import json
import multiprocessing
import os
import pickle
import resource

import grain
import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from google.protobuf import json_format
from PIL import Image
from read_records import ClipWriter
from tensorflow_datasets.proto import tf_example_pb2

from stunet.data import clips
from stunet.data.clips import ClipRecords
from stunet.errors import UserError

SHAPE, TEXT_SHAPE = (4, 16, 16, 3), (6, 8)


def example(i):
    rng = np.random.default_rng(i)
    return {
        "video": rng.integers(0, 256, SHAPE, dtype=np.uint8),
        "caption": f"clip {i}, größer",
        "source": f"x#{i}",
        "text": rng.normal(size=TEXT_SHAPE).astype(np.float32),
        "text_mask": rng.random(TEXT_SHAPE[:1]) < 0.5,
    }


@pytest.fixture
def directory(tmp_path):
    """Writes 200 clips, in files of about 80, 80 and 40."""
    made = tmp_path / "clips"
    made.mkdir()
    writer = ClipWriter(made, "clips", shard_bytes=270_000)
    for i in range(200):
        writer.write("train", example(i))
    writer.close(SHAPE, TEXT_SHAPE)
    metadata = {"fps": 8, "text_encoder": {"name": "bytes", "max_length": 6, "dim": 8}}
    (made / "clips.json").write_text(json.dumps(metadata))
    return made


def assert_same(read, expected):
    assert read["caption"] == expected["caption"]
    for key in ("video", "text", "text_mask"):
        np.testing.assert_array_equal(read[key], expected[key])
        assert read[key].dtype == expected[key].dtype


def test_reads_what_was_written_and_what_tfds_reads(directory):
    records = ClipRecords(directory, "train")
    by_tfds = tfds.builder_from_directory(directory).as_data_source("train")
    assert len(records) == len(by_tfds) == 200
    assert (records.shape, records.text_shape, records.fps) == (SHAPE, TEXT_SHAPE, 8)
    for i in (0, 79, 80, 133, 199):
        assert_same(records[i], example(i))
        np.testing.assert_array_equal(by_tfds[i]["video"], example(i)["video"])
    for i in (-1, 200):
        with pytest.raises(IndexError):
            records[i]


def test_slices_of_a_split_are_disjoint(directory):
    first, rest = (ClipRecords(directory, f"train[{part}]") for part in (":45%", "45%:"))
    assert (len(first), len(rest)) == (90, 110)
    assert_same(first[89], example(89))
    assert_same(rest[0], example(90))


def test_threads_processes_and_pickling(directory):
    records = ClipRecords(directory, "train")
    order = np.random.default_rng(0).permutation(200)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for i, read in zip(order, pool.map(records.__getitem__, order), strict=True):
            assert_same(read, example(i))
    assert len(pickle.dumps(records)) < 10_000  # Neither data nor open files.
    assert_same(pickle.loads(pickle.dumps(records))[150], example(150))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_same(pool.apply(records.__getitem__, (7,)), example(7))


def test_grain_batches(directory):
    dataset = grain.MapDataset.source(ClipRecords(directory, "train"))
    batch = dataset.map(lambda e: {k: e[k] for k in ("video", "text")}).batch(5)[3]
    np.testing.assert_array_equal(
        batch["video"], np.stack([example(i)["video"] for i in range(15, 20)])
    )


@pytest.mark.parametrize("file", [0, 2])
@pytest.mark.parametrize(
    # Bytes that are left, or, if negative, removed from the end, where the footer is.
    "cut",
    [0, 1, 1000, 65535, 65536, 100_000, -100_000, -65536, -500, -9, -1],
)
def test_truncated_file_is_named_at_opening(directory, file, cut):
    path = sorted(directory.glob("*.array_record*"))[file]
    content = path.read_bytes()
    path.write_bytes(content[:cut])
    with pytest.raises(UserError, match=f"{path.name} is damaged or cut short"):
        ClipRecords(directory, "train")


def test_missing_or_exchanged_file_is_named(directory):
    first, second, _ = sorted(directory.glob("*.array_record*"))
    first.write_bytes(sorted(directory.glob("*.array_record*"))[2].read_bytes())
    with pytest.raises(UserError, match=f"{first.name} is damaged"):
        ClipRecords(directory, "train")
    second.unlink()
    with pytest.raises(UserError, match=f"{second.name} is missing|{first.name} is damaged"):
        ClipRecords(directory, "train")


def test_damaged_record_is_named_when_it_is_read(directory):
    path = sorted(directory.glob("*.array_record*"))[1]
    content = bytearray(path.read_bytes())
    where = content.index(example(100)["video"].tobytes())
    content[where + 500 : where + 520] = bytes(20)
    path.write_bytes(content)
    records = ClipRecords(directory, "train")
    position = 100 - records._files[0].take
    with pytest.raises(UserError, match=f"record {position} of .*{path.name} is damaged"):
        records[100]
    assert_same(records[101], example(101))


@pytest.fixture
def few_files():
    """`few_files(n)` lets this process open n more files, until it raises its own limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(more):
        free = os.open(os.devnull, os.O_RDONLY)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free + more, hard))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_limit_of_open_files_is_raised_or_named(tmp_path, few_files, monkeypatch):
    writer = ClipWriter(tmp_path, "clips", shard_bytes=1)
    for i in range(150):
        writer.write("train", example(i))
    writer.close(SHAPE, TEXT_SHAPE)
    few_files(60)
    records = ClipRecords(tmp_path, "train")
    for i in range(150):
        assert_same(records[i], example(i))
    # If the limit cannot be raised, the message blames the limit and not the files.
    monkeypatch.setattr(clips, "_raise_open_file_limit", lambda: None)
    del records
    few_files(60)
    records = ClipRecords(tmp_path, "train")
    with pytest.raises(UserError, match=r"too many files are open: .* has 150 .*ulimit"):
        [records[i] for i in range(150)]
    with pytest.raises(UserError, match=r"too many files are open: .* has 150 .*ulimit"):
        clips._check_files(records._files)


@pytest.mark.parametrize(
    ("requested", "message"),
    [
        ({"frames": 8}, "holds clips of 4 frames of 16x16 pixels.*not 8 frames of 16x16"),
        ({"height": 32, "width": 32}, "not 4 frames of 32x32"),
        ({"channels": 1}, "not 4 frames of 16x16 pixels and 1 channels"),
        ({"fps": 16}, "8 frames per second, not 16"),
        ({"text_encoder": "t5"}, "'bytes', not 't5'"),
        ({"video_feature": "film"}, "no clip feature 'film'.*video"),
        ({"caption_feature": "title"}, "no text or class label 'title'.*caption"),
    ],
)
def test_clips_that_are_not_as_requested_are_refused(directory, requested, message):
    with pytest.raises(UserError, match=message):
        ClipRecords(directory, "train", **requested)


def test_clips_that_are_as_requested_are_accepted(directory):
    requested = {"frames": 4, "height": 16, "width": 16, "channels": 3, "fps": 8.0}
    assert len(ClipRecords(directory, "train", **requested, text_encoder="bytes")) == 200


def test_a_missing_or_damaged_data_set_is_refused(directory, tmp_path):
    with pytest.raises(UserError, match="not a TFDS data set"):
        ClipRecords(tmp_path, "train")
    with pytest.raises(UserError, match="no split 'test'; it has train"):
        ClipRecords(directory, "test")
    for name in ("clips.json", "features.json"):
        (directory / name).write_text("{oops")
        with pytest.raises(UserError, match="not JSON"):
            ClipRecords(directory, "train")


def foreign(directory, features, records, video=None):
    """Writes a data set as another program would.

    `video` replaces the JSON description of the feature "video", which TFDS cannot make here.
    """
    directory.mkdir()
    path = directory / "foreign-train.array_record-00000-of-00001"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for fields in records:
        message = {"features": {"feature": fields}}
        parsed = json_format.ParseDict(message, tf_example_pb2.Example())
        writer.write(parsed.SerializeToString())
    writer.close()
    split = tfds.core.SplitInfo(name="train", shard_lengths=[len(records)], num_bytes=1)
    tfds.folder_dataset.write_metadata(
        data_dir=directory, features=features, split_infos=[split], check_data=False
    )
    if video:
        described = json.loads((directory / "features.json").read_text())
        described["featuresDict"]["features"]["video"] = video
        (directory / "features.json").write_text(json.dumps(described))
    return directory


def png(value):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "png")
    return file.getvalue()


def bytes_list(*values):
    return {"bytesList": {"value": [base64.b64encode(v).decode() for v in values]}}


# TFDS writes this for Video(shape=(None, 8, 8, 3)), which it cannot make without TensorFlow.
VIDEO_FEATURE = {
    "pythonClassName": "tensorflow_datasets.core.features.video_feature.Video",
    "video": {
        "shape": {"dimensions": ["-1", "8", "8", "3"]},
        "dtype": "uint8",
        "encodingFormat": "png",
    },
}


@pytest.fixture
def labelled_videos(tmp_path):
    """Writes videos like UCF-101's: a varying number of PNG frames, and a class label."""
    features = tfds.features.FeaturesDict(
        {"label": tfds.features.ClassLabel(names=["run", "jump"])}
    )
    records = [
        {"video": bytes_list(*map(png, range(n))), "label": {"int64List": {"value": [n % 2]}}}
        for n in (5, 6, 9)
    ]
    return foreign(tmp_path / "labelled", features, records, VIDEO_FEATURE)


def test_videos_of_varying_length_give_their_first_frames_and_class_names(labelled_videos):
    records = ClipRecords(labelled_videos, "train", frames=5, height=8)
    assert records.shape == (5, 8, 8, 3)
    assert [records[i]["caption"] for i in range(3)] == ["jump", "run", "jump"]
    for i in range(3):
        assert records[i]["video"].dtype == np.uint8
        np.testing.assert_array_equal(records[i]["video"][:, 0, 0, 0], np.arange(5))
    assert "text" not in records[0]
    assert [len(ClipRecords(labelled_videos, "train")[i]["video"]) for i in range(3)] == [5, 6, 9]
    with pytest.raises(UserError, match=r"record 0 of .* is a clip of 5 frames .*, not 6 frames"):
        ClipRecords(labelled_videos, "train", frames=6)[0]


def test_captions_are_encoded_as_they_are_read(labelled_videos):
    def encode(captions):
        return np.full((len(captions), 2, 3), len(captions[0])), np.ones((len(captions), 2), bool)

    read = ClipRecords(labelled_videos, "train", encode_text=encode)[0]
    np.testing.assert_array_equal(read["text"], np.full((2, 3), len("jump")))
    assert read["text_mask"].shape == (2,)


def test_a_sequence_of_steps_is_read_as_a_clip_without_caption(tmp_path):
    image = tfds.features.Image(shape=(8, 8, 3))
    features = tfds.features.Sequence({"image": image}, length=4)
    made = foreign(tmp_path / "steps", features, [{"image": bytes_list(*map(png, range(4)))}])
    read = ClipRecords(made, "train", frames=4)[0]
    np.testing.assert_array_equal(read["video"][:, 0, 0, 0], np.arange(4))
    assert read["caption"] == ""


def test_clips_stored_as_integers_are_read(tmp_path):
    features = tfds.features.FeaturesDict(
        {
            "frames": tfds.features.Tensor(shape=(2, 4, 4, 1), dtype=np.uint8),
            "name": tfds.features.Text(),
        }
    )
    record = {"frames": {"int64List": {"value": list(range(32))}}, "name": bytes_list(b"it moves")}
    made = foreign(tmp_path / "integers", features, [record])
    read = ClipRecords(made, "train", caption_feature="name")[0]
    np.testing.assert_array_equal(read["video"].ravel(), np.arange(32))
    assert read["video"].dtype == np.uint8
    assert read["caption"] == "it moves"


def test_a_data_set_without_clips_is_refused(tmp_path):
    features = tfds.features.FeaturesDict({"name": tfds.features.Text()})
    made = foreign(tmp_path / "names", features, [{"name": bytes_list(b"x")}])
    with pytest.raises(UserError, match=r"no feature that is a clip.*it has name"):
        ClipRecords(made, "train")
