"""Holds the options of XLA's compiler that a train step is compiled with."""

from collections.abc import Iterable

import jax

# JAX's name of a kind of device -> KiB of the memory near the core that one kernel may use. There
# are 128 MiB on v5e and v6e, and 64 MiB for each core of v5p, and the compiler's own limit is a
# fraction of that. With more, kernels work on larger tiles (docs/how-to/plan.md has the gain).
_KERNEL_MEMORY = {"TPU v5 lite": 98304, "TPU v5": 50000, "TPU v6 lite": 98304}


def options(devices: Iterable[jax.Device]) -> dict[str, str]:
    """Returns the compiler's options for a mesh of these devices; empty for most devices."""
    limit = _KERNEL_MEMORY.get(next(iter(devices)).device_kind)
    return {} if limit is None else {"xla_tpu_scoped_vmem_limit_kib": str(limit)}
