"""Reads LoRA files of diffusers' pipelines.

A file holds the factors up and down for each of some layers (`stunet.weights.lora`), and determines
s, which is alpha / r. Its alpha is a tensor beside the factors or a number in the file's metadata.
Without either, s is 1.

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

Layers of the text encoder are named as in transformers, after `text_encoder.` or `lora_te_`. In
Stable Diffusion XL, those of the second one come after `text_encoder_2.` or `lora_te2_`.
"""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from stunet import jsonfiles, tensorfiles
from stunet.configs import text_encoders
from stunet.data.spec import TextSpec, make_encoder
from stunet.errors import UserError
from stunet.nn.text import TextEncoder
from stunet.tensorfiles import Header
from stunet.weights import diffusers_unet, stability_names
from stunet.weights.diffusers_unet import Tensor
from stunet.weights.lora import Factors, Lora

SUFFIX = ".safetensors"

# What a tensor is -> expression for the end of its name.
_ROLES = {
    "down": r"\.lora_A\.weight|[._]lora[._]down\.weight|\.lora_linear_layer\.down\.weight",
    "up": r"\.lora_B\.weight|[._]lora[._]up\.weight|\.lora_linear_layer\.up\.weight",
    "alpha": r"\.alpha",
}
# Expression for the beginning of a name -> what the tensor changes. Other names are the U-Net's.
_OF_U_NET = re.compile(r"(unet\.|lora_unet_)?")
_OF_TEXTS = (re.compile(r"text_encoder\.|lora_te1?_"), re.compile(r"text_encoder_2\.|lora_te2_"))
# Ends of layers' names that older versions of diffusers wrote -> today's. The first two are those
# of text models, and the last lacks the number of the projection.
_OLD_LAYERS = (
    (r"_self_attn_to_([qkv])$", r"_self_attn_\1_proj"),
    (r"_self_attn_to_out$", "_self_attn_out_proj"),
    (r"_to_out$", "_to_out_0"),
)
# Prefix of a text model's layers, which newer versions of transformers leave out.
_OLD_PREFIX = "text_model."
# Parts of names -> methods that change weights in another way.
_OTHER_METHODS = {
    "hada_": "LoHa",
    "lokr_": "LoKr",
    "oft_": "OFT",
    "dora_scale": "DoRA",
    "lora_magnitude_vector": "DoRA",
    "lora_mid": "LoCon with three factors",
}
# Prefix of names in the adapter_model.safetensors that PEFT writes without diffusers.
_OF_PEFT_ALONE = "base_model.model."
# Key of the metadata of diffusers' files. It holds PEFT's settings as JSON.
_METADATA = "lora_adapter_metadata"


@dataclasses.dataclass(frozen=True)
class _Settings:
    """The settings of PEFT on which the scale of a change depends, with PEFT's defaults."""

    lora_alpha: jsonfiles.Finite | None = None
    alpha_pattern: dict[str, jsonfiles.Finite] = dataclasses.field(default_factory=dict)
    use_rslora: bool = False

    def scale(self, layer: str, rank: int) -> float:
        """Returns s for a layer, by its name in diffusers or transformers."""
        keys = (key for key in self.alpha_pattern if _is_for(key, layer))
        alpha = self.alpha_pattern.get(next(keys, ""), self.lora_alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.use_rslora else rank)


def _is_for(key: str, layer: str) -> bool:
    """Tells whether a key of PEFT's patterns is for a layer.

    The key is the end of the layer's name or, after ^, its whole name.
    """
    # `_settings` refuses keys with other signs than those of names.
    key, layer = (name.replace(_OLD_PREFIX, "") for name in (key, layer))
    return re.fullmatch(rf"(.*\.)?({key})", layer) is not None


def read_with_text(
    file: Path, tensors: Mapping[diffusers_unet.Path, Tensor], text: TextSpec
) -> tuple[Lora, TextEncoder | None]:
    """Reads a LoRA file for a network and its text encoder.

    Args:
        file: see `read`.
        tensors: see `read`.
        text: the text encoder. If it is none of CLIP, what the file changes in text models is left
            out, and `Lora.left_out` says so.

    Returns:
        The changes, and the text encoder without them, or None if they do not concern it.

    Raises:
        UserError: see `read`; or the text encoder cannot be read.
    """
    check_suffix(file)
    names = tensorfiles.headers(file)
    if not any(begin.match(name) for name in names for begin in _OF_TEXTS):
        return read(file, tensors), None
    if not text_encoders.is_clip(text.encoder):
        lora = read(file, tensors)
        why = f"{lora.left_out}; the run's text encoder is {text.encoder!r}, and no CLIP"
        return dataclasses.replace(lora, left_out=why), None
    encoder = make_encoder(text)
    return read(file, tensors, [model.shapes() for model in encoder.models]), encoder


def read(
    file: Path,
    tensors: Mapping[diffusers_unet.Path, Tensor],
    texts: Sequence[Mapping[str, tuple[str, tuple[int, ...]]]] = (),
) -> Lora:
    """Reads a LoRA file for a network.

    Args:
        file: safetensors file, in one of the formats above.
        tensors: the network's table of names (`diffusers_unet.table`).
        texts: for each text model of CLIP, the name and shape of each weight in its files, by its
            name in our module. Empty leaves out what the file changes in text models.

    Raises:
        UserError: the file is no safetensors file, is damaged or holds no layer to change, or
            holds layers that the network does not have or has in another width, or another method.
    """
    check_suffix(file)
    headers = tensorfiles.headers(file)
    of_texts = [sorted(filter(begin.match, headers)) for begin in _OF_TEXTS]
    of_u_net = sorted(headers.keys() - {name for names in of_texts for name in names})
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
    target = _Target("U-Net", _OF_U_NET, "unet.", weights)
    factors = _changes(file, headers, of_u_net, target)
    if not factors and not (texts and any(of_texts)):
        raise UserError(f"{file} holds no layer of a U-Net, so there is nothing to apply")
    if not texts:
        return Lora(factors, tensors, _left_out(file, [n for of in of_texts for n in of], headers))
    changed = []
    for number, names in enumerate(of_texts):
        which = ("text encoder", "second text encoder")[number]
        if number >= len(texts):
            if names:
                raise UserError(
                    f"{file} changes a {which}, by {names[0]!r}, and the run has none; give a LoRA "
                    "for the pipeline that the run was inflated from"
                )
            continue
        ours = {name: weight for weight, (name, _) in texts[number].items()}
        weights = {
            _plain(name.removesuffix(".weight")): (name, shape)
            for name, shape in texts[number].values()
            if name.endswith(".weight") and len(shape) > 1
        }
        prefix = f"text_encoder{'_2' * number}."
        found = _changes(file, headers, names, _Target(which, _OF_TEXTS[number], prefix, weights))
        changed.append({ours[name]: of for name, of in found.items()})
    return Lora(factors, tensors, texts=tuple(changed))


def _left_out(file: Path, names: Sequence[str], headers: Mapping[str, Header]) -> str:
    """Returns a sentence about tensors that are not applied; "" if there are none."""
    if not names:
        return ""
    return (
        f"{file}: what changes the text encoder is left out, {len(names)} of {len(headers)} "
        f"tensors, such as {min(names)!r}"
    )


@dataclasses.dataclass(frozen=True)
class _Target:
    """A network whose layers a file changes.

    Attributes:
        name: what the network is called in messages.
        begin: expression for what comes before its layers' names.
        prefix: what comes before its keys in the metadata.
        weights: the name and shape of each weight, by its layer as `_plain` writes it.
    """

    name: str
    begin: re.Pattern
    prefix: str
    weights: Mapping[str, tuple[str, tuple[int, ...]]]


def _changes(
    file: Path, headers: Mapping[str, Header], names: Sequence[str], target: _Target
) -> dict[str, Factors]:
    """Reads the change of each weight of a network, by the weight's name.

    Args:
        file: the LoRA file.
        headers: headers of the file's tensors.
        names: the tensors that change this network.
        target: the network.

    Raises:
        UserError: see `read`.
    """
    layers: dict[str, dict[str, str]] = {}
    for name in names:
        layer, role = _parse(name, file, target.begin)
        if layer not in target.weights:
            raise UserError(
                f"{file} changes the layer of {name!r}, which the run's {target.name} does not "
                f"have; give a LoRA for the {target.name} that the run was inflated from"
            )
        if headers[name].dtype not in tensorfiles.DTYPES:
            raise UserError(
                f"{name!r} in {file} is of the type {headers[name].dtype}; a LoRA of the types "
                f"{', '.join(tensorfiles.DTYPES)} can be read"
            )
        if role in layers.setdefault(layer, {}):
            raise UserError(f"{file} has {layers[layer][role]!r} and {name!r} for one layer")
        layers[layer][role] = name
    settings = _settings(file, target.prefix) if layers else _Settings()
    return {
        target.weights[layer][0]: _factors(file, found, headers, layer, target, settings)
        for layer, found in layers.items()
    }


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


def _parse(name: str, file: Path, begin: re.Pattern) -> tuple[str, str]:
    """Returns the layer that a tensor of the file is for, as `_plain` writes it, and its role.

    `begin` matches what comes before the names of layers.

    Raises:
        UserError: the tensor is part of another method than LoRA, or named as only PEFT does it.
    """
    if name.startswith(_OF_PEFT_ALONE):
        raise UserError(
            f"{file} has {name!r}, as PEFT names it, whose alpha is in an adapter_config.json; "
            "save the LoRA with save_lora_weights of diffusers, which stores its alpha"
        )
    for role, end in _ROLES.items():
        if match := re.fullmatch(rf"(.+?)(?:{end})", name):
            layer = _plain(match[1][begin.match(name).end() :].replace(".processor.", "."))
            for old, new in _OLD_LAYERS:
                layer = re.sub(old, new, layer)
            return layer, role
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
    """Returns the name of a layer as kohya writes it, without dots.

    Newer versions of transformers leave out a prefix, which is left out here too.
    """
    return layer.replace(".", "_").removeprefix("text_model_")


def _factors(
    file: Path,
    names: Mapping[str, str],
    headers: Mapping[str, Header],
    layer: str,
    target: _Target,
    settings: _Settings,
) -> Factors:
    """Reads the change of one weight.

    Args:
        file: the LoRA file.
        names: names of the weight's tensors in the file, by role.
        headers: headers of the file's tensors.
        layer: the weight's layer, as `_plain` writes it.
        target: the network.
        settings: what the file's metadata says.

    Raises:
        UserError: a factor is missing, or the factors are not those of a weight of this shape.
    """
    weight, shape = target.weights[layer]
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
            f"of the run's {target.name} has the shape {shape}; the LoRA is for another "
            f"{target.name}"
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


def _settings(file: Path, prefix: str) -> _Settings:
    """Reads what the file's metadata says about the LoRA of a network.

    Its keys begin with `prefix`. Those of the U-Net may have none.

    Raises:
        UserError: the metadata is damaged, or names layers by an expression.
    """
    place = f"{_METADATA} of {file}"
    text = tensorfiles.metadata(file).get(_METADATA, "{}")
    found = jsonfiles.parse(text, jsonfiles.Object, place)
    known = {field.name for field in dataclasses.fields(_Settings)}
    bare = known if prefix == "unet." else set()
    found = {
        key.removeprefix(prefix): value
        for key, value in found.items()
        if key.startswith(prefix) or key in bare
    }
    found = {key: value for key, value in found.items() if key in known and value is not None}
    settings = jsonfiles.convert(found, _Settings, place)
    for key in settings.alpha_pattern:
        if not re.fullmatch(r"\^?[\w.]+", key):
            raise UserError(f"{place} has the alpha_pattern {key!r}; names of layers can be read")
    return settings
