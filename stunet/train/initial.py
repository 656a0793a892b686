"""Where a run begins: with fresh weights, or with another run's (`train.init_from`), from its
working directory or from a file that `stunet export --format safetensors` wrote.

A network that is given more than the noisy clip takes more channels: its first convolution is
widened with zeros, as Lumiere's is from 3 to 7 channels (arXiv 2401.12945, section 4.1). Before the
first update it therefore makes what the other run's network makes of the noisy clip, whatever else
it is given.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict
from jaxtyping import Array, Float

from stunet import configs
from stunet.errors import UserError
from stunet.train import weights_file
from stunet.train.checkpoints import Checkpoints
from stunet.train.conditioning import kind
from stunet.train.state import (
    TrainState,
    abstract_state,
    begin,
    create_state,
    input_shape,
)

# Keys that a difference of which makes other weights, or weights of another meaning.
_OF_WEIGHTS = ("model.", "text.", "data.channels ", "diffusion.prediction ")
# Of these, keys with which weights of the same shapes compute something else.
_OF_MEANING = (
    "diffusion.prediction",
    *(f"model.{key}" for key in ("activation", "groups", "head_channels", "residual_divisor")),
    *(f"model.{key}" for key in ("text_groups", "text_pooling_heads")),
    *(f"model.{key}" for key in ("time_scale", "cosine_first", "frequency_shift")),
)


class _Start(NamedTuple):
    """Weights to begin with.

    Attributes:
        config: of the network that they are of.
        read: () -> its parameters, laid out on the mesh.
    """

    config: configs.Config
    read: Callable[[], Any]


def first_state(config: configs.Config, mesh: jax.sharding.Mesh) -> TrainState:
    """The state before the first update, laid out on the mesh.

    Raises:
        UserError: as `check`.
    """
    if not config.train.init_from:
        return create_state(config, mesh)
    params = _start(config, mesh).read()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
    first = jax.jit(lambda params: begin(config, extend(config, params)), out_shardings=shardings)
    return first(params)


def check(config: configs.Config, mesh: jax.sharding.Mesh) -> None:
    """Checks that `train.init_from`, if it is set, holds what this run can begin with.

    Raises:
        UserError: it holds no run, no checkpoint or damaged weights, or those of a network that
            this one does not extend; or it is not set, and only adapters are to be trained.
    """
    if config.train.init_from:
        _start(config, mesh)
    elif config.lora.rank:
        raise UserError(
            f"lora.rank is {config.lora.rank} and train.init_from is empty; adapters change a "
            "network that is trained already: set train.init_from to its working directory"
        )


def _start(config: configs.Config, mesh: jax.sharding.Mesh) -> _Start:
    """What `train.init_from` holds, checked; no weights are read yet."""
    place = pathlib.Path(config.train.init_from)
    find = _in_file if place.suffix == weights_file.SUFFIX else _in_run
    start = find(config, place, mesh)
    _check_extends(config, start.config, mesh)
    return start


def _in_run(config: configs.Config, workdir: pathlib.Path, mesh: jax.sharding.Mesh) -> _Start:
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"train.init_from: {workdir} holds no training run")
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest() is None:
            raise UserError(f"train.init_from: there is no checkpoint in {workdir}; train it first")
    other = configs.read(file)

    def read():
        with Checkpoints(workdir) as checkpoints:
            return checkpoints.restore_averaged(abstract_state(other, mesh))

    return _Start(other, read)


def _in_file(config: configs.Config, file: pathlib.Path, mesh: jax.sharding.Mesh) -> _Start:
    header = weights_file.read_header(file)
    other = header.config or _unlabelled(config, header)
    # Names do not depend on scanning: read as they are wanted here. Adapters were merged.
    model = dataclasses.replace(other.model, scan_layers=config.model.scan_layers)
    other = dataclasses.replace(other, model=model, lora=configs.Lora())
    params = abstract_state(other, mesh).averaged
    weights_file.check(file, header, params)
    return _Start(other, lambda: weights_file.read(file, params))


def _unlabelled(config: configs.Config, header: weights_file.Header) -> configs.Config:
    """Of a file that does not say what its weights are of: the config's network, given as much, or
    nothing, beside the noisy clip."""
    plain = dataclasses.replace(
        config, masks=configs.Masks(), upscale=configs.Upscale(), tsr=configs.Tsr()
    )
    channels = config.model.patch_size**2 * input_shape(plain, 1)[-1]
    found = header.shapes.get("conv_in.kernel", ())
    return plain if found[-2:-1] == (channels,) else config


def extend(config: configs.Config, params: Any) -> Any:
    """The parameters of a network that is given nothing, or the same, -> those of the config's."""
    # Those that were frozen there may be stored in half precision.
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    first, pixels = params["conv_in"], config.model.patch_size**2
    kernel = widen(first["kernel"], pixels, input_shape(config, 1)[-1])
    return {**params, "conv_in": {**first, "kernel": kernel}}


def widen(
    kernel: Float[Array, "*size i f"], pixels: int, channels: int
) -> Float[Array, "*size i2 f"]:
    """A convolution's kernel, with zeros for the channels that its input gets.

    Args:
        kernel: its inputs are the pixels of a patch, each with all of its channels.
        pixels: of a patch.
        channels: that each pixel has from now on; those that it had come first.
    """
    *size, inputs, features = kernel.shape
    kernel = kernel.reshape(*size, pixels, inputs // pixels, features)
    widths = [(0, 0)] * kernel.ndim
    widths[-2] = (0, channels - inputs // pixels)
    return jnp.pad(kernel, widths).reshape(*size, pixels * channels, features)


def _check_extends(config: configs.Config, other: configs.Config, mesh: jax.sharding.Mesh) -> None:
    workdir = config.train.init_from
    if kind(other) not in ("none", kind(config)):
        raise UserError(
            f"train.init_from: the network of {workdir} is conditioned otherwise ({kind(other)}, "
            f"and this one {kind(config)}); begin with one that is given nothing but captions"
        )
    ours, theirs = (_weights(c, mesh) for c in (config, other))
    here, there = map(configs.flatten, (config, other))
    if ours != theirs or any(here[key] != there[key] for key in _OF_MEANING):
        differences = [d for d in configs.differences(other, config) if d.startswith(_OF_WEIGHTS)]
        raise UserError(
            f"train.init_from: the network of {workdir} has other weights: "
            f"{'; '.join(differences)}; give both the same"
        )


def _weights(config: configs.Config, mesh: jax.sharding.Mesh) -> dict[tuple[str, ...], Any]:
    """The shape of each weight, but for what the first convolution looks at."""
    whole = jax.eval_shape(lambda state: state.averaged, abstract_state(config, mesh))
    shapes = {k: v.shape for k, v in flatten_dict(whole).items()}
    *size, _, features = shapes["conv_in", "kernel"]
    return shapes | {("conv_in", "kernel"): (*size, features)}
