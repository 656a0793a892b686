"""Describes an autoencoder of any kind, and checks the config.json that describes it.

Modules and weights have the names that diffusers gives them, dots included. So a weight's path,
joined by dots, is its name in the files.
"""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import flax.linen as nn
import msgspec

from stunet import jsonfiles
from stunet.errors import UserError

T = TypeVar("T")

# Types of the keys of a config.json. The largest autoencoders stay far below these limits.
Count = Annotated[int, msgspec.Meta(ge=1, le=2**16)]
Counts = Annotated[tuple[Count, ...], msgspec.Meta(min_length=1, max_length=16)]
Scale = Annotated[float, msgspec.Meta(gt=0, le=1e6)]

# diffusers bounds the logarithm of the variance so.
_LOG_VARIANCE = (-30.0, 20.0)

# What diffusers computes does not depend on these keys.
_IRRELEVANT = {"_class_name", "_diffusers_version", "_name_or_path", "force_upcast"}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """An autoencoder without its weights.

    The network sees shifted and scaled latents, `(z - shift) * scale`.

    Attributes:
        module: has the methods `encode`, from frames `[n, h, w, c]` to moments `[n, y, x, m]`, and
            `decode`, from latents z `[n, y, x, z]` to frames. `__call__` does one after the other.
            Moments are the means of the latents, and with `has_std`, where m = 2 z, also the
            logarithms of their variances.
        channels: channels of a frame (c).
        latent_channels: channels of the latents (z).
        has_std: True if latents have standard deviations beside their means.
        factor: rows or columns of a frame for each of the latents.
        shift: the shift, for each latent channel or for all.
        scale: the scale, for each latent channel or for all.
        tile: rows and columns of the tiles that diffusers takes.
    """

    module: nn.Module
    channels: int
    latent_channels: int
    has_std: bool
    factor: int
    shift: tuple[float, ...]
    scale: tuple[float, ...]
    tile: int

    def split(self, moments: T) -> tuple[T, T]:
        """Splits moments, arrays of NumPy or JAX, into means and logarithms of variances.

        Needs `has_std`. The logarithms are bounded as diffusers bounds them.
        """
        z = self.latent_channels
        return moments[..., :z], moments[..., z:].clip(*_LOG_VARIANCE)


def parse(config: Mapping[str, Any], kind: type[T], fixed: Mapping[str, Any], path: str) -> T:
    """Returns the keys of a config.json that determine the computation, as a `kind`.

    Args:
        config: content of config.json.
        kind: dataclass with a field for each key.
        fixed: maps further keys to the values that the network here has.
        path: path of config.json, for error messages.

    Raises:
        UserError: a key is unknown or has another value than this network can have.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    for key, value in config.items():
        if key in fixed:
            found = set(value) if isinstance(value, list) else {value}
            if not found <= fixed[key]:
                raise UserError(
                    f"{path} has {key!r} {value!r}; what can be read has "
                    f"{' or '.join(map(repr, sorted(fixed[key])))}"
                )
        elif key not in names | _IRRELEVANT and value is not None:
            raise UserError(
                f"{path} has {key!r} {value!r}, which is not known here, and may change the network"
            )
    return jsonfiles.convert({k: v for k, v in config.items() if k in names}, kind, path)
