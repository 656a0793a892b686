"""Tells how far `prepare` is: a bar on a terminal, and otherwise a line each minute."""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from stunet import progress

# Seconds between two lines where there is no terminal.
_EVERY = 60


class Counter:
    """Counts videos while they are prepared, and shows the counts."""

    def __init__(self, total: int, shown: bool, clock: Callable[[], float] = time.monotonic):
        """Begins to count.

        Args:
            total: number of videos to prepare.
            shown: False to show nothing.
            clock: returns the time in seconds.
        """
        self._total, self._shown, self._clock = total, shown, clock
        self._begin = self._last = clock()
        self.videos = self.frames = self.skipped = 0
        hidden = not (shown and sys.stderr.isatty())
        self._bar = tqdm(total=total, unit="video", disable=hidden, dynamic_ncols=True)

    def add(self, frames: int, skipped: bool) -> None:
        """Counts one video.

        Args:
            frames: number of the video's frames.
            skipped: True if the video could not be read.
        """
        self.videos += 1
        self.frames += frames
        self.skipped += skipped
        now = self._clock()
        if not self._bar.disable:
            rate = self.frames / max(now - self._begin, 1e-9)
            self._bar.set_postfix_str(f"{rate:,.0f} frames/s, {self.skipped} skipped", False)
            self._bar.update()
        elif self._shown and now - self._last >= _EVERY:
            self._last = now
            progress.note(str(self))

    def __str__(self) -> str:
        seconds = max(self._clock() - self._begin, 1e-9)
        rate = self.videos / seconds
        left = (self._total - self.videos) / rate if rate else 0
        return (
            f"{self.videos:,} of {self._total:,} videos, {rate:,.2f} videos/s, "
            f"{self.frames / seconds:,.0f} frames/s, {left / 60:,.0f} min left, "
            f"{self.skipped:,} skipped so far"
        )

    def close(self) -> None:
        """Ends the bar."""
        self._bar.close()
