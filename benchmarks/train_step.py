"""Measures time and memory of a train step on this machine, and prints the plan's beside them.

    python benchmarks/train_step.py --config experiments/quickstart.py
    python benchmarks/train_step.py --config one_gpu
    python benchmarks/train_step.py --config one_gpu:80gb

The second command is for one GPU of 24 GB and the third for one of 80 GB. docs/how-to/gpu.md says
what to expect; neither was run on a GPU yet. A step that does not fit is not begun; the message
says by how much.

The step is the one that training runs. Its batch is noise that is on the devices already, so the
time does not include reading clips. The benchmark waits for every step. It prints:

* the median time of a step and its quartiles, after the warm-up, and clips a second;
* the model's operations (three times those of the forward pass, without what remat computes again),
  and MFU, their share of the device's published bfloat16 peak;
* the bytes that `stunet plan --topology local` predicts for a device, by kind, and the most bytes
  that were in use. The backend of a GPU or TPU counts them since the process began, so they include
  making the state and what the compiler tried out. A CPU's backend does not count. On Linux the
  benchmark then adds up the state, the batch and what the process grows by in a step, and divides
  by the number of virtual devices.
"""

import argparse
import ctypes
import dataclasses
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from overrides import parse_with_overrides

from stunet import configs
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips
from stunet.plan.plan import Plan, make_plan
from stunet.train.parts import Parts, make_parts
from stunet.train.program import abstract_batch
from stunet.train.state import TrainState, create_state
from stunet.train.step import Step, jit_train_step

PROCESS = pathlib.Path("/proc/self")


def noise_batch(parts: Parts, mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """Returns a global batch of random pixels and text states. No token is masked."""
    rng = np.random.default_rng(parts.seed)
    make = {
        "video": lambda shape: rng.integers(0, 256, shape, np.uint8),
        "text": lambda shape: rng.standard_normal(shape, np.float32),
        "text_mask": lambda shape: np.ones(shape, bool),
    }
    shapes = {key: leaf.shape for key, leaf in abstract_batch(parts, mesh).items()}
    return meshes.shard_batch({key: make[key](shape) for key, shape in shapes.items()}, mesh)


def prepare(parts: Parts, mesh: jax.sharding.Mesh) -> tuple[TrainState, dict, Step]:
    """Returns a new training state, a batch of noise, and the update. Call it inside `mesh`."""
    state = create_state(parts.denoiser, parts.optimizer, parts.seed, mesh)
    update = jit_train_step(
        parts.objective, parts.optimizer, state, seed=parts.seed, accumulate=parts.accumulate
    )
    return state, noise_batch(parts, mesh), update


def measure(
    parts: Parts, devices: Sequence[jax.Device], warmup: int, steps: int
) -> tuple[list[float], int | None]:
    """Runs `warmup` updates and then `steps` measured ones.

    Returns:
        The seconds of each measured update, and the most bytes in use on a device, or None where
        the machine cannot tell.
    """
    mesh = meshes.make_mesh(parts.layout, devices)
    with meshes.use(mesh, parts.layout.context_axis):
        state, batch, update = prepare(parts, mesh)
        leaves = jax.tree.leaves((state, batch))
        held = sum(shard.data.nbytes for leaf in leaves for shard in leaf.addressable_shards)
        times = []
        for _ in range(warmup + steps):
            begun = time.perf_counter()
            state, _ = jax.block_until_ready(update(state, batch))
            times.append(time.perf_counter() - begun)
        peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
        if None not in peaks:
            return times[warmup:], max(peaks)
        if sys.platform != "linux" or devices[0].platform != "cpu":
            return times[warmup:], None
        grown = growth(lambda: jax.block_until_ready(update(state, batch)))
        return times[warmup:], (held + grown) // len(devices)


def growth(function: Callable[[], object]) -> int:
    """Returns by how many bytes this process grows at most while `function` runs. Linux only."""

    def resident(key: str) -> int:
        (line,) = re.findall(rf"{key}:\s+(\d+) kB", PROCESS.joinpath("status").read_text())
        return 1024 * int(line)

    # Return freed memory to the system, so that using it again counts, and reset the peak.
    ctypes.CDLL(None).malloc_trim(0)
    PROCESS.joinpath("clear_refs").write_text("5")
    before = resident("VmRSS")
    function()
    return resident("VmHWM") - before


def report(plan: Plan, times: list[float], peak: int | None) -> str:
    """Returns what the plan predicts and what was measured, as text for people."""
    median = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4)
    mfu = dataclasses.replace(plan, seconds={"step": median}).mfu
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan.mesh.items() if n > 1) or "1"
    predicted = sum(plan.bytes.values())
    size = lambda n: f"{n / 2**20:12,.2f} MiB"  # noqa: E731
    lines = [
        f"devices        {plan.devices} x {plan.chip}   mesh {mesh}",
        "settings       " + "  ".join(f"{k}={v}" for k, v in plan.settings.items()),
        f"parameters     {plan.params + plan.frozen:,}, of which {plan.params:,} are trained",
        f"step time      {median:.4g} s, the median of {len(times)}; "
        f"quartiles {low:.4g} to {high:.4g} s",
        f"clips/s        {plan.clips / median:.4g}",
        f"model FLOPs    {plan.flops:.4g} in a step; "
        f"{plan.flops / plan.devices / median:.4g} a second on a device",
        "MFU            " + (f"{mfu:.1%}" if mfu else "not known: this device's peak is not known"),
        "",
        "memory of a device",
        *(f"  {kind:<12}{size(n)} predicted" for kind, n in plan.bytes.items()),
        f"  {'peak':<12}{size(predicted)} predicted",
        f"  {'peak':<12}{size(peak)} measured, {peak / predicted:.2f} of what was predicted"
        if peak
        else f"  {'peak':<12}not measured: this backend does not count",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any key of the config can follow, such as --config.train.batch_size=2.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", required=True, help="name of an experiment, such as one_gpu, or its file"
    )
    parser.add_argument("--steps", type=int, default=20, help="steps to measure, at least 2 (20)")
    parser.add_argument(
        "--warmup", type=int, default=3, help="steps before those, which are not measured (3)"
    )
    arguments, overrides = parse_with_overrides(parser)
    if arguments.steps < 2 or arguments.warmup < 1:
        parser.error("--steps must be at least 2, and --warmup at least 1: the first step compiles")
    set_up_jax()  # With JAX's cache, the step uses the program that the plan compiled.
    try:
        config = configs.load(arguments.config, overrides)
        topology = chips.find("local")
        plan = make_plan(config, topology)
        if plan.excess:
            excess = plan.excess / 2**30
            raise UserError(f"the step needs {excess:.2f} GiB more than {plan.chip} has")
        times, peak = measure(
            make_parts(config), topology.devices, arguments.warmup, arguments.steps
        )
    except UserError as error:
        sys.exit(f"train_step.py: {error}")
    print(report(plan, times, peak))


if __name__ == "__main__":
    main()
