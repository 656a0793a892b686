"""Decoding: the right frames, cropped and turned, of sound files; broken files are reported."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stunet.errors import UserError
from stunet.prepare.decode import decode_clips
from stunet.prepare.opening import CorruptVideo


def encode(path, frames, fps, codec="libx264", pix_fmt="yuv420p", rotation=None, **options):
    """Writes uint8 frames [t, h, w, 3] with PyAV alone, independent of the code under test."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            stream.options = {"crf": "8"}
        elif codec == "mpeg4":
            stream.bit_rate = 2_000_000
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for i, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def brightening(frames=50, height=48, width=64):
    """Frame k is grey of value 20 + 4k throughout."""
    values = 20 + 4 * np.arange(frames, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (frames, height, width, 3)).copy()


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt", "source_fps"),
    [
        ("mp4", "libx264", "yuv420p", 20),
        ("webm", "libvpx-vp9", "yuv420p", 20),
        ("mpg", "mpeg2video", "yuv420p", 25),
        ("avi", "mpeg4", "yuv420p", 20),
        ("gif", "gif", "rgb8", 20),
    ],
)
def test_half_the_rate_gives_every_second_frame(tmp_path, suffix, codec, pix_fmt, source_fps):
    path = encode(tmp_path / f"a.{suffix}", brightening(), source_fps, codec, pix_fmt)
    decoder = decode_clips(path, 5, source_fps / 2, 24, 32, channels=1)
    clips = list(decoder)
    assert [clip.shape for clip in clips] == [(5, 24, 32, 1)] * 5
    assert decoder.dropped_frames == 0
    seen = np.concatenate(clips).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(seen, 20 + 4 * np.arange(0, 50, 2), atol=2.5)


def test_rgb_and_grey_agree_and_the_remainder_is_counted(tmp_path):
    path = encode(tmp_path / "a.mp4", brightening(), 20)
    grey = decode_clips(path, 16, 20, 24, 32, channels=1)
    rgb = np.stack(list(decode_clips(path, 16, 20, 24, 32)))
    np.testing.assert_allclose(np.stack(list(grey)).repeat(3, -1), rgb, atol=2)
    assert (grey.clips, grey.dropped_frames) == (3, 2)


@pytest.mark.parametrize(("stride", "starts"), [(4, range(0, 41, 4)), (15, (0, 15, 30))])
def test_stride_sets_where_clips_begin(tmp_path, stride, starts):
    path = encode(tmp_path / "a.mp4", brightening(), 20)
    clips = list(decode_clips(path, 10, 20, 24, 32, stride=stride))
    begins = [clip[0].mean() for clip in clips]
    np.testing.assert_allclose(begins, 20 + 4 * np.array(starts), atol=2)


def test_crop_is_central_and_keeps_the_aspect(tmp_path):
    frames = np.zeros((4, 48, 96, 3), np.uint8)
    frames[:, :, 24:72] = 255  # the central square of a wide picture is white
    path = encode(tmp_path / "a.mp4", frames, 8)
    clip = next(decode_clips(path, 4, 8, 24, 24))
    assert clip[:, :, 1:-1].min() > 240
    assert next(decode_clips(path, 4, 8, 24, 48))[:, :, :10].max() < 16


@pytest.mark.parametrize(
    ("rotation", "corner"), [(0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (270, (0, -1))]
)
def test_rotation_noted_in_the_file_is_applied(tmp_path, rotation, corner):
    frames = np.full((4, 48, 64, 3), 40, np.uint8)
    frames[:, :12, :12] = 255  # Counter-clockwise turns move this corner.
    path = encode(tmp_path / "a.mp4", frames, 8, rotation=rotation)
    height, width = (64, 48) if rotation % 180 else (48, 64)
    clip = next(decode_clips(path, 4, 8, height, width))
    ends = {-1: slice(-8, None), 0: slice(8)}
    for y in (0, -1):
        for x in (0, -1):
            assert (clip[:, ends[y], ends[x]].mean() > 200) == ((y, x) == corner)


def test_frames_are_the_last_ones_that_round_to_each_output_time(tmp_path):
    with av.open("testsrc2=size=96x72:rate=30:duration=2", format="lavfi") as source:
        frames = np.stack([f.to_ndarray(format="rgb24") for f in source.decode(video=0)])
    path = encode(tmp_path / "a.mp4", frames, 30, pix_fmt="yuv444p")
    clips = np.concatenate(list(decode_clips(path, 5, 10, 72, 96)))
    assert len(clips) == 20
    # Each output frame has three source frames. It is the last one whose time rounds to it.
    assert min(psnr(a, b) for a, b in zip(clips, frames[1::3], strict=True)) > 35


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("layout", ["mp4", "faststart", "webm"])
def test_a_truncated_video_is_reported_as_corrupt(tmp_path, layout, share):
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (20, 48, 64, 3), dtype=np.uint8)
    if layout == "webm":
        path = encode(tmp_path / "a.webm", frames, 10, "libvpx-vp9")
    else:
        options = {"movflags": "faststart"} if layout == "faststart" else {}
        path = encode(tmp_path / "a.mp4", frames, 10, **options)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(CorruptVideo, match=path.name):
        list(decode_clips(path, 5, 10, 24, 32))


def test_other_files_and_arguments_out_of_range_are_reported(tmp_path):
    text = tmp_path / "a.mp4"
    text.write_text("not a video\n" * 100)
    with pytest.raises(CorruptVideo, match="cannot be decoded"):
        next(decode_clips(text, 5, 10, 24, 32))
    with pytest.raises(UserError, match="no file"):
        next(decode_clips(tmp_path / "missing.mp4", 5, 10, 24, 32))
    sound = tmp_path / "sound.mkv"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(CorruptVideo, match="no video stream"):
        next(decode_clips(sound, 5, 10, 24, 32))
    for fps in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UserError, match="fps must be positive"):
            decode_clips(text, 5, fps, 24, 32)
    with pytest.raises(UserError, match="fps is 1e\\+09; at most 1000"):
        decode_clips(text, 5, 1e9, 24, 32)
