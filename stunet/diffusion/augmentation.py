"""Noise-conditioning augmentation: what a cascade's later network is given, corrupted on purpose.

Such a network trains on what is given of real clips (low-resolution versions, keyframes) and runs
on what another network has generated. Augmentation bridges the two (Ho et al., Cascaded Diffusion
Models, arXiv 2106.15282, section 4; Saharia et al., Imagen, arXiv 2205.11487, section 2.4):
Gaussian noise of a random level, which the network is told, hides what the two differ in. When
sampling, one level is chosen.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def corrupt(
    given: Float[Array, "b t h w c"], level: Float[Array, "b"], noise: Float[Array, "b t h w c"]
) -> Float[Array, "b t h w c"]:
    """cos(pi s / 2) given + sin(pi s / 2) noise at the augmentation level s: variance-preserving,
    as Imagen's, along the cosine schedule without its cut ends.

    Args:
        given: clean clips, -1..1.
        level: 0 (the clip itself) to 1 (noise alone); all frames of a clip share it.
        noise: standard normal.
    """
    angle = (math.pi / 2 * level)[:, None, None, None, None]
    return jnp.cos(angle) * given + jnp.sin(angle) * noise


def log_snr(level: Float[Array, "b"]) -> Float[Array, "b"]:
    """The log-SNR of what `corrupt` gives, -2 log tan(pi s / 2); finite at both ends."""
    angle = jnp.clip(math.pi / 2 * level, 1e-6, math.pi / 2 - 1e-6)
    return -2 * jnp.log(jnp.tan(angle))


def draw(
    key: PRNGKeyArray, given: Float[Array, "b t h w c"], max_level: float
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b"]]:
    """The corrupted version of each clip, and its augmentation level.

    Args:
        key: of the draw.
        given: clean clips, -1..1.
        max_level: levels are uniform in 0..max_level.
    """
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (len(given),), maxval=max_level)
    return corrupt(given, level, jax.random.normal(noise_key, given.shape)), level


def plane(level: Float[Array, "b"], like: Float[Array, "b t h w c"]) -> Float[Array, "b t h w 1"]:
    """The channel that tells the network the level, everywhere the same."""
    level = jnp.broadcast_to(level[:, None, None, None, None], (*like.shape[:-1], 1))
    return level.astype(like.dtype)
