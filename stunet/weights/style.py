"""Stylised generation: the spatial weights, moved towards those of a fine-tuned network.

As in Lumiere (arXiv 2401.12945): W = a W_style + (1 - a) W_orig on the weights of the text-to-image
network, with a in 0.5..1 chosen by hand for each style. The temporal layers stay, which were
trained with W_orig: swapping its weights altogether, a = 1, tends to give static or distorted
video.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet import configs
from stunet.errors import UserError
from stunet.train.state import is_trained


def interpolate(config: configs.Config, original: Any, style: Any, alpha: float) -> Any:
    """The network's parameters, with spatial weights between two networks'.

    Spatial are those that `freeze="spatial"` would keep: all but the layers that inflation adds,
    and, where the network takes more than the noisy clip, but the first convolution.

    Args:
        config: of the original network.
        original: its parameters.
        style: of a network with the same spatial half, such as one fine-tuned from it; what else it
            has is not looked at, so a text-to-image network alone will do.
        alpha: 0 gives the original bit for bit; 1 has the spatial weights of `style`, bit for bit.

    Raises:
        UserError: the spatial halves differ, or alpha is not in 0..1.
    """
    check_alpha(alpha)
    ours, theirs = flatten_dict(original), flatten_dict(style)
    spatial = [p for p in sorted(ours.keys() | theirs.keys()) if _is_spatial(config, p)]
    for path in spatial:
        _check_same(path, ours.get(path), theirs.get(path))
    mixed = {path: _between(ours[path], theirs[path], alpha) for path in spatial}
    return unflatten_dict(ours | mixed)


def check_alpha(alpha: float) -> None:
    """Raises: UserError, if it is not in 0..1."""
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha:g}; it lies in 0 (the original) to 1 (the style)")


def _between(original, style, alpha: float):
    # Not by the formula: 0 * infinity is no number, and 0 + -0 is 0.
    if alpha in (0, 1):
        return style if alpha else original
    mixed = alpha * style.astype(jnp.float32) + (1 - alpha) * original.astype(jnp.float32)
    return mixed.astype(original.dtype)


def _is_spatial(config: configs.Config, path: tuple[str, ...]) -> bool:
    config = dataclasses.replace(config, freeze="spatial", lora=configs.Lora())
    return not is_trained(config, path)


def _check_same(path: tuple[str, ...], original, style) -> None:
    """Raises: UserError, if only one of them has this weight, or in another shape."""
    shapes = [None if leaf is None else tuple(leaf.shape) for leaf in (original, style)]
    if shapes[0] != shapes[1]:
        ours, theirs = ("missing" if s is None else f"of shape {s}" for s in shapes)
        raise UserError(
            f"the style is of another network: {'/'.join(path)} is {ours} in the original and "
            f"{theirs} in the style; fine-tune the style from the original's spatial weights"
        )
