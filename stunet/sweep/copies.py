"""Keeps the directory of a sweep in a bucket and its copy on this machine alike.

Each member has a copy of its own, which its training keeps alike, so that nothing is sent twice.
"""

import contextlib
import pathlib
import sys
from collections.abc import Callable, Collection, Iterator

from stunet.stores import mirror
from stunet.stores.addresses import address
from stunet.stores.workdir import alone


@contextlib.contextmanager
def copied(workdir: pathlib.Path, names: Collection[str]) -> Iterator[None]:
    """Context manager in which the directory of a sweep in a bucket has a copy, at `workdir`.

    No other sweep uses the directory meanwhile. At the end, also after an error, what changed is
    uploaded. For a directory that is not in a bucket, nothing is done.

    Args:
        workdir: directory of the sweep.
        names: names of its members and steps.

    Raises:
        UserError: another sweep runs in the directory, or the bucket cannot be read or written.
    """
    if not (where := address(workdir)):
        yield
        return
    other = f"is running in {where}; wait for it, or choose another --workdir"
    refusals = f"a sweep of this machine {other}", f"a sweep {other}"

    with alone(workdir, *refusals, lambda line: print(f"stunet sweep: {line}", file=sys.stderr)):
        mirror.refresh(workdir, only=_elsewhere_than(names))
        for name in names:
            mirror.pull(workdir / name)
        try:
            yield
        finally:
            upload(workdir, names)


def upload(workdir: pathlib.Path, names: Collection[str]) -> None:
    """Uploads the files of a sweep that changed, unless its directory is not in a bucket.

    Args:
        workdir: directory of the sweep.
        names: names of its members and steps.

    Raises:
        UserError: the bucket cannot be written.
    """
    mirror.push(workdir, only=_elsewhere_than(names))
    for name in names:
        mirror.push(workdir / name)


def _elsewhere_than(names: Collection[str]) -> Callable[[str], bool]:
    """Returns a function that tells whether a file of the sweep lies in none of its entries."""
    return lambda name: name.partition("/")[0] not in names
