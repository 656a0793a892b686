"""Cuts one video into shots and encodes them."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from stunet.data.shots.layout import Spec
from stunet.prepare import geometry
from stunet.prepare.bars import find_window
from stunet.prepare.cuts import Cut, with_cuts
from stunet.prepare.decode import resampled, what_repeats
from stunet.prepare.kinds import is_picture
from stunet.prepare.looks import Look, Measures, Seen, measure, seen
from stunet.prepare.places import Place
from stunet.prepare.stretches import Stretch
from stunet.prepare.timing import Break


@dataclasses.dataclass(frozen=True)
class EncodedShot:
    """Holds a shot of a video.

    Attributes:
        begin: second of the video at which the shot begins, not counting what breaks left out.
        height: rows of each picture.
        width: columns of each picture.
        measures: how the shot looks and moves.
        packets: the encoded pictures.
    """

    begin: float
    height: int
    width: int
    measures: Measures
    packets: list[bytes]


@dataclasses.dataclass
class Tally:
    """Counts what happens to the frames of one video.

    Attributes:
        frames: frames at the rate of the shots.
        repeated: frames that show the same picture as the frame before.
        cuts: cuts, which no shot spans.
        left_out: frames in stretches that are too short for a shot.
        has_bars: True if black bars were cut off.
        breaks: for each break, a sentence that says why no shot spans it.
    """

    frames: int = 0
    repeated: int = 0
    cuts: int = 0
    left_out: int = 0
    has_bars: bool = False
    breaks: list[str] = dataclasses.field(default_factory=list)

    def notes(self) -> list[str]:
        """Returns notes for the user. Each is a sentence without its subject, the video."""
        reasons = [f"{reason} (no shot spans that place)" for reason in self.breaks]
        return [*reasons, *what_repeats(self.repeated, self.frames, "shots")]


def encode_shots(place: Place, stretch: Stretch, spec: Spec, tally: Tally) -> Iterator[EncodedShot]:
    """Yields the shots of a stretch of a video, and counts its frames in `tally`.

    No shot spans a cut, a break, or a change of the pictures' size. A stretch that is longer than
    `spec.max_seconds` becomes several shots, the last of which has at least half that length. A
    picture is a shot of one frame.

    Raises:
        CorruptVideo: the file is damaged. Earlier shots come from the undamaged part.
        UserError: there is no such file.
    """
    codec = spec.make_codec()
    # Whole groups, so that packets of two encodings can follow each other.
    most = max(1, round(spec.max_seconds * spec.fps / codec.group)) * codec.group
    least = 1 if is_picture(place) else max(1, round(spec.min_seconds * spec.fps))
    fit = functools.partial(geometry.at_most, spec.side)
    window = find_window(place, stretch) if spec.crop_bars and not is_picture(place) else None
    tally.has_bars = window is not None
    pictures = seen(resampled(place, spec.fps, 3, fit, stretch, window))
    frames = _numbered(with_cuts(pictures, spec.cut_threshold), tally)
    for _, group in itertools.groupby(frames, key=lambda frame: frame.stretch):
        looks: list[tuple[Look, bool]] = []
        shown = _noted(group, looks)
        begin, first = tally.frames - 1, next(shown)
        for packets in _pieces(itertools.chain([first], shown), codec.encode, most):
            if len(packets) < least:
                tally.left_out += len(packets)
            else:
                seconds = float((stretch.start or 0) + begin / spec.fps)
                measures = measure(looks[: len(packets)], spec.fps)
                yield EncodedShot(seconds, *first.shape[:2], measures, packets)
            begin += len(packets)
            del looks[: len(packets)]


class _Frame(NamedTuple):
    """Holds a frame.

    Attributes:
        stretch: number of the stretch without a break that the frame belongs to.
        picture: its picture.
        look: how the picture looks.
        is_new: True if the frame before shows another picture.
    """

    stretch: int
    picture: np.ndarray
    look: Look
    is_new: bool


def _noted(frames: Iterable[_Frame], looks: list[tuple[Look, bool]]) -> Iterator[np.ndarray]:
    """Yields the pictures of frames, and adds their looks to a list."""
    for frame in frames:
        looks.append((frame.look, frame.is_new))
        yield frame.picture


def _numbered(pictures: Iterable[Seen | Break | Cut], tally: Tally) -> Iterator[_Frame]:
    """Yields each frame of some pictures."""
    stretch, shape = 0, None
    for entry in pictures:
        if isinstance(entry, Cut):
            tally.cuts += 1
            stretch += 1
            continue
        if isinstance(entry, Break):
            tally.breaks.append(entry.reason)
            stretch, shape = stretch + 1, None
            continue
        if shape not in (None, entry.picture.shape):
            tally.breaks.append("its pictures change their size")
            stretch += 1
        shape = entry.picture.shape
        tally.repeated += entry.times - 1
        for time in range(entry.times):
            tally.frames += 1
            yield _Frame(stretch, entry.picture, entry.look, time == 0)


def _pieces(frames: Iterator[np.ndarray], encode, most: int) -> Iterator[list[bytes]]:
    """Yields the packets of a stretch in pieces of `most` frames.

    A rest of less than half of that is part of the piece before.
    """
    piece: list[bytes] = []
    while packets := list(encode(itertools.islice(frames, most))):
        if piece and len(packets) < most / 2:
            piece += packets
            continue
        if piece:
            yield piece
        piece = packets
    if piece:
        yield piece
