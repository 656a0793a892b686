"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) of the network's spatial kernels.

An adapter of a kernel W is a pair of small parameters beside it, `lora_a` and `lora_b`; the network
computes with W + scale A B. B starts at zero, so that at first this is W, bit for bit.

A kernel counts as a matrix from all that an output feature looks at to the output features: of a
convolution, A has the kernel's own extents and `rank` features, and B is a 1x1 convolution after
it. The change of a kernel then has at most that rank.

All of this happens to a tree of parameters, before the network is applied to it: no module knows of
adapters.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from stunet.nn.stunet import is_temporal

A, B = "lora_a", "lora_b"

Path = tuple[str, ...]


def is_adapted(path: Sequence[str]) -> bool:
    """Whether the parameter at this path gets an adapter: a kernel of the text-to-image network, of
    a convolution or a projection."""
    return path[-1] == "kernel" and not is_temporal(path)


def init(key: Array, params: Any, rank: int) -> Any:
    """The first adapters of a network's parameters, a tree of their own: A normal, of variance 1
    over the number of inputs, and B zero.

    Args:
        key: from which each kernel's own is folded, in the order of their paths.
        params: of the network, with or without flax's boxes, which the adapters then have too: A
            lies on a mesh as the kernel's inputs do, and B as its outputs.
        rank: of the change of each kernel, at least 1.
    """
    adapters: dict[Path, Any] = {}
    kernels = {path: leaf for path, leaf in flatten_dict(params).items() if is_adapted(path)}
    for number, (path, kernel) in enumerate(sorted(kernels.items())):
        is_boxed = isinstance(kernel, nn.LogicallyPartitioned)
        *inputs, features = (kernel.value if is_boxed else kernel).shape
        stacked = inputs[:1] if _is_stacked(path) else []
        draw = nn.initializers.lecun_normal(batch_axis=tuple(range(len(stacked))))
        a = draw(jax.random.fold_in(key, number), (*inputs, rank), jnp.float32)
        b = jnp.zeros((*stacked, rank, features), jnp.float32)
        if is_boxed:
            names = kernel.names
            a = kernel.replace(value=a, names=(*names[:-1], None))
            b = kernel.replace(value=b, names=(*names[: len(stacked)], None, names[-1]))
        adapters[*path[:-1], A], adapters[*path[:-1], B] = a, b
    return unflatten_dict(adapters)


def merge(params: Any, scale: float) -> Any:
    """The network's parameters, each kernel W that has an adapter beside it as W + scale A B.

    It is added in float32, and has the dtype of W. Without any adapter the parameters come back as
    they are.
    """
    flat = flatten_dict(params)
    modules = [path[:-1] for path in flat if path[-1] == A]
    if not modules:
        return params
    parts = {m: tuple(flat.pop((*m, name)) for name in ("kernel", A, B)) for m in modules}
    kernels = _merge_all(parts, scale)
    return unflatten_dict(flat | {(*m, "kernel"): kernel for m, kernel in kernels.items()})


# Compiled as one where it is not part of a larger program, such as before sampling.
@jax.jit
def _merge_all(parts: dict[Path, tuple[Array, ...]], scale: Array) -> dict[Path, Array]:
    def merged(module, kernel, a, b):
        change = jax.vmap(product)(a, b) if _is_stacked(module) else product(a, b)
        return (kernel.astype(jnp.float32) + scale * change).astype(kernel.dtype)

    return {module: merged(module, *part) for module, part in parts.items()}


def product(a: Float[Array, "*inputs r"], b: Float[Array, "r o"]) -> Float[Array, "*inputs o"]:
    """A B, of one kernel; in float32, which TPUs would not multiply in by themselves."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _is_stacked(path: Sequence[str]) -> bool:
    """Whether equal layers of a level share this parameter's array, along its first axis
    (`scan_layers`)."""
    return any(name.endswith("_layers") for name in path)
