"""Computes which stretches of shots are held out, and which clips the rest gives."""

import dataclasses
import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from jaxtyping import Int

from stunet.errors import UserError

Counts = Int[np.ndarray, "n"]


def held_out(
    frames: Counts, fps: float | int, fraction: float | int, seconds: float | int
) -> Counts:
    """Returns how many pictures at the end of each shot are held out for validation.

    About `fraction` of all time is held out, in stretches of `seconds`. Of a shot that is shorter
    than two such stretches, all or nothing is held out. Shot i depends on the shots before it
    alone, so that shots that are added later change nothing. The first shot is never held out as
    a whole.

    Args:
        frames: number of pictures of each shot.
        fps: frames per second of the shots.
        fraction: share of the time, in [0, 1).
        seconds: length of a held-out stretch.
    """
    unit = max(1, round(seconds * fps))
    # In whole numbers, so that every machine agrees. The first stretch is held out early, so that
    # a small set has one too.
    share = Fraction(fraction).limit_denominator(10**6)
    due = (share.denominator - share.numerator) * unit
    held = np.zeros(len(frames), np.int32)
    for shot, length in enumerate(frames.tolist() if fraction else ()):
        due += share.numerator * length
        part = min(length, max(0, due) // share.denominator // unit * unit)
        if part and length - part < unit:
            part = length if shot else 0
        held[shot] = part
        due -= share.denominator * part
    return held


def offsets(frames: int, fps: float | int, stored_fps: float | int) -> Int[np.ndarray, "t"]:
    """Returns the stored picture that each frame of a clip shows, counted from the clip's first.

    Frame k shows the stored picture that is nearest in time, the later one of two.

    Raises:
        UserError: the shots have fewer frames per second than the clip.
    """
    if fps > stored_fps:
        raise UserError(
            f"the shots have {stored_fps:g} frames per second, and data.fps is {fps:g}; lower "
            "data.fps, or prepare the videos again with a higher --fps"
        )
    step = Fraction(stored_fps).limit_denominator(10**6) / Fraction(fps).limit_denominator(10**6)
    return np.array([math.floor(k * step + Fraction(1, 2)) for k in range(frames)])


@dataclasses.dataclass(frozen=True)
class Slot:
    """Says where a clip may lie.

    Attributes:
        shot: number of the shot.
        begin: first picture of the shot at which the clip may begin.
        end: the clip begins before this picture.
        place: picture at which the clip begins if nothing is random. Neighbouring slots then do
            not overlap.
    """

    shot: int
    begin: int
    end: int
    place: int


class Slots(Sequence[Slot]):
    """Lists the slots of a split. A stretch has one slot for each clip that fits without overlap.

    In each epoch a run reads every slot once, so long shots count for more than short ones.
    """

    def __init__(self, begins: Counts, lengths: Counts, span: int):
        """Counts the slots.

        Args:
            begins: first picture of the stretch of each shot that may be read.
            lengths: number of pictures of each of these stretches.
            span: number of pictures from the first to the last of a clip.
        """
        self._begins, self._lengths, self._span = begins, lengths, span
        self._ends = np.cumsum(lengths // span, dtype=np.int64)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(f"slot {index} of {len(self)}")
        shot = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[shot - 1]) if shot else 0
        begin, length = int(self._begins[shot]), int(self._lengths[shot])
        place = begin + (index - before) * self._span
        return Slot(shot, begin, begin + length - self._span + 1, place)
