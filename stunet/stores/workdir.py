"""Uses a working directory that may lie in a bucket: alone, and with uploads in the background."""

import contextlib
import pathlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

from stunet.errors import UserError
from stunet.files import user_cache
from stunet.formatting import duration
from stunet.stores import mirror
from stunet.stores.addresses import address
from stunet.stores.lease import Lease, held
from stunet.stores.patience import GIVE_UP_AFTER

# Seconds without an answer of the bucket after which the user is told.
_TELL_AFTER = 20.0
_LONGEST_PAUSE = 30.0


class Uploads:
    """Uploads what a process writes to the copy of a directory in a bucket, in the background.

    Args:
        directory: the copy.
        lease: this process's lease on the directory.
        tell: shows a sentence to the user.
    """

    def __init__(self, directory: pathlib.Path, lease: Lease, tell: Callable[[str], None]):
        self._directory, self._address = directory, address(directory)
        self._lease, self._tell = lease, tell
        self._changed = threading.Condition()
        # Number of requests so far, and number of those whose files are in the bucket.
        self._asked = self._done = 0
        self._problem, self._since, self._over = "", 0.0, False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def request(self) -> None:
        """Asks for an upload of all files as they are now, and does not wait for it.

        Raises:
            UserError: another training has taken over the directory.
        """
        self._lease.check(self._address)
        with self._changed:
            if self._asked == self._done:
                self._since = time.monotonic()
            self._asked += 1
            self._changed.notify_all()
            late = time.monotonic() - self._since if self._asked - self._done > 1 else 0
        if late > _TELL_AFTER:
            self._tell(f"uploads to {self._address} are {duration(late)} behind{self._why()}")

    def flush(self, patience: float = GIVE_UP_AFTER) -> None:
        """Uploads all files as they are now, and waits for it.

        Raises:
            UserError: the bucket does not take them within `patience` seconds, or another training
                has taken over the directory.
        """
        self.request()
        with self._changed:
            wanted, end = self._asked, time.monotonic() + patience
            while self._done < wanted and not self._over and time.monotonic() < end:
                pause = min(_TELL_AFTER, end - time.monotonic())
                if not self._changed.wait_for(lambda: self._done >= wanted or self._over, pause):
                    self._tell(f"waiting for uploads to {self._address}{self._why()}")
            if self._done >= wanted:
                return
        raise UserError(
            f"{self._problem or f'{self._address} does not answer'}; gave up after "
            f"{duration(patience)}: run the same command again, which continues from the latest "
            f"checkpoint"
        )

    def _why(self) -> str:
        return f" ({self._problem})" if self._problem else ""

    def close(self) -> None:
        """Ends the thread. Call `flush` first."""
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _work(self) -> None:
        pause = 1.0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._asked > self._done or self._over)
                if self._over:
                    return
                asked = self._asked
            try:
                mirror.push(self._directory)
            except (UserError, OSError) as error:
                with self._changed:
                    self._problem = str(error)
                    self._changed.wait_for(lambda: self._over, pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
                continue
            pause = 1.0
            with self._changed:
                self._done, self._problem, self._since = asked, "", time.monotonic()
                self._changed.notify_all()


@contextlib.contextmanager
def opened(directory: pathlib.Path, tell: Callable[[str], None]) -> Iterator[Uploads | None]:
    """Context manager in which this process alone writes to a working directory.

    If the directory is the copy of one in a bucket, the copy is brought up to date first, and what
    changes is uploaded: when `Uploads.request` is called, and at the end, also after an error.

    Args:
        directory: a directory, or the copy of one in a bucket.
        tell: shows a sentence to the user.

    Yields:
        The uploads; None for a directory that is not in a bucket.

    Raises:
        UserError: a training is running in the directory in the bucket, or the bucket cannot be
            read or written.
    """
    where = address(directory)
    if not where:
        yield None
        return
    other = f"is running in {where}; wait for it, or choose another --workdir"
    refusals = f"a training of this machine {other}", f"a training {other}"
    with alone(directory, *refusals, tell) as lease:
        mirror.refresh(directory, only=_is_of_training)
        uploads = Uploads(directory, lease, tell)
        try:
            yield uploads
            uploads.flush()
        except BaseException:
            # What the run has written until now may explain the error.
            with contextlib.suppress(UserError):
                uploads.flush(patience=_TELL_AFTER)
            raise
        finally:
            uploads.close()


def _is_of_training(name: str) -> bool:
    """Tells whether a training may replace a file by that in the bucket.

    A sweep writes what the training prints to log.txt.
    """
    return name != "log.txt"


@contextlib.contextmanager
def alone(
    directory: pathlib.Path, here: str, elsewhere: str, tell: Callable[[str], None]
) -> Iterator[Lease]:
    """Context manager in which no other process writes to a directory in a bucket.

    Args:
        directory: the copy of the directory.
        here: message of the error if another process of this machine writes to it.
        elsewhere: message of the error if a process of another machine does.
        tell: shows a sentence to the user.

    Raises:
        UserError: another process writes to the directory, or the bucket cannot be reached.
    """
    with (
        mirror.in_use(directory, here),
        held(address(directory), _machine(), elsewhere, tell) as lease,
    ):
        yield lease


def _machine() -> str:
    """Returns a name of this machine and of the cache that holds its copies."""
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {user_cache('buckets').absolute()}"
    return f"{socket.gethostname()} {user_cache('buckets').absolute()}"
