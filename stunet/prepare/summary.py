"""Counts what became of videos, and says it in a few lines."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from stunet.formatting import counted
from stunet.prepare.gather import Gathered
from stunet.prepare.shards import Manifest

# Videos of each kind that the summary names. The manifests name all.
_MAX_LISTED = 20


@dataclasses.dataclass(frozen=True)
class Dropped:
    """Counts the shots that a filter drops.

    Attributes:
        reason: why the shots are dropped.
        numbers: numbers of all these shots.
        seconds: their length together.
        example: name of the first one.
    """

    reason: str
    numbers: Int64[np.ndarray, "n"]
    seconds: float
    example: str

    def __str__(self) -> str:
        count = len(self.numbers)
        what = f"{counted(count, 'shot')} of {span(self.seconds)} ({self.reason})"
        return f"dropped {what}: {self.example}{', ...' * (count > 1)}"


@dataclasses.dataclass(frozen=True, order=True)
class Slow:
    """Says how long a video took.

    Attributes:
        seconds: processor time.
        path: path of the video.
        frames: number of its frames, at the rate of the shots.
    """

    seconds: float
    path: str
    frames: int

    @property
    def rate(self) -> float:
        """Returns the frames for each second of processor time."""
        return self.frames / max(self.seconds, 1e-6)


@dataclasses.dataclass
class PrepareSummary:
    """Counts what is in a set of shots, and names the first videos that are not.

    Attributes:
        output_dir: directory of the set.
        shots: number of shots that are kept.
        seconds: length of these shots together.
        held_out_seconds: seconds that are held out for validation.
        videos: number of videos that gave at least one shot.
        added: number of videos that this command added to the list.
        captioned: number of videos that gave a shot and have a caption.
        skipped: number of videos that could not be read.
        dropped: shots that filters drop, by the reason.
        cropped: number of videos whose black bars were cut off.
        cuts: number of cuts, which no shot spans.
        too_short: number of videos without a stretch that is long enough for a shot.
        left_out_seconds: seconds in stretches that are too short for a shot.
        reasons: the first videos that were skipped, and why.
        notes: sentences about the input, and about the first videos with something to say of.
        num_bytes: size of the files of shots.
        shards: number of these files.
        remade: number of shards that were damaged and made again.
        slowest: the videos of this command that took most processor time, the slowest first.
        gathered: measures of all shots.
        wall_seconds: seconds that this command took.
    """

    output_dir: Path
    shots: int = 0
    seconds: float = 0.0
    held_out_seconds: float = 0.0
    videos: int = 0
    added: int = 0
    captioned: int = 0
    skipped: int = 0
    dropped: list[Dropped] = dataclasses.field(default_factory=list)
    cropped: int = 0
    cuts: int = 0
    too_short: int = 0
    left_out_seconds: float = 0.0
    reasons: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    num_bytes: int = 0
    shards: int = 0
    remade: int = 0
    slowest: list[Slow] = dataclasses.field(default_factory=list)
    gathered: Gathered | None = None
    wall_seconds: float = 0.0

    def __str__(self) -> str:
        lines = [
            f"{self.output_dir}: {counted(self.shots, 'shot')} of {span(self.seconds)}, of which "
            f"{span(self.held_out_seconds)} are held out, from {counted(self.videos, 'video')} "
            f"({self.captioned:,} with a caption), {self.num_bytes / 2**20:,.1f} MiB, in "
            f"{self.wall_seconds:,.1f} s"
        ]
        lines += [f"skipped {reason}" for reason in self.reasons]
        if self.skipped > len(self.reasons):
            lines.append(f"and {self.skipped - len(self.reasons):,} more were skipped")
        lines += [*self.notes, *map(str, self.dropped)]
        if self.cropped:
            lines.append(f"black bars were cut off from {counted(self.cropped, 'video')}")
        if self.cuts:
            lines.append(f"{counted(self.cuts, 'cut')} found, which no shot spans")
        if self.too_short:
            lines.append(f"too short for a shot: {counted(self.too_short, 'video')}")
        if self.left_out_seconds:
            lines.append(
                f"{span(self.left_out_seconds)} in stretches that are too short are in no shot"
            )
        if self.remade:
            lines.append(f"made again, because they were damaged: {counted(self.remade, 'shard')}")
        return "\n".join(lines)

    def add(self, manifest: Manifest, fps: float) -> None:
        """Counts what a shard holds, but for its shots.

        Args:
            manifest: manifest of the shard.
            fps: frames per second of the shots.
        """
        self.shards += 1
        self.num_bytes += manifest.bytes
        for video in manifest.videos:
            if video.skipped:
                self.skipped += 1
                if len(self.reasons) < _MAX_LISTED:
                    self.reasons.append(video.skipped)
                continue
            self.videos += bool(video.shots)
            self.captioned += bool(video.shots and video.captions)
            self.cropped += video.has_bars
            self.cuts += video.cuts
            self.too_short += not video.shots
            self.left_out_seconds += video.left_out / fps
            if video.notes and len(self.notes) < _MAX_LISTED:
                self.notes.append(f"{video.path}: {'; '.join(video.notes)}")


def span(seconds: float) -> str:
    """Returns a length of time in the unit that suits it."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:,.1f} h"
