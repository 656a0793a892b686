"""Low-rank adapters (LoRA, Hu et al., arXiv 2106.09685) of the network's spatial kernels.

The adapter of a kernel W is a pair of small parameters beside it, `lora_a` and `lora_b`. The
network computes with W + scale A B. B starts at zero, so this sum starts as W, bit for bit.

The kernel of a convolution counts as a matrix. Its rows are all inputs that one output position
sees, and its columns are the output features. A is a kernel of the same extents with `rank`
features, and B is a 1x1 convolution after A. So the change A B of each kernel has at most rank
`rank`.

`merge` computes all sums W + scale A B before the network runs. The network gets these sums as its
kernels, so no module knows about adapters.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array, Float

from stunet.nn.parameters import is_stacked, is_temporal

A, B = "lora_a", "lora_b"

Path = tuple[str, ...]


def is_adapted(path: Sequence[str]) -> bool:
    """Returns True if the parameter at `path` gets an adapter.

    The kernels of all convolutions and projections in the text-to-image network get adapters.
    """
    return path[-1] == "kernel" and not is_temporal(path)


def is_matrix(path: Sequence[str]) -> bool:
    """Returns True if the parameter at `path` is a kernel or an adapter, and not a vector.

    The number of axes cannot tell this, because the vectors of scanned layers are stacked and then
    have as many axes as a matrix.
    """
    return path[-1] in ("kernel", A, B)


def init(key: Array, params: Any, rank: int) -> Any:
    """Returns the initial adapters A and B of all kernels, in a tree without the kernels.

    A is normal with variance 1 / (number of inputs), and B is zero.

    Args:
        key: random key. `jax.random.fold_in` derives a key for each kernel, by the kernel's place
            in the order of paths.
        params: the network's parameters. If flax's boxes with axis names hold them, such boxes hold
            the adapters too. A mesh then splits A like the inputs of the kernel, and B like the
            outputs.
        rank: the largest rank of each kernel's change, at least 1.
    """
    adapters: dict[Path, Any] = {}
    kernels = {path: leaf for path, leaf in flatten_dict(params).items() if is_adapted(path)}
    for number, (path, kernel) in enumerate(sorted(kernels.items())):
        is_boxed = isinstance(kernel, nn.LogicallyPartitioned)
        *inputs, features = (kernel.value if is_boxed else kernel).shape
        stacked = inputs[:1] if is_stacked(path) else []
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
    """Returns the network's parameters with W + scale A B for each kernel W that has an adapter.

    The sum is computed in float32 and cast to the dtype of W. Parameters without any adapter are
    returned as they are.

    Args:
        params: the network's parameters, and A and B beside each adapted kernel.
        scale: factor of each change A B.
    """
    flat = flatten_dict(params)
    modules = [path[:-1] for path in flat if path[-1] == A]
    if not modules:
        return params
    parts = {m: tuple(flat.pop((*m, name)) for name in ("kernel", A, B)) for m in modules}
    kernels = _merge_all(parts, scale)
    return unflatten_dict(flat | {(*m, "kernel"): kernel for m, kernel in kernels.items()})


# Jitted for callers outside a larger program, such as before sampling: all kernels at once.
@jax.jit
def _merge_all(parts: dict[Path, tuple[Array, ...]], scale: Array) -> dict[Path, Array]:
    def merged(module, kernel, a, b):
        change = jax.vmap(product)(a, b) if is_stacked(module) else product(a, b)
        return (kernel.astype(jnp.float32) + scale * change).astype(kernel.dtype)

    return {module: merged(module, *part) for module, part in parts.items()}


def product(a: Float[Array, "*inputs r"], b: Float[Array, "r o"]) -> Float[Array, "*inputs o"]:
    """Returns A B for one kernel. The product has full float32 precision on TPUs too."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
