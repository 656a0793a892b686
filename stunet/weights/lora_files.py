"""Reads LoRA files of diffusers' U-Nets, and adds them to the spatial weights of a network.

A LoRA (arXiv 2106.09685) holds two small factors for each of some layers. The layer's weight W,
[o, i] or [o, i, h, w], becomes W + a s (up down). The factor `down` is [r, i] or [r, i, h, w], `up`
is [o, r], and r is the rank. The user chooses a. The file determines s, which is alpha / r. Its
alpha is a tensor beside the factors or a number in the file's metadata. Without either, s is 1.

Two formats are common. Both name layers as diffusers' U-Net does:

| | diffusers, PEFT | kohya's sd-scripts, LoCon |
|---|---|---|
| layer | `unet.mid_block.attentions.0.proj_in` | `lora_unet_mid_block_attentions_0_proj_in` |
| factors | `.lora_A.weight`, `.lora_B.weight` | `.lora_down.weight`, `.lora_up.weight` |
| alpha | `lora_adapter_metadata` | `.alpha` |

Files of kohya for Stable Diffusion XL name its layers as Stability's code does, such as
`lora_unet_input_blocks_4_1_proj_in` (`stunet.weights.stability_names`).

diffusers itself has also written `.lora.down.weight` and `.processor.to_q_lora.down.weight`. A name
of any of these forms is found in the table of `stunet.weights.diffusers_unet`, where dots and
underscores count as equal.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet import jsonfiles, tensorfiles
from stunet.errors import UserError
from stunet.tensorfiles import Header
from stunet.weights import diffusers_unet, stability_names
from stunet.weights.diffusers_unet import Tensor

SUFFIX = ".safetensors"

# What a tensor is -> expression for the end of its name.
_ROLES = {
    "down": r"\.lora_A\.weight|[._]lora[._]down\.weight",
    "up": r"\.lora_B\.weight|[._]lora[._]up\.weight",
    "alpha": r"\.alpha",
}
_OF_U_NET = re.compile(r"^(unet\.|lora_unet_)")
_OF_TEXT = re.compile(r"text_encoder(_\d)?\.|lora_te\d?_")
# Parts of names -> methods that change weights in another way.
_OTHER_METHODS = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with three factors",
}
# Key of the metadata of diffusers' files. It holds PEFT's settings as JSON.
_METADATA = "lora_adapter_metadata"


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings of PEFT on which the scale of a change depends, with PEFT's defaults."""

    lora_alpha: jsonfiles.Finite | None = None
    alpha_pattern: dict[str, jsonfiles.Finite] = dataclasses.field(default_factory=dict)
    use_rslora: bool = False

    def scale(self, layer: str, rank: int) -> float:
        """Returns s for a layer of diffusers' U-Net."""
        # A key is the end of the names of the layers that it is for.
        keys = (key for key in self.alpha_pattern if f".{layer}".endswith(f".{key.lstrip('^')}"))
        alpha = self.alpha_pattern.get(next(keys, ""), self.lora_alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


@dataclasses.dataclass(frozen=True)
class Factors:
    """The change of one weight of diffusers' U-Net: up down, [o, i] or [o, i, h, w].

    Attributes:
        up: [o, r], float32, multiplied by the file's scale.
        down: [r, i] or [r, i, h, w], float32.
    """

    up: np.ndarray
    down: np.ndarray

    def change(self, part: tuple[slice, ...]) -> np.ndarray:
        """Returns a part of the change, which has a slice for each axis."""
        return np.tensordot(self.up[part[0]], self.down[:, *part[1:]], 1)


@dataclasses.dataclass(frozen=True)
class Lora:
    """Holds the changes that a LoRA file makes to a network.

    Attributes:
        factors: the change of each changed weight, by its name in diffusers.
        tensors: the network's table of names (`diffusers_unet.table`).
        left_out: a sentence for the user about parts of the file that are not applied, or "".
    """

    factors: Mapping[str, Factors]
    tensors: Mapping[diffusers_unet.Path, Tensor]
    left_out: str

    def changes(self, path: diffusers_unet.Path) -> bool:
        """Returns True if the LoRA changes our weight at `path`, or one of its stacked layers."""
        tensor = self.tensors.get(path)
        return tensor is not None and any(name in self.factors for name in tensor.names)

    def add(
        self,
        path: diffusers_unet.Path,
        weight: Any,
        scale: float,
        index: tuple[slice, ...] = (),
    ) -> Any:
        """Returns one of our weights with `scale` times the LoRA's change.

        The sum is computed in float32 and cast to the weight's dtype. Weights that the LoRA does
        not change, and all weights at scale 0, are returned as they are.

        Args:
            path: path of the weight among our parameters.
            weight: the weight or a part of it, as an array of NumPy or JAX.
            scale: the factor a.
            index: the part, as a slice for each axis of our weight; empty for the whole weight.
        """
        if not scale or not self.changes(path):
            return weight

        def change(name: str, part: tuple[slice, ...]) -> np.ndarray:
            if name in self.factors:
                return self.factors[name].change(part)
            # Another layer of the stack is changed.
            extents = self.tensors[path].shape
            return np.zeros([len(range(n)[s]) for n, s in zip(extents, part, strict=True)])

        change = self.tensors[path].read(change, index, np.float32)
        return (weight.astype(np.float32) + np.float32(scale) * change).astype(weight.dtype)


@dataclasses.dataclass(frozen=True)
class Merged:
    """Reads the weights of a diffusers U-Net with a LoRA's changes added.

    Attributes:
        source: the U-Net.
        lora: the changes.
        scale: the factor a.
    """

    source: diffusers_unet.Directory
    lora: Lora
    scale: float

    def read(
        self, path: diffusers_unet.Path, index: tuple[slice, ...] = (), dtype: Any = None
    ) -> np.ndarray:
        """Reads one of our weights, or a part of it, as `diffusers_unet.Directory.read` does."""
        if not self.lora.changes(path):
            return self.source.read(path, index, dtype)
        weight = self.source.read(path, index)
        merged = self.lora.add(path, weight.astype(np.float32), self.scale, index)
        return merged.astype(dtype or weight.dtype)


def merge(params: Any, lora: Lora, scale: float) -> Any:
    """Returns a network's parameters with `scale` times the LoRA's changes added.

    Temporal weights are returned as they are, and so is everything at scale 0.
    """
    flat = flatten_dict(params)
    return unflatten_dict({path: lora.add(path, leaf, scale) for path, leaf in flat.items()})


def read(file: Path, tensors: Mapping[diffusers_unet.Path, Tensor]) -> Lora:
    """Reads a LoRA file for a network.

    Args:
        file: safetensors file, in one of the formats above.
        tensors: the network's table of names (`diffusers_unet.table`).

    Raises:
        UserError: the file is no safetensors file, is damaged or holds no layer of a U-Net, or
            holds layers that the network does not have or has in another width, or another method.
    """
    check_suffix(file)
    headers = tensorfiles.headers(file)
    left_out = [name for name in headers if _OF_TEXT.match(name)]
    found = {name: headers[name] for name in headers.keys() - set(left_out)}
    weights = {
        _plain(name.removesuffix(".weight")): (name, tensor.shape)
        for tensor in tensors.values()
        for name in tensor.names
        if name.endswith(".weight") and len(tensor.shape) > 1
    }
    others = stability_names.layers(name for tensor in tensors.values() for name in tensor.names)
    weights |= {
        _plain(theirs): weights[_plain(name)]
        for name, theirs in others.items()
        if _plain(name) in weights
    }
    layers: dict[str, dict[str, str]] = {}
    for name, header in sorted(found.items()):
        layer, role = _parse(name, file)
        if layer not in weights:
            raise UserError(
                f"{file} changes the layer of {name!r}, which the run's U-Net does not have; give "
                "a LoRA for the U-Net that the run was inflated from"
            )
        if header.dtype not in tensorfiles.DTYPES:
            raise UserError(
                f"{name!r} in {file} is of the type {header.dtype}; a LoRA of the types "
                f"{', '.join(tensorfiles.DTYPES)} can be read"
            )
        if role in layers.setdefault(layer, {}):
            raise UserError(f"{file} has {layers[layer][role]!r} and {name!r} for one layer")
        layers[layer][role] = name
    if not layers:
        raise UserError(f"{file} holds no layer of a U-Net, so there is nothing to apply")
    settings, factors = _settings(file), {}
    for layer, names in layers.items():
        weight, shape = weights[layer]
        factors[weight] = _factors(file, names, headers, weight, shape, settings)
    sentence = ""
    if left_out:
        sentence = (
            f"{file}: what changes the text encoder is left out, {len(left_out)} of {len(headers)} "
            f"tensors, such as {min(left_out)!r}"
        )
    return Lora(factors, tensors, sentence)


def check_suffix(file: Path) -> None:
    """Checks that a LoRA file is named as a safetensors file, before anything large is loaded.

    Raises:
        UserError: the name ends otherwise, as that of a pickled file does.
    """
    if file.suffix != SUFFIX:
        raise UserError(
            f"{file} is no {SUFFIX} file; pickled LoRAs (.pt, .bin, .ckpt) are not read: look for "
            f"the LoRA as {SUFFIX}, or save it again as such a file"
        )


def _parse(name: str, file: Path) -> tuple[str, str]:
    """Returns the layer that a tensor of the file is for, as `_plain` writes it, and its role.

    Raises:
        UserError: the tensor is part of another method than LoRA.
    """
    for role, end in _ROLES.items():
        if match := re.fullmatch(rf"(.+?)(?:{end})", name):
            layer = _plain(_OF_U_NET.sub("", match[1]).replace(".processor.", "."))
            # As older versions of diffusers name the projection, without its number.
            return re.sub(r"_to_out$", "_to_out_0", layer), role
    method = next((method for part, method in _OTHER_METHODS.items() if part in name), None)
    if method:
        raise UserError(
            f"{file} is a {method} (it has {name!r}), which cannot be read; give a LoRA, whose "
            "layers have two factors each"
        )
    raise UserError(
        f"{file} has the tensor {name!r}, which is neither a factor of a LoRA (lora_A, lora_B, "
        "lora_down, lora_up) nor its alpha"
    )


def _plain(layer: str) -> str:
    """Returns the name of a layer as kohya writes it, without dots."""
    return layer.replace(".", "_")


def _factors(
    file: Path,
    names: Mapping[str, str],
    headers: Mapping[str, Header],
    weight: str,
    shape: tuple[int, ...],
    settings: _Settings,
) -> Factors:
    """Reads the change of one weight.

    Args:
        file: the LoRA file.
        names: names of the weight's tensors in the file, by role.
        headers: headers of the file's tensors.
        weight: name of the weight in diffusers.
        shape: shape of the weight in diffusers.
        settings: what the file's metadata says.

    Raises:
        UserError: a factor is missing, or the factors are not those of a weight of this shape.
    """
    for role in ("down", "up"):
        if role not in names:
            raise UserError(
                f"{file} has {next(iter(names.values()))!r} without the other factors of "
                f"{weight!r}; it lacks {role!r}"
            )
    up, down = (headers[names[role]].shape for role in ("up", "down"))
    rank = down[0] if down else 0
    fits = _trimmed(up) == (shape[0], rank) and _trimmed(down) == _trimmed((rank, *shape[1:]))
    if not rank or not fits:
        raise UserError(
            f"{file} changes {weight!r} by factors of the shapes {up} and {down}, and the weight "
            f"of the run's U-Net has the shape {shape}; the LoRA is for another U-Net"
        )
    scale = settings.scale(weight.removesuffix(".weight"), rank)
    if "alpha" in names:
        alpha = _values(file, names["alpha"])
        if alpha.size != 1 or not np.isfinite(alpha).all():
            raise UserError(
                f"{names['alpha']!r} in {file} is {alpha.tolist()}; one number is needed"
            )
        scale = alpha.item() / rank
    return Factors(
        np.float32(scale) * _values(file, names["up"]).reshape(shape[0], rank),
        _values(file, names["down"]).reshape(rank, *shape[1:]),
    )


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Drops the extents of 1 in which a projection and a convolution by 1x1 differ."""
    return shape[:2] if set(shape[2:]) == {1} else shape


def _values(file: Path, name: str) -> np.ndarray:
    with tensorfiles.tensor(file, name) as stored:
        return np.asarray(stored[...], np.float32)


def _settings(file: Path) -> _Settings:
    """Reads what the file's metadata says about the U-Net's LoRA.

    Raises:
        UserError: the metadata is damaged, or names layers by an expression.
    """
    place = f"{_METADATA} of {file}"
    text = tensorfiles.metadata(file).get(_METADATA, "{}")
    found = jsonfiles.parse(text, jsonfiles.Object, place)
    known = {field.name for field in dataclasses.fields(_Settings)}
    found = {key.removeprefix("unet."): value for key, value in found.items()}
    found = {key: value for key, value in found.items() if key in known and value is not None}
    settings = jsonfiles.convert(found, _Settings, place)
    for key in settings.alpha_pattern:
        if not re.fullmatch(r"\^?[\w.]+", key):
            raise UserError(f"{place} has the alpha_pattern {key!r}; names of layers can be read")
    return settings
