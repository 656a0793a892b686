"""Makes the weights that a run begins with: fresh weights, or the weights of another run.

Weights of another run (`train.init_from`) are read from that run's working directory, or from a
file that `stunet export --format safetensors` wrote.

If a network gets other inputs besides the noisy clip, its first convolution has more input
channels. The kernels of the added channels start at zero, as in Lumiere, which extends 3 channels
to 7 (arXiv 2401.12945, section 4.1). Before the first update, the network therefore gives the same
output as the other run's network, whatever the added inputs are.

A video network may begin with the weights of a text-to-image network (`model.temporal` False). Its
temporal layers are then fresh, which is Lumiere's inflation (section 3.1). `stunet.nn.stunet` says
what the network gives before the first update.
"""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float, PRNGKeyArray

from stunet import configs
from stunet.errors import UserError
from stunet.nn.parameters import is_temporal
from stunet.parallel import mesh as meshes
from stunet.stores import mirror
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.parts import Parts, make_parts
from stunet.train.saved import weights_file
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.state import TrainState, abstract_state, create_state, init_state

# Groups and keys of the config in which a difference means other weights, or another meaning of
# weights.
_OF_WEIGHTS = ("model.", "text.", "autoencoder.", "data.channels ", "diffusion.prediction ")
# Keys with which weights of the same shapes compute something else.
_OF_MEANING = (
    "diffusion.prediction",
    *(f"model.{key}" for key in ("activation", "groups", "residual_divisor")),
    *(f"model.{key}" for key in ("heads", "head_channels")),
    *(f"model.{key}" for key in ("text_groups", "text_pooling_heads")),
    *(f"model.{key}" for key in ("time_scale", "cosine_first", "frequency_shift")),
)
# Groups and keys in which a network and its teacher agree, beside those above.
_OF_TEACHING = (
    *("upscale.", "tsr.", "model.temporal "),
    *(f"diffusion.{key} " for key in ("schedule", "shift", "log_snr_min", "log_snr_max")),
    *(f"diffusion.{key} " for key in ("beta_start", "beta_end", "zero_terminal_snr")),
    "diffusion.input_scale ",
)


class _Start(NamedTuple):
    """Says where the weights that a run begins with come from.

    Attributes:
        parts: network and settings of the run that trained the weights.
        read: reads the parameters of that run's network, laid out on the mesh.
    """

    parts: Parts
    read: Callable[[], Any]


def first_state(parts: Parts, abstract: TrainState, mesh: jax.sharding.Mesh) -> TrainState:
    """Returns the state before the first update, laid out on the mesh.

    Args:
        parts: network and settings of this run.
        abstract: shapes and shardings of the run's state.
        mesh: the devices.

    Raises:
        UserError: `train.init_from` holds no weights that fit; see `check`.
    """
    if not parts.init_from:
        return create_state(parts.model, parts.optimizer, parts.seed, mesh)
    denoiser, optimizer = parts.denoiser, parts.optimizer
    params = _start(parts, mesh).read()
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)

    def begin(params: Any) -> TrainState:
        key = jax.random.key(parts.seed)
        params = inflate(denoiser, extend(denoiser, params), key)
        return init_state(denoiser, optimizer, params, key)

    return jax.jit(begin, out_shardings=shardings)(params)


def check(parts: Parts, mesh: jax.sharding.Mesh) -> None:
    """Checks that this run can begin with the weights in `train.init_from`, if it is set.

    Raises:
        UserError: `train.init_from` holds no run, no checkpoint, damaged weights, or the weights of
            a network that differs from this run's network in more than added inputs. Also raised if
            only adapters are trained and `train.init_from` is empty.
    """
    rank = parts.model.trainable.lora_rank
    if parts.init_from:
        _start(parts, mesh)
    elif rank:
        raise UserError(
            f"lora.rank is {rank} and train.init_from is empty; adapters change a "
            "network that is trained already: set train.init_from to its working directory"
        )


def _start(parts: Parts, mesh: jax.sharding.Mesh) -> _Start:
    """Checks the run or file in `train.init_from`, and returns how to read its weights."""
    place = mirror.fetched(parts.init_from)
    find = _in_file if place.suffix == weights_file.SUFFIX else _in_run
    start = find(parts, place, mesh)
    _check_extends(parts, start.parts, mesh)
    return start


def _in_run(parts: Parts, workdir: pathlib.Path, mesh: jax.sharding.Mesh) -> _Start:
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"train.init_from: {workdir} holds no training run")
    with Checkpoints(workdir) as checkpoints:
        if checkpoints.latest() is None:
            raise UserError(f"train.init_from: there is no checkpoint in {workdir}; train it first")
    other = make_parts(configs.read(file))

    def read():
        abstract = abstract_state(other.denoiser, other.optimizer, mesh)
        with Checkpoints(workdir) as checkpoints:
            return checkpoints.restore_ema_params(abstract)

    return _Start(other, read)


def _in_file(parts: Parts, file: pathlib.Path, mesh: jax.sharding.Mesh) -> _Start:
    header = weights_file.read_header(file)
    other = header.config or _unlabelled(parts, header)
    # Names of weights do not depend on scanning, so they are read as this run has them. Adapters
    # were merged when the file was written.
    scanned = {"model.scan_layers": parts.denoiser.network.scan_layers}
    other = make_parts(configs.replace(configs.reset(other, "lora"), scanned))
    params = abstract_state(other.denoiser, other.optimizer, mesh).ema_params
    weights_file.check(file, header, params)
    return _Start(other, lambda: weights_file.read(file, params))


def _unlabelled(parts: Parts, header: weights_file.Header) -> configs.Experiment:
    """Returns a config for a weights file that holds no config.

    If the file's first convolution has only the channels of the noisy clip, the result is this
    run's config without conditioning. Otherwise the result is this run's config.
    """
    plain = configs.reset(parts.config, "masks", "upscale", "tsr")
    denoiser = make_parts(plain).denoiser
    channels = denoiser.network.patch_size**2 * denoiser.input_shape(1)[-1]
    found = header.shapes.get("conv_in.kernel", ())
    return plain if found[-2:-1] == (channels,) else parts.config


def extend(denoiser: Denoiser, params: Any) -> Any:
    """Widens the first convolution in another network's parameters to the input of `denoiser`.

    The other network must get only the noisy clip, or the same inputs as `denoiser`.
    """
    # Parameters that were frozen there may be stored in half precision.
    params = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    first, pixels = params["conv_in"], denoiser.network.patch_size**2
    kernel = widen(first["kernel"], pixels, denoiser.input_shape(1)[-1])
    return {**params, "conv_in": {**first, "kernel": kernel}}


def inflate(denoiser: Denoiser, params: Any, key: PRNGKeyArray) -> Any:
    """Adds fresh temporal layers to the parameters of a text-to-image network.

    Args:
        denoiser: the network that the parameters are for.
        params: parameters with or without temporal layers. With them, nothing is added.
        key: random key of the fresh layers.
    """
    given = flatten_dict(params)
    if denoiser.network.temporal_factors is None or any(map(is_temporal, given)):
        return params
    fresh = flatten_dict(meshes.unbox(denoiser.init_params(key)))
    return unflatten_dict({path: leaf for path, leaf in fresh.items() if is_temporal(path)} | given)


def widen(
    kernel: Float[Array, "*size i f"], pixels: int, channels: int
) -> Float[Array, "*size i2 f"]:
    """Returns a convolution's kernel with zeros for the channels that are added to its input.

    Args:
        kernel: the kernel, with i input and f output channels. The input channels are all channels
            of the first pixel of a patch, then all channels of the second pixel, and so on.
        pixels: number of pixels in a patch.
        channels: number of channels of each pixel in the returned kernel. The old channels come
            first.

    Returns:
        The kernel, with i2 = `pixels * channels` input channels.
    """
    *size, inputs, features = kernel.shape
    kernel = kernel.reshape(*size, pixels, inputs // pixels, features)
    widths = [(0, 0)] * kernel.ndim
    widths[-2] = (0, channels - inputs // pixels)
    return jnp.pad(kernel, widths).reshape(*size, pixels * channels, features)


def _check_extends(parts: Parts, other: Parts, mesh: jax.sharding.Mesh) -> None:
    """Checks that a network can begin with the weights of another one.

    The network of `parts` may get more inputs than the network of `other`, and it may have temporal
    layers that the other network lacks. The networks must agree in everything else.
    """
    workdir = parts.init_from
    ours, theirs = (p.denoiser.conditioning.name for p in (parts, other))
    if theirs not in ("none", ours):
        raise UserError(
            f"train.init_from: the network of {workdir} is conditioned otherwise ({theirs}, "
            f"and this one {ours}); begin with one that is given nothing but captions"
        )
    if parts.objective.distillation:
        _check_teaches(parts, other)
    here, there = (configs.flatten(p.config) for p in (parts, other))
    ours, theirs = _shapes(parts, mesh), _shapes(other, mesh)
    free: tuple[str, ...] = ()
    if other.denoiser.network.temporal_factors is None:
        ours = {path: shape for path, shape in ours.items() if not is_temporal(path)}
        free = ("model.temporal",)
    if ours != theirs or any(here[key] != there[key] for key in _OF_MEANING):
        found = configs.differences(other.config, parts.config)
        differences = [d for d in found if d.startswith(_OF_WEIGHTS) and not d.startswith(free)]
        raise UserError(
            f"train.init_from: the network of {workdir} has other weights: "
            f"{'; '.join(differences)}; give both the same"
        )


def _check_teaches(parts: Parts, other: Parts) -> None:
    """Checks that a network can learn its steps from the network that it begins with.

    Raises:
        UserError: the two do not see the same, are of different schedules, or the other network has
            no temporal layers.
    """
    ours, theirs = (p.denoiser.conditioning.name for p in (parts, other))
    keys = _OF_TEACHING if ours == theirs else (*_OF_TEACHING, "masks.")
    found = configs.differences(other.config, parts.config)
    if different := [difference for difference in found if difference.startswith(keys)]:
        raise UserError(
            f"train.init_from: the network of {parts.init_from} cannot teach this one: "
            f"{'; '.join(different)}; distil.steps needs the same in both"
        )


def _shapes(parts: Parts, mesh: jax.sharding.Mesh) -> dict[tuple[str, ...], Any]:
    """Returns the shape of each weight. The shape of "conv_in/kernel" lacks the input channels."""
    abstract = abstract_state(parts.denoiser, parts.optimizer, mesh)
    params = jax.eval_shape(lambda state: state.ema_params, abstract)
    shapes = {k: v.shape for k, v in flatten_dict(params).items()}
    *size, _, features = shapes["conv_in", "kernel"]
    return shapes | {("conv_in", "kernel"): (*size, features)}
