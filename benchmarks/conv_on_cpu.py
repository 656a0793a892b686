"""Measures convolutions of clips on this CPU: XLA's of rank 5, XLA's of rank 4, and this package's.

    JAX_PLATFORMS=cpu python benchmarks/conv_on_cpu.py

It prints GFLOP/s of the forward pass, and of the forward and backward pass together (three times
the operations), in float32. Rank 4 merges the axes that a kernel does not mix: frames into the
batch for a (1, 3, 3) kernel, rows and columns into one axis for a (3, 1, 1) kernel. It takes about
a minute.
"""

import math
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from stunet.nn.conv import conv

SHAPES = [(16, 16, 16, 16, 32), (16, 16, 8, 8, 64), (16, 8, 4, 4, 128)]
KERNELS = [(1, 3, 3), (3, 1, 1)]


def xla_rank_5(x, kernel):
    padding = [(k // 2, k // 2) for k in kernel.shape[:3]]
    axes = ("NDHWC", "DHWIO", "NDHWC")
    return lax.conv_general_dilated(x, kernel, (1, 1, 1), padding, dimension_numbers=axes)


def xla_rank_4(x, kernel):
    b, t, h, w, c = x.shape
    if kernel.shape[0] == 1:
        x, kernel = x.reshape(b * t, h, w, c), kernel[0]
    else:
        x, kernel = x.reshape(b, t, h * w, c), kernel[:, 0]
    padding = [(k // 2, k // 2) for k in kernel.shape[:2]]
    axes = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=axes)
    return y.reshape(b, t, h, w, -1)


def seconds(function: Callable, *args, repeats: int = 10) -> float:
    """Returns the shortest time of a few calls: on a shared machine, other work only adds time."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - start)
    return min(times)


def gflops(form: Callable, x, kernel) -> tuple[float, float]:
    """Returns GFLOP/s of the forward pass, and of the forward and backward pass together."""
    operations = 2 * math.prod(x.shape[:-1]) * kernel.size

    def both_passes(x, kernel):
        y, vjp = jax.vjp(form, x, kernel)
        return y, *vjp(y)

    forward = operations / seconds(jax.jit(form), x, kernel)
    both = 3 * operations / seconds(jax.jit(both_passes), x, kernel)
    return forward / 1e9, both / 1e9


def main() -> None:
    forms = {"XLA rank 5": xla_rank_5, "XLA rank 4": xla_rank_4, "stunet": conv}
    print("GFLOP/s, forward / forward and backward")
    print(f"{'clip':24}{'kernel':12}" + "".join(f"{name:>16}" for name in forms))
    for shape in SHAPES:
        for size in KERNELS:
            x = jax.random.normal(jax.random.key(0), shape)
            kernel = jax.random.normal(jax.random.key(1), (*size, shape[-1], shape[-1]))
            kernel = kernel / jnp.sqrt(math.prod(kernel.shape[:-1]))
            cells = ["{:.0f} / {:.0f}".format(*gflops(form, x, kernel)) for form in forms.values()]
            row = "".join(f"{cell:>16}" for cell in cells)
            print(f"{shape!s:24}{size!s:12}{row}", flush=True)


if __name__ == "__main__":
    main()
