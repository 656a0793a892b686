"""Mixes the spatial weights of two networks, one of which is fine-tuned to a style.

As in Lumiere (arXiv 2401.12945), each weight W of the text-to-image network becomes
a W_style + (1 - a) W_orig, with a in 0.5..1 chosen by hand for each style. The temporal layers were
trained with W_orig and stay as they are. Replacing the spatial weights completely (a = 1) tends to
give static or distorted video.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet.errors import UserError
from stunet.train.optim.trainable import Trainable


def interpolate(trainable: Trainable, original: Any, style: Any, alpha: float) -> Any:
    """Returns the original network's parameters, with spatial weights mixed from both networks.

    The spatial weights are those that `freeze="spatial"` does not train: all weights except those
    of the layers that inflation adds. If the network's input has more channels than the noisy clip,
    the first convolution is not among the spatial weights either.

    Args:
        trainable: which parameters of the original network are trained.
        original: parameters of the original network.
        style: parameters of a network with the same spatial half, such as one fine-tuned from the
            original. Its other parameters are ignored, so a text-to-image network is enough.
        alpha: the factor a, 0..1. With 0 the spatial weights are exactly those of `original`, and
            with 1 exactly those of `style`.

    Raises:
        UserError: the spatial halves differ, or alpha is not in 0..1.
    """
    check_alpha(alpha)
    ours, theirs = flatten_dict(original), flatten_dict(style)
    frozen = dataclasses.replace(trainable, freeze_spatial=True, lora_rank=0)
    spatial = [p for p in sorted(ours.keys() | theirs.keys()) if not frozen.includes(p)]
    for path in spatial:
        _check_same(path, ours.get(path), theirs.get(path))
    mixed = {path: _between(ours[path], theirs[path], alpha) for path in spatial}
    return unflatten_dict(ours | mixed)


def check_alpha(alpha: float) -> None:
    """Checks that `alpha` lies in 0..1.

    Raises:
        UserError: `alpha` is below 0 or above 1.
    """
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha is {alpha:g}; it lies in 0 (the original) to 1 (the style)")


def _between(original, style, alpha: float):
    # The formula would not be exact here: 0 * infinity is no number, and 0 + -0 is 0.
    if alpha in (0, 1):
        return style if alpha else original
    mixed = alpha * style.astype(jnp.float32) + (1 - alpha) * original.astype(jnp.float32)
    return mixed.astype(original.dtype)


def _check_same(path: tuple[str, ...], original, style) -> None:
    """Checks that both networks have the weight at `path`, in the same shape.

    Raises:
        UserError: one network lacks the weight, or the weight's two shapes differ.
    """
    shapes = [None if leaf is None else tuple(leaf.shape) for leaf in (original, style)]
    if shapes[0] != shapes[1]:
        ours, theirs = ("missing" if s is None else f"of shape {s}" for s in shapes)
        raise UserError(
            f"the style is of another network: {'/'.join(path)} is {ours} in the original and "
            f"{theirs} in the style; fine-tune the style from the original's spatial weights"
        )
