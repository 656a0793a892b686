"""Writes clips as arrays, with all that a page needs to show them, and reads them back.

The file is NumPy's `.npz`. It holds no pickled objects.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import UInt8

from stunet.errors import UserError
from stunet.files import atomic

SUFFIX = ".npz"


@dataclasses.dataclass(frozen=True)
class Shown:
    """Clips, and how they came about.

    Attributes:
        task: task of `stunet sample`, or "data" for clips of a data source.
        command: the command line that made the clips.
        fps: frames per second.
        captions: one caption for each clip.
        clips: the clips.
        given: what the task was given: one clip for all, or one for each clip, in any size. None if
            it was given nothing but prompts.
    """

    task: str
    command: str
    fps: float
    captions: tuple[str, ...]
    clips: UInt8[np.ndarray, "n t h w c"]
    given: UInt8[np.ndarray, "m t2 h2 w2 c2"] | None = None


def write(file: pathlib.Path, shown: Shown) -> None:
    """Writes clips into `file`, which appears when it is complete."""
    fields = {name: value for name, value in vars(shown).items() if value is not None}
    fields["captions"] = np.array(shown.captions, np.str_)
    with atomic(file) as partial, partial.open("wb") as out:
        np.savez_compressed(out, **fields)


def read(file: pathlib.Path) -> Shown:
    """Reads clips that `write` wrote.

    Raises:
        UserError: the file is damaged or holds something else.
    """
    try:
        with np.load(file) as stored:
            found = {name: stored[name] for name in stored.files}
        shown = Shown(
            task=str(found["task"]),
            command=str(found["command"]),
            fps=float(found["fps"]),
            captions=tuple(map(str, found["captions"])),
            clips=found["clips"],
            given=found.get("given"),
        )
    except Exception as error:  # NumPy and zipfile raise all kinds.
        raise UserError(f"{file} holds no clips of stunet, or is damaged ({error})") from error
    arrays = [shown.clips] + ([] if shown.given is None else [shown.given])
    if not all(a.dtype == np.uint8 and a.ndim == 5 and a.size for a in arrays):
        raise UserError(f"{file} is damaged: its clips are not uint8 [n, t, h, w, c]")
    if len(shown.captions) != len(shown.clips) or not 0 < shown.fps < np.inf:
        raise UserError(f"{file} is damaged: each clip needs a caption, and a frame rate above 0")
    if shown.given is not None and len(shown.given) not in (1, len(shown.clips)):
        raise UserError(f"{file} is damaged: what was given is neither one clip nor one for each")
    return shown
