"""Measures the memory that `stunet inflate` takes to inflate a U-Net of random weights.

    python benchmarks/inflate_memory.py                   # IF-I-M's shape, 372 million weights
    python benchmarks/inflate_memory.py --channels 64     # a smaller one
    python benchmarks/inflate_memory.py --devices 8       # split over 8 (virtual) devices by fsdp
    python benchmarks/inflate_memory.py --channels 704 --frames 80 --config.model.dtype=bfloat16

The last command has IF-I-XL's shape, 4.3 billion weights, with frozen weights kept in bfloat16. It
takes 16 GiB of memory and 45 GB of disk.

The benchmark first writes the U-Net, tensor by tensor, under --directory, and removes it at the
end. It prints:

* the size of all weights, and of the largest one;
* the size of the shards, on all devices, of the weights and of the state that is written;
* the most memory that the process held beside the program itself. That is anonymous memory, polled
  every 10 ms. A command that fails at once shows how much the program itself takes.

On a CPU the devices' memory is the host's.
"""

import argparse
import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from overrides import parse_with_overrides

from stunet import configs, tensorfiles
from stunet.parallel import mesh as meshes
from stunet.train.parts import make_parts
from stunet.train.state import abstract_state
from stunet.weights import diffusers_config, diffusers_unet

MIB = 2**20


def describe(channels: int) -> configs.Experiment:
    """Returns the config of a stage I of DeepFloyd IF with that many channels."""
    raw = dict(
        model=dict(
            channels=channels,
            layers_per_level=3,
            head_channels=64,
            text_features=4 * channels,
            text_pooling_heads=64,
            temporal=False,
            learned_variance=True,
        ),
        text=dict(dim=4096),
        data=dict(frames=1, height=64, width=64),
    )
    return configs.resolve(raw)


def write(directory: pathlib.Path, config: configs.Experiment) -> dict[str, tensorfiles.Header]:
    """Writes a U-Net of random weights in the format of diffusers; returns its tensors' headers."""
    parts = make_parts(config)
    mesh = meshes.make_mesh(meshes.Layout(), jax.devices()[:1])
    state = abstract_state(parts.denoiser, parts.optimizer, mesh)
    tensors = diffusers_unet.table(parts.denoiser, state)
    found, rng = diffusers_unet.headers(tensors), np.random.default_rng(0)
    (directory / "config.json").write_text(json.dumps(diffusers_config.to_diffusers(parts)))
    file = directory / f"{diffusers_unet.STEM}.safetensors"
    with tensorfiles.Writer(file, found) as writer:
        for name, header in found.items():
            writer.add(name, rng.standard_normal(header.shape, np.float32))
    return found


def on_devices(tree) -> int:
    """Returns the bytes that all devices together hold of a tree of arrays."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape))
        * leaf.dtype.itemsize
        * len(leaf.sharding.device_set)
        for leaf in jax.tree.leaves(tree)
    )


def measure(*arguments: str) -> tuple[int, float, float]:
    """Runs a command; returns its most bytes of anonymous memory, its seconds and its processor
    seconds."""
    begun, most, before = time.monotonic(), 0, os.times()
    process = subprocess.Popen(
        [sys.executable, "-m", "stunet.cli", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    status = pathlib.Path(f"/proc/{process.pid}/status")
    while process.poll() is None:
        found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
        most = max(most, int(found[1]) * 1024 if found else 0)
        time.sleep(0.01)
    after = os.times()
    user = after.children_user - before.children_user
    system = after.children_system - before.children_system
    return most, time.monotonic() - begun, user + system


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--channels", type=int, default=192, help="channels of the finest level (192)"
    )
    parser.add_argument("--frames", type=int, default=16, help="frames in each clip (16)")
    parser.add_argument(
        "--directory", type=pathlib.Path, help="directory for the files (a temporary one)"
    )
    parser.add_argument("--devices", type=int, default=1, help="virtual devices of the CPU (1)")
    arguments, overrides = parse_with_overrides(parser)
    # The processes that this one starts inherit it. This one makes no arrays.
    flags = os.environ.get("XLA_FLAGS", "")
    count = f"--xla_force_host_platform_device_count={arguments.devices}"
    os.environ["XLA_FLAGS"] = f"{flags} {count}".strip()
    with tempfile.TemporaryDirectory(dir=arguments.directory) as name:
        directory = pathlib.Path(name)
        config = describe(arguments.channels)
        found = write(directory, config)
        sizes = [4 * math.prod(header.shape) for header in found.values()]
        described = diffusers_config.to_diffusers(make_parts(config))
        config = diffusers_config.to_stunet(described, "config.json", arguments.frames)
        config = configs.override(config, overrides)
        parts = make_parts(config)
        mesh = meshes.make_mesh(meshes.Layout(fsdp=arguments.devices))
        state = abstract_state(parts.denoiser, parts.optimizer, mesh)
        asked = ["inflate", "--t2i", name, "--frames", str(arguments.frames)]
        asked += [f"--config.mesh.fsdp={arguments.devices}", *overrides, "--out"]
        program, *_ = measure(*asked, name)
        peak, seconds, used = measure(*asked, f"{name}/out")
        if not (directory / "out" / "config.json").is_file():
            sys.exit("stunet inflate failed")
        print(f"weights {sum(sizes) / MIB:,.0f} MiB, the largest {max(sizes) / MIB:,.0f} MiB")
        weights = on_devices((state.params, state.frozen))
        print(f"shards  {weights / MIB:,.0f} MiB of weights, with the temporal layers'")
        print(f"state   {on_devices(state) / MIB:,.0f} MiB, with averages and moments")
        print(
            f"peak    {(peak - program) / MIB:,.0f} MiB beside the program's {program / MIB:,.0f}; "
            f"{seconds:.0f} s, {used:.0f} s of processors"
        )


if __name__ == "__main__":
    main()
