"""Holds the options of XLA's compiler that a train step and its parts are compiled with."""

from collections.abc import Iterable

import jax

# JAX's name of a kind of device -> KiB of the memory near the core that one kernel may use. There
# are 128 MiB on v5e and v6e, and 64 MiB for each core of v5p, and the compiler's own limit is a
# fraction of that. With more, kernels work on larger tiles.
_KERNEL_MEMORY = {"TPU v5 lite": 98304, "TPU v5": 50000, "TPU v6 lite": 98304}

# Weights are gathered, and gradients reduced, while kernels of the step compute. The compiler does
# not do so by default. docs/explanation/tpus.md has the gain of both kinds of options.
_OVERLAP = {
    "xla_tpu_enable_async_collective_fusion": "true",
    "xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true",
    "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
    "xla_tpu_overlap_compute_collective_tc": "true",
    "xla_enable_async_all_gather": "true",
}
# Kinds of device where it helps, by plan.
_OVERLAPPED = {"TPU v5", "TPU v6 lite"}


def options(devices: Iterable[jax.Device]) -> dict[str, str]:
    """Returns the compiler's options for a mesh of these devices; empty for most devices."""
    limit = _KERNEL_MEMORY.get(next(iter(devices)).device_kind)
    return {} if limit is None else {"xla_tpu_scoped_vmem_limit_kib": str(limit)}


def step_options(devices: Iterable[jax.Device]) -> dict[str, str]:
    """Returns the compiler's options for a whole train step, whose collectives kernels can hide."""
    device = next(iter(devices))
    return options([device]) | (_OVERLAP if device.device_kind in _OVERLAPPED else {})
