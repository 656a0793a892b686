"""Adds the changes of a LoRA to a network and its text encoder.

A LoRA (arXiv 2106.09685) holds two small factors for each of some layers. The layer's weight W,
[o, i] or [o, i, h, w], becomes W + a s (up down). The factor `down` is [r, i] or [r, i, h, w], `up`
is [o, r], and r is the rank. The user chooses a. The file determines s
(`stunet.weights.lora_files`).
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet.nn.text.checkpoint import Change
from stunet.weights import diffusers_unet
from stunet.weights.diffusers_unet import Tensor


@dataclasses.dataclass(frozen=True)
class Factors:
    """The change of one weight, as PyTorch has it: up down, [o, i] or [o, i, h, w].

    Attributes:
        up: [o, r], float32, multiplied by the file's scale.
        down: [r, i] or [r, i, h, w], float32.
    """

    up: np.ndarray
    down: np.ndarray

    def change(self, part: tuple[slice, ...]) -> np.ndarray:
        """Returns a part of the change, which has a slice for each axis."""
        return np.tensordot(self.up[part[0]], self.down[:, *part[1:]], 1)


@dataclasses.dataclass(frozen=True)
class Lora:
    """Holds the changes that a LoRA file makes to a network and its text models.

    Attributes:
        factors: the change of each changed weight of the U-Net, by its name in diffusers.
        tensors: the network's table of names (`diffusers_unet.table`).
        left_out: a sentence for the user about parts of the file that are not applied, or "".
        texts: for each text model, the change of each changed weight, by its name in our module.
    """

    factors: Mapping[str, Factors]
    tensors: Mapping[diffusers_unet.Path, Tensor]
    left_out: str = ""
    texts: tuple[Mapping[str, Factors], ...] = ()

    def changes(self, path: diffusers_unet.Path) -> bool:
        """Returns True if the LoRA changes our weight at `path`, or one of its stacked layers."""
        tensor = self.tensors.get(path)
        return tensor is not None and any(name in self.factors for name in tensor.names)

    def add(
        self,
        path: diffusers_unet.Path,
        weight: Any,
        scale: float,
        index: tuple[slice, ...] = (),
    ) -> Any:
        """Returns one of our weights with `scale` times the LoRA's change.

        Weights that the LoRA does not change are returned as they are.

        Args:
            path: path of the weight among our parameters.
            weight: the weight or a part of it, as an array of NumPy or JAX.
            scale: the factor a.
            index: the part, as a slice for each axis of our weight; empty for the whole weight.
        """
        if not self.changes(path):
            return weight

        def change(name: str, part: tuple[slice, ...]) -> np.ndarray:
            if name in self.factors:
                return self.factors[name].change(part)
            # Another layer of the stack is changed.
            extents = self.tensors[path].shape
            return np.zeros([len(range(n)[s]) for n, s in zip(extents, part, strict=True)])

        return _sum(weight, scale, self.tensors[path].read(change, index, np.float32))

    def of_texts(self, scale: float) -> list[Change]:
        """Returns functions that add `scale` times the change to weights of each text model."""

        def add(factors: Mapping[str, Factors], name: str, weight: np.ndarray) -> np.ndarray:
            if name not in factors:
                return weight
            return _sum(weight, scale, factors[name].change((slice(None),) * weight.ndim))

        return [functools.partial(add, factors) for factors in self.texts]


def _sum(weight: Any, scale: float, change: np.ndarray) -> Any:
    """Returns the weight plus `scale` times the change, computed in float32, in its own dtype.

    At scale 0, the weight is returned as it is.
    """
    if not scale:  # The sum would not be exact: -0 + 0 is 0.
        return weight
    return (weight.astype(np.float32) + np.float32(scale) * change).astype(weight.dtype)


@dataclasses.dataclass(frozen=True)
class Merged:
    """Reads the weights of a diffusers U-Net with a LoRA's changes added.

    Attributes:
        source: the U-Net.
        lora: the changes.
        scale: the factor a.
    """

    source: diffusers_unet.Directory
    lora: Lora
    scale: float

    def read(
        self, path: diffusers_unet.Path, index: tuple[slice, ...] = (), dtype: Any = None
    ) -> np.ndarray:
        """Reads one of our weights, or a part of it, as `diffusers_unet.Directory.read` does."""
        if not self.lora.changes(path):
            return self.source.read(path, index, dtype)
        weight = self.source.read(path, index)
        merged = self.lora.add(path, weight.astype(np.float32), self.scale, index)
        return merged.astype(dtype or weight.dtype)


def merge(params: Any, lora: Lora, scale: float) -> Any:
    """Returns a network's parameters with `scale` times the LoRA's changes added.

    Temporal weights are returned as they are, and so is everything at scale 0.
    """
    flat = flatten_dict(params)
    return unflatten_dict({path: lora.add(path, leaf, scale) for path, leaf in flat.items()})
