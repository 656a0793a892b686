"""LoRA files change weights as the library peft does, which `record_peft.py` recorded.

The files were written by peft 0.21.2 and diffusers 0.42.1.
"""

import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file

from stunet.weights import lora_files
from stunet.weights.diffusers_unet import Tensor

CASES = pathlib.Path(__file__).parent / "cases"


@pytest.mark.parametrize("name", ["peft_patterns", "peft_rslora"])
def test_changes_are_those_that_peft_merges(name):
    """Holds for the settings that determine the scale of a layer: its rank, alpha and pattern."""
    merged = load_file(CASES / f"{name}_merged.safetensors")
    of_unet, of_text = (
        {key.removeprefix(begin): value for key, value in merged.items() if key.startswith(begin)}
        for begin in ("unet.", "text_encoder.")
    )
    tensors = {
        (key,): Tensor((key,), False, tuple(range(value.ndim)), False, value.shape)
        for key, value in of_unet.items()
    }
    # Published text encoders have names with a prefix that new versions of transformers leave out.
    shapes = {key: (f"text_model.{key}", value.shape) for key, value in of_text.items()}
    lora = lora_files.read(CASES / f"{name}.safetensors", tensors, [shapes])
    (change,) = lora.of_texts(1.0)
    found = {key: lora.add((key,), np.zeros_like(value), 1.0) for key, value in of_unet.items()}
    found_of_text = {key: change(key, np.zeros_like(value)) for key, value in of_text.items()}
    assert (len(found), len(found_of_text)) == (6, 6)
    for got, wanted in ((found, of_unet), (found_of_text, of_text)):
        for key, value in wanted.items():
            limit = 1e-6 * np.abs(value).max()
            np.testing.assert_allclose(got[key], value, rtol=0, atol=limit, err_msg=key)
