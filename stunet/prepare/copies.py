"""Finds shots that nearly equal an earlier shot of another video, by their perceptual hashes."""

import numpy as np
from jaxtyping import Int, UInt8

# In each of these stretches of bits, a shot is compared with earlier shots whose bits are equal
# there: with so many of them at most.
_BANDS, _MOST = 16, 64


def earlier(
    hashes: UInt8[np.ndarray, "n 32"], videos: Int[np.ndarray, "n"], bits: int
) -> Int[np.ndarray, "n"]:
    """Returns the number of an earlier shot that each shot nearly equals, or -1.

    The answer for a shot depends on the shots before it alone, so that shots that are added later
    change nothing.

    Args:
        hashes: perceptual hash of each shot.
        videos: number of each shot's video. Shots of one video are not compared.
        bits: shots are nearly equal if their hashes differ in fewer bits than this.
    """
    found = np.full(len(hashes), -1, np.int64)
    words = np.ascontiguousarray(hashes).view(np.uint64)
    bands = np.ascontiguousarray(hashes).view(np.uint16)
    for band in range(_BANDS):
        order = np.argsort(bands[:, band], kind="stable")
        keys, sorted_words, sorted_videos = bands[order, band], words[order], videos[order]
        for step in range(1, min(_MOST, len(keys) - 1) + 1):
            same = np.flatnonzero(keys[step:] == keys[:-step])
            if not len(same):
                break
            differing = np.bitwise_count(sorted_words[same + step] ^ sorted_words[same]).sum(1)
            same = same[differing < bits]
            same = same[sorted_videos[same + step] != sorted_videos[same]]
            same = same[found[order[same + step]] < 0]
            found[order[same + step]] = order[same]
    return found
