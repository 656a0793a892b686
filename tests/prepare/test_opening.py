"""Opening: healthy files of all kinds are read, damaged and foreign ones refused by name."""

import contextlib
import os
import pathlib
import shutil
import struct

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stunet.errors import UserError
from stunet.prepare.decode import decode_clips, picture_size
from stunet.prepare.opening import CorruptVideo, is_video, opened

CASES = pathlib.Path(__file__).parent / "cases"
SOUND = (CASES / "seg1.mkv").read_bytes()


@pytest.mark.parametrize(
    ("name", "frames", "noted"),
    [
        ("seg1.mkv", 8, []),
        ("segw1.webm", 8, []),
        ("cover_first.mkv", 32, []),
        ("gap.mkv", 32, ["its picture at 1.88 s stays for 3,600 s (no clip spans that place)"]),
        ("two.mpg", 64, ["its timestamps start again after 4.00 s (no clip spans that place)"]),
    ],
)
def test_all_frames_of_healthy_files_and_what_is_said(name, frames, noted):
    decoder = decode_clips(CASES / name, 4, 8, 48, 64)
    assert 4 * len(list(decoder)) + decoder.dropped_frames == frames
    assert decoder.notes() == noted


def test_frames_that_repeat_because_the_clips_are_faster_are_counted():
    decoder = decode_clips(CASES / "seg1.mkv", 4, 24, 48, 64)
    assert len(list(decoder)) == 6
    assert decoder.repeated == 16
    assert "16 of 24 frames repeat the one before" in decoder.notes()[0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("audio_cover.mp4", "has no video stream"),
        ("corrupt_mid.mp4", r"is damaged: the decoder refuses its picture at about \d"),
    ],
)
def test_files_without_sound_pictures_are_refused(name, message):
    with pytest.raises(CorruptVideo, match=message):
        list(decode_clips(CASES / name, 4, 8, 48, 64))


@pytest.mark.parametrize(
    "name",
    ["file:x.mkv", "a:b.mkv", "http:x.mkv", "concat:a|b.mkv", "q?#%20.mkv", " x .mkv", "-.mkv"],
)
def test_any_file_name_is_a_file(tmp_path, monkeypatch, name):
    shutil.copy(CASES / "seg1.mkv", tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert picture_size(pathlib.Path(name)) == picture_size(tmp_path / name) == (48, 64)
    assert is_video(tmp_path / name)


@pytest.mark.parametrize(
    "script",
    [
        "ffconcat version 1.0\nfile secret.mkv\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.mkv\n#EXT-X-ENDLIST\n",
        '<?xml version="1.0"?>\n<MPD type="static"><Period><AdaptationSet><Representation>'
        "<BaseURL>secret.mkv</BaseURL></Representation></AdaptationSet></Period></MPD>\n",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".mpg"])
def test_scripts_that_open_other_files_are_not_followed(tmp_path, script, suffix):
    shutil.copy(CASES / "seg1.mkv", tmp_path / "secret.mkv")
    (tmp_path / f"a{suffix}").write_text(script)
    with pytest.raises(CorruptVideo, match=rf"a\{suffix} cannot be decoded"):
        picture_size(tmp_path / f"a{suffix}")


def make_mp4(path, frames=48):
    """Writes a test picture that changes everywhere in every frame, so that no byte is idle."""
    with (
        av.open(f"testsrc2=size=64x48:rate=8:duration={frames / 8}", format="lavfi") as source,
        av.open(str(path), "w") as container,
    ):
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.metadata["title"] = "any title"
        for i, frame in enumerate(source.decode(video=0)):
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.pict_type = i, 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_tags_that_are_not_utf8_do_not_matter(tmp_path):
    content = make_mp4(tmp_path / "a.mp4").read_bytes()
    assert b"any title" in content
    (tmp_path / "b.mp4").write_bytes(content.replace(b"any title", b"any\xe9titl\xff"))
    assert len(list(decode_clips(tmp_path / "b.mp4", 4, 8, 48, 64))) == 12


def make_all(path, codec, **options):
    """Writes 32 pictures with sound, the pictures in `codec`, at 8 per second."""
    with (
        av.open("testsrc2=size=64x48:rate=8:duration=4", format="lavfi") as source,
        av.open(str(path), "w") as container,
    ):
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.options = options
        stream.bit_rate = 1_000_000
        sound = container.add_stream("aac", rate=8000, layout="mono")
        for i, frame in enumerate(source.decode(video=0)):
            frame = frame.reformat(format="yuv420p")
            frame.pts, frame.pict_type = i, 0
            container.mux(stream.encode(frame))
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1000), np.float32), "fltp", "mono")
            silence.sample_rate, silence.pts = 8000, 1000 * i
            container.mux(sound.encode(silence))
        container.mux(stream.encode())
        container.mux(sound.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        *[(f"a{end}", "libx264") for end in (".avi", ".flv", ".m2ts", ".mkv", ".mov")],
        *[(f"a{end}", "libx264") for end in (".mp4", ".mts", ".ts")],
        *[("a.3gp", "mpeg4"), ("a.3g2", "mpeg4")],
        *[("a.wmv", "wmv2"), ("a.asf", "wmv2")],
    ],
)
def test_all_kinds_of_files_give_all_frames_in_order(tmp_path, name, codec):
    decoder = decode_clips(make_all(tmp_path / name, codec), 4, 8, 48, 64)
    clips = np.concatenate(list(decoder)).astype(int)
    assert (len(clips), decoder.dropped_frames, decoder.notes()) == (32, 0, [])
    whole = np.concatenate(list(decode_clips(make_mp4(tmp_path / "b.mp4", 32), 4, 8, 48, 64)))
    assert np.abs(clips - whole).mean(axis=(1, 2, 3)).max() < 12


@pytest.mark.parametrize("share", [0.5, 0.8])
@pytest.mark.parametrize("suffix", [".avi", ".flv", ".mkv", ".mov"])
def test_a_truncated_file_with_sound_is_told(tmp_path, suffix, share):
    content = make_all(tmp_path / f"a{suffix}", "libx264").read_bytes()
    (tmp_path / f"b{suffix}").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CorruptVideo):
        list(decode_clips(tmp_path / f"b{suffix}", 4, 8, 48, 64))


@pytest.mark.parametrize("begin", [188 * 31, 188 * 60 + 7])
def test_a_broadcast_that_was_joined_late_begins_with_its_first_whole_picture(tmp_path, begin):
    content = make_all(tmp_path / "a.ts", "libx264", g="8").read_bytes()
    (tmp_path / "b.ts").write_bytes(content[begin:])
    decoder = decode_clips(tmp_path / "b.ts", 4, 8, 48, 64)
    assert len(list(decoder)) in (2, 4, 6)
    assert decoder.notes() == []


def test_joined_streams_are_two_parts(tmp_path):
    content = make_all(tmp_path / "a.ts", "libx264").read_bytes()
    (tmp_path / "b.ts").write_bytes(2 * content)
    decoder = decode_clips(tmp_path / "b.ts", 4, 8, 48, 64)
    assert len(list(decoder)) == 16
    assert "timestamps start again after 4.00 s" in decoder.notes()[0]


def flagged(path):
    """Tells whether the decoder marks a picture as corrupt, or fails, when it hides what it can."""
    try:
        with av.open(str(path)) as container:
            packets = [(p.is_corrupt, p.decode()) for p in container.demux(video=0)]
    except (av.FFmpegError, UnicodeDecodeError):
        return True
    return any(corrupt or any(f.is_corrupt for f in frames) for corrupt, frames in packets)


def test_no_damage_that_the_decoder_marks_is_kept(tmp_path):
    """4 random bytes of a video change. The clips are those of the whole video, or it is refused.

    A few changes give another video that is whole, as far as any decoder can tell: 3 to 6 of 60.
    Their number varies, because the encoder writes another file on another processor.
    """
    content = make_mp4(tmp_path / "a.mp4").read_bytes()
    whole = np.stack(list(decode_clips(tmp_path / "a.mp4", 4, 8, 48, 64))).astype(int)
    rng = np.random.default_rng(0)
    refused = unseen = 0
    for _ in range(60):
        changed = bytearray(content)
        for place in rng.integers(0, len(content), 4):
            changed[place] = rng.integers(256)
        (tmp_path / "b.mp4").write_bytes(changed)
        try:
            clips = np.stack(list(decode_clips(tmp_path / "b.mp4", 4, 8, 48, 64)))
        except CorruptVideo:
            refused += 1
            continue
        if clips.shape != whole.shape or np.abs(clips - whole).max() > 40:
            assert not flagged(tmp_path / "b.mp4")
            unseen += 1
    assert refused > 45
    assert unseen < 10


@given(st.lists(st.tuples(st.integers(0, len(SOUND) - 1), st.integers(0, 255)), max_size=30))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_bytes_change_there_are_clips_or_one_sentence(tmp_path, changes):
    changed = bytearray(SOUND)
    for place, value in changes:
        changed[place] = value
    (tmp_path / "a.mkv").write_bytes(changed)
    with contextlib.suppress(UserError):
        for clip in decode_clips(tmp_path / "a.mkv", 4, 8, 48, 64):
            assert clip.shape == (4, 48, 64, 3)


def test_a_small_file_that_claims_a_huge_picture_is_refused(tmp_path):
    side = struct.pack("<HH", 65535, 65535)
    bomb = b"GIF89a" + side + bytes.fromhex("800000") + bytes(6) + b"\x2c" + bytes(4) + side
    (tmp_path / "a.gif").write_bytes(bomb + bytes.fromhex("0002024c01003b"))
    with pytest.raises(CorruptVideo, match=r"a\.gif"):
        list(decode_clips(tmp_path / "a.gif", 1, 8, 48, 64))


def test_hidden_files_are_no_videos():
    names = ["a.mp4", "b.TS", "c.wmv", "d.3gp", "._a.mp4", ".hidden.mkv", "e.txt", "f"]
    assert [name for name in names if is_video(pathlib.Path(name))] == names[:4]


def test_a_file_that_asks_for_more_memory_than_there_is_costs_itself_alone():
    with pytest.raises(CorruptVideo, match="Cannot allocate memory"), opened(CASES / "seg1.mkv"):
        raise av.error.MemoryError(12, "Cannot allocate memory")
    with pytest.raises(MemoryError), opened(CASES / "seg1.mkv"):
        raise MemoryError


def test_a_pipe_is_no_video(tmp_path):
    """Reading it would wait for ever."""
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(CorruptVideo, match="no regular file"), opened(tmp_path / "a.mp4"):
        pass
