"""Checks the jaxtyping shapes on public array functions wherever the tests call them."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook(
    ["stunet.nn", "stunet.diffusion", "stunet.data", "stunet.parallel"], "beartype.beartype"
)
