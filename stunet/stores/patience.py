"""Makes gcsfs ask a bucket that does not answer for minutes, as training asks for its uploads.

gcsfs repeats a request six times within half a minute, and has no option for more. Orbax opens the
files of a checkpoint in gs:// with it, so a longer outage would end the run.
"""

import functools
import sys
import time
from collections.abc import Callable
from typing import Any

from stunet.formatting import duration

# Seconds without an answer after which a run that needs the bucket ends.
GIVE_UP_AFTER = 600.0


@functools.cache
def wait_for_gs(is_passing: Callable[[Exception], bool]) -> None:
    """Makes programs that open gs:// by fsspec's name "gcs", as Orbax does, wait.

    Args:
        is_passing: tells from an error whether the same request may succeed later.
    """
    import fsspec

    fsspec.register_implementation(
        "gcs", patient(fsspec.get_filesystem_class("gcs"), is_passing, _tell), clobber=True
    )


def patient(
    kind: type,
    is_passing: Callable[[Exception], bool],
    tell: Callable[[str], None],
    seconds: float = GIVE_UP_AFTER,
) -> type:
    """Returns a class of file systems that repeats its requests for some time.

    Args:
        kind: the class of gcsfs, whose own repetitions take half a minute.
        is_passing: tells from an error whether the same request may succeed later.
        tell: shows a sentence to the user.
        seconds: time after which the error is raised.
    """

    class Patient(kind):
        async def _request(self, *words: Any, **how: Any) -> Any:
            begin = time.monotonic()
            while True:
                try:
                    return await super()._request(*words, **how)
                except Exception as error:
                    asked = time.monotonic() - begin
                    if not is_passing(error) or asked > seconds:
                        raise
                    tell(
                        f"gs:// has not answered a request for {duration(asked)} ({error}); asking "
                        f"again, for {duration(seconds)} at most"
                    )

    return Patient


def _tell(line: str) -> None:
    print(f"stunet: {' '.join(line.split())}", file=sys.stderr)
