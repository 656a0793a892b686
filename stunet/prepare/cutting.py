"""Cuts videos into clips in parallel threads, and stores the clips in files of raw pixels."""

import collections
import contextlib
import dataclasses
import math
import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from stunet.prepare.decode import decode_clips
from stunet.prepare.opening import CorruptVideo

# (frames, height, width, channels)
ClipShape = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class CutVideo:
    """Describes a file of raw pixels that holds the clips of one video.

    Attributes:
        file: file that holds the clips one after the other.
        shape: shape of each clip.
        num_clips: number of clips in the file.
        dropped_frames: number of frames of the video that are in no clip.
        notes: notes for the user about the video, such as "has fewer pictures than ...". Each note
            is a sentence without its subject, which is the name of the video.
    """

    file: Path
    shape: ClipShape
    num_clips: int
    dropped_frames: int
    notes: tuple[str, ...] = ()

    def clips(self) -> Iterator[UInt8[np.ndarray, "t h w c"]]:
        """Reads the clips one by one."""
        with self.file.open("rb") as file:
            for _ in range(self.num_clips):
                clip = np.frombuffer(file.read(math.prod(self.shape)), np.uint8)
                yield clip.reshape(self.shape)


@contextlib.contextmanager
def cut_videos(
    input_dir: Path,
    videos: Sequence[str],
    directory: Path,
    shape: ClipShape,
    fps: float | int,
    workers: int | None,
) -> Iterator[Iterator[CutVideo | CorruptVideo]]:
    """Context manager that cuts videos in threads and yields the results in the videos' order.

    The clips of a video are first stored in a file, because only the end of the video tells how
    many clips it has and whether it is undamaged. The caller deletes each file after its clips are
    written. Leaving the context stops the threads.

    Args:
        input_dir: folder of the videos.
        videos: paths of the videos, relative to `input_dir`.
        directory: existing folder for the files of raw clips.
        shape: shape of each clip.
        fps: frames per second of the clips.
        workers: videos decoded at once; None means one for each processor.

    Yields:
        An iterator over one result for each video: a `CutVideo`, or the error raised while the
            video was read.
    """
    frames, height, width, channels = shape
    stop = threading.Event()

    def cut(index: int, video: str) -> CutVideo | CorruptVideo:
        file = directory / f"spool-{index}"
        clips = decode_clips(input_dir / video, frames, fps, height, width, channels)
        try:
            with file.open("wb") as opened:
                for clip in clips:
                    opened.write(clip.data)
                    if stop.is_set():
                        break
        except CorruptVideo as error:
            file.unlink()
            return error
        return CutVideo(file, shape, clips.clips, clips.dropped_frames, tuple(clips.notes()))

    workers = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(workers) as pool:

        def results() -> Iterator[CutVideo | CorruptVideo]:
            pending = collections.deque()
            for index, video in enumerate(videos):
                pending.append(pool.submit(cut, index, video))
                # Decoding far ahead of the writer would fill the disk with raw clips.
                if len(pending) > workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()

        try:
            yield results()
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)
