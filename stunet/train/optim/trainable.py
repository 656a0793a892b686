"""Chooses the parameters that are trained: all, those that inflation adds, or adapters alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet.nn.parameters import is_temporal


@dataclasses.dataclass(frozen=True)
class Trainable:
    """Says which parameters of a network are trained.

    Attributes:
        freeze_spatial: True freezes the weights of the text-to-image network.
        lora_rank: rank of the adapters (LoRA) of the spatial kernels; 0 for no adapters. With
            adapters, only the adapters are trained.
        lora_alpha: an adapter changes its kernel by `lora_alpha / lora_rank` times the product of
            the adapter's two matrices.
        train_input: True trains the first convolution even if spatial weights are frozen. The
            weights of its added input channels start at zero, so without training these channels
            would have no effect.
        frozen_dtype: dtype in which frozen kernels are stored. Kernels stored in the dtype of the
            computation take less memory. No precision is lost, because each use casts them to the
            dtype of the computation anyway.
    """

    freeze_spatial: bool = False
    lora_rank: int = 0
    lora_alpha: float = 8.0
    train_input: bool = False
    frozen_dtype: str = "float32"

    @property
    def is_partial(self) -> bool:
        """Tells whether some parameters are frozen."""
        return self.freeze_spatial or self.lora_rank > 0

    @property
    def lora_scale(self) -> float:
        """Returns the scale of the product of an adapter's two matrices; 1 without adapters."""
        return self.lora_alpha / self.lora_rank if self.lora_rank else 1.0

    def includes(self, path: Sequence[str]) -> bool:
        """Tells whether the module or parameter at `path` is trained, directly or by an adapter."""
        if self.lora_rank:
            return not is_temporal(path)
        is_input = self.train_input and path[0] == "conv_in"
        return not self.freeze_spatial or is_temporal(path) or is_input

    def split(self, params: Any) -> tuple[Any, Any]:
        """Splits the network's parameters into those that are trained and those that are frozen.

        With adapters, all of the network's own parameters are frozen.
        """
        trained, frozen = {}, {}
        for path, leaf in flatten_dict(params).items():
            is_trained = self.includes(path) and not self.lora_rank
            (trained if is_trained else frozen)[path] = leaf
        dtype = jnp.dtype(self.frozen_dtype)
        frozen = {
            path: jax.tree.map(lambda x: x.astype(dtype), leaf) if path[-1] == "kernel" else leaf
            for path, leaf in frozen.items()
        }
        return unflatten_dict(trained), unflatten_dict(frozen)


def join(trained: Any, frozen: Any) -> Any:
    """Merges the trained and the frozen parameters of a network into one tree; keeps all dtypes."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))
