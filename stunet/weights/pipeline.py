"""Reads what a whole pipeline of diffusers says of a U-Net's text, latents and noise.

A pipeline of Stable Diffusion is a folder with the folders of its parts: `unet`, `vae`,
`text_encoder`, `tokenizer` and `scheduler`, and in XL also `text_encoder_2` and `tokenizer_2`. Its
model_index.json names their classes.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stunet import jsonfiles
from stunet.errors import UserError
from stunet.nn import autoencoder
from stunet.nn.text import text_encoder
from stunet.stores import addresses
from stunet.weights.diffusers_families import (
    AUTOENCODER,
    TEXT_LENGTH,
    Found,
    Keys,
    expect,
    pooled_text_features,
)

INDEX = "model_index.json"

# Schedulers that add noise in one way. They differ in how they take it away, which is no part of
# the network.
_SCHEDULERS = (
    "DDIMScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
)
_INPAINTING = (
    "whose U-Net takes a mask and a masked picture too, so it cannot be inflated; inflate the "
    "text-to-image pipeline that it was made from, and train with masks.inpaint"
)
# Pipelines that cannot be inflated -> why, and what can be.
_OTHERS = {
    "StableDiffusionInpaintPipeline": _INPAINTING,
    "StableDiffusionXLInpaintPipeline": _INPAINTING,
    "StableDiffusionXLImg2ImgPipeline": "such as the refiner of Stable Diffusion XL, which only "
    "improves pictures and cannot be inflated; inflate the base, a StableDiffusionXLPipeline",
}
# diffusers' names -> ours.
_BETAS = {"scaled_linear": "scaled_linear", "linear": "linear_betas"}
_PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


@dataclasses.dataclass(frozen=True)
class _Noise:
    """The keys of scheduler_config.json that say how noise is added, with diffusers' defaults."""

    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    num_train_timesteps: int = 1000
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    trained_betas: Any = None
    use_flow_sigmas: bool = False


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Holds what was found in a folder.

    Attributes:
        unet: folder of the U-Net.
        keys: keys of our config that the other parts determine, by group.
        found: a line for each part, to show to users.
    """

    unet: Path
    keys: Keys
    found: tuple[str, ...]


def read(directory: Path) -> Pipeline:
    """Reads the parts of a pipeline. A folder without model_index.json is that of a U-Net alone.

    Raises:
        UserError: the pipeline is of another kind, a part is missing or of a kind that cannot be
            read, or the parts do not fit together.
    """
    index = directory / INDEX
    if not index.is_file():
        return Pipeline(directory, {}, ())
    kind = jsonfiles.read(index, jsonfiles.Object).get("_class_name")
    if kind in _OTHERS:
        raise UserError(f"{index} is of a {kind}, {_OTHERS[kind]}")
    if kind not in _TEXTS:
        raise UserError(
            f"{index} is of a {kind}; a {' or a '.join(_TEXTS)} can be inflated, and the U-Net of "
            f"DeepFloyd IF from its folder alone, {directory / 'unet'}"
        )
    text_folders, read_text = _TEXTS[kind]
    for part in ("unet", AUTOENCODER, *text_folders, "scheduler"):
        if not (directory / part).is_dir():
            raise UserError(
                f"{directory} lacks the folder {part}, which a {kind} has; download the whole "
                "pipeline"
            )
    unet = jsonfiles.read(directory / "unet" / "config.json", jsonfiles.Object)
    keys: Keys = {}
    found = []
    for read_part in (_autoencoder, read_text, _noise):
        described, line = read_part(directory, unet)
        keys |= described
        found.append(line)
    return Pipeline(directory / "unet", keys, tuple(found))


def _autoencoder(directory: Path, unet: Found) -> tuple[Keys, str]:
    """Returns the keys of the group `autoencoder`, and a line about the part."""
    folder = directory / AUTOENCODER
    found = autoencoder.read(folder)
    of = found.architecture
    if of.latent_channels != unet.get("in_channels"):
        raise UserError(
            f"{folder} has latents of {of.latent_channels} channels, and the U-Net beside it takes "
            f"{unet.get('in_channels')}; take both from one pipeline"
        )
    keys = dict(
        path=addresses.shown(str(folder)),
        factor=of.factor,
        channels=of.latent_channels,
        fingerprint=found.fingerprint,
    )
    line = f"{AUTOENCODER}: {found.kind}, {of.latent_channels} channels for each square of "
    return {"autoencoder": keys}, f"{line}{of.factor}x{of.factor} pixels"


def _clip(directory: Path, unet: Found) -> tuple[Keys, str]:
    """Returns the keys of the groups `text` and `model`, and a line about the text model."""
    folder = directory / "text_encoder"
    keys = _text("clip", folder, folder, unet)
    line = f"text_encoder: CLIP, {keys['max_length']} tokens of {keys['dim']} features"
    return {"text": keys, "model": {"empty_text_tokens": keys["max_length"]}}, line


def _two_clips(directory: Path, unet: Found) -> tuple[Keys, str]:
    """Returns the keys of the group `text`, and a line about both text models."""
    keys = _text("sdxl", directory, directory / "text_encoder", unet)
    folder = directory / "text_encoder_2"
    config = jsonfiles.read(folder / "config.json", jsonfiles.Object)
    pooled, taken = config.get("projection_dim"), pooled_text_features(unet)
    if pooled != taken:
        raise UserError(
            f"{folder} gives a pooled text of {pooled} features, and the U-Net beside it takes "
            f"{taken}; take both from one pipeline"
        )
    line = f"text_encoder and text_encoder_2: CLIP, {keys['max_length']} tokens of {keys['dim']} "
    return {"text": keys}, f"{line}features, and a pooled text of {pooled}"


def _text(family: str, directory: Path, folder: Path, unet: Found) -> dict[str, Any]:
    """Returns the keys of the group `text`.

    Args:
        family: the text encoder's family.
        directory: its directory.
        folder: folder of the text model whose config.json states the number of tokens.
        unet: content of the U-Net's config.json.

    Raises:
        UserError: the encoder cannot be read, or the U-Net attends to states of another width.
    """
    config = jsonfiles.read(folder / "config.json", jsonfiles.Object)
    length = config.get("max_position_embeddings", TEXT_LENGTH)
    name = f"{family}:{addresses.shown(str(directory))}"
    encoder = text_encoder(name, length)
    width = unet.get("cross_attention_dim")
    if encoder.dim != width:
        raise UserError(
            f"{folder} gives token states of {encoder.dim} features, and the U-Net beside it "
            f"attends to {width}; take both from one pipeline"
        )
    return dict(encoder=name, max_length=length, dim=encoder.dim, fingerprint=encoder.fingerprint)


# Kind of pipeline -> the folders of its text, and what reads them.
_TEXTS: dict[str, tuple[tuple[str, ...], Callable[[Path, Found], tuple[Keys, str]]]] = {
    "StableDiffusionPipeline": (("text_encoder", "tokenizer"), _clip),
    "StableDiffusionXLPipeline": (
        ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"),
        _two_clips,
    ),
}


def _noise(directory: Path, unet: Found) -> tuple[Keys, str]:
    """Returns the keys of the group `diffusion`, and a line about the part."""
    file = directory / "scheduler" / "scheduler_config.json"
    content = jsonfiles.read(file, jsonfiles.Object)
    name = content.get("_class_name")
    if name not in _SCHEDULERS:
        raise UserError(
            f"{file} is of a {name}, which is not known here; choose one of "
            f"{', '.join(_SCHEDULERS)}"
        )
    found = jsonfiles.convert(content, _Noise, str(file))
    known = {
        "num_train_timesteps": (1000,),
        "trained_betas": (None,),
        "use_flow_sigmas": (False,),
        "beta_schedule": tuple(_BETAS),
        "prediction_type": tuple(_PREDICTIONS),
    }
    for key, values in known.items():
        right = f"what can be read has {' or '.join(map(repr, values))}"
        expect(getattr(found, key) in values, key, vars(found), str(file), right)
    keys = dict(
        schedule=_BETAS[found.beta_schedule],
        beta_start=found.beta_start,
        beta_end=found.beta_end,
        zero_terminal_snr=found.rescale_betas_zero_snr,
        prediction=_PREDICTIONS[found.prediction_type],
    )
    end = ", the last step pure noise" if found.rescale_betas_zero_snr else ""
    line = f"scheduler: {name}, betas {found.beta_start:g} to {found.beta_end:g}{end}; "
    return {"diffusion": keys}, f"{line}the U-Net predicts {keys['prediction']}"
