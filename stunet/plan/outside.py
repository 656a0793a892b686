"""Lowers the parts of a train step that lie outside the blocks of the network.

There are two such parts: noise and loss, and the optimiser's update. Each is lowered from the code
of the real step (`stunet.train.step`), with the real step's shardings, but without the network.
"""

import dataclasses

import jax
import jax.numpy as jnp

from stunet.nn.layers import CLIP_AXES
from stunet.nn.sharding import partition_spec
from stunet.parallel import compiler
from stunet.train.parts import Parts
from stunet.train.program import abstract_batch
from stunet.train.state import abstract_state
from stunet.train.step import apply_gradients


@dataclasses.dataclass(frozen=True)
class _GivenPrediction:
    """Stands in for the network: its parameters are the prediction itself.

    Attributes:
        level_embedding: the network's attribute of this name.
        temporal_factors: None, as in a network without temporal layers.
        inputs: list to which each call adds its arguments.
    """

    level_embedding: bool
    inputs: list
    temporal_factors: None = None

    def apply(self, variables, *arguments):
        """Returns the prediction."""
        self.inputs.append(arguments)
        return variables["params"]


def lower_noise_and_loss(parts: Parts, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Lowers all that comes before and after the network in a forward and backward pass.

    The program draws noise, noise times and dropped captions, makes the network's input, and
    computes the loss and its gradient with respect to the network's prediction.
    """
    network = parts.denoiser.network

    def noise_and_loss(step, batch, prediction):
        key = jax.random.fold_in(jax.random.key(parts.seed), step)
        drawn = parts.objective.draw(key, batch)

        def mean_loss(prediction):
            stub = _GivenPrediction(network.level_embedding, [])
            denoiser = dataclasses.replace(parts.denoiser, network=stub)
            # The targets of a distilled network come from further passes of the network.
            objective = dataclasses.replace(parts.objective, denoiser=denoiser, distillation=None)
            return objective.loss(prediction, *drawn).mean(), stub.inputs

        return jax.value_and_grad(mean_loss, has_aux=True)(prediction)

    shape = (*parts.denoiser.clip_shape(parts.batch_size)[:-1], network.out_channels)
    prediction = placed(jax.ShapeDtypeStruct(shape, jnp.float32), mesh)
    arguments = jax.ShapeDtypeStruct((), jnp.int32), abstract_batch(parts, mesh), prediction
    made = jax.eval_shape(noise_and_loss, *arguments)
    shardings = jax.tree.map(lambda leaf: placed(leaf, mesh).sharding, made)
    options = compiler.options(prediction.sharding.device_set)
    jitted = jax.jit(noise_and_loss, out_shardings=shardings, compiler_options=options)
    return jitted.lower(*arguments)


def lower_update(parts: Parts, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Lowers clipping, the optimiser and the average of the weights."""
    state = abstract_state(parts.denoiser, parts.optimizer, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)

    def update(state, loss, grads):
        return apply_gradients(parts.optimizer, state, loss, grads)

    jitted = jax.jit(
        update,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=compiler.options(shardings.step.device_set),
    )
    return jitted.lower(state, jax.ShapeDtypeStruct((), jnp.float32), state.params)


# Name of a part of the step in the plan -> the function that lowers the part's program.
PROGRAMS = {"noise and loss": lower_noise_and_loss, "update": lower_update}


def placed(leaf: jax.ShapeDtypeStruct, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    """Returns the leaf with the sharding that activations of its shape have in the network."""
    names = ("batch", *[None] * (leaf.ndim - 1)) if leaf.ndim else ()
    names = CLIP_AXES if leaf.ndim == len(CLIP_AXES) else names
    spec = partition_spec(names, leaf.shape, mesh.shape)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
