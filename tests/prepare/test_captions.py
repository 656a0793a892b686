"""Captions: where each comes from, and which caption files are refused."""

import json

import pytest

from stunet.errors import UserError
from stunet.prepare.finding import find_videos


def test_captions_come_from_csv_then_text_files_then_are_empty(tmp_path):
    for name in ("a.mp4", "b.webm", "sub/c.GIF", "sub/d.mov"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "captions.csv").write_text('file,caption\na.mp4,"one, two"\nsub/c.GIF,three\n')
    (tmp_path / "a.txt").write_text("not this one")
    (tmp_path / "sub" / "c.txt").write_text("three")
    (tmp_path / "b.webm").with_suffix(".txt").write_text("\ufeffvier\n  fünf\n", encoding="utf-8")
    captions = {"a.mp4": "one, two", "b.webm": "vier fünf", "sub/c.GIF": "three", "sub/d.mov": ""}
    found = find_videos(tmp_path)
    assert found.captions == captions
    assert found.notes == (
        "1 text file(s) are not used, because the caption file names their videos: a.mp4",
        "1 video(s) have no caption: sub/d.mov",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_captions_may_hold_characters_that_end_lines_elsewhere(tmp_path, end):
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).touch()
    captions = {"a.mp4": "a\u2028cat\x85sits", "b.mp4": "on\x0ba\x1cmat"}
    lines = [
        json.dumps({"file": name, "caption": caption}, ensure_ascii=False)
        for name, caption in captions.items()
    ]
    (tmp_path / "captions.jsonl").write_bytes(end.join([*lines, ""]).encode())
    in_one_line = {name: " ".join(caption.split()) for name, caption in captions.items()}
    assert find_videos(tmp_path).captions == in_one_line
    (tmp_path / "captions.jsonl").unlink()
    lines = ["file,caption", f'a.mp4,"a cat sits{end}on a mat"', 'b.mp4,"on\u2028a mat"', ""]
    (tmp_path / "captions.csv").write_bytes(end.join(lines).encode())
    assert find_videos(tmp_path).captions == {"a.mp4": "a cat sits on a mat", "b.mp4": "on a mat"}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("captions.jsonl", '{"file": "a.mp4", "caption": "x"}\n{oops', "line 2 is not JSON"),
        ("captions.jsonl", '{"file": "a.mp4"}', "line 1: expected texts"),
        ("captions.jsonl", "3", "line 1: expected texts"),
        ("captions.csv", "name,caption\na.mp4,x\n", "line 1: the header is 'name,caption'"),
        ("captions.csv", 'file,caption\na.mp4,"x\n' + 200_000 * "y", "line 2: not CSV"),
        ("captions.jsonl", '{"file": "/elsewhere/a.mp4", "caption": "x"}', "none of them"),
    ],
)
def test_a_caption_file_that_cannot_be_understood_is_refused(tmp_path, name, content, message):
    (tmp_path / "a.mp4").touch()
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        find_videos(tmp_path)
    (tmp_path / name).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        find_videos(tmp_path)
