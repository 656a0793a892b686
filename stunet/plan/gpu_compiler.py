"""Compiles with XLA for NVIDIA GPUs that this machine need not have.

The compiler is part of JAX's CUDA plugin (`pip install 'stunet[cuda]'`). It needs no GPU if it gets
a description of the GPU, in XLA's format `stream_executor.GpuTargetConfigProto`
(github.com/openxla/xla, xla/stream_executor/device_description.proto).
"""

import dataclasses
import importlib.metadata
from collections.abc import Sequence

import jax

from stunet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Gpu:
    """The properties of a GPU that decide how XLA compiles for it.

    Attributes:
        name: name of the GPU, as its driver reports it.
        capability: compute capability, as (major, minor).
        multiprocessors: number of streaming multiprocessors.
        cores: float32 cores in each multiprocessor.
        threads: largest number of resident threads of a multiprocessor.
        shared_kib: shared memory of a multiprocessor, in KiB. A thread block can use 1 KiB less.
        l2_mib: L2 cache, in MiB.
        memory: device memory, in bytes.
        bandwidth: bandwidth of the device memory, in bytes a second.
        clock_ghz: boost clock, in GHz.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    cores: int
    threads: int
    shared_kib: int
    l2_mib: int
    memory: float
    bandwidth: float
    clock_ghz: float


# NVIDIA's data sheets, architecture white papers, and the table of compute capabilities in the CUDA
# C++ Programming Guide.
GPUS = {
    "rtx4090": Gpu(
        "NVIDIA GeForce RTX 4090", (8, 9), 128, 128, 1536, 100, 72, 24e9, 1.008e12, 2.52
    ),
    "a100-80gb": Gpu("NVIDIA A100-SXM4-80GB", (8, 0), 108, 64, 2048, 164, 40, 80e9, 2.039e12, 1.41),
    "h100": Gpu("NVIDIA H100 80GB HBM3", (9, 0), 132, 128, 2048, 228, 50, 80e9, 3.35e12, 1.98),
}


def is_installed() -> bool:
    """Returns whether JAX's CUDA plugin is installed."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return any(plugin.name.startswith("xla_cuda") for plugin in plugins)


def devices(kind: str, count: int, hosts: int = 1) -> Sequence[jax.Device]:
    """Returns devices that programs can be compiled for, but not run on.

    Args:
        kind: name of a GPU in `GPUS`.
        count: number of GPUs in each host.
        hosts: number of hosts.

    Raises:
        UserError: the installed plugin cannot compile for this GPU.
    """
    from jax.experimental import topologies

    try:
        return topologies.get_topology_desc(
            topology_name=kind,
            platform="cuda",
            # Groups that NVLink joins, hosts in each, and GPUs in each host.
            topology=f"{hosts}x1x{count}",
            target_config=_target_config(GPUS[kind]),
        ).devices
    except Exception as error:  # The plugin has no type of its own for its errors.
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"JAX's CUDA plugin cannot compile for {kind} ({reason}); --estimate needs no compiler"
        ) from error


def _target_config(gpu: Gpu) -> str:
    """Returns the GPU's properties in XLA's format, as text."""
    major, minor = gpu.capability
    features = "ACCELERATED_FEATURES" if gpu.capability >= (9, 0) else "NONE"
    return f"""
gpu_device_info {{
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: {48 * 2**10}
  shared_memory_per_block_optin: {(gpu.shared_kib - 1) * 2**10}
  shared_memory_per_core: {gpu.shared_kib * 2**10}
  threads_per_core_limit: {gpu.threads}
  core_count: {gpu.multiprocessors}
  fpus_per_core: {gpu.cores}
  block_dim_limit_x: {2**31 - 1}
  block_dim_limit_y: {2**16 - 1}
  block_dim_limit_z: {2**16 - 1}
  thread_dim_limit_x: 1024
  thread_dim_limit_y: 1024
  thread_dim_limit_z: 64
  registers_per_core_limit: {2**16}
  registers_per_block_limit: {2**16}
  memory_bandwidth: {gpu.bandwidth:.0f}
  l2_cache_size: {gpu.l2_mib * 2**20}
  clock_rate_ghz: {gpu.clock_ghz}
  device_memory_size: {gpu.memory:.0f}
  cuda_compute_capability {{ major: {major} minor: {minor} feature_extension: {features} }}
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 8 }}
device_description_str: "{gpu.name}"
"""
