"""Measures convolutions of clips on this device: XLA's of rank 5 and 4, and this package's.

    JAX_PLATFORMS=cpu python benchmarks/conv_forms.py
    python benchmarks/conv_forms.py --dtype bfloat16 \
      --clips 8x16x64x64x128 8x8x32x32x256 8x4x16x16x384
    python benchmarks/conv_forms.py --dtype bfloat16 --clips 8x16x64x64x128 --gpu h100

It prints GFLOP/s of the forward pass, and of the forward and backward pass together (three times
the operations). Rank 4 merges the axes that a kernel does not mix: frames into the batch for a
(1, 3, 3) kernel, rows and columns into one axis for a (3, 1, 1) kernel. The first command takes
about a minute. The second is for a GPU, where it was not run yet; its clips are those of `one_gpu`.

With `--gpu`, nothing is run. Both passes are compiled for a GPU that is not here, and the
table has the calls of cuDNN, the transposes of whole clips, and the bytes of temporary arrays. This
needs JAX's CUDA plugin.
"""

import argparse
import math
import re
import sys
import time
from collections.abc import Callable

import jax
from jax import lax

from stunet.errors import UserError
from stunet.nn.conv import conv
from stunet.plan import gpu_compiler

CLIPS = ("16x16x16x16x32", "16x16x8x8x64", "16x8x4x4x128")
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

    both = jax.jit(lambda *arrays: both_passes(form, *arrays))
    forward = operations / seconds(jax.jit(form), x, kernel)
    return forward / 1e9, 3 * operations / seconds(both, x, kernel, x) / 1e9


def both_passes(form: Callable, x, kernel, dy):
    y, vjp = jax.vjp(form, x, kernel)
    return y, *vjp(dy)


def program(form: Callable, x, kernel, device: jax.Device) -> str:
    """Returns what the compiled forward and backward pass holds for a GPU that is not here."""
    at = jax.sharding.SingleDeviceSharding(device)
    x, kernel = (jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=at) for a in (x, kernel))
    traced = jax.jit(lambda *arrays: both_passes(form, *arrays)).trace(x, kernel, x)
    lowered = traced.lower(lowering_platforms=("cuda",))
    # Autotuning would run kernels.
    compiled = lowered.compile({"xla_gpu_autotune_level": "0"})
    calls = len(re.findall(r'custom_call_target="__cudnn\$conv', compiled.as_text()))
    shapes = re.findall(r"= \w+\[([\d,]+)\]\S* (?:transpose|copy)\(", compiled.as_text())
    clips = sum(math.prod(map(int, shape.split(","))) == x.size for shape in shapes)
    return f"{calls}, {clips}, {compiled.memory_analysis().temp_size_in_bytes / 2**20:.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--clips",
        nargs="+",
        metavar="BxTxHxWxC",
        default=CLIPS,
        help="clips, frames, rows, columns and channels (%(default)s)",
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="(%(default)s)"
    )
    parser.add_argument(
        "--gpu", choices=gpu_compiler.GPUS, help="compile for this GPU, and run nothing"
    )
    arguments = parser.parse_args()
    forms = {"XLA rank 5": xla_rank_5, "XLA rank 4": xla_rank_4, "stunet": conv}
    said = "GFLOP/s, forward / forward and backward"
    if arguments.gpu:
        said = "calls of cuDNN, transposes of clips, temporary arrays"
        try:
            (device,) = gpu_compiler.devices(arguments.gpu, 1)
        except UserError as error:
            sys.exit(f"conv_forms.py: {error}")
    print(f"{said}, in {arguments.dtype}")
    print(f"{'clip':24}{'kernel':12}" + "".join(f"{name:>18}" for name in forms))
    for clip in arguments.clips:
        shape = tuple(map(int, clip.split("x")))
        for size in KERNELS:
            x = jax.random.normal(jax.random.key(0), shape, arguments.dtype)
            kernel = (*size, shape[-1], shape[-1])
            kernel = jax.random.normal(jax.random.key(1), kernel, arguments.dtype)
            kernel = kernel / math.sqrt(math.prod(kernel.shape[:-1]))
            if arguments.gpu:
                cells = [program(form, x, kernel, device) for form in forms.values()]
            else:
                rates = (gflops(form, x, kernel) for form in forms.values())
                cells = ["{:.0f} / {:.0f}".format(*pair) for pair in rates]
            row = "".join(f"{cell:>18}" for cell in cells)
            print(f"{clip:24}{size!s:12}{row}", flush=True)


if __name__ == "__main__":
    main()
