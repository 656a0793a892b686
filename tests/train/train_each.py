"""`train_each.py WORKDIR...` trains each run, by its config.json and its checkpoints alone."""

import pathlib
import sys

from from_config import train

from stunet import configs
from stunet.nn import conv

if __name__ == "__main__":
    # As `quickly_compiled_convolutions` in tests/conftest.py.
    conv._by_platform = lambda cpu, gpu, tpu, *args: gpu(*args)
    for workdir in map(pathlib.Path, sys.argv[1:]):
        train(configs.read(workdir / "config.json"), workdir)
