"""Lists the checkpoints of a run, and checks that a path can hold checkpoints.

This module imports neither JAX nor Orbax.
"""

import pathlib

from stunet.errors import UserError

# Orbax lists files by a pattern that contains the path, and TensorStore reads a backslash as a
# slash. A checkpoint whose path has one of these characters is written, but not found again.
_UNSAFE = ("[", "]", "*", "?", "\\")


def place(workdir: pathlib.Path) -> pathlib.Path:
    """Returns the absolute path of the directory in `workdir` that holds the run's checkpoints."""
    return (workdir / "checkpoints").absolute()


def steps(workdir: pathlib.Path) -> list[int]:
    """Returns the step of each complete checkpoint of a run, newest first."""
    # Orbax gives a checkpoint this name once it is complete.
    found = [path for path in place(workdir).glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted((int(path.name) for path in found), reverse=True)


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
