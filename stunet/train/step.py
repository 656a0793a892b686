"""Defines one update of training as a pure function of (state, batch), for `jax.jit`.

The random key of an update depends only on the seed and the step number. A resumed run therefore
draws the same numbers as an uninterrupted one, on any mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

from stunet.nn import parameters
from stunet.nn.sharding import constrain
from stunet.parallel import compiler
from stunet.train.objectives.objective import Batch, Objective
from stunet.train.optim import power_ema
from stunet.train.optim.optimizer import Optimizer, on_schedule
from stunet.train.state import TrainState

Metrics = dict[str, Array]

# Metrics of an update if clips come from several sources: the sum of the losses of each source's
# clips, and the number of these clips, as arrays with an element for each source.
SUMS_OF_SOURCES = ("source_losses", "source_clips")

Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


def make_train_step(
    objective: Objective,
    optimizer: Optimizer,
    *,
    seed: int,
    accumulate: int = 1,
    sources: int = 1,
    norms_by_layer: bool = False,
    shardings: Any = None,
) -> Step:
    """Returns `step(state, batch) -> (state, metrics)`, which does exactly one update.

    Args:
        objective: draws the random inputs for a batch, such as noise, and computes the loss.
        optimizer: how gradients become updates.
        seed: seed of all randomness.
        accumulate: number of equal parts of the batch that are computed one after the other. The
            gradient is the mean over the parts, so the update is the same but takes less memory.
        sources: number of sources of clips. If there are several, `batch["source"]` is the number
            of each clip's source, and the metrics also have the keys `SUMS_OF_SOURCES`.
        norms_by_layer: see `apply_gradients`.
        shardings: shardings of the trained parameters, which the gradients also get. With None, the
            compiler chooses the shardings of the gradients.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        inputs = objective.draw(jax.random.fold_in(jax.random.key(seed), state.step), batch)

        # Row i, column s: 1 if clip i comes from source s.
        belongs = jax.nn.one_hot(batch["source"], sources) if sources > 1 else None
        teacher = state.teacher_params

        def mean_loss(params, part):
            belongs, *inputs = part
            losses = objective.loss(state.network_params(params), *inputs, teacher=teacher)
            return losses.mean(), None if belongs is None else (losses @ belongs) / len(losses)

        (loss, of_sources), grads = _accumulate(
            jax.value_and_grad(mean_loss, has_aux=True),
            state.params,
            (belongs, *inputs),
            accumulate,
            zero=(jnp.zeros(()), None if belongs is None else jnp.zeros(sources)),
        )
        if shardings is not None:
            # A gradient with another sharding would be moved once for each of its uses.
            grads = jax.lax.with_sharding_constraint(grads, shardings)
        state, metrics = apply_gradients(optimizer, state, loss, grads, norms_by_layer)
        if of_sources is not None:
            sums = of_sources * len(belongs), belongs.sum(axis=0)
            metrics |= dict(zip(SUMS_OF_SOURCES, sums, strict=True))
        return state, metrics

    return step


def apply_gradients(
    optimizer: Optimizer,
    state: TrainState,
    loss: Array,
    grads: Any,
    norms_by_layer: bool = False,
) -> tuple[TrainState, Metrics]:
    """Returns the state after one update of weights, moments and averages, and the metrics.

    Args:
        optimizer: how gradients become updates.
        state: the state before the update.
        loss: mean loss of the batch, a scalar.
        grads: gradient of the loss with respect to `state.params`.
        norms_by_layer: True adds the norms of the gradient and of the update of each layer to the
            metrics, under `grad_norm/LAYER` and `update_norm/LAYER`.
    """
    opt_state = on_schedule(state.opt_state, state.step)
    updates, opt_state = optimizer.transformation.update(grads, opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    ema = optimizer.average(state.ema, params, opt_state, state.step)
    norm = optax.tree.norm(grads)
    metrics = {
        "loss": loss,
        "grad_norm": norm,
        "learning_rate": optimizer.learning_rate(state.step),
    }
    if norms_by_layer:
        for name, tree in (("grad_norm", grads), ("update_norm", updates)):
            metrics |= {f"{name}/{layer}": norm for layer, norm in layer_norms(tree).items()}
    after = state.replace(params=params, ema=ema, opt_state=opt_state)
    if optimizer.guard.is_on:
        taken = optimizer.guard.takes(state.guard, loss, norm)
        counts = optimizer.guard.count(state.guard, taken, norm)
        after = jax.tree.map(lambda new, old: jnp.where(taken, new, old), after, state)
        after = after.replace(guard=counts)
        metrics |= {"skipped_updates": counts["skipped"], "in_a_row": counts["in_a_row"]}
    if optimizer.keeps_power_ema:
        # Also after a skipped update, which leaves the weights as they were for one update more.
        averages = power_ema.update(state.power_ema, after.params, state.step + 1)
        after = after.replace(power_ema=averages)
    return after.replace(step=state.step + 1), metrics


def layer_norms(tree: Any) -> dict[str, Array]:
    """Returns the norm of all arrays of each layer together, by the layer's name in files.

    Args:
        tree: a tree of arrays with the structure of a network's parameters.
    """
    squares: dict[str, Array] = {}
    for name, leaf in parameters.flatten(tree).items():
        layer = name.partition(".")[0]
        squares[layer] = squares.get(layer, 0.0) + jnp.sum(jnp.square(leaf))
    return {layer: jnp.sqrt(square) for layer, square in squares.items()}


def jit_train_step(
    objective: Objective,
    optimizer: Optimizer,
    state: TrainState,
    *,
    seed: int,
    accumulate: int = 1,
    sources: int = 1,
    norms_by_layer: bool = False,
) -> Step:
    """Returns the function of `make_train_step`, jitted for the mesh on which `state` lies.

    Args:
        objective: see `make_train_step`.
        optimizer: see `make_train_step`.
        seed: see `make_train_step`.
        accumulate: see `make_train_step`.
        sources: see `make_train_step`.
        norms_by_layer: see `apply_gradients`.
        state: the state of training, or its shapes and shardings. The returned function donates the
            state that it is called with.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = make_train_step(
        objective,
        optimizer,
        seed=seed,
        accumulate=accumulate,
        sources=sources,
        norms_by_layer=norms_by_layer,
        shardings=shardings.params,
    )
    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=compiler.step_options(shardings.step.device_set),
    )


def _accumulate(value_and_grad: Callable, params: Any, inputs: tuple, parts: int, zero: Any):
    """Returns the mean value and gradient over equal parts of the inputs.

    The leading axis of each input is split into `parts` parts. `zero` has the shape of a value.
    """
    if parts == 1:
        return value_and_grad(params, inputs)

    def split(x):
        # Every `parts`-th row: a part takes rows from all of the batch's shards, and none has to
        # move.
        x = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
        return constrain(x, None, "batch", *[None] * (x.ndim - 2))

    def add(total, part):
        return jax.tree.map(jnp.add, total, value_and_grad(params, part)), None

    first = zero, jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, first, jax.tree.map(split, inputs))
    return jax.tree.map(lambda x: x / parts, total)
