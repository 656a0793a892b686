"""Autoencoders: turn frames into latents, a small picture of more channels, and back.

`read` reads one from a directory of diffusers, and `write_kl` writes one. `kl` and `tiny` are the
networks. Each frame is encoded and decoded by itself.
"""

import dataclasses
import functools
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen, traverse_util
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from stunet import jsonfiles, tensorfiles
from stunet.errors import UserError, choose
from stunet.nn.autoencoder import tiles
from stunet.nn.autoencoder.architecture import Architecture
from stunet.nn.autoencoder.kl import KlConfig, kl, to_diffusers
from stunet.nn.autoencoder.tiny import tiny
from stunet.nn.sharding import none_in_use

# Name of the class in config.json -> function (config, path) -> Architecture.
KINDS = {"AutoencoderKL": kl, "AutoencoderTiny": tiny}

# Path of a weight among our parameters.
Keys = tuple[str, ...]

_STEM = "diffusion_pytorch_model"
# Names of attention's matrices in files that old versions of diffusers wrote.
_OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(rf"(?<=\.attentions\.0\.)({'|'.join(_OLD_NAMES)})(?=\.)")


class Latents(NamedTuple):
    """Holds the normal distribution of latents, shifted and scaled as a network sees them.

    Attributes:
        mean: means.
        std: standard deviations; 0 if the autoencoder gives none.
    """

    mean: Float32[np.ndarray, "*lead y x z"]
    std: Float32[np.ndarray, "*lead y x z"]

    def sample(self, noise: Float[Array | np.ndarray, "*lead y x z"]) -> Any:
        """Returns a draw of the latents, for standard normal `noise`."""
        return self.mean + self.std * noise


@dataclasses.dataclass(frozen=True, eq=False)
class Autoencoder:
    """An autoencoder with its weights.

    Frames are computed a few at a time, on all devices of this process, and in tiles if asked. So
    a long clip takes no more memory on the devices than these few frames. The mesh of a run, which
    other processes may share, plays no part.

    Attributes:
        architecture: the network, and what its latents are like.
        params: the weights, float32.
    """

    architecture: Architecture
    params: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Returns the name that diffusers has for the network, a key of `KINDS`."""
        return type(self.architecture.module).__name__

    @property
    def config(self) -> dict[str, Any]:
        """Returns the keys of config.json that determine the computation, with their values."""
        return dataclasses.asdict(self.architecture.module.config)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Digest of the config and of all weights in float32, as 16 hexadecimal digits.

        It does not depend on where the files are or how they are split into shards.
        """
        digest = hashlib.sha256(json.dumps([self.kind, self.config], sort_keys=True).encode())
        for path, weight in sorted(traverse_util.flatten_dict(dict(self.params)).items()):
            digest.update(f"{_name(path)} {weight.shape}\n".encode())
            digest.update(np.ascontiguousarray(weight, "<f4").tobytes())
        return digest.hexdigest()[:16]

    def encode(
        self,
        frames: Float32[np.ndarray, "*lead h w c"],
        at_once: int = 4,
        tile: int | None = None,
    ) -> Latents:
        """Encodes frames.

        Args:
            frames: pictures, -1..1. Rows and columns must be multiples of `architecture.factor`.
            at_once: frames that the devices hold at once.
            tile: rows and columns of the tiles in which larger frames are computed, such as
                `architecture.tile`. None computes whole frames.

        Raises:
            UserError: frames or tiles do not have a size that can be encoded.
        """
        of = self.architecture
        height, width, channels = frames.shape[-3:]
        if height % of.factor or width % of.factor or channels != of.channels:
            raise UserError(
                f"the frames have {height} rows, {width} columns and {channels} channels; the "
                f"autoencoder takes multiples of {of.factor} rows and columns, and {of.channels} "
                "channels"
            )
        moments = self._compute("encode", frames, at_once, tile, (of.factor, 1))
        scale = np.array(of.scale, np.float32)
        if of.has_std:
            mean, log_variance = of.split(moments)
            std = np.exp(log_variance / 2) * scale
        else:
            mean, std = moments, np.zeros_like(moments)
        return Latents((mean - np.array(of.shift, np.float32)) * scale, std)

    def decode(
        self,
        latents: Float32[np.ndarray, "*lead y x z"],
        at_once: int = 4,
        tile: int | None = None,
    ) -> Float32[np.ndarray, "*lead h w c"]:
        """Decodes latents to frames of about -1..1.

        Args:
            latents: latents, shifted and scaled, such as means from `encode`.
            at_once: frames that the devices hold at once.
            tile: rows and columns of the tiles of a frame, as for `encode`.

        Raises:
            UserError: the latents have another number of channels, or tiles have a wrong size.
        """
        of = self.architecture
        if latents.shape[-1] != of.latent_channels:
            raise UserError(
                f"the latents have {latents.shape[-1]} channels; those of the autoencoder have "
                f"{of.latent_channels}"
            )
        z = latents / np.array(of.scale, np.float32) + np.array(of.shift, np.float32)
        return self._compute("decode", z, at_once, tile, (1, of.factor))

    def _compute(
        self,
        method: str,
        frames: np.ndarray,
        at_once: int,
        tile: int | None,
        ratio: tuple[int, int],
    ) -> np.ndarray:
        """Calls a method of the network on a few frames at a time, and in tiles if there are any.

        Args:
            method: "encode" or "decode".
            frames: frames or latents, `[..., y, x, c]`.
            at_once: frames that the devices hold at once.
            tile: rows and columns of a tile of pixels, or None.
            ratio: rows of the input and of the output, as multiples of those that change least.
        """
        rows = frames.reshape(-1, *frames.shape[-3:])
        compute = functools.partial(self._on_devices, method)
        if tile is not None:
            tiles.check(tile, self.architecture.factor)
            size, out_size = (tile * part // self.architecture.factor for part in ratio)
            if max(rows.shape[1:3]) > size:
                compute = functools.partial(tiles.in_tiles, compute, size=size, out_size=out_size)
        parts = [compute(rows[i : i + at_once]) for i in range(0, len(rows), at_once)]
        out = np.concatenate(parts)
        return out.reshape(*frames.shape[:-3], *out.shape[1:])

    def _on_devices(self, method: str, frames: np.ndarray) -> np.ndarray:
        """Splits frames over the devices. Frames of zeros fill up the devices' equal shares."""
        missing = -len(frames) % self._sharding.mesh.size
        padded = np.pad(frames, ((0, missing), (0, 0), (0, 0), (0, 0)))
        with none_in_use():
            result = self._jitted[method](self._on_each_device, padded)
        return np.asarray(result)[: len(frames)]

    @functools.cached_property
    def _sharding(self) -> NamedSharding:
        mesh = jax.sharding.Mesh(np.array(jax.local_devices()), ("frames_of_autoencoder",))
        return NamedSharding(mesh, PartitionSpec("frames_of_autoencoder"))

    @functools.cached_property
    def _on_each_device(self) -> Any:
        return jax.device_put(self.params, NamedSharding(self._sharding.mesh, PartitionSpec()))

    @functools.cached_property
    def _jitted(self) -> dict[str, Callable]:
        everywhere, split = NamedSharding(self._sharding.mesh, PartitionSpec()), self._sharding

        def jitted(method: str) -> Callable:
            def apply(params, frames):
                return self.architecture.module.apply({"params": params}, frames, method=method)

            return jax.jit(apply, in_shardings=(everywhere, split), out_shardings=split)

        return {method: jitted(method) for method in ("encode", "decode")}


def read(directory: str | Path) -> Autoencoder:
    """Reads an autoencoder, such as the folder `vae` of a pipeline of diffusers.

    Args:
        directory: directory with config.json and diffusion_pytorch_model.safetensors, or its shards
            with their index.

    Raises:
        UserError: a file is missing or damaged, config.json describes a network that is not
            implemented, or the weights are those of another network.
    """
    directory = Path(directory).expanduser()
    if not (directory / "config.json").is_file() and (directory / "vae").is_dir():
        raise UserError(
            f"{directory} holds a whole pipeline; its autoencoder is in {directory / 'vae'}"
        )
    file = directory / "config.json"
    config = jsonfiles.read(file, jsonfiles.Object)
    kind = config.get("_class_name")
    if not isinstance(kind, str):
        raise UserError(f"{file} has no '_class_name'; that of an autoencoder names its kind")
    architecture = choose(KINDS, kind, f"_class_name in {file}")(config, str(file))
    return Autoencoder(architecture, _weights(directory, architecture))


def write_kl(directory: Path, config: KlConfig, params: Mapping[str, Any]) -> None:
    """Writes an `AutoencoderKL` as `save_pretrained` of diffusers would, and as `read` reads it.

    Args:
        directory: directory to write into, which exists.
        config: sizes of the network, and what its latents are like.
        params: the weights, float32.
    """
    content = json.dumps(to_diffusers(config), indent=2) + "\n"
    (directory / "config.json").write_text(content)
    leaves = traverse_util.flatten_dict(dict(params))
    header = headers({path: leaf.shape for path, leaf in leaves.items()})
    with tensorfiles.Writer(directory / f"{_STEM}.safetensors", header) as writer:
        for path, leaf in leaves.items():
            value = np.asarray(leaf)
            value = value[0] if value.ndim == 5 else value
            writer.add(_name(path), value.transpose(np.argsort(_ORDER[value.ndim])))


def weight_shapes(architecture: Architecture) -> dict[Keys, tuple[int, ...]]:
    """Returns the shape of each weight of an autoencoder, by its path among our parameters."""
    size = architecture.factor
    frames = jax.ShapeDtypeStruct((1, size, size, architecture.channels), np.float32)
    params = jax.eval_shape(architecture.module.init, jax.random.key(0), frames)["params"]
    leaves = traverse_util.flatten_dict(linen.unbox(params))
    return {path: leaf.shape for path, leaf in leaves.items()}


def headers(shapes: Mapping[Keys, tuple[int, ...]]) -> dict[str, tensorfiles.Header]:
    """Returns the headers of the tensors that diffusers has for our weights, by name."""
    return {_name(path): tensorfiles.Header("F32", _theirs(of)) for path, of in shapes.items()}


def _weights(directory: Path, architecture: Architecture) -> dict[str, Any]:
    """Reads the weights of an autoencoder, as float32.

    Raises:
        UserError: a file is missing or damaged, or a weight is missing, unknown or of another
            shape.
    """
    files = tensorfiles.locate(directory, _STEM)
    stored: dict[str, tensorfiles.Header] = {}
    for file in sorted(set(files.values())):
        stored |= tensorfiles.headers(file)
    # Today's names, and those in the files.
    names = {_new_name(name): name for name in files if name in stored}
    found = {new: stored[name] for new, name in names.items()}
    shapes, params = weight_shapes(architecture), {}
    tensorfiles.check(headers(shapes), found, str(directory))
    for path, shape in shapes.items():
        name = names[_name(path)]
        with tensorfiles.tensor(files[name], name) as tensor:
            value = np.asarray(tensor[:], np.float32)
        params[path] = value.transpose(_ORDER[value.ndim]).reshape(shape)
    return traverse_util.unflatten_dict(params)


# Axes of PyTorch's weights in our order: [o, i] as [i, o], and [o, i, h, w] as [h, w, i, o].
_ORDER = {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}


def _theirs(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape that PyTorch has for a weight of ours, which may have an axis of frames."""
    shape = shape[1:] if len(shape) == 5 else shape
    return tuple(shape[i] for i in np.argsort(_ORDER[len(shape)]))


def _name(path: Keys) -> str:
    """Returns diffusers' name for the weight at `path` among our parameters."""
    inner = {"kernel": "weight", "scale": "weight", "to_out": "to_out.0"}
    return ".".join(inner.get(part, part) for part in path)


def _new_name(name: str) -> str:
    """Returns the name that diffusers has today for a weight that an old version named."""
    return _OLD_NAME.sub(lambda match: _OLD_NAMES[match[0]], name)
