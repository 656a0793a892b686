"""What training holds: parameters, trained and frozen, their running average, and the optimiser's
moments."""

import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from stunet import configs
from stunet.nn import lora
from stunet.nn.parameters import is_temporal
from stunet.nn.stunet import STUNet
from stunet.parallel import mesh as meshes
from stunet.train.conditioning import conditioning, kind


@flax.struct.dataclass
class TrainState:
    """The state after `step` updates.

    Attributes:
        step: int32 scalar.
        params: those that are trained, of the network or its adapters (`config.lora`); float32.
        frozen: of the network, those that are not (`config.freeze`); kernels in the dtype of the
            computation, to which each use would cast them.
        ema: running average of `params`, which is what is sampled from.
        opt_state: the optimiser's, of `params`.
        lora_scale: of the product of an adapter's two factors, if there are any.
    """

    step: jax.Array
    params: Any
    frozen: Any
    ema: Any
    opt_state: Any
    lora_scale: float = flax.struct.field(pytree_node=False, default=1.0)

    def whole(self, trained: Any) -> Any:
        """The whole network's parameters, with `trained` in the place of `params`."""
        return lora.merge(join(trained, self.frozen), self.lora_scale)

    @property
    def averaged(self) -> Any:
        """The whole network's parameters, averaged where they are trained."""
        return self.whole(self.ema)


def make_network(config: configs.Config) -> STUNet:
    """The network that a config describes."""
    model = config.model
    return STUNet(
        channels=configs.level_channels(model),
        out_channels=config.data.channels * (2 if model.learned_variance else 1),
        patch_size=model.patch_size,
        layers_per_level=configs.level_layers(model),
        attention_levels=model.attention_levels,
        temporal_factors=model.temporal_factors if model.temporal else None,
        temporal_attention_blocks=model.temporal_attention_blocks,
        temporal_resize_init=model.temporal_resize_init,
        groups=model.groups,
        text_groups=model.text_groups,
        head_channels=model.head_channels,
        flash_attention=model.flash_attention,
        text_features=model.text_features,
        text_pooling_heads=model.text_pooling_heads,
        text_only_attention=model.text_only_attention,
        activation=model.activation,
        residual_divisor=model.residual_divisor,
        time_features=model.time_features,
        time_scale=model.time_scale,
        cosine_first=model.cosine_first,
        frequency_shift=model.frequency_shift,
        level_embedding=model.level_embedding,
        remat=model.remat,
        scan_layers=model.scan_layers,
        dtype=jnp.dtype(model.dtype),
    )


def clip_shape(config: configs.Config, batch: int) -> tuple[int, ...]:
    """`[b, t, h, w, c]` of a batch of clips."""
    data = config.data
    return (batch, data.frames, data.height, data.width, data.channels)


def input_shape(config: configs.Config, batch: int) -> tuple[int, ...]:
    """`[b, t, h, w, c]` of what the network takes."""
    *shape, channels = clip_shape(config, batch)
    # A level that is embedded has no plane.
    return (*shape, conditioning(config).channels(channels) - config.model.level_embedding)


def abstract_arguments(config: configs.Config, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    """What the network is called with, for a batch of so many clips: input, noise time, text
    states and their mask, and, where it is embedded, the level of what is given."""
    text = config.text
    shapes = [input_shape(config, batch), (batch,), (batch, text.max_length, text.dim)]
    arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    arguments += [jax.ShapeDtypeStruct((batch, text.max_length), jnp.bool_)]
    if config.model.level_embedding:
        arguments += [jax.ShapeDtypeStruct((batch,), jnp.float32)]
    return tuple(arguments)


def make_optimizer(train: configs.Train) -> optax.GradientTransformation:
    """AdamW with a clipped gradient, linear warm-up and cosine decay."""
    schedule = learning_rate(train)
    return optax.chain(
        optax.clip_by_global_norm(train.clip_norm),
        optax.adamw(
            schedule,
            b1=train.beta1,
            b2=train.beta2,
            weight_decay=train.weight_decay,
            mask=_decayed,
        ),
    )


def _decayed(params: Any) -> Any:
    """Which parameters weight decay applies to, by name: vectors of scanned layers are stacked, and
    so have as many axes as a matrix."""
    return path_aware_map(lambda path, _: path[-1] in ("kernel", lora.A, lora.B), params)


def learning_rate(train: configs.Train) -> optax.Schedule:
    return optax.warmup_cosine_decay_schedule(
        init_value=train.learning_rate / (train.warmup_steps + 1),
        peak_value=train.learning_rate,
        warmup_steps=train.warmup_steps,
        decay_steps=max(train.steps, train.warmup_steps + 1),
        end_value=train.learning_rate * train.final_learning_rate,
    )


def abstract_state(
    config: configs.Config, mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
) -> TrainState:
    """Shapes, dtypes and shardings of the state; computes nothing."""
    return meshes.abstract(jax.eval_shape(lambda: _init(config)), mesh)


def create_state(config: configs.Config, mesh: jax.sharding.Mesh) -> TrainState:
    """A fresh state, born on the mesh shard by shard."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    return jax.jit(
        lambda: meshes.unbox(_init(config)), out_shardings=shardings, **quick_to_compile(mesh)
    )()


def quick_to_compile(mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Options of `jit` for a program that runs once.

    On the CPU, LLVM takes 28 s over the hundreds of random numbers of the quickstart's network,
    and 10 s if it does not optimise them; elsewhere the option does not exist.
    """
    if mesh.devices.flat[0].platform != "cpu":
        return {}
    return {"compiler_options": {"xla_backend_optimization_level": 0}}


def is_trained(config: configs.Config, path: Sequence[str]) -> bool:
    """Whether the module or parameter of the network at this path is trained, itself or by an
    adapter of it."""
    if config.lora.rank:
        return not is_temporal(path)
    # The added input channels of a widened first convolution start at zero: frozen, they would
    # never be looked at.
    widened = kind(config) != "none" and path[0] == "conv_in"
    return config.freeze == "none" or is_temporal(path) or widened


def split(config: configs.Config, params: Any) -> tuple[Any, Any]:
    """The network's parameters -> (those that are trained, those that are frozen).

    With adapters all of them are frozen.
    """
    trained, frozen = {}, {}
    for path, leaf in flatten_dict(params).items():
        is_free = is_trained(config, path) and not config.lora.rank
        (trained if is_free else frozen)[path] = leaf
    dtype = jnp.dtype(config.model.dtype)
    frozen = {
        path: jax.tree.map(lambda x: x.astype(dtype), leaf) if path[-1] == "kernel" else leaf
        for path, leaf in frozen.items()
    }
    return unflatten_dict(trained), unflatten_dict(frozen)


def join(trained: Any, frozen: Any) -> Any:
    """The inverse of `split`, but for dtypes."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def count_parameters(params: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _init(config: configs.Config) -> TrainState:
    """The first state, every leaf still boxed with the names of its axes."""
    return begin(config, init_params(config))


def init_params(config: configs.Config) -> Any:
    """The network's fresh parameters, each boxed with the names of its axes."""
    # One clip, as small as the network takes: parameters do not depend on its size.
    model = config.model
    side = model.patch_size * 2 ** (len(model.channel_multipliers) - 1)
    channels = input_shape(config, 1)[-1]
    shape = (1, math.prod(model.temporal_factors), side, side, channels)
    rest = [jnp.zeros((1, 1, config.text.dim)), jnp.ones((1, 1), bool)]
    rest += [jnp.zeros(1)] if model.level_embedding else []
    # Without rules, flax does not constrain each parameter by its names while it makes it: the
    # shardings of the whole state are given to jit, and they know about extents that do not divide.
    with nn.logical_axis_rules(()):
        return make_network(config).init(
            jax.random.key(config.seed), jnp.zeros(shape), jnp.zeros(1), *rest
        )["params"]


def begin(config: configs.Config, params: Any) -> TrainState:
    """The state before the first update, of the network's parameters."""
    trained, frozen = split(config, params)
    scale = 1.0
    if rank := config.lora.rank:
        trained = lora.init(jax.random.key(config.seed), params, rank)
        scale = config.lora.alpha / rank
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=trained,
        frozen=frozen,
        ema=jax.tree.map(jnp.copy, trained),
        opt_state=make_optimizer(config.train).init(trained),
        lora_scale=scale,
    )
