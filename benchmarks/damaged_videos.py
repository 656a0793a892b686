"""Counts how many damaged videos are refused, and how many are kept although damage shows.

    python benchmarks/damaged_videos.py

The program writes one test picture as a video in each format, changes 4 random bytes in each of
300 copies, and cuts every copy into clips. A copy is "seen" to be damaged if its clips differ from
those of the whole video by more than 40 of 255 somewhere, or in their number. It is "marked" if
FFmpeg's decoder marks one of its pictures as corrupt, or fails, in its default mode.
"""

import argparse
import collections
import tempfile
from pathlib import Path

import av
import numpy as np

from stunet.errors import UserError
from stunet.prepare.decode import decode_clips

# By file name: the encoder, its pixel format, its options, and pictures per second.
FORMATS = {
    "h264.mp4": ("libx264", "yuv420p", {}, 12),
    "h264.mkv": ("libx264", "yuv420p", {}, 12),
    "h264.ts": ("libx264", "yuv420p", {}, 12),
    "mpeg2.mpg": ("mpeg2video", "yuv420p", {}, 24),
    "mpeg4.avi": ("mpeg4", "yuv420p", {}, 12),
    "hevc.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none"}, 12),
    "hevc_hash.mp4": ("libx265", "yuv420p", {"x265-params": "log-level=none:hash=1"}, 12),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}, 12),
    "gif.gif": ("gif", "rgb8", {}, 10),
}
SECONDS, CHANGES, VISIBLE = 4, 4, 40


def write(path: Path) -> int:
    """Writes a picture that changes in every frame, and returns its pictures per second."""
    codec, pixels, options, rate = FORMATS[path.name]
    spec = f"testsrc2=size=96x72:rate={rate}:duration={SECONDS}"
    with av.open(spec, format="lavfi") as source, av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 72, pixels
        stream.options, stream.bit_rate = options, 1_000_000
        for i, frame in enumerate(source.decode(video=0)):
            frame = frame.reformat(format=pixels)
            frame.pts, frame.pict_type = i, 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return rate


def clips_of(path: Path, rate: int) -> np.ndarray:
    clips = list(decode_clips(path, 4, rate, 48, 64))
    return np.stack(clips).astype(int) if clips else np.zeros(0)


def is_marked(path: Path) -> bool:
    """Tells whether the decoder finds damage when it hides what it can."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            packets = [(p.is_corrupt, p.decode()) for p in container.demux(video=0)]
    except av.FFmpegError:
        return True
    return any(corrupt or any(f.is_corrupt for f in frames) for corrupt, frames in packets)


def outcome(path: Path, rate: int, whole: np.ndarray) -> str:
    """Returns what becomes of a damaged copy, in words."""
    try:
        clips = clips_of(path, rate)
    except UserError:
        return "refused"
    if clips.shape == whole.shape and np.abs(clips - whole).max() <= VISIBLE:
        return "kept, not seen"
    return "kept, seen, marked" if is_marked(path) else "kept, seen, not marked"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="formats to try, such as vp9.webm (all)")
    parser.add_argument("--copies", type=int, default=300, help="copies of each video (300)")
    arguments = parser.parse_args()
    copies, names = arguments.copies, arguments.names or FORMATS
    outcomes = ("refused", "kept, not seen", "kept, seen, not marked", "kept, seen, marked")
    print(f"| of {copies} | {' | '.join(outcomes)} |\n|---|{len(outcomes) * '---:|'}")
    with tempfile.TemporaryDirectory() as directory:
        for name in names:
            path = Path(directory, name)
            rate = write(path)
            content, whole = path.read_bytes(), clips_of(path, rate)
            rng, counts = np.random.default_rng(0), collections.Counter()
            for _ in range(copies):
                changed = bytearray(content)
                for place in rng.integers(len(content), size=CHANGES):
                    changed[place] = rng.integers(256)
                path.write_bytes(changed)
                counts[outcome(path, rate, whole)] += 1
            print(f"| {name} | {' | '.join(str(counts[o]) for o in outcomes)} |", flush=True)


if __name__ == "__main__":
    main()
