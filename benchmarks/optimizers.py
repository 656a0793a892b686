"""Compares optimisers: the held-out loss of each after equally many updates of one config.

    python benchmarks/optimizers.py --config quickstart --updates 2000
    python benchmarks/optimizers.py --config my_config.py --only adamw muon --multiples 0.3 1 3

All runs start from the same weights, and see the same clips and noise in the same order. The
learning rate rises over `train.warmup_steps` and then stays. It is `train.learning_rate` of the
config times the optimiser's usual multiple of AdamW's rate (`USUAL`), or times each of
`--multiples`. The loss is that of the averaged weights on 128 held-out clips with fixed noise. The
gradient is compiled once for all runs, so a run compiles only its update.

The columns are the learning rate, the held-out loss, and the seconds that an update takes after the
gradient, as a median.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import jax
import numpy as np

from stunet import configs
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
) -> tuple[float, float]:
    """Returns the held-out loss after some updates, and the median of their seconds."""
    state = fresh.replace(opt_state=optimizer.transformation.init(fresh.params))
    update = jax.jit(lambda state, loss, grads: apply_gradients(optimizer, state, loss, grads)[0])
    seconds = []
    for i, batch in enumerate(batches(parts, "train", updates)):
        loss, grads = jax.block_until_ready(gradient(state.params, i, batch))
        begun = time.perf_counter()
        state = jax.block_until_ready(update(state, loss, grads))
        seconds.append(time.perf_counter() - begun)
    held_out = batches(parts, "val", max(1, HELD_OUT // parts.batch_size))
    losses = [float(gradient(state.ema, updates + i, x)[0]) for i, x in enumerate(held_out)]
    return float(np.mean(losses)), statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="experiment, or file with get_config()")
    parser.add_argument("--updates", type=int, required=True, help="updates of each run")
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--multiples", nargs="+", type=float, help="of train.learning_rate")
    arguments, overrides = parser.parse_known_args()
    config = configs.load(arguments.config, overrides)
    set_up_jax()
    parts = make_parts(config)
    mesh = meshes.make_mesh(meshes.Layout(data=1), jax.devices()[:1])
    with meshes.use(mesh):
        fresh = create_state(parts.denoiser, parts.optimizer, parts.seed, mesh)
        gradient = make_gradient(parts, fresh)
        for name in arguments.only:
            for multiple in arguments.multiples or [USUAL[name]]:
                rate = multiple * config.train.learning_rate
                keys = {"optimizer": name, "learning_rate": rate, "schedule": "constant"}
                values = {f"train.{key}": value for key, value in keys.items()}
                made = make_parts(configs.replace(config, values)).optimizer
                loss, seconds = train(parts, made, fresh, gradient, arguments.updates)
                print(f"{name:14} {rate:8.1e} {loss:8.4f} {seconds:8.4f}", flush=True)


if __name__ == "__main__":
    main()
