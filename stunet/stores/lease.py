"""Lets only one command write to a directory in a bucket, whichever machine it runs on.

A lease is a small object that its holder writes again and again. Whoever finds one that stays as
it is for longer than `seconds` takes it over: its holder is gone, or cannot reach the bucket. No
two processes can take it over, because a bucket replaces an object only if it is the one that the
writer saw. Clocks of different machines are never compared.
"""

import contextlib
import itertools
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.stores import objects

# A lease that is not renewed for so long is over.
SECONDS = 60.0

# Begins with a dot, so that the directory's copy on this machine leaves it out.
_FILE = ".lease.json"


class Lease:
    """Says whether this process still holds the lease."""

    def __init__(self) -> None:
        self.lost = threading.Event()

    def check(self, directory: str) -> None:
        """Checks that no other process has taken the directory over.

        Raises:
            UserError: another has, because this process could not renew its lease for too long.
        """
        if self.lost.is_set():
            raise UserError(
                f"another process has taken over {directory}, which this one could not reach for "
                f"{SECONDS:.0f} s; stop one of them"
            )


@contextlib.contextmanager
def held(
    directory: str,
    machine: str,
    refusal: str,
    tell: Callable[[str], None],
    seconds: float = SECONDS,
) -> Iterator[Lease]:
    """Context manager in which this process alone holds the lease on a directory in a bucket.

    Args:
        directory: address of the directory.
        machine: name of this machine. A lease of the same machine is taken over at once: the
            caller has made sure that no other process of this machine uses the directory.
        refusal: message of the error.
        tell: shows a sentence to the user.
        seconds: time after which a lease that was not renewed is over.

    Raises:
        UserError: another process holds the lease.
    """
    address, holder = f"{directory}/{_FILE}", uuid.uuid4().hex
    tag = _taken(address, directory, machine, holder, refusal, tell, seconds)
    lease, over = Lease(), threading.Event()
    renewing = threading.Thread(
        target=_renew,
        args=(address, machine, holder, tag, lease, over, seconds / 4),
        daemon=True,
    )
    renewing.start()
    try:
        yield lease
    finally:
        over.set()
        renewing.join()
        # An error here must not hide that of the block: the lease ends by itself.
        with contextlib.suppress(UserError):
            found = objects.read(address)
            if found and _field(found[0], "holder") == holder:
                objects.remove(directory, [_FILE])


def _taken(
    address: str,
    directory: str,
    machine: str,
    holder: str,
    refusal: str,
    tell: Callable[[str], None],
    seconds: float,
) -> str:
    """Takes the lease, or waits until it is over. Returns the tag of the lease's object."""
    found = objects.read(address)
    if found and _field(found[0], "machine") != machine:
        tell(f"{directory} was in use; waiting {seconds:.0f} s to see whether it still is")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(min(seconds / 8, 5))
            now = objects.read(address)
            if now is None:
                found = None
                break
            if now[1] != found[1]:
                raise UserError(refusal)
    tag = objects.replace(address, _content(machine, holder, 0), found[1] if found else "")
    if not tag:
        raise UserError(refusal)
    return tag


def _renew(
    address: str,
    machine: str,
    holder: str,
    tag: str,
    lease: Lease,
    over: threading.Event,
    pause: float,
) -> None:
    # Each content differs from the last: an ETag is a digest of it.
    for count in itertools.count(1):
        if over.wait(pause):
            return
        # The bucket may not answer, and answer again later.
        with contextlib.suppress(UserError):
            new = objects.replace(address, _content(machine, holder, count), tag)
            if not new:  # There is another holder, or an earlier reply was lost.
                found, new = objects.read(address) or (b"", "")
                if _field(found, "holder") != holder:
                    lease.lost.set()
                    return
            tag = new


def _content(machine: str, holder: str, count: int) -> bytes:
    return json.dumps({"machine": machine, "holder": holder, "count": count}).encode()


def _field(content: bytes, name: str) -> str:
    with contextlib.suppress(UserError):
        return str(jsonfiles.parse(content, dict[str, str | int], _FILE).get(name, ""))
    return ""
