"""Prints to stderr the captions that a text encoder shortens because they are too long."""

import threading

from stunet.progress import note

# Captions that an encoder names. A data set may hold thousands of long ones.
_NAMED = 3
_SHOWN = 60  # characters of each


class CutCaptions:
    """Prints the first few captions that are too long for a text encoder and lose their end."""

    def __init__(self, max_length: int):
        self._max_length = max_length
        self._named: set[str] = set()
        self._lock = threading.Lock()

    def tell(self, caption: str) -> None:
        """Prints a sentence about a caption that was cut, once for each of the first few."""
        with self._lock:
            if caption in self._named or len(self._named) == _NAMED:
                return
            self._named.add(caption)
            named = len(self._named)
        shown = caption if len(caption) <= _SHOWN else f"{caption[:_SHOWN]}..."
        more = "; no further ones are named" if named == _NAMED else ""
        note(
            f"a text is longer than {self._max_length} tokens (text.max_length), and its end is "
            f"cut off: {shown!r}{more}"
        )
