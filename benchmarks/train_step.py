"""How long a train step takes on this machine's devices, and what memory, beside what is planned.

    python benchmarks/train_step.py --config experiments/quickstart.py
    python benchmarks/train_step.py --config experiments/lumiere_base.py \
      --config.model.channels=128 --config.train.batch_size=2

The second is meant for one GPU of 80 GB, where it was not run yet: 351,445,891 parameters in
bfloat16, clips of 80 frames of 128x128. A step that does not fit is not begun; it says by how much.

The step is the one that training runs, on one batch of noise that is on the devices already, so
that reading clips is no part of it. Every step is waited for. What is printed:

* the median time of a step and its quartiles, after the warm-up; clips a second;
* the model's operations (three times those of the forward pass, without what is computed anew), and
  MFU, their share of the device's published bfloat16 peak;
* the bytes that `stunet plan --topology local` predicts for a device, by kind, and the most that
  were in use, where the backend counts them (a CPU's does not). That is the most since the process
  began: making the state, and what the compiler tried out, are within it.
"""

import argparse
import dataclasses
import statistics
import sys
import time

import jax
import numpy as np

from stunet import configs
from stunet.cli import set_up_jax
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips
from stunet.plan.plan import Plan, abstract_batch, make_plan
from stunet.train.state import create_state
from stunet.train.step import jit_train_step


def noise_batch(config: configs.Config, mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
    """A global batch of random pixels and text states; no token is masked."""
    rng = np.random.default_rng(config.seed)
    make = {
        "video": lambda shape: rng.integers(0, 256, shape, np.uint8),
        "text": lambda shape: rng.standard_normal(shape, np.float32),
        "text_mask": lambda shape: np.ones(shape, bool),
    }
    shapes = {key: leaf.shape for key, leaf in abstract_batch(config, mesh).items()}
    return meshes.shard_batch({key: make[key](shape) for key, shape in shapes.items()}, mesh)


def step_seconds(config: configs.Config, devices, warmup: int, steps: int) -> list[float]:
    """Of each of `steps` updates that follow `warmup` others."""
    mesh = meshes.make_mesh(config.mesh, devices)
    with meshes.use(mesh, config.mesh.clip_axis):
        state, batch = create_state(config, mesh), noise_batch(config, mesh)
        update = jit_train_step(config, state)
        times = []
        for _ in range(warmup + steps):
            begun = time.perf_counter()
            state, metrics = jax.block_until_ready(update(state, batch))
            times.append(time.perf_counter() - begun)
    if not np.isfinite(metrics["loss"]):
        raise UserError("the loss is not finite, so that its time means nothing")
    return times[warmup:]


def peak_bytes(devices) -> int | None:
    """The most bytes in use on any device so far; None where they are not counted."""
    peaks = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    return None if None in peaks else max(peaks)


def report(plan: Plan, times: list[float], peak: int | None) -> str:
    """What was planned and what was measured, for people."""
    median = statistics.median(times)
    low, _, high = statistics.quantiles(times, n=4)
    mfu = dataclasses.replace(plan, step_seconds=median).mfu
    mesh = " x ".join(f"{axis} {n}" for axis, n in plan.mesh.items() if n > 1) or "1"
    predicted = sum(plan.bytes.values())
    size = lambda n: f"{n / 2**20:12,.2f} MiB"  # noqa: E731
    lines = [
        f"devices        {plan.chips} x {plan.chip}   mesh {mesh}",
        "settings       " + "  ".join(f"{k}={v}" for k, v in plan.settings.items()),
        f"parameters     {plan.params:,}",
        f"step time      {median:.4g} s, the median of {len(times)}; "
        f"quartiles {low:.4g} to {high:.4g} s",
        f"clips/s        {plan.clips / median:.4g}",
        f"model FLOPs    {plan.flops:.4g} in a step; "
        f"{plan.flops / plan.chips / median:.4g} a second on a device",
        "MFU            " + (f"{mfu:.1%}" if mfu else "not known: nor is this device's peak"),
        "",
        "memory of a device",
        *(f"  {kind:<12}{size(n)} predicted" for kind, n in plan.bytes.items()),
        f"  {'peak':<12}{size(predicted)} predicted",
        f"  {'peak':<12}{size(peak)} measured, {peak / predicted:.2f} of what was predicted"
        if peak
        else f"  {'peak':<12}not measured: this backend does not count it",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="any key of the config: --config.train.batch_size=2",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="experiment file, as experiments/*.py")
    parser.add_argument("--steps", type=int, default=20, help="to measure, at least 2 (20)")
    parser.add_argument("--warmup", type=int, default=3, help="steps before, not measured (3)")
    arguments, overrides = parser.parse_known_args()
    if unknown := [flag for flag in overrides if not flag.startswith("--config.")]:
        parser.error(f"unknown argument {unknown[0]!r}")
    if arguments.steps < 2 or arguments.warmup < 1:
        parser.error("--steps is at least 2 and --warmup at least 1: the first step compiles")
    set_up_jax()  # Its cache gives the step the program that was compiled for the plan.
    try:
        config = configs.load(arguments.config, overrides)
        chip, devices = chips.devices("local")
        plan = make_plan(config, chip, devices)
        if plan.over:
            raise UserError(f"the step does not fit {chip.name}, by {plan.over / 2**30:.2f} GiB")
        times = step_seconds(config, devices, arguments.warmup, arguments.steps)
    except UserError as error:
        sys.exit(f"train_step.py: {error}")
    print(report(plan, times, peak_bytes(devices)))


if __name__ == "__main__":
    main()
