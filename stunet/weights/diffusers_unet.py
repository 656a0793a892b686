"""Converts the spatial network's weights to and from diffusers' U-Net, with one table of names.

Each of our weights is one tensor in diffusers, with its axes in another order. A weight that
`model.scan_layers` stacks is several tensors, one for each layer.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from stunet import tensorfiles
from stunet.nn.parameters import EMPTY_TEXT, is_stacked, is_temporal
from stunet.parallel import mesh as meshes
from stunet.tensorfiles import Header
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.parts import read_parts
from stunet.train.saved import trained
from stunet.train.state import TrainState, abstract_state
from stunet.weights import diffusers_config

# Names that diffusers' `save_pretrained` gives to its files.
CONFIG, STEM = "config.json", "diffusion_pytorch_model"

# Expressions in the path of a weight within a block -> names in diffusers; others are the same.
_INNER = (
    (r"\bkernel$|\bscale$", "weight"),
    (r"\bto_out/", "to_out.0/"),
    # Pooled text.
    (r"^(norm\d)/norm/", r"\1/"),
    (r"^([qkv]_proj|positional_embedding)\b", r"pool.\1"),
    # Transformers.
    (r"\btransformer_blocks_", "transformer_blocks."),
    (r"\bff/proj_in/", "ff.net.0.proj/"),
    (r"\bff/proj_out/", "ff.net.2/"),
)

# Axes of our kernels in the order of diffusers: [i, o] for [o, i], and [h, w, i, o] for
# [o, i, h, w], which has no axis of frames.
_KERNELS = {2: (1, 0), 5: (2, 3, 1, 0)}

Path = tuple[str, ...]


class Tensor(NamedTuple):
    """Says where one of our weights is stored in diffusers' U-Net.

    Attributes:
        names: names of the tensors in diffusers; one for each layer if layers are stacked.
        stacked: True if the first axis of our weight runs over layers.
        order: axis i of our weight is axis `order[i]` of the tensor. The axes of layers and of
            frames, which only our weight has, are not counted.
        frames: True if our weight has an axis of frames, with extent 1, before the axes of `order`.
        shape: shape of each tensor in diffusers.
    """

    names: tuple[str, ...]
    stacked: bool
    order: tuple[int, ...]
    frames: bool
    shape: tuple[int, ...]

    def to_ours(self, value: np.ndarray) -> np.ndarray:
        """Converts a tensor of diffusers to our weight, or to one layer of a stacked weight."""
        value = value.transpose(self.order)
        return value[None] if self.frames else value

    def to_theirs(self, value: np.ndarray) -> np.ndarray:
        """Converts our weight, or one layer of a stacked weight, to a tensor of diffusers."""
        return (value[0] if self.frames else value).transpose(np.argsort(self.order))

    def theirs(self, index: tuple[slice, ...]) -> tuple[tuple[str, ...], tuple[slice, ...]]:
        """Returns where diffusers has a part of our weight.

        Args:
            index: the part, as a slice for each axis of our weight.

        Returns:
            The names of the tensors that hold the part (one for each layer that the part spans),
            and a slice for each axis, which is the same in all of them.
        """
        names = self.names[index[0]] if self.stacked else self.names
        index = index[self.stacked + self.frames :]
        return names, tuple(index[axis] for axis in np.argsort(self.order))

    def read(
        self,
        stored: Callable[[str, tuple[slice, ...]], np.ndarray],
        index: tuple[slice, ...] = (),
        dtype: Any = None,
    ) -> np.ndarray:
        """Returns our weight, or a part of it, from tensors of diffusers.

        Args:
            stored: takes the name of a tensor and a slice for each of its axes, and returns that
                part of the tensor.
            index: the part, as a slice for each axis of our weight; empty for the whole weight.
            dtype: dtype of the result; None keeps the dtype of the tensors.
        """
        index = index or (slice(None),) * (len(self.shape) + self.stacked + self.frames)
        names, part = self.theirs(index)
        value = None
        for i, name in enumerate(names):
            layer = self.to_ours(stored(name, part))
            if not self.stacked:
                return layer.astype(dtype or layer.dtype, copy=False)
            if value is None:
                value = np.empty((len(names), *layer.shape), dtype or layer.dtype)
            value[i] = layer
        return value


def table(denoiser: Denoiser, state: TrainState) -> dict[Path, Tensor]:
    """Returns the place of each weight of the spatial network in diffusers' U-Net.

    The states of an empty caption have none: in diffusers, the text encoder gives them.

    Args:
        denoiser: the network.
        state: state of the run, as arrays or as their shapes.
    """
    leaves = flatten_dict(jax.eval_shape(lambda state: state.ema_params, state))
    modules = _modules(denoiser.network.layers_per_level)
    return {
        path: _tensor(path, leaf.shape, modules)
        for path, leaf in leaves.items()
        if not is_temporal(path) and path != (EMPTY_TEXT,)
    }


def headers(tensors: Mapping[Path, Tensor], dtype: str = "F32") -> dict[str, Header]:
    """Returns the header of each tensor in diffusers, by the name of the tensor."""
    return {n: Header(dtype, t.shape) for t in tensors.values() for n in t.names}


class Directory:
    """Reads the weights of a diffusers U-Net from a directory, part by part."""

    def __init__(self, directory: pathlib.Path, tensors: Mapping[Path, Tensor]):
        """Finds the files, and checks that they hold the network's weights.

        Args:
            directory: directory with the safetensors, in one file or in shards with an index.
            tensors: the `table` of the network.

        Raises:
            UserError: a file is missing or damaged, or the files hold other weights.
        """
        self._tensors = tensors
        self._files = tensorfiles.locate(directory, STEM)
        stored: dict[str, Header] = {}
        for file in sorted(set(self._files.values())):
            stored |= tensorfiles.headers(file)
        found = {k: stored[k] for k in self._files if k in stored}
        tensorfiles.check(headers(tensors), found, str(directory))

    def read(self, path: Path, index: tuple[slice, ...] = (), dtype: Any = None) -> np.ndarray:
        """Reads one of our weights, or a part of it.

        Args:
            path: path of the weight among our parameters.
            index: the part, as a slice for each axis of our weight; empty for the whole weight.
            dtype: dtype of the result; None keeps the dtype in the file.

        Raises:
            UserError: the file is damaged.
        """

        def stored(name: str, part: tuple[slice, ...]) -> np.ndarray:
            with tensorfiles.tensor(self._files[name], name) as whole:
                return whole[part]

        return self._tensors[path].read(stored, index, dtype)


def write(directory: pathlib.Path, workdir: pathlib.Path, **sample: object) -> int:
    """Writes the spatial weights of a run as a U-Net that diffusers' `from_pretrained` loads.

    The written weights are the averaged weights of a checkpoint, in float32.

    Args:
        directory: directory to write into, which exists.
        workdir: working directory of the run.
        sample: settings of the config's `sample` that replace the run's own, such as `checkpoint`.

    Returns:
        The number of updates that the weights have had.

    Raises:
        UserError: `workdir` holds no run or no checkpoint, or diffusers cannot represent the
            network.
    """
    parts = read_parts(workdir, **sample)
    described = diffusers_config.to_diffusers(parts)
    mesh = meshes.make_mesh(meshes.Layout(data=1), jax.devices()[:1])
    state = abstract_state(parts.denoiser, parts.optimizer, mesh)
    tensors = table(parts.denoiser, state)
    with meshes.use(mesh):
        params, step = trained.restore(workdir, parts, mesh)
    params = flatten_dict(params)
    (directory / CONFIG).write_text(json.dumps(described, indent=2) + "\n")
    with tensorfiles.Writer(directory / f"{STEM}.safetensors", headers(tensors)) as writer:
        for path, tensor in tensors.items():
            for name, value in _theirs(tensor, params[path]):
                writer.add(name, value)
    return step


def _theirs(tensor: Tensor, leaf: jax.Array) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the name and value of each tensor of diffusers that one of our weights becomes."""
    value = np.asarray(leaf)
    for name, layer in zip(tensor.names, value if tensor.stacked else [value], strict=True):
        yield name, tensor.to_theirs(layer)


def _tensor(path: Path, shape: tuple[int, ...], modules: Mapping[str, str]) -> Tensor:
    """Returns the place in diffusers' U-Net of our weight at `path`, which has shape `shape`."""
    # Layers are stacked from the second on; the first has another width.
    stacked = is_stacked(path)
    layers = [f"{path[0].removesuffix('s')}_{i + 1}" for i in range(shape[0])] if stacked else []
    shape = shape[1:] if stacked else shape
    order = _KERNELS[len(shape)] if path[-1] == "kernel" else tuple(range(len(shape)))
    frames = len(shape) > len(order)
    names = tuple(_name((layer, *path[1:]), modules) for layer in layers or path[:1])
    theirs = [0] * len(order)
    for extent, axis in zip(shape[frames:], order, strict=True):
        theirs[axis] = extent
    return Tensor(names, stacked, order, frames, tuple(theirs))


def _name(path: Path, modules: Mapping[str, str]) -> str:
    """Returns diffusers' name for one of our weights, or for one layer of a stacked weight."""
    depth = 1 if path[0] in modules else 2
    inner = "/".join(path[depth:])
    for expression, theirs in _INNER:
        inner = re.sub(expression, theirs, inner)
    return f"{modules['/'.join(path[:depth])]}.{inner.replace('/', '.')}"


def _modules(layers: tuple[int, ...]) -> dict[str, str]:
    """Maps the names of our modules to diffusers' names.

    On the way up diffusers counts levels from the coarsest, and we from the finest.

    Args:
        layers: number of layers on the way down for each level, finest first.
    """
    names = {
        "conv_in": "conv_in",
        "time_embedding": "time_embedding",
        "level_embedding": "class_embedding",
        "text_pooling": "add_embedding",
        "text_and_size_embedding": "add_embedding",
        "text_proj": "encoder_hid_proj",
        "mid_layer/resnet": "mid_block.resnets.0",
        "mid_layer/attention": "mid_block.attentions.0",
        "mid_resnet": "mid_block.resnets.1",
        "norm_out": "conv_norm_out",
        "conv_out": "conv_out",
    }
    for level, count in enumerate(layers):
        down, up = f"down_blocks.{level}", f"up_blocks.{len(layers) - 1 - level}"
        names |= {f"down_{level}_resize": f"{down}.downsamplers.0"}
        names |= {f"up_{level}_resize": f"{up}.upsamplers.0"}
        for ours, theirs, number in (("down", down, count), ("up", up, count + 1)):
            for i in range(number):
                names |= {f"{ours}_{level}_layer_{i}/resnet": f"{theirs}.resnets.{i}"}
                names |= {f"{ours}_{level}_layer_{i}/attention": f"{theirs}.attentions.{i}"}
    return names
