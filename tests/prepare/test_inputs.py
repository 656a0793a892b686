"""Videos come from folders, lists and tar files, and what cannot be understood is said."""

import functools
import io
import json
import tarfile

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from videos import make_video, noise

from stunet.data.shots.layout import Spec, read_index
from stunet.errors import UserError
from stunet.prepare import geometry, inputs, parts
from stunet.prepare.decode import decode_clips, resampled
from stunet.prepare.entries import Entry, Input
from stunet.prepare.opening import CorruptVideo
from stunet.prepare.run import prepare
from stunet.prepare.stretches import Stretch

SPEC = Spec(side=16, fps=10.0, min_seconds=0.5, max_seconds=3.0, cut_threshold=0.0)
ONE = {"progress": False, "workers": 1}
ROWS = [
    {"path": "a.mp4", "caption": "a cat, asleep", "start": None, "end": 2.5},
    {"path": "deep/b.mp4", "caption": None, "start": 1.0, "end": None},
    {"path": "/videos/c.mp4", "caption": "three\nwords", "start": None, "end": None},
]
ENTRIES = [
    Entry("a.mp4", ("a cat, asleep",), None, 2.5),
    Entry("deep/b.mp4", (), 1.0),
    Entry("/videos/c.mp4", ("three words",)),
]


def write_csv(file):
    rows = ["caption,path,start,end,other", '"a cat, asleep",a.mp4,,2.5,x', ",deep/b.mp4,1,,"]
    file.write_text("\n".join([*rows, '"three\nwords",/videos/c.mp4,,,', ""]))


def write_jsonl(file):
    rows = [{key: value for key, value in row.items() if value is not None} for row in ROWS]
    file.write_text("\n\n".join(map(json.dumps, rows)))


def write_parquet(file):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{**row, "x": 1} for row in ROWS]), file)


@pytest.mark.parametrize("write", [write_csv, write_jsonl, write_parquet])
def test_lists_name_paths_captions_and_stretches(tmp_path, write):
    file = tmp_path / f"list.{write.__name__.removeprefix('write_')}"
    write(file)
    found = inputs.find(file)
    assert list(found.entries()) == ENTRIES == list(found.entries())
    assert found.root == tmp_path


def test_a_text_file_has_one_path_in_each_line(tmp_path):
    (tmp_path / "list.txt").write_text("\ufeffa.mp4\n\n deep/b, c.mp4 \r\n", encoding="utf-8")
    found = inputs.find(tmp_path / "list.txt")
    assert list(found.entries()) == [Entry("a.mp4"), Entry("deep/b, c.mp4")]


def test_a_caption_may_be_a_list_of_captions(tmp_path):
    row = {"path": "a.mp4", "caption": ["one", "two ", ""]}
    (tmp_path / "list.jsonl").write_text(json.dumps(row))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "list.parquet")
    for kind in ("jsonl", "parquet"):
        (entry,) = inputs.find(tmp_path / f"list.{kind}").entries()
        assert entry.captions == ("one", "two")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "\n\n", "lists no video"),
        ("a.csv", "", "lists no video; write one path in each row"),
        ("a.csv", "path,caption\n", "lists no video"),
        ("a.jsonl", "", "lists no video"),
        ("a.jsonl", '{"caption": "x"}', "line 1: the column 'path' is missing; there is 'caption'"),
        ("a.csv", "file,caption\na.mp4,x\n", "'path' is missing; there is 'file', 'caption'; ren"),
        ("a.csv", "path,path\na,b\n", "the column 'path' is there twice"),
        ("a.csv", "path,caption\na.mp4,one, two\n", "line 2: 3 fields, and the header has 2"),
        ("a.csv", 'path,caption\na.mp4,"one\n', "line 2: not CSV"),
        ("a.csv", "path,start\na.mp4,soon\n", "line 2: start is 'soon'; write seconds"),
        ("a.csv", "path,start,end\na.mp4,5,5\n", "line 2: start is 5 and end 5"),
        ("a.csv", "path,end\na.mp4,nan\n", "end is 'nan'; write seconds"),
        ("a.csv", "path,caption\n,x\n", "line 2: the path is ''"),
        ("a.jsonl", '{"path": "a"}\n{"path": 3}', "line 2: the path is 3"),
        ("a.jsonl", '{"path": "a", "caption": [1]}', r"line 1: the caption is \[1\]; write a text"),
        ("a.jsonl", '{"path": "a", "start": true}', "line 1: start is True"),
        ("a.jsonl", "{oops", "line 1 is not JSON"),
        ("a.jsonl", "[]", "line 1 is damaged: expected object"),
        ("a.txt", "hdfs://host/a.mp4", "line 1: 'hdfs://host/a.mp4' is an address"),
        ("a.parquet", "PAR1 no", "cannot be read as Parquet"),
        ("a.xlsx", "x", "neither a folder nor a list of videos"),
        ("a.tar", "no tar", "cannot be read as a tar file"),
    ],
)
def test_lists_that_cannot_be_understood_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        list(inputs.find(tmp_path / name).entries())


def test_parquet_lists_that_are_empty_or_have_no_paths_are_refused(tmp_path):
    file = tmp_path / "a.parquet"
    for names, message in ((["path"], "lists no video"), (["video"], "rename 'video' to 'path'")):
        columns = {name: pyarrow.array([], pyarrow.string()) for name in names}
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
        with pytest.raises(UserError, match=message):
            inputs.find(file)


def test_text_that_is_not_utf8_is_refused(tmp_path):
    for name in ("a.txt", "a.csv", "a.jsonl"):
        (tmp_path / name).write_bytes(b"path\n\xff\n" if name != "a.jsonl" else b"\xff\n")
        with pytest.raises(UserError, match="is not UTF-8"):
            list(inputs.find(tmp_path / name).entries())


def add(archive, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


@pytest.fixture
def tars(tmp_path):
    """A folder of two tar files with three videos, one of which is broken."""
    folder = tmp_path / "tars"
    folder.mkdir()
    for number in range(2):
        with tarfile.open(folder / f"{number}.tar", "w") as archive:
            for name in "ab"[: 2 - number]:
                video = make_video(tmp_path / f"{name}{number}.mp4", noise(30, number)).read_bytes()
                video = video[:2000] if (name, number) == ("b", 0) else video
                add(archive, f"x/{name}.mp4", video)
                if number:
                    add(archive, f"x/{name}.json", b'{"caption": "in JSON", "other": 3}')
                else:
                    add(archive, f"x/{name}.txt", b"in text")
    return folder


def test_videos_are_read_from_tar_files_without_unpacking(tars, tmp_path):
    entries = list(inputs.find(tars).entries())
    assert [(entry.path, entry.member, entry.captions) for entry in entries] == [
        ("0.tar", "x/a.mp4", ("in text",)),
        ("0.tar", "x/b.mp4", ("in text",)),
        ("1.tar", "x/a.mp4", ("in JSON",)),
    ]
    assert list(inputs.find(tars / "1.tar").entries()) == entries[2:]
    summary = prepare(tars, tmp_path / "out", SPEC, **ONE)
    assert (summary.videos, summary.captioned, summary.skipped) == (2, 2, 1)
    assert "0.tar/x/b.mp4" in summary.reasons[0]
    (tmp_path / "files").mkdir()
    for number in range(2):
        (tmp_path / f"a{number}.mp4").rename(tmp_path / "files" / f"{number}.mp4")
    prepare(tmp_path / "files", tmp_path / "same", SPEC, **ONE)
    assert read_index(tmp_path / "same").frames.tolist() == [30, 30]
    assert read_index(tmp_path / "out").frames.tolist() == [30, 30]


def test_compressed_tar_files_are_refused(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        add(archive, "a.mp4", b"x")
    with pytest.raises(UserError, match="must be decompressed first"):
        inputs.find(tmp_path / "a.tar")


def test_rows_of_one_video_may_name_several_stretches(tmp_path):
    make_video(tmp_path / "a.mp4", noise(100))
    rows = ["path,start,end", "a.mp4,0,2", "a.mp4,6,9", "a.mp4,0.0,2.0", "gone.mp4,,"]
    (tmp_path / "list.csv").write_text("\n".join(rows))
    summary = prepare(tmp_path / "list.csv", tmp_path / "out", SPEC, **ONE)
    assert read_index(tmp_path / "out").frames.tolist() == [20, 30]
    assert (summary.added, summary.skipped) == (3, 1)
    assert "1 rows name a video that an earlier row names" in str(summary)
    (tmp_path / "list.csv").write_text("\n".join([*rows, "a.mp4,6,"]))
    assert prepare(tmp_path / "list.csv", tmp_path / "out", SPEC, **ONE).added == 1
    assert read_index(tmp_path / "out").frames.tolist() == [20, 30, 40]


def test_parts_are_small_in_a_small_list_and_few_in_a_large_one(tmp_path):
    for count, expected in ((3, 3), (1000, 334), (100_000, 391)):
        output = tmp_path / str(count)
        given = Input(tmp_path, lambda count=count: (Entry(f"{i}.mp4") for i in range(count)))
        assert parts.extend(output, given) == parts.Plan(expected, count, count, 0, 0)
        read = list(parts.read(output))
        assert [part.number for part in read] == list(range(expected))
        names = [entry.path for part in read for entry in part.entries]
        assert names == [f"{i}.mp4" for i in range(count)]


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_stretch_has_the_frames_of_the_whole_video(tmp_path, suffix):
    codec = "mpeg4" if suffix == "avi" else "libx264"
    path = make_video(tmp_path / f"a.{suffix}", noise(200, size=32), codec=codec)
    whole = [clip[0] for clip in decode_clips(path, 1, 10, 16, 16)]
    assert len(whole) == 200
    for start, end in ((0, 3), (2.5, 4), (12.3, 15), (18, None), (17, 99)):
        stretch = Stretch(start, end)
        pieces = resampled(path, 10, 3, functools.partial(geometry.covering, 16, 16), stretch)
        found = [picture for picture, times in pieces for _ in range(times)]
        expected = whole[round(start * 10) : None if end is None else round(end * 10)]
        assert len(found) == len(expected)
        assert np.abs(np.stack(found).astype(int) - np.stack(expected)).max() == 0


def test_a_stretch_beyond_the_end_or_of_a_cut_file_is_refused(tmp_path):
    path = make_video(tmp_path / "a.mkv", noise(200, size=32))
    fit = functools.partial(geometry.covering, 16, 16)
    with pytest.raises(CorruptVideo, match="has no picture from"):
        list(resampled(path, 10, 3, fit, Stretch(30, 40)))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert len(list(resampled(path, 10, 3, fit, Stretch(0, 5)))) == 50
    with pytest.raises(CorruptVideo):
        list(resampled(path, 10, 3, fit, Stretch(0, 15)))
