"""Compares optimisers: the held-out loss of each after equally many updates of one config.

    python benchmarks/optimizers.py --config quickstart --updates 1000 --multiples 0.3 1 3 \
      --out runs/optimizers.jsonl --plot optimizers.png

All runs start from the same weights, and see the same clips and noise in the same order. The
learning rate rises over `train.warmup_steps` and then stays. It is `train.learning_rate` of the
config times the optimiser's usual multiple of AdamW's rate (`USUAL`), times each of `--multiples`.
The loss is that of the averaged weights on 128 held-out clips with fixed noise. The gradient is
compiled once for all runs, so a run compiles only its update.

The columns are the optimiser, the learning rate, the held-out losses after a sixteenth, an eighth,
a quarter, a half and all of the updates, and the seconds that an update takes after the gradient,
as a median. A run that `--out` holds already is not trained again. `--plot` draws the best learning
rate of each optimiser, by its last loss.

A constant learning rate suits schedule-free, which needs no other, better than AdamW, which ends
lower when the rate falls.
"""

import argparse
import dataclasses
import hashlib
import json
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import numpy as np
import plot
from overrides import parse_with_overrides

from stunet import configs, jsonfiles
from stunet.commands.setup import set_up_jax
from stunet.data.sources import make_source
from stunet.parallel import mesh as meshes
from stunet.train.objectives.objective import Batch
from stunet.train.optim.methods import METHODS
from stunet.train.optim.optimizer import Optimizer
from stunet.train.parts import Parts, make_parts
from stunet.train.state import TrainState, create_state
from stunet.train.step import apply_gradients

# Usual learning rate of each optimiser, as a multiple of AdamW's.
USUAL = {
    "adamw": 1.0,
    "adamw_8bit": 1.0,
    "adafactor": 1.0,
    "lion": 0.2,
    "muon": 1.0,
    "schedule_free": 2.0,
}

# Number of held-out clips.
HELD_OUT = 128
# Where the held-out loss is measured: parts of the updates.
POINTS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1)


@dataclasses.dataclass(frozen=True)
class Run:
    """What one run has measured.

    Attributes:
        config: hash of the config.
        optimizer: name of the optimiser.
        learning_rate: learning rate after the warm-up.
        updates: updates after which the losses were measured, ascending.
        losses: held-out losses.
        seconds: seconds of an update after the gradient.
    """

    config: str
    optimizer: str
    learning_rate: float
    updates: tuple[int, ...]
    losses: tuple[float, ...]
    seconds: float

    def __str__(self) -> str:
        losses = " ".join(f"{loss:8.4f}" for loss in self.losses)
        return f"{self.optimizer:14} {self.learning_rate:8.1e} {losses} {self.seconds:8.4f}"


def batches(parts: Parts, split: str, count: int) -> Iterator[Batch]:
    """Yields `count` batches of a split, in the order of its examples."""
    source, size = make_source(parts.dataset, split), parts.batch_size
    for i in range(count):
        rows = [source[j % len(source)] for j in range(i * size, (i + 1) * size)]
        yield {key: np.stack([row[key] for row in rows]) for key in ("video", "text", "text_mask")}


def make_gradient(parts: Parts, frozen: TrainState) -> Callable:
    """Returns a function of (parameters, number of the batch, batch), jitted.

    It returns the mean loss and its gradient. The number decides the noise.

    Args:
        parts: network and objective.
        frozen: a state that holds the parameters which are not trained.
    """

    @jax.jit
    def gradient(params, number, batch):
        key = jax.random.fold_in(jax.random.key(parts.seed), number)
        drawn = parts.objective.draw(key, batch)

        def mean_loss(params):
            return parts.objective.loss(frozen.network_params(params), *drawn).mean()

        return jax.value_and_grad(mean_loss)(params)

    return gradient


def train(
    parts: Parts, optimizer: Optimizer, fresh: TrainState, gradient: Callable, updates: int
) -> Iterator[tuple[int, float, float]]:
    """Yields a number of updates, the held-out loss after them, and the median of their seconds."""
    state = fresh.replace(opt_state=optimizer.transformation.init(fresh.params))
    update = jax.jit(lambda state, loss, grads: apply_gradients(optimizer, state, loss, grads)[0])
    held_out = list(batches(parts, "val", max(1, HELD_OUT // parts.batch_size)))
    points = [max(1, round(point * updates)) for point in POINTS]
    seconds = []
    for i, batch in enumerate(batches(parts, "train", updates)):
        loss, grads = jax.block_until_ready(gradient(state.params, i, batch))
        begun = time.perf_counter()
        state = jax.block_until_ready(update(state, loss, grads))
        seconds.append(time.perf_counter() - begun)
        if i + 1 in points:
            losses = [float(gradient(state.ema, updates + j, x)[0]) for j, x in enumerate(held_out)]
            yield i + 1, float(np.mean(losses)), statistics.median(seconds)


def draw(file: pathlib.Path, runs: Sequence[Run], note: str) -> None:
    """Draws the held-out loss over updates, of the best run of each optimiser."""
    best: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.losses[-1]):
        if math.isfinite(run.losses[-1]):
            best.setdefault(run.optimizer, run)
    sheet = plot.Sheet(860, 460)
    sheet.title("Held-out loss of each optimiser, at its best learning rate", note)
    colours = dict(zip(best, plot.COLOURS, strict=False))
    x = {math.log2(count): f"{count:,}" for count in next(iter(best.values())).updates}
    # The axis begins at the second point, because the first losses would flatten the others.
    x = dict(list(x.items())[1:])
    curves = [
        plot.Curve(colours[name], list(x), *[run.losses[1:]] * 3) for name, run in best.items()
    ]
    most = max(run.losses[1] for run in best.values())
    step = next(step for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, most) if most / step <= 8)
    panel = plot.Panel("", "updates", x, plot.ticks(most, step), curves)
    sheet.legend(70, 76, {f"{n} {best[n].learning_rate:.0e}": c for n, c in colours.items()})
    sheet.panel(70, 100, 760, 300, panel)
    sheet.save(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="experiment, or file with get_config()")
    parser.add_argument("--updates", type=int, required=True, help="updates of each run")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--multiples", nargs="+", type=float, default=[1.0])
    parser.add_argument("--out", type=pathlib.Path, help="JSON of the runs, a line for each")
    parser.add_argument("--plot", type=pathlib.Path, help="PNG to draw")
    arguments, overrides = parse_with_overrides(parser)
    config = configs.load(arguments.config, overrides)
    set_up_jax()
    parts = make_parts(config)
    mesh = meshes.make_mesh(meshes.Layout(data=1), jax.devices()[:1])
    found = read(arguments.out) if arguments.out and arguments.out.exists() else ()
    setting = hashlib.sha256(json.dumps(configs.flatten(config), default=str).encode()).hexdigest()
    runs = [run for run in found if (run.config, run.updates[-1]) == (setting, arguments.updates)]
    for run in runs:
        print(run)
    with meshes.use(mesh):
        fresh = create_state(parts.denoiser, parts.optimizer, parts.seed, mesh)
        gradient = make_gradient(parts, fresh)
        for multiple in arguments.multiples:
            for name in arguments.only:
                rate = multiple * USUAL[name] * config.train.learning_rate
                if any((run.optimizer, run.learning_rate) == (name, rate) for run in runs):
                    continue
                keys = {"optimizer": name, "learning_rate": rate, "schedule": "constant"}
                values = {f"train.{key}": value for key, value in keys.items()}
                made = make_parts(configs.replace(config, values)).optimizer
                measured = train(parts, made, fresh, gradient, arguments.updates)
                updates, losses, seconds = zip(*measured, strict=True)
                runs.append(Run(setting, name, rate, updates, losses, seconds[-1]))
                print(runs[-1], flush=True)
                if arguments.out:
                    with arguments.out.open("a") as file:
                        file.write(f"{json.dumps(dataclasses.asdict(runs[-1]))}\n")
    if arguments.plot:
        note = (
            f"{arguments.config}, batches of {parts.batch_size} clips, averaged weights, one seed"
        )
        draw(arguments.plot, runs, note)


def read(file: pathlib.Path) -> Iterator[Run]:
    """Yields the runs in a file that `main` has written."""
    for line in file.read_text().splitlines():
        yield jsonfiles.convert(json.loads(line), Run, str(file))


if __name__ == "__main__":
    main()
