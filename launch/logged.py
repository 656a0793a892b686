#!/usr/bin/env python3
"""Runs a command, and keeps what it prints in a bucket too.

    launch/logged.py gs://BUCKET/runs/base/launch/host.log stunet train ...

An object cannot grow, so that it is written again as a whole: once a minute, and at the end. What
earlier containers of the host printed stays at its beginning.
"""

import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

from stunet.errors import UserError
from stunet.stores import objects

# Seconds between two uploads, and seconds in which output may still arrive after the command's end.
_EVERY, _LINGER = 60.0, 5.0


def main(argv: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status, which for a signal is that of a shell."""
    address, *command = sys.argv[1:] if argv is None else argv
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder, "log")
        _say_if_refused(lambda: file.write_bytes((objects.read(address) or (b"",))[0]))
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: process.send_signal(number))
        reader = threading.Thread(target=_copy, args=(process, file), daemon=True)
        reader.start()
        over = threading.Event()
        uploader = threading.Thread(target=_upload, args=(address, file, over), daemon=True)
        uploader.start()
        status = process.wait()
        # A process that the command has left behind may keep the output open.
        reader.join(_LINGER)
        over.set()
        uploader.join()
    return status if status >= 0 else 128 - status


def _copy(process: subprocess.Popen, file: pathlib.Path) -> None:
    with file.open("ab") as log:
        while some := process.stdout.read1():
            sys.stdout.buffer.write(some)
            sys.stdout.buffer.flush()
            log.write(some)
            log.flush()


def _upload(address: str, file: pathlib.Path, over: threading.Event) -> None:
    """Uploads what the file has gained, each minute and at the end."""
    sent, is_last = 0, False
    while not is_last:
        is_last = over.wait(_EVERY)
        if file.exists() and (size := file.stat().st_size) > sent:
            _say_if_refused(lambda: objects.put(address, file))
            sent = size


def _say_if_refused(act) -> None:
    """Calls a function that needs the bucket. A run goes on when its output cannot be kept."""
    try:
        act()
    except UserError as error:
        print(f"launch/logged.py: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
