"""Finding: every video of a folder with its own caption, and a word about all that is left out."""

import json
import os
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stunet.errors import UserError
from stunet.prepare.finding import find_videos


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.mp4", "b.webm", "sub/café.mov"):
        (folder / name).touch()
    return folder


def list_captions(folder, rows, name="captions.csv"):
    (folder / name).write_text("".join(f"{row}\n" for row in ("file,caption", *rows)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        # The two files of `shared/cases`, and their relatives.
        (["a.mp4,a dog, running, in a park"], "line 2: 4 fields, and the header has 2"),
        (['a.mp4,"unclosed quote', "b.webm,x"], "line 2: not CSV .unexpected end of data"),
        (["b.webm,x", 'a.mp4,"unclosed', 'b.webm,"x"'], "line 3: not CSV"),
        (['a.mp4,"unclosed', "b.webm,x", 'sub/café.mov,"'], "line 2: .* goes on to line 3, which"),
        (["b.webm,x", "", "a.mp4"], "line 4: 1 fields"),
        (["a.mp4;x"], "line 2: 1 fields"),
        (["a.mp4,x", "b.webm,y", "a.mp4,z"], "lines 2 and 4: both name 'a.mp4'"),
        (["a.mp4,x", "./a.mp4,z"], r"lines 2 and 3: both name '\./a.mp4'"),
        (["a.mp4,x", "B.webm,y"], "line 3: 'B.webm' differs from the video 'b.webm' in upper"),
        (["elsewhere/a.mp4,x"], "holds none of them; write paths relative to that folder"),
    ],
)
def test_captions_are_whole_or_the_line_is_named(folder, rows, message):
    list_captions(folder, rows)
    with pytest.raises(UserError, match=message):
        find_videos(folder)


@pytest.mark.parametrize(
    "header", ["file;caption", "file\tcaption", "caption", "file, caption", "a.mp4,x", "file,file"]
)
def test_another_header_is_told_as_one(folder, header):
    (folder / "captions.csv").write_text(f"{header}\na.mp4,x\n")
    with pytest.raises(UserError, match="line 1: the header is"):
        find_videos(folder)


def test_a_file_with_a_byte_order_mark_and_more_columns(folder):
    text = '\ufeffseconds,caption,file\r\n3,"x, ""y""",a.mp4\r\n'
    (folder / "captions.csv").write_text(text, encoding="utf-8", newline="")
    assert find_videos(folder).captions["a.mp4"] == 'x, "y"'


def test_a_key_that_is_there_twice_is_refused(folder):
    (folder / "captions.jsonl").write_text('{"file": "a.mp4", "caption": "x", "caption": "y"}')
    with pytest.raises(UserError, match=r"line 1 is .*'caption' is there twice"):
        find_videos(folder)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize(
    "written", ["sub/café.mov", "sub\\café.mov", "./sub//café.mov", "{}/sub/café.mov"]
)
def test_a_path_may_be_written_in_several_ways(folder, written, form):
    name = unicodedata.normalize(form, written.format(folder))
    list_captions(folder, ["a.mp4,x", f"{name},y"])
    found = find_videos(folder)
    assert found.captions == {"a.mp4": "x", "b.webm": "", "sub/café.mov": "y"}
    assert found.notes == ("1 video(s) have no caption: b.webm",)


def test_rows_without_a_video_are_counted(folder):
    list_captions(folder, ["a.mp4,x", *(f"other{i}.mp4,x" for i in range(5))])
    (note, _) = find_videos(folder).notes
    assert note.startswith("5 row(s) of the caption file name no video here: other0.mp4, other1")
    assert note.endswith(", ...")


@pytest.mark.parametrize("second", ["captions.jsonl", "sub/captions.csv", "sub/captions.jsonl"])
def test_a_second_caption_file_is_refused(folder, second):
    list_captions(folder, ["a.mp4,x"])
    (folder / second).write_text(json.dumps({"file": "b.webm", "caption": "y"}))
    with pytest.raises(UserError, match=rf"there is .*captions\.csv and .*{second}"):
        find_videos(folder)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from(["a.mp4", "b.webm", "sub/café.mov"]), st.text(), min_size=1))
def test_all_captions_survive_both_formats(folder, captions):
    """Whatever a caption holds, a proper writer of CSV or JSON gets it through whole."""
    import csv

    for name in ("captions.csv", "captions.jsonl"):
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            if name.endswith("csv"):
                csv.writer(file).writerows([("file", "caption"), *captions.items()])
            else:
                rows = [{"file": f, "caption": c} for f, c in captions.items()]
                file.writelines(json.dumps(row) + "\n" for row in rows)
        found = find_videos(folder).captions
        assert {name: found[name] for name in captions} == {
            name: " ".join(caption.split()) for name, caption in captions.items()
        }
        (folder / name).unlink()


def test_linked_folders_are_read_once_and_loops_end(folder, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c.mkv").touch()
    for name, target in (
        ("linked", outside),
        ("again", outside),
        ("a_sub", folder / "sub"),
        ("loop", folder),
        ("outside_file.mp4", outside / "c.mkv"),
        ("broken.mp4", outside / "missing.mp4"),
    ):
        os.symlink(target, folder / name)
    found = find_videos(folder)
    assert list(found.captions) == [
        *("a.mp4", "again/c.mkv", "b.webm", "outside_file.mp4", "sub/café.mov"),
    ]
    assert found.notes == ("1 link(s) lead to no video: broken.mp4",)


def test_what_is_not_read_is_said(folder):
    for name in (
        "._a.mp4",
        ".hidden/x.mp4",
        ".DS_Store",
        "c.ts",
        "d.WMV",
        "e.3gp",
        "f.rm",
        "Thumbs.db",
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = find_videos(folder)
    assert {"c.ts", "d.WMV", "e.3gp"} < found.captions.keys()
    assert len(found.captions) == 6
    assert found.notes == (
        "1 hidden video(s) are not read: ._a.mp4",
        "2 other file(s) are not read: Thumbs.db, f.rm",
    )
