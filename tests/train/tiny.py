"""A config that trains in seconds, and functions that run commands as a user does."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import sys

from stunet import configs

# For tests that do not depend on the network: one level that sees frames separately. It compiles in
# a third of the time.
ONE_LEVEL_KEYS = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
ONE_LEVEL = tuple(f"--config.model.{key}={value}" for key, value in ONE_LEVEL_KEYS.items())

LAUNCHER = pathlib.Path(__file__).parents[2] / "launch" / "local.py"

EXPERIMENT = """
from stunet import configs


def get_config():
    config = configs.default()
    config.model.channels = 8
    config.model.channel_multipliers = (1, 2)
    config.model.layers_per_level = 1
    config.model.attention_levels = (False, True)
    config.model.temporal_factors = (1, 2)
    config.model.temporal_attention_blocks = 1
    config.model.patch_size = 2
    config.model.groups = 4
    config.model.head_channels = 8
    config.model.text_features = 16
    config.model.text_groups = 4
    config.model.text_pooling_heads = 2
    config.model.activation = "silu"
    config.text.dim = 16
    config.text.max_length = 24
    config.data.channels = 1
    config.data.frames = 4
    config.data.height = config.data.width = 8
    config.train.steps = 8
    config.train.batch_size = 4
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 2
    config.checkpoint.every = 3
    config.log.every = 1
    config.log.validate_every = 0
    config.log.sample_every = 0
    config.sample.steps = 2
    config.sample.num = 2
    return config
"""


def experiment(directory: pathlib.Path) -> pathlib.Path:
    file = directory / "tiny.py"
    file.write_text(EXPERIMENT)
    return file


def config(**groups) -> configs.Config:
    """Returns the tiny config with changes, written `group=dict(key=value)`."""
    namespace = {}
    exec(EXPERIMENT, namespace)
    tiny = configs.resolve(namespace["get_config"]())
    parts = {k: dataclasses.replace(getattr(tiny, k), **v) for k, v in groups.items()}
    return dataclasses.replace(tiny, **parts)


def with_lora(config: configs.Config, **keys) -> configs.Config:
    """Returns the config with `config.lora` changed."""
    return dataclasses.replace(config, lora=configs.Lora(**keys))


def command(*arguments) -> list[str]:
    return [sys.executable, "-m", "stunet.cli", *map(str, arguments)]


def environment(devices: int = 1) -> dict[str, str]:
    """Returns environment variables for a process with `devices` virtual devices on the CPU."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    return os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}


def run(*arguments, devices: int = 1) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(devices), timeout=300
    )


def hears_hangups() -> None:
    """Lets a new process, as its `preexec_fn`, get SIGHUP even if the tests run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def launch(
    *command, processes: int = 2, devices: int = 1, restarts: int = 0, errors=subprocess.PIPE
):
    """Starts a command by launch/local.py, in `processes` processes with `devices` devices each."""
    sizes = ["--processes", processes, "--devices-per-process", devices, "--restarts", restarts]
    arguments = [sys.executable, LAUNCHER, *sizes, "--", *command]
    return subprocess.Popen(
        [str(a) for a in arguments],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        preexec_fn=hears_hangups,
    )


def pids(errors: str) -> list[int]:
    """Returns the process ids in the standard error of launch/local.py."""
    return [int(pid) for pid in re.findall(r"process \d+ is (\d+)", errors)]


def metrics(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
