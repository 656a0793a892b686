"""A folder becomes a set of shots that stops, goes on and grows without changing a byte."""

import hashlib
import inspect
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import msgspec
import numpy as np
import pytest
from videos import make_video, noise

from stunet.commands.prepare import COMMAND
from stunet.data.shots import layout
from stunet.data.shots.codecs import CODECS, make_codec
from stunet.data.shots.layout import Spec, read_index
from stunet.data.shots.records import unpack
from stunet.data.shots.shards import Shards
from stunet.data.shots.source import ShotClips
from stunet.data.shots.states import Encoder
from stunet.data.spec import ClipSpec, TextSpec
from stunet.errors import UserError
from stunet.files import locked
from stunet.prepare import geometry, inputs, parts, shards, texts
from stunet.prepare.run import prepare

CASES = pathlib.Path(__file__).parent / "cases"
SPEC = Spec(side=16, fps=10.0, min_seconds=0.5, max_seconds=3.0, cut_threshold=0.0)
ONE = {"progress": False, "workers": 1}


class Lengths:
    """A text encoder whose states are the lengths of the captions."""

    max_length, dim, fingerprint = 6, 8, "f00d"
    states = 6

    def __call__(self, captions):
        lengths = np.array([len(caption) for caption in captions])
        states = np.broadcast_to(lengths[:, None, None], (len(captions), self.states, 8))
        return states.astype(np.float32), np.arange(self.states) < lengths[:, None]

    def is_cut(self, caption):
        return len(caption) > 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "videos"
    make_video(folder / "a.mp4", noise(50, 1))
    make_video(folder / "deep" / "b.mp4", noise(41, 2))
    make_video(folder / "c.mp4", noise(3, 3))
    lines = [{"file": "a.mp4", "caption": "first"}, {"file": "deep/b.mp4", "caption": "second"}]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


@pytest.fixture
def folder(videos, tmp_path):
    return shutil.copytree(videos, tmp_path / "videos")


def digests(output, *patterns):
    """Returns the digest of each file of a set that matches a pattern, by the file's path."""
    files = [path for pattern in patterns or ("**/*",) for path in output.glob(pattern)]
    return {
        path.relative_to(output).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.is_file() and "lists" not in path.parts
    }


def records(output):
    """Returns all shots of a set, in order."""
    index = read_index(output)
    files = [layout.shard_file(output, part) for part in range(len(index.records))]
    reader = Shards(files, index.bytes.tolist())
    return [
        unpack(reader.read(shard, number))
        for shard, count in enumerate(index.records)
        for number in range(count)
    ]


def test_every_frame_is_stored_once_with_its_captions(folder, tmp_path):
    summary = prepare(folder, tmp_path / "out", SPEC, **ONE)
    shots, index = records(tmp_path / "out"), read_index(tmp_path / "out")
    # 3 s are 30 frames, and 4 groups of 8. A rest of less than half of that stays with its shot.
    assert [(shot.source, len(shot.packets)) for shot in shots] == [
        ("a.mp4", 32),
        ("a.mp4", 18),
        ("deep/b.mp4", 41),
    ]
    assert [shot.begin for shot in shots] == [0, 3.2, 0]
    assert [shot.captions for shot in shots] == [["first"], ["first"], ["second"]]
    assert index.frames.tolist() == [32, 18, 41]
    assert {(shot.height, shot.width) for shot in shots} == {(16, 16)}
    assert (index.height == 16).all()
    codec = SPEC.make_codec()
    stored = [
        frame.to_ndarray(format="gray")
        for shot in shots[:2]
        for frame in codec.decode(shot.packets, range(len(shot.packets)), 16, 16)
    ]
    expected = noise(50, 1).mean(-1).reshape(50, 16, 2, 16, 2).mean((2, 4))
    errors = np.abs(np.stack(stored)[:, None] - expected[None, :]).mean((2, 3))
    assert errors.argmin(1).tolist() == list(range(50))
    assert (summary.videos, summary.captioned, summary.too_short) == (2, 2, 1)
    assert (summary.seconds, round(summary.left_out_seconds, 6)) == (9.1, 0.3)
    assert "3 shots of 9.1 s" in str(summary)
    assert "1 video(s) have no caption: c.mp4" in str(summary)


def test_the_bytes_do_not_depend_on_the_workers(folder, tmp_path):
    (folder / "broken.mp4").write_bytes((folder / "a.mp4").read_bytes()[:3000])
    prepare(folder, tmp_path / "one", SPEC, **ONE)
    prepare(folder, tmp_path / "three", SPEC, progress=False, workers=3)
    assert digests(tmp_path / "one") == digests(tmp_path / "three")
    assert len(digests(tmp_path / "one", "shards/*.array_record")) == 4


def test_videos_that_are_added_change_nothing_that_is_there(folder, tmp_path):
    before = prepare(folder, tmp_path / "out", SPEC, **ONE)
    first, index = digests(tmp_path / "out", "shards/*"), read_index(tmp_path / "out")
    make_video(folder / "0.mp4", noise(30, 4))  # before all others in the order of names
    after = prepare(folder, tmp_path / "out", SPEC, **ONE)
    assert (before.added, after.added) == (3, 1)
    assert digests(tmp_path / "out", "shards/*").items() > first.items()
    grown = read_index(tmp_path / "out")
    for name in ("frames", "held_out"):
        np.testing.assert_array_equal(getattr(grown, name)[:3], getattr(index, name))
    assert [shot.source for shot in records(tmp_path / "out")][3:] == ["0.mp4"]


def test_the_same_command_again_does_nothing(folder, tmp_path, monkeypatch):
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    before = digests(tmp_path / "out")
    monkeypatch.setattr(shards, "encode_shots", None)
    assert prepare(folder, tmp_path / "out", SPEC, **ONE).added == 0
    assert digests(tmp_path / "out") == before
    (folder / "captions.jsonl").write_text(json.dumps({"file": "a.mp4", "caption": "other"}))
    assert "2 videos have other captions" in str(prepare(folder, tmp_path / "out", SPEC, **ONE))


def test_a_killed_command_goes_on_where_it_was(folder, tmp_path):
    for i in range(3):
        make_video(folder / f"more{i}.mp4", noise(100, i, size=64))
    prepare(folder, tmp_path / "whole", SPEC, **ONE)
    words = ["prepare", str(folder), str(tmp_path / "out"), "--side", "16", "--fps", "10"]
    words += ["--min-seconds", "0.5", "--max-seconds", "3", "--workers", "2"]
    words += ["--cut-threshold", "0"]
    command = [sys.executable, "-m", "stunet", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        if any(layout.manifest_file(tmp_path / "out", part).exists() for part in range(6)):
            process.send_signal(signal.SIGKILL)
            process.wait()
        time.sleep(0.002)
    assert process.returncode == -signal.SIGKILL
    with pytest.raises(UserError, match="not complete"):
        read_index(tmp_path / "out")
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_two_commands_do_not_write_one_set(folder, tmp_path):
    (tmp_path / "out").mkdir()
    with (
        locked(tmp_path / "out", ""),
        pytest.raises(UserError, match="another `stunet prepare` is writing"),
    ):
        prepare(folder, tmp_path / "out", SPEC, **ONE)


def test_shots_of_another_make_are_refused(folder, tmp_path):
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    other = Spec(side=32, fps=10.0, min_seconds=0.5, max_seconds=3.0, cut_threshold=0.0)
    with pytest.raises(UserError, match="were made with --side 16, not 32"):
        prepare(folder, tmp_path / "out", other, **ONE)
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.txt").touch()
    with pytest.raises(UserError, match="exists already"):
        prepare(folder, tmp_path / "else", SPEC, **ONE)


def test_a_damaged_shard_is_made_again(folder, tmp_path):
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    before = digests(tmp_path / "out")
    shard = layout.shard_file(tmp_path / "out", 0)
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert prepare(folder, tmp_path / "out", SPEC, **ONE).remade == 0
    summary = prepare(folder, tmp_path / "out", SPEC, verify=True, **ONE)
    assert "made again, because they were damaged: 1 shard" in str(summary)
    assert digests(tmp_path / "out") == before
    shard.write_bytes(content[:-1])
    layout.manifest_file(tmp_path / "out", 2).write_text("{}")
    assert prepare(folder, tmp_path / "out", SPEC, **ONE).remade == 2
    assert digests(tmp_path / "out") == before
    shard.unlink()
    (tmp_path / "out" / layout.INDEX_FILE).write_bytes(b"no index")
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    assert digests(tmp_path / "out") == before


def rewrite_manifest(output, part, change):
    file = layout.manifest_file(output, part)
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def as_format_1(manifest):
    """Changes a manifest to what versions wrote that did not measure shots."""
    del manifest["format"]
    rows = manifest.pop("shots")
    manifest |= {"frames": [], "height": [], "width": []}
    for _, frames, height, width, *_ in rows:
        manifest["frames"].append(frames)
        manifest["height"].append(height)
        manifest["width"].append(width)


@pytest.mark.parametrize("verify", [False, True])
def test_manifests_of_another_format_are_named_and_nothing_is_made_again(folder, tmp_path, verify):
    out = tmp_path / "out"
    prepare(folder, out, SPEC, **ONE)
    before = digests(out)
    file = layout.manifest_file(out, 1)
    for change, sentence in (
        (as_format_1, f"{file} has the format 1, which an earlier version of stunet wrote, and "
         f"this version reads 2; remove {out}/shards/*.json and run the same command, which makes "
         "the shots again, or choose another directory"),
        (lambda manifest: manifest.update(format=3, shots={"of": "later"}), f"{file} has the "
         "format 3, which a later version of stunet wrote, and this version reads 2; install that "
         "version, or choose another directory"),
    ):  # fmt: skip
        whole = file.read_text()
        rewrite_manifest(out, 1, change)
        changed = digests(out)
        with pytest.raises(UserError) as raised:
            prepare(folder, out, SPEC, verify=verify, **ONE)
        assert str(raised.value) == sentence
        assert digests(out) == changed
        file.write_text(whole)
    assert digests(out) == before
    for manifest in out.glob("shards/*.json"):
        manifest.unlink()
    prepare(folder, out, SPEC, **ONE)
    assert digests(out) == before


def test_manifests_without_a_number_are_read(folder, tmp_path, monkeypatch):
    """The first version that measured shots did not state the format."""
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    for part in range(3):
        rewrite_manifest(tmp_path / "out", part, lambda manifest: manifest.pop("format"))
    before = digests(tmp_path / "out")
    monkeypatch.setattr(shards, "encode_shots", None)
    for verify in (False, True):
        assert prepare(folder, tmp_path / "out", SPEC, verify=verify, **ONE).remade == 0
    assert digests(tmp_path / "out") == before


def test_another_split_decodes_nothing(folder, tmp_path, monkeypatch):
    options = dict(val_fraction=0.3, val_seconds=1)
    prepare(folder, tmp_path / "out", SPEC, val_fraction=0, **ONE)
    assert not read_index(tmp_path / "out").held_out.any()
    monkeypatch.setattr(shards, "encode_shots", None)
    summary = prepare(folder, tmp_path / "out", SPEC, **options, **ONE)
    assert read_index(tmp_path / "out").held_out.sum() == 10 * summary.held_out_seconds > 0


def test_broken_videos_are_skipped_and_named(folder, tmp_path):
    content = (folder / "a.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(content[: len(content) // 2])
    (folder / "z.avi").write_text("no video at all")
    summary = prepare(folder, tmp_path / "out", SPEC, **ONE)
    assert (summary.videos, summary.skipped) == (2, 2)
    assert "broken.mp4" in str(summary)
    described = [shards.read_manifest(tmp_path / "out", part) for part in range(5)]
    skipped = {v.path: v.skipped for manifest in described for v in manifest.videos if v.skipped}
    assert skipped.keys() == {"broken.mp4", "z.avi"}


def test_a_video_that_vanishes_is_skipped_but_a_missing_disk_is_told(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_PARTS", 1)
    parts.extend(tmp_path / "out", inputs.find(folder))
    (part,) = parts.read(tmp_path / "out")
    (folder / "a.mp4").unlink()
    *_, manifest = shards.write_shard(part, output=str(tmp_path / "out"), spec=SPEC)
    assert [video.skipped.partition(" ")[0] for video in manifest.videos] == ["there", "", ""]
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="nor any of the 2 listed after it; mount the disk"):
        list(shards.write_shard(part, output=str(tmp_path / "out"), spec=SPEC))


def test_text_states_are_stored_once_and_another_encoder_needs_no_videos(folder, tmp_path):
    out = tmp_path / "out"
    summary = prepare(folder, out, SPEC, text_encoder="t5:x", encode_text=Lengths(), **ONE)
    assert summary.notes[-1].startswith("0") is False
    clip = ClipSpec(4, 16, 16, 3, 10.0)
    source = ShotClips(out, "train", clip, TextSpec("t5:y", 6, 8, "f00d"))
    for i in range(len(source)):
        example = source[i]
        states, mask = Lengths()([example["caption"]])
        np.testing.assert_array_equal(example["text"] * mask[0][:, None], example["text"])
        np.testing.assert_array_equal(example["text"], states[0] * mask[0][:, None])
        np.testing.assert_array_equal(example["text_mask"], mask[0])
    stored = Encoder("t5:x", "f00d", 6, 8).directory(out)
    assert sum(path.stat().st_size for path in stored.glob("*record")) < 400_000
    with pytest.raises(UserError, match="no text states of t5:y 6x8 with the fingerprint beef"):
        ShotClips(out, "train", clip, TextSpec("t5:y", 6, 8, "beef"))
    shutil.rmtree(folder)
    damaged = stored / "000001.array_record"
    whole = damaged.read_bytes()
    damaged.unlink()
    texts.write_states(out, 3, "t5:x", Lengths())
    assert damaged.read_bytes() == whole
    more = Lengths()
    more.fingerprint = "beef"
    texts.write_states(out, 3, "t5:y", more)
    ShotClips(out, "train", clip, TextSpec("t5:y", 6, 8, "beef"))
    # The encoder of Stable Diffusion XL gives one state more than there are tokens.
    more.states = 7
    texts.write_states(out, 3, "sdxl:x", more)
    example = ShotClips(out, "train", clip, TextSpec("sdxl:y", 6, 8, "beef"))[0]
    states, mask = more([example["caption"]])
    np.testing.assert_array_equal(example["text"], states[0] * mask[0][:, None])
    np.testing.assert_array_equal(example["text_mask"], mask[0])


def test_states_belong_to_their_captions_after_a_video_is_tried_again(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(parts, "_PARTS", 1)
    out, broken = tmp_path / "out", folder / "a.mp4"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:3000])
    prepare(folder, out, SPEC, text_encoder="t5:x", encode_text=Lengths(), **ONE)
    broken.write_bytes(whole)
    layout.manifest_file(out, 0).unlink()
    prepare(folder, out, SPEC, text_encoder="t5:x", encode_text=Lengths(), **ONE)
    source = ShotClips(out, "train", ClipSpec(4, 16, 16, 3, 10.0), TextSpec("t5:x", 6, 8, "f00d"))
    captions = set()
    for example in map(source.__getitem__, range(len(source))):
        captions.add(example["caption"])
        assert example["text"].max() == len(example["caption"])
    assert captions == {"first", "second"}


def test_captions_that_the_encoder_cuts_are_counted(folder, tmp_path):
    (folder / "deep" / "b.txt").unlink(missing_ok=True)
    (folder / "captions.jsonl").write_text(
        json.dumps({"file": "a.mp4", "caption": "seven letters"})
    )
    summary = prepare(folder, tmp_path / "out", SPEC, encode_text=Lengths(), **ONE)
    assert "1 captions are longer than the text encoder takes" in str(summary)


def test_one_of_several_captions_is_drawn(folder, tmp_path):
    line = {"path": "a.mp4", "caption": ["one", "four", "eleven"]}
    (folder / "list.jsonl").write_text(json.dumps(line))
    prepare(folder / "list.jsonl", tmp_path / "out", SPEC, encode_text=Lengths(), **ONE)
    source = ShotClips(
        tmp_path / "out", "train", ClipSpec(4, 16, 16, 3, 10.0), TextSpec("bytes", 6, 8)
    )
    assert source[0]["caption"] == "one"
    drawn = [source.draw(0, [0, word, 0, 0])["caption"] for word in (0, 2**63, 2**64 - 1)]
    assert drawn == ["one", "four", "eleven"]


def test_file_names_that_are_not_utf8_are_escaped(folder, tmp_path):
    odd = [os.fsdecode(name) for name in (b"caf\xe9.mp4", b"broken\xe9.mp4")]
    try:
        shutil.copy(folder / "a.mp4", folder / odd[0])
    except OSError:
        pytest.skip("this file system refuses names that are not UTF-8")
    (folder / odd[1]).write_text("no video at all")
    (folder / "captions.jsonl").write_text(json.dumps({"file": odd[0], "caption": "a \ud83d"}))
    summary = prepare(folder, tmp_path / "out", SPEC, encode_text=Lengths(), **ONE)
    assert r"broken\udce9.mp4" in summary.reasons[0]
    str(summary).encode()
    captions = {shot.source: shot.captions for shot in records(tmp_path / "out")}
    assert captions[r"caf\udce9.mp4"] == [r"a \ud83d"]


def test_a_video_that_fails_unexpectedly_is_skipped(folder, tmp_path, monkeypatch):
    failure, make = ValueError("no such\npixel format"), geometry.orientation

    def failing(frame):
        if frame.width == 36:
            raise failure
        return make(frame)

    make_video(folder / "a.mp4", noise(50, size=36))
    monkeypatch.setattr(geometry, "orientation", failing)
    summary = prepare(folder, tmp_path / "out", SPEC, **ONE)
    assert "ValueError: no such pixel format" in summary.reasons[0]
    assert "a.mp4" in summary.reasons[0]
    failure = MemoryError()
    with pytest.raises(MemoryError):
        prepare(folder, tmp_path / "more", SPEC, **ONE)


def test_an_input_without_usable_videos_is_refused(tmp_path):
    empty = tmp_path / "empty"
    with pytest.raises(UserError, match="no folder"):
        prepare(empty, tmp_path / "out", SPEC)
    empty.mkdir()
    (empty / "notes.txt").write_text("hello")
    with pytest.raises(UserError, match=r"empty holds no video; videos .* end in .*\.mp4"):
        prepare(empty, tmp_path / "out", SPEC)
    (empty / "bad.mp4").write_text("hello")
    with pytest.raises(UserError, match=r"gave a shot: .*bad\.mp4"):
        prepare(empty, tmp_path / "out", SPEC, **ONE)
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ({}, {"val_fraction": 1.0}, "val_fraction"),
        ({}, {"val_seconds": 0}, "val_seconds"),
        ({"fps": 0.0}, {}, "fps must be above 0"),
        ({"fps": 5000.0}, {}, "at most 1000"),
        ({"side": -1}, {}, "side must be above 0"),
        ({"codec": "mp4"}, {}, "unknown codec 'mp4'"),
        ({"max_seconds": 0.1}, {}, "max_seconds is 0.1 and min_seconds 1"),
    ],
)
def test_arguments_out_of_range_are_refused(folder, tmp_path, spec, options, message):
    with pytest.raises(UserError, match=message):
        prepare(folder, tmp_path / "out", Spec(**spec), **ONE, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["videos"]


def test_the_command_has_the_defaults_of_the_function():
    parsed = vars(COMMAND.parser("stunet prepare").parse(["videos", "out"]))
    there = inspect.signature(prepare).parameters
    for name, value in {**vars(Spec()), **{n: p.default for n, p in there.items()}}.items():
        if name in parsed and name not in ("quality", "group", "engine"):
            assert parsed[name] == value
    spec = make_codec(Spec.codec)
    assert (Spec.quality, Spec.group) == (spec.quality, spec.group)
    for action in COMMAND.parser("stunet prepare")._actions:
        if action.dest == "codec":
            assert sorted(action.choices) == sorted(CODECS)
        if action.dest in ("codec", "quality", "group"):
            for name, kind in CODECS.items():
                if action.dest == "quality" and len(kind.qualities) > 1:
                    assert f"{name} " in action.help
                    assert f"default {kind.quality}" in action.help


def test_options_that_became_keys_are_explained(capsys):
    with pytest.raises(SystemExit):
        COMMAND.parser("stunet prepare").parse(["videos", "out", "--frames", "16"])
    assert "give `stunet train` --config.data.frames=16" in capsys.readouterr().err


def test_a_full_disk_keeps_what_is_done(folder, tmp_path, small_disk):
    make_video(folder / "more.mp4", noise(100, 5, size=64))
    prepare(folder, tmp_path / "whole", SPEC, **ONE)
    disk = small_disk(400)  # A shard has at least 128 KiB.
    with pytest.raises(UserError, match=f"the disk that holds {disk}/out is full"):
        prepare(folder, disk / "out", SPEC, **ONE)
    kept = digests(disk / "out", "shards/*.array_record")
    assert kept
    assert kept.items() < digests(tmp_path / "whole", "shards/*").items()
    assert not list((disk / "out").rglob("*partial*"))
    subprocess.run(["mount", "-o", "remount,size=2m", disk], check=True)
    prepare(folder, disk / "out", SPEC, **ONE)
    assert digests(disk / "out") == digests(tmp_path / "whole")


def test_what_repeats_or_breaks_off_is_said(tmp_path):
    shutil.copytree(CASES, tmp_path / "in")
    summary = prepare(tmp_path / "in", tmp_path / "out", Spec(side=16, fps=24.0), **ONE)
    assert summary.skipped == 2
    assert "stays for 3,600 s" in str(summary)
    assert "hlg.mp4: has fewer pictures than the shots: 64 of 96 frames repeat" in str(summary)


def test_a_manifest_has_no_time_or_place_in_it(folder, tmp_path):
    prepare(folder, tmp_path / "out", SPEC, **ONE)
    manifest = msgspec.to_builtins(shards.read_manifest(tmp_path / "out", 0))
    assert str(tmp_path) not in json.dumps(manifest)
