"""Checks the jaxtyping shapes on public array functions wherever the tests call them.

The tests take as long as XLA compiles: LLVM does not optimise here, and programs compiled by one
test, or by one worker, are kept for the others until the session ends.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="stunet_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from jaxtyping import install_import_hook

install_import_hook(
    ["stunet.nn", "stunet.diffusion", "stunet.data", "stunet.parallel"], "beartype.beartype"
)
