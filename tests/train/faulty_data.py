"""`faulty_data.py FAULT UPDATE PROCESS ARGUMENTS...` runs `stunet ARGUMENTS...` with a bad batch.

FAULT is what happens in that process when it reads the batch of that update. `nan`: its text states
are NaN. `block`: the data source never returns. `stop`: the process gets SIGSTOP. `kill`: it gets
SIGKILL. All but the first happen once: they make the file that the environment variable ONCE names.
"""

import os
import pathlib
import signal
import sys
import threading

import jax
import numpy as np

from stunet import cli
from stunet.data import pipeline

SIGNALS = {"stop": signal.SIGSTOP, "kill": signal.SIGKILL}


def main(fault: str, update: str, process: str, *arguments: str) -> int:
    following = pipeline.TrainBatches.__next__

    def faulty(self):
        (feed,) = self._feeds
        number = self.get_state()["global_next_index"] // feed.batch_size + 1
        values = following(self)
        if number != int(update) or jax.process_index() != int(process):
            return values
        if fault == "nan":
            return values | {"text": np.full_like(values["text"], np.nan)}
        once = pathlib.Path(os.environ["ONCE"])
        if not once.exists():
            once.touch()
            if fault in SIGNALS:
                os.kill(os.getpid(), SIGNALS[fault])
            threading.Event().wait()
        return values

    pipeline.TrainBatches.__next__ = faulty
    return cli.main(arguments)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
