"""Measures what the guard that skips updates, and the watchdog, add to a step of training.

    python benchmarks/guard_cost.py --config quickstart --pairs 30

Both steps, with and without the guard, run in one process by turns, so that other load on the
machine meets both. The result is the median of the ratios of neighbours, with its interval from a
bootstrap. Beside the wall time stands the processor time of all threads, which other load changes
less. The first step of each kind compiles and is not measured.

The watchdog costs a call for each step, and a thread that looks once a second. Both are timed by
themselves, since they are far below what a comparison of steps can show.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
from train_step import noise_batch

from stunet import configs
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.optim.guard import Guard
from stunet.train.parts import Parts, make_parts
from stunet.train.state import create_state
from stunet.train.step import jit_train_step
from stunet.train.watchdog import Watchdog

# Guards to compare: none, and one that looks for both kinds of updates that go wrong.
GUARDS = (Guard(), Guard(skip_nonfinite=True, spikes=10.0))


def stepper(parts: Parts, guard: Guard, mesh: jax.sharding.Mesh) -> Callable[[], None]:
    """Returns a function that does one update with a guard, and waits for it."""
    optimizer = dataclasses.replace(parts.optimizer, guard=guard)
    state = create_state(parts.denoiser, optimizer, parts.seed, mesh)
    batch = noise_batch(parts, mesh)
    update = jit_train_step(
        parts.objective, optimizer, state, seed=parts.seed, accumulate=parts.accumulate
    )

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(update(state, batch))

    return step


def timed(step: Callable[[], None]) -> tuple[float, float]:
    """Returns the wall time and the processor time of a step, in seconds."""
    wall, processor = time.perf_counter(), time.process_time()
    step()
    return time.perf_counter() - wall, time.process_time() - processor


def ratio(without: np.ndarray, with_guard: np.ndarray) -> str:
    """Returns the median ratio of neighbours, with its 95% interval."""
    ratios, rng = with_guard / without, np.random.default_rng(0)
    medians = np.median(rng.choice(ratios, (2000, len(ratios))), axis=1)
    low, high = np.quantile(medians, (0.025, 0.975))
    return f"{np.median(ratios):.4f} (95%: {low:.4f} to {high:.4f})"


def watchdog_seconds(seconds: float) -> tuple[float, float]:
    """Returns the seconds of a call, and the share of a processor that the thread takes."""
    calls = 100_000
    with Watchdog(600.0) as watchdog:
        begun = time.perf_counter()
        for i in range(calls):
            watchdog.begin(f"update {i}")
        call = (time.perf_counter() - begun) / calls
        before = time.process_time()
        time.sleep(seconds)
        return call, (time.process_time() - before) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--config", default="quickstart", help="name of an experiment, or its file")
    parser.add_argument("--pairs", type=int, default=30, help="pairs of steps to measure (30)")
    arguments = parser.parse_args()
    set_up_jax()
    try:
        parts = make_parts(configs.load(arguments.config))
        mesh = meshes.make_mesh(parts.layout)
    except UserError as error:
        sys.exit(f"guard_cost.py: {error}")
    call, share = watchdog_seconds(20.0)
    with meshes.use(mesh, parts.layout.context_axis):
        steps = [stepper(parts, guard, mesh) for guard in GUARDS]
        for step in steps:
            step()
        measured = []
        for i in range(arguments.pairs):
            # Each kind comes first in every other pair.
            order = (0, 1) if i % 2 else (1, 0)
            found = {which: timed(steps[which]) for which in order}
            measured.append([found[0], found[1]])
    (wall, wall_guard), (processor, processor_guard) = np.asarray(measured).transpose(2, 1, 0)
    step = statistics.median(wall)
    print(
        f"step without the guard  {step:.4g} s, {statistics.median(processor):.4g} s of processors"
    )
    print(f"with the guard          {ratio(wall, wall_guard)} of the wall time")
    print(f"                        {ratio(processor, processor_guard)} of the processor time")
    print(f"watchdog                {call * 1e6:.2f} us a step, {share:.5%} of one processor;")
    print(f"                        {call / step + share:.5%} of a step")


if __name__ == "__main__":
    main()
