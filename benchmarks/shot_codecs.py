"""Measures size, error and speed of the codecs that store shots, on real videos.

    python experiments/fetch_real_clips.py runs/videos
    python benchmarks/shot_codecs.py runs/videos

Every video is shrunk to a shorter side of 256 pixels at 24 frames per second and encoded by each
codec. The table has, for each codec: megabytes for an hour of video; PSNR of the stored pictures,
in RGB, as the mean over videos; frames encoded per second; and clips read per second at the shape
of lumiere_base, 80 frames of 128x128 pixels at 16 frames per second. Everything runs on one thread,
and times are those of the processor, so that other programs hardly change them. PSNR of the clips
themselves is higher, because shrinking averages errors out.
"""

import argparse
import functools
import itertools
import time
from pathlib import Path

import numpy as np

from stunet.data.shots.codecs import Box, Codec, cut_out
from stunet.data.shots.slots import offsets
from stunet.prepare import geometry
from stunet.prepare.decode import resampled
from stunet.prepare.finding import find_videos
from stunet.prepare.timing import Break

SIDE, FPS = 256, 24
FRAMES, SIZE, RATE = 80, 128, 16
CODECS = (
    Codec("raw", 0, 1),
    *(Codec("jpeg", quality, 1) for quality in (85, 95)),
    *(Codec("webp", quality, 1) for quality in (80, 90)),
    *(Codec("h264", quality, 1) for quality in (18, 23)),
    *(Codec("h264", quality, 8) for quality in (12, 18, 23)),
    Codec("h264", 18, 24),
)


def frames_of(path: Path) -> np.ndarray:
    """Returns all frames of a video, as `stunet prepare` would store them."""
    fit = functools.partial(geometry.at_most, SIDE)
    pairs = (pair for pair in resampled(path, FPS, 3, fit) if not isinstance(pair, Break))
    return np.stack([picture for picture, times in pairs for _ in range(times)])


def psnr(pictures: np.ndarray, stored: np.ndarray) -> float:
    """Returns the peak signal-to-noise ratio of stored pictures, in dB."""
    errors = [
        np.mean((a.astype(np.float32) - b) ** 2) for a, b in zip(pictures, stored, strict=True)
    ]
    return float(10 * np.log10(255**2 / max(np.mean(errors), 1e-9)))


def clips_per_second(codec: Codec, packets, height: int, width: int, seconds: float) -> float:
    """Reads clips at changing places for some seconds, and returns how many per second."""
    steps = offsets(FRAMES, RATE, FPS)
    places = itertools.cycle(range(0, max(1, len(packets) - int(steps[-1])), 7))
    box = Box(0, (width - height) // 4 * 2, height, height)
    began, clips = time.process_time(), 0
    while time.process_time() - began < seconds:
        # A video that is shorter than the clip is read to its end and counts as a part of one.
        wanted = [place for place in (next(places) + steps).tolist() if place < len(packets)]
        cut_out(codec.decode(packets, wanted, height, width), box, SIZE, SIZE, 3)
        clips += len(wanted) / FRAMES
    return clips / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, help="folder of videos")
    parser.add_argument("--seconds", type=float, default=0.5, help="time to read each video (0.5)")
    arguments = parser.parse_args()
    names = list(find_videos(arguments.videos).captions)
    videos = [frames_of(arguments.videos / name) for name in names]
    for name, video in zip(names, videos, strict=True):
        print(f"{name}: {len(video)} frames of {video.shape[1]}x{video.shape[2]}")
    print("| codec | quality | group | MB an hour | PSNR, dB | encoded frames/s | clips/s |")
    print("|---|---:|---:|---:|---:|---:|---:|")
    for codec in CODECS:
        size, errors, encoding, reading = 0, [], 0.0, []
        for video in videos:
            height, width = video.shape[1:3]
            began = time.process_time()
            packets = list(codec.encode(video))
            encoding += time.process_time() - began
            size += sum(map(len, packets))
            decoded = codec.decode(packets, range(len(packets)), height, width)
            stored = cut_out(decoded, Box(0, 0, height, width), height, width, 3)
            errors.append(psnr(video, stored))
            reading.append(clips_per_second(codec, packets, height, width, arguments.seconds))
        count = sum(map(len, videos))
        print(
            f"| {codec.name} | {codec.quality} | {codec.group} "
            f"| {size / count * FPS * 3600 / 1e6:,.0f} | {np.mean(errors):.1f} "
            f"| {count / encoding:,.0f} | {np.mean(reading):.1f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
