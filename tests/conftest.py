"""Checks the jaxtyping shapes on public array functions wherever the tests call them.

Programs compiled by one test, or by one worker, are kept for the others until the session ends.
"""

import atexit
import os
import shutil
import tempfile

os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="stunet_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from jaxtyping import install_import_hook

install_import_hook(
    ["stunet.nn", "stunet.diffusion", "stunet.data", "stunet.parallel"], "beartype.beartype"
)
