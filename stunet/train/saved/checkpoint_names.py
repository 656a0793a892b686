"""Lists the checkpoints of a run, and checks that a path can hold checkpoints.

This module imports neither JAX nor Orbax.
"""

import dataclasses
import datetime
import pathlib
from collections.abc import Iterator

from stunet.errors import UserError
from stunet.paths import has_scheme
from stunet.stores import mirror

# Orbax lists files by a pattern that contains the path, and TensorStore reads a backslash as a
# slash. A checkpoint whose path has one of these characters is written, but not found again.
_UNSAFE = ("[", "]", "*", "?", "\\")


# Orbax writes this file into a checkpoint when it is complete, where directories cannot be renamed.
_COMPLETE = "commit_success.txt"


def place(workdir: pathlib.Path) -> pathlib.Path:
    """Returns the absolute path of the directory that holds a run's checkpoints."""
    return mirror.place(workdir, "checkpoints")


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the step of each complete checkpoint of a run, newest first."""
    return [found.step for found in StepNames().find_all(place(workdir))]


_EPOCH = datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclasses.dataclass(frozen=True)
class Found:
    """Describes a complete checkpoint to Orbax.

    Attributes:
        step: number of updates after which the checkpoint was saved.
        path: directory of the checkpoint.
        commit_timestamp: a constant in place of the time when the checkpoint was saved. Orbax asks
            for that time, but uses it only in policies that stunet does not use.
    """

    step: int
    path: pathlib.Path
    commit_timestamp: datetime.datetime = _EPOCH


class StepNames:
    """Finds the checkpoints in a directory, for Orbax, by the names of their directories alone.

    Orbax's own class also reads a file of each checkpoint to learn when it was saved. If that file
    is damaged, Orbax can open none of the checkpoints. It raises an error if the time is out of
    range, and waits for ever if the file is a named pipe.
    """

    def build_name(self, step: int) -> str:
        """Returns the name of the directory of a checkpoint."""
        return str(step)

    def find_all(self, base_path: pathlib.Path) -> Iterator[Found]:
        """Yields each complete checkpoint in a directory, newest first."""
        # Orbax gives a checkpoint a name of digits alone once the checkpoint is complete.
        named = [path for path in base_path.glob("*") if path.name.isdecimal()]
        found = [Found(int(path.name), path) for path in named if _is_complete(path)]
        # "007" and digits of other scripts are not names that a checkpoint gets.
        found = [one for one in found if one.path.name == self.build_name(one.step)]
        yield from sorted(found, key=lambda one: one.step, reverse=True)

    def find_step(self, base_path: pathlib.Path, step: int) -> Found:
        """Returns a complete checkpoint.

        Raises:
            ValueError: there is no such checkpoint. Orbax expects this type.
        """
        found = Found(step, base_path / self.build_name(step))
        if not _is_complete(found.path):
            raise ValueError(f"there is no checkpoint {found.path}")
        return found


def _is_complete(path: pathlib.Path) -> bool:
    return (path / _COMPLETE).exists() if has_scheme(str(path)) else path.is_dir()


def check_path(workdir: pathlib.Path) -> None:
    """Checks that checkpoints in a working directory can be found again.

    Raises:
        UserError: the path has a character with which checkpoints could be written but not read,
            or a file is in the place of the directory of checkpoints.
    """
    if place(workdir).exists() and not place(workdir).is_dir():
        raise UserError(f"{place(workdir)} is a file, where checkpoints belong; move it away")
    path = str(workdir.absolute())
    unsafe = [character for character in _UNSAFE if character in path]
    try:
        path.encode()
    except UnicodeEncodeError:
        path, unsafe = ascii(path), ["bytes that are no UTF-8"]
    if unsafe:
        raise UserError(
            f"the path {path} has {' and '.join(unsafe)} in it, and checkpoints under such a name "
            r"cannot be read; use a directory without any of [ ] * ? \ in its path, or a symbolic "
            "link to this one"
        )
