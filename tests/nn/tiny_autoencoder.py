"""Makes small autoencoders with random weights, as diffusers would save them."""

import json
import pathlib

import numpy as np
from safetensors.numpy import save_file

from stunet.nn import autoencoder

CONFIGS = {
    "AutoencoderKL": dict(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[4, 4],
        norm_num_groups=2,
        latent_channels=2,
        scaling_factor=0.36,
    ),
    "AutoencoderTiny": dict(
        encoder_block_out_channels=[4] * 3,
        decoder_block_out_channels=[4] * 3,
        num_encoder_blocks=[1] * 3,
        num_decoder_blocks=[1] * 3,
        latent_channels=2,
    ),
}


def write(place: pathlib.Path, kind: str, seed: int = 0) -> pathlib.Path:
    """Writes an autoencoder whose factor is 2 (KL) or 4 (tiny), with 2 latent channels."""
    place.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": kind, **CONFIGS[kind]}
    (place / "config.json").write_text(json.dumps(config))
    architecture = autoencoder.KINDS[kind](config, "config.json")
    rng = np.random.default_rng(seed)
    headers = autoencoder.headers(autoencoder.weight_shapes(architecture))
    weights = {
        name: rng.normal(0, 1.2 * np.prod(of.shape[1:]) ** -0.5, of.shape).astype(np.float32)
        for name, of in headers.items()
    }
    save_file(weights, place / "diffusion_pytorch_model.safetensors")
    return place
