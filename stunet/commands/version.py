"""`stunet --version`: the versions that a bug report needs."""

import platform
from importlib import metadata

import stunet

# Packages that bring a backend to JAX. Their versions are read from what pip installed: asking JAX
# itself would start the backend, and a TPU serves one process at a time.
BACKENDS = ("libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin", "jax-rocm7-plugin")


def version() -> str:
    """Returns the versions of stunet, JAX, the installed backends and Python, one on each line."""
    versions = {"stunet": stunet.__version__}
    versions |= {name: _installed(name) or "not installed" for name in ("jax", "jaxlib")}
    versions |= {name: number for name in BACKENDS if (number := _installed(name))}
    versions["Python"] = platform.python_version()
    width = max(map(len, versions))
    return "\n".join(f"{name:{width}}  {number}" for name, number in versions.items())


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
