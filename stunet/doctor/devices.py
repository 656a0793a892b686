"""Checks that JAX sees the devices of this machine, and that each multiplies matrices correctly."""

import collections
import glob
from collections.abc import Iterator

import jax
import numpy as np

from stunet.doctor.findings import Finding, wrong

# Files that the driver of an accelerator makes, by the platform as JAX calls it.
_DRIVERS = {"gpu": ("/dev/nvidia[0-9]*", "/dev/kfd"), "tpu": ("/dev/accel[0-9]*",)}
# Largest difference from NumPy. Products in bfloat16, which TPUs compute by default, are as near.
_TOLERANCE = 0.02


def check() -> Iterator[Finding]:
    """Yields findings about the devices that JAX uses, and about accelerators that JAX ignores."""
    try:
        devices = jax.local_devices()
    except RuntimeError as error:
        said = f"JAX cannot start ({next(iter(str(error).splitlines()), '')})"
        yield wrong("devices", said, "see whether JAX_PLATFORMS and the driver are right")
        return
    kinds = collections.Counter(f"{device.platform} ({device.device_kind})" for device in devices)
    found = ", ".join(f"{number} {kind}" for kind, number in kinds.items())
    bad = [device for device in devices if not _computes(device)]
    if bad:
        said = f"{', '.join(map(str, bad))} of {found}: a product of matrices is not NumPy's"
        yield wrong("devices", said, "do not train on this machine before that is repaired")
    else:
        yield Finding("devices", f"{found}; a product of matrices is NumPy's on each")
    yield from _unused({device.platform for device in devices})


def _computes(device: jax.Device) -> bool:
    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal((256, 256), np.float32) / 16 for _ in range(2))
    product = np.asarray(jax.device_put(a, device) @ jax.device_put(b, device))
    return bool(np.abs(product - a @ b).max() < _TOLERANCE)


def _unused(platforms: set[str]) -> Iterator[Finding]:
    """Yields a finding for each kind of accelerator that has a driver but is not used by JAX."""
    for platform, patterns in _DRIVERS.items():
        there = [path for pattern in patterns for path in glob.glob(pattern)]
        if not there or platform in platforms:
            continue
        if asked := _asked_platforms():
            yield Finding(platform, f"{there[0]} is there and not used: JAX_PLATFORMS is {asked}")
        else:
            extra = "tpu" if platform == "tpu" else "cuda"
            remedy = f"run: pip install 'stunet[{extra}]', and see `stunet --version`"
            yield wrong(platform, f"{there[0]} is there, and JAX does not use it", remedy)


def _asked_platforms() -> str | None:
    """Returns the value of JAX_PLATFORMS; None if it is not set."""
    return jax.config.jax_platforms
