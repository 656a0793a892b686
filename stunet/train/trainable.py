"""Which parameters of a network are trained: all, those that inflation adds, or its adapters."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet.nn.parameters import is_temporal


@dataclasses.dataclass(frozen=True)
class Trainable:
    """The choice of parameters that are trained.

    Attributes:
        freeze_spatial: True keeps the weights of the text-to-image network as they are.
        lora_rank: rank of the adapters of the spatial kernels, which are then trained alone; 0 for
            no adapters.
        lora_alpha: a kernel changes by `lora_alpha / lora_rank` times the product of its adapter's
            two factors.
        train_input: True trains the first convolution in any case. Its added input channels start
            at zero and would never be looked at if they were frozen.
        frozen_dtype: dtype in which frozen kernels are stored: that of the computation, to which
            each use would cast them.
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
        """Factor of the product of an adapter's two factors; 1 where there are none."""
        return self.lora_alpha / self.lora_rank if self.lora_rank else 1.0

    def includes(self, path: Sequence[str]) -> bool:
        """Tells whether the module or parameter at `path` is trained, itself or by an adapter."""
        if self.lora_rank:
            return not is_temporal(path)
        is_input = self.train_input and path[0] == "conv_in"
        return not self.freeze_spatial or is_temporal(path) or is_input

    def split(self, params: Any) -> tuple[Any, Any]:
        """Splits the network's parameters into those that are trained and those that are frozen.

        With adapters all of them are frozen.
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
    """Puts the two halves of `Trainable.split` together again; dtypes stay as they are."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))
