"""Defines the state of training: parameters, their running average, and the optimiser's moments."""

import functools
import math
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import Array

from stunet.nn import lora
from stunet.parallel import mesh as meshes
from stunet.train.objectives.objective import Model
from stunet.train.optim import power_ema
from stunet.train.optim.optimizer import Optimizer
from stunet.train.optim.trainable import join


@flax.struct.dataclass
class TrainState:
    """Holds the state after `step` updates.

    Attributes:
        step: number of updates done, an int32 scalar.
        params: trained parameters, which belong to the network or to its adapters; float32.
        frozen: parameters of the network that are not trained, in their stored dtypes
            (`Trainable.frozen_dtype`).
        ema: average of `params` over past updates (`Optimizer.average`). Sampling takes `ema` in
            place of `params`.
        opt_state: state of the optimiser for `params`.
        guard: numbers of skipped and done updates, and the running mean of the gradient's norm
            (`stunet.train.optim.guard`); an empty dict if no update can be skipped.
        power_ema: power-function averages of `params` by name (`stunet.train.optim.power_ema`); an
            empty dict if the run stores no snapshots of them.
        teacher: `params` before the first update, if the network is distilled from them; otherwise
            an empty dict.
        lora_scale: scale of the product of an adapter's two matrices; 1 without adapters.
    """

    step: jax.Array
    params: Any
    frozen: Any
    ema: Any
    opt_state: Any
    guard: Any = flax.struct.field(default_factory=dict)
    power_ema: Any = flax.struct.field(default_factory=dict)
    teacher: Any = flax.struct.field(default_factory=dict)
    lora_scale: float = flax.struct.field(pytree_node=False, default=1.0)

    def network_params(self, trained: Any) -> Any:
        """Returns all parameters of the network, with `trained` in place of `params`."""
        return lora.merge(join(trained, self.frozen), self.lora_scale)

    @property
    def ema_params(self) -> Any:
        """Returns all parameters of the network, with `ema` in place of the trained ones."""
        return self.network_params(self.ema)

    @property
    def teacher_params(self) -> Any:
        """Returns all parameters of the teacher's network; None if there is no teacher."""
        return self.network_params(self.teacher) if self.teacher else None


def init_state(model: Model, optimizer: Optimizer, params: Any, key: Array) -> TrainState:
    """Returns the state before the first update.

    Args:
        model: the network and which of its parameters are trained.
        optimizer: the optimiser.
        params: all parameters of the network, plain or boxed with the names of their axes.
        key: random key of fresh adapters, if there are any.
    """
    trainable = model.trainable
    trained, frozen = trainable.split(params)
    if trainable.lora_rank:
        trained = lora.init(key, params, trainable.lora_rank)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trained,
        frozen=frozen,
        ema=jax.tree.map(jnp.copy, trained),
        # Without boxes: an array of the state need not have the axes of its parameter.
        opt_state=optimizer.transformation.init(meshes.unbox(trained)),
        guard=optimizer.guard.init(),
        power_ema=power_ema.init(trained) if optimizer.keeps_power_ema else {},
        teacher=jax.tree.map(jnp.copy, trained) if optimizer.keeps_teacher else {},
        lora_scale=trainable.lora_scale,
    )


def abstract_state(
    model: Model,
    optimizer: Optimizer,
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh,
) -> TrainState:
    """Returns shapes, dtypes and shardings of the state; computes nothing.

    The optimiser's arrays are split as the parameters that they belong to.
    """
    _, boxed = _traced_init(model, optimizer, jax.sharding.get_abstract_mesh())
    state = meshes.abstract(boxed, mesh)
    return state.replace(
        opt_state=meshes.derived(optimizer.transformation.init, state.params, mesh)
    )


def create_state(
    model: Model, optimizer: Optimizer, seed: int, mesh: jax.sharding.Mesh
) -> TrainState:
    """Makes a fresh state on the mesh, each shard directly on its device."""
    abstract = abstract_state(model, optimizer, mesh)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
    init, _ = _traced_init(model, optimizer, jax.sharding.get_abstract_mesh())
    fresh = jax.jit(
        lambda key: meshes.unbox(init(key)), out_shardings=shardings, **quick_to_compile(mesh)
    )
    return fresh(jax.random.key(seed))


@functools.lru_cache(maxsize=8)
def _traced_init(
    model: Model, optimizer: Optimizer, mesh: jax.sharding.AbstractMesh
) -> tuple[Callable[[Array], TrainState], TrainState]:
    """Traces once how a fresh state is made. The trace of a whole network takes seconds.

    Args:
        model: see `init_state`.
        optimizer: see `init_state`.
        mesh: the mesh in use, to which a trace belongs.

    Returns:
        A function of a random key that makes the state, and the state's shapes. Parameters are
        boxed with the names of their axes.
    """

    def init(key: Array) -> TrainState:
        return init_state(model, optimizer, model.init_params(key), key)

    # The mesh may be of devices that are elsewhere, for a plan. No key can be made on those.
    key = jax.eval_shape(lambda: jax.random.key(0))
    jaxpr, boxed = jax.make_jaxpr(init, return_shape=True)(key)
    # Flax also traced a forward pass, whose result no parameter needs.
    needed, _ = dce_jaxpr(jaxpr.jaxpr, [True] * len(jaxpr.out_avals), instantiate=True)
    run = jaxpr_as_fun(ClosedJaxpr(needed, jaxpr.consts))
    structure = jax.tree.structure(boxed)
    return lambda key: jax.tree.unflatten(structure, run(key)), boxed


def quick_to_compile(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Returns options of `jax.jit` that shorten the compilation of a program that runs only once.

    On the CPU, the option turns off LLVM's optimisation. The program that draws the quickstart
    network's parameters then compiles in 10 s instead of 28 s. Other platforms do not have this
    option, so the dict is empty for them.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"compiler_options": {"xla_backend_optimization_level": 0}}


def count_parameters(params: Any) -> int:
    """Counts all elements in a tree of arrays."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
