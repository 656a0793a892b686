"""Set-up that every command needs before it uses JAX."""

import ctypes
import os

from stunet.files import user_cache

# Parameters of glibc's `mallopt`, from <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def set_up_jax() -> None:
    """Silences the logs of libraries, and keeps compiled programs between runs.

    Programs are kept in the user's cache unless JAX_COMPILATION_CACHE_DIR names another directory.
    """
    keep_freed_memory()
    import jax
    from absl import logging

    # Orbax and grain log their routine through absl. What goes wrong reaches the user as an
    # exception.
    logging.set_verbosity(logging.FATAL)

    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(user_cache("xla")))


def compile_for_elsewhere() -> None:
    """Makes JAX compile for chips that this machine does not have, without looking for chips here.

    Call this function before the first import of JAX, which reads these environment variables.
    """
    os.environ |= {
        "JAX_PLATFORMS": "cpu",
        "TPU_SKIP_MDS_QUERY": "1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def keep_freed_memory() -> None:
    """Makes this process keep the memory that it frees, for its next step; only with glibc.

    A program that XLA compiled for a CPU allocates gigabytes when it starts, and frees them when it
    ends. By default glibc returns large blocks to the system, which then maps and zeroes every page
    anew in each step. That is a quarter of a step's time (docs/explanation/performance.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # macOS, Windows, and musl have no such function.
        return
    # Threads with arenas of their own would still get large blocks from the system.
    for parameter, value in ((_M_ARENA_MAX, 1), (_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1)):
        mallopt(parameter, value)
