"""Measures how time and memory of a training step grow with frames, pixels and parameters.

    python benchmarks/growth.py --config memorised_digits --plot growth.png \
      --config.data.height=32 --config.data.width=32 --config.train.batch_size=1

The table has three parts. In each, one quantity changes and all else stays as in the config: the
frames of a clip, the pixels of a frame, or the number of channels, which decides the number of
parameters. The steps take turns, round by round, so that other load on the machine meets all of
them. Times are medians over the rounds.

Below each part stand exponents: if a quantity doubles, its cost grows by two to the power of the
exponent. An exponent is the slope of a line that is fitted to logarithms. The interval of the
time's exponent is a 95% bootstrap interval over the rounds. The last line fits a constant and a
part in proportion to the quantity to the times, and says how far the times are from this fit.

Operations are those of the network's trace, and memory is what the compiler reserves for a step's
arrays: state, batch and temporary arrays.

The step is the one that training runs. Its batch is noise that is on the device already.
"""

import argparse
import itertools
import math
import pathlib
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import plot
from overrides import parse_with_overrides
from train_step import prepare

from stunet import configs
from stunet.commands.setup import set_up_jax
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.measured.flops import model_flops
from stunet.train.parts import make_parts

# Name of a quantity -> keys of the config that set it.
KEYS = {
    "frames": ("data.frames",),
    "pixels": ("data.height", "data.width"),
    "parameters": ("model.channels",),
}


class Step:
    """A training step of one config, which is compiled at once.

    Attributes:
        sizes: frames of a clip, pixels of a frame, and parameters, by name.
        flops: counted operations of a step.
        bytes: bytes of the arrays of a step.
        seconds: duration of each measured step.
    """

    def __init__(self, config: configs.Experiment):
        parts = make_parts(config)
        mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
        with meshes.use(mesh, parts.layout.context_axis):
            self._state, self._batch, update = prepare(parts, mesh)
            self._update = update.lower(self._state, self._batch).compile()
        clip = parts.denoiser.clip
        leaves = jax.tree.leaves(self._state.params)
        self.sizes = {
            "frames": clip.frames,
            "pixels": clip.height * clip.width,
            "parameters": sum(leaf.size for leaf in leaves),
        }
        self.flops = model_flops(parts.denoiser, parts.batch_size)
        memory = self._update.memory_analysis()
        self.bytes = memory.argument_size_in_bytes + memory.temp_size_in_bytes
        self.seconds: list[float] = []

    def run(self) -> float:
        """Runs the step once and returns its duration in seconds."""
        begun = time.perf_counter()
        self._state, _ = jax.block_until_ready(self._update(self._state, self._batch))
        return time.perf_counter() - begun


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns the slope of the line through the logarithms, by least squares."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def exponents(name: str, steps: Sequence[Step]) -> tuple[float, float, tuple[float, float], float]:
    """Returns the exponents of operations, of time, its 95% interval, and the one of memory."""
    sizes = [step.sizes[name] for step in steps]
    seconds = np.array([step.seconds for step in steps])
    rounds = seconds.shape[1]
    drawn = np.random.default_rng(0).integers(0, rounds, (1000, rounds))
    again = [exponent(sizes, np.median(seconds[:, chosen], axis=1)) for chosen in drawn]
    return (
        exponent(sizes, [step.flops for step in steps]),
        exponent(sizes, np.median(seconds, axis=1)),
        tuple(np.percentile(again, (2.5, 97.5))),
        exponent(sizes, [step.bytes for step in steps]),
    )


def line(sizes: Sequence[float], seconds: Sequence[float]) -> tuple[float, float, float]:
    """Fits `constant + slope * size` to times, so that relative errors are small.

    Returns:
        The constant, the slope, and the largest relative error.
    """
    slope, constant = np.polyfit(sizes, seconds, 1, w=1 / np.array(seconds))
    errors = (constant + slope * np.array(sizes)) / seconds - 1
    return float(constant), float(slope), float(np.abs(errors).max())


def table(name: str, steps: Sequence[Step]) -> Iterator[str]:
    """Yields the lines of the table for one quantity."""
    per = {"frames": "frame", "pixels": "pixel", "parameters": "parameter"}[name]
    yield f"| {name} | GFLOP | seconds | of the first, per {per} | GFLOP/s | MiB |"
    yield "|---" * 6 + "|"
    rates = [statistics.median(step.seconds) / step.sizes[name] for step in steps]
    for step, rate in zip(steps, rates, strict=True):
        median = statistics.median(step.seconds)
        cells = [
            f"{step.sizes[name]:,}",
            f"{step.flops / 1e9:.1f}",
            f"{median:.3f}",
            f"{rate / rates[0]:.2f}",
            f"{step.flops / median / 1e9:.0f}",
            f"{step.bytes / 2**20:.0f}",
        ]
        yield f"| {' | '.join(cells)} |"
    operations, seconds, (low, high), memory = exponents(name, steps)
    of_time = f"{seconds:.2f} ({low:.2f} to {high:.2f})"
    yield f"| exponent | {operations:.2f} | {of_time} | | | {memory:.2f} |"
    medians = [statistics.median(step.seconds) for step in steps]
    constant, slope, error = line([step.sizes[name] for step in steps], medians)
    fit = f"{1e3 * constant:.3g} ms + {1e3 * slope:.3g} ms per {per}"
    yield f"\nfit of the time: {fit}, at most {error:.0%} off"


def draw(file: pathlib.Path, sweeps: Mapping[str, Sequence[Step]], note: str) -> None:
    """Draws the seconds of a step over each quantity, both in logarithms.

    Args:
        file: PNG to write.
        sweeps: steps of each quantity, the smallest first.
        note: line below the title.
    """
    sheet = plot.Sheet(1000, 400)
    sheet.title("How the time of a training step grows", note)
    colours = {"measured": plot.COLOURS[0], "in proportion to the quantity": plot.SOFT}
    sheet.legend(640, 24, colours)
    medians = [statistics.median(s.seconds) for steps in sweeps.values() for s in steps]
    marks = sorted(digit * 10.0**power for power in range(-5, 4) for digit in (1, 3))
    below = max(mark for mark in marks if mark <= min(medians))
    above = min(mark for mark in marks if mark >= max(medians))
    y = {math.log10(mark): f"{mark:g} s" for mark in marks if below <= mark <= above}
    for column, (name, steps) in enumerate(sweeps.items()):
        x = np.log10([step.sizes[name] for step in steps])
        rows = np.log10([step.seconds for step in steps])
        middle = np.median(rows, axis=1)
        straight = middle[-1] + x - x[-1]
        shown = straight >= min(y)
        curves = [
            plot.Curve(plot.SOFT, x[shown], *[straight[shown]] * 3, dots=False),
            plot.Curve(plot.COLOURS[0], x, middle, *np.percentile(rows, (25, 75), axis=1)),
        ]
        labels = {at: _short(step.sizes[name]) for at, step in zip(x, steps, strict=True)}
        near = [at for at, after in itertools.pairwise(x) if after - at < 0.1 * (x[-1] - x[0])]
        labels |= dict.fromkeys(near, "")
        title = f"{name}: exponent {exponents(name, steps)[1]:.2f}"
        panel = plot.Panel(title, name, labels, y, curves)
        sheet.panel(70 + 315 * column, 110, 270, 220, panel)
    sheet.save(file)


def _short(count: int) -> str:
    for unit, letter in ((1e6, "M"), (1e3, "k")):
        if count >= unit:
            digits = 0 if count >= 10 * unit else 1
            return f"{count / unit:.{digits}f}{letter}"
    return str(count)


def make_steps(config: configs.Experiment, values: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Compiles the steps of all quantities; a config that two quantities share, once."""
    made: dict[tuple, Step] = {}
    sweeps = {}
    for name, numbers in values.items():
        sweeps[name] = []
        for number in numbers:
            changed = configs.replace(config, dict.fromkeys(KEYS[name], number))
            key = tuple(configs.flatten(changed).values())
            if key not in made:
                print(f"compiling: {name} {number}", file=sys.stderr, flush=True)
                made[key] = Step(changed)
            sweeps[name].append(made[key])
    return sweeps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="Any key of the config can follow, such as --config.train.batch_size=2.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="name of an experiment, or its file")
    for option, what, numbers in (
        ("--frames", "frames in each clip", (8, 16, 32, 64, 96, 128, 160)),
        ("--sides", "pixels in each row and column", (16, 32, 64, 96, 128)),
        ("--channels", "channels of the finest level", (16, 32, 48, 64, 96)),
    ):
        shown = " ".join(map(str, numbers))
        parser.add_argument(
            option, type=int, nargs="+", metavar="N", default=numbers, help=f"{what} ({shown})"
        )
    parser.add_argument("--rounds", type=int, default=7, help="measured steps of each config (7)")
    parser.add_argument("--plot", type=pathlib.Path, metavar="FILE", help="PNG to draw")
    arguments, overrides = parse_with_overrides(parser)
    numbers = (arguments.frames, arguments.sides, arguments.channels)
    if min(map(len, numbers)) < 2 or arguments.rounds < 1:
        parser.error("each of --frames, --sides and --channels needs two numbers; --rounds, one")
    set_up_jax()
    try:
        config = configs.load(arguments.config, overrides)
        values = {name: sorted(n) for name, n in zip(KEYS, numbers, strict=True)}
        sweeps = make_steps(config, values)
    except UserError as error:
        sys.exit(f"growth.py: {error}")
    steps = list({id(step): step for many in sweeps.values() for step in many}.values())
    for step in steps:
        step.run()  # Not measured.
    for _ in range(arguments.rounds):
        for step in steps:
            step.seconds.append(step.run())
    for name, many in sweeps.items():
        print("\n".join(table(name, many)) + "\n")
    if arguments.plot:
        device = jax.devices()[0].device_kind
        note = f"medians of {arguments.rounds} steps, on one device ({device})"
        draw(arguments.plot, sweeps, note)


if __name__ == "__main__":
    main()
