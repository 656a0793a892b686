"""Noise-conditioning augmentation: corrupts the clips that condition a later network of a cascade.

Such a network trains on clips made from real ones (low-resolution clips, keyframes), and runs on
clips that another network has generated. Augmentation closes this gap between training and sampling
(Ho et al., Cascaded Diffusion Models, arXiv 2106.15282, section 4; Saharia et al., Imagen, arXiv
2205.11487, section 2.4). Gaussian noise of a random level hides how real and generated clips
differ, and the level is one of the network's inputs. In sampling the user chooses one level.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def corrupt(
    clips: Float[Array, "b t h w c"], level: Float[Array, "b"], noise: Float[Array, "b t h w c"]
) -> Float[Array, "b t h w c"]:
    """Returns cos(pi s / 2) clips + sin(pi s / 2) noise at the augmentation level s.

    This is variance preserving, like Imagen's augmentation. The amplitudes are those of the cosine
    schedule at time s, without the bounds that `schedules.cosine` sets on the log-SNR.

    Args:
        clips: clean clips, -1..1.
        level: augmentation level s of each clip, from 0 (the clip itself) to 1 (noise alone).
        noise: standard normal.
    """
    angle = (math.pi / 2 * level)[:, None, None, None, None]
    return jnp.cos(angle) * clips + jnp.sin(angle) * noise


def log_snr(level: Float[Array, "b"]) -> Float[Array, "b"]:
    """Returns the log-SNR of clips corrupted at augmentation level s: -2 log tan(pi s / 2).

    The angle pi s / 2 is clipped, so the result is finite at s = 0 and s = 1 too.
    """
    angle = jnp.clip(math.pi / 2 * level, 1e-6, math.pi / 2 - 1e-6)
    return -2 * jnp.log(jnp.tan(angle))


def draw(
    key: PRNGKeyArray, clips: Float[Array, "b t h w c"], max_level: float
) -> tuple[Float[Array, "b t h w c"], Float[Array, "b"]]:
    """Corrupts each clip at a random augmentation level.

    Args:
        key: random key for levels and noise.
        clips: clean clips, -1..1.
        max_level: levels are uniform in 0..max_level.

    Returns:
        The corrupted clips and their levels.
    """
    level_key, noise_key = jax.random.split(key)
    level = jax.random.uniform(level_key, (len(clips),), maxval=max_level)
    return corrupt(clips, level, jax.random.normal(noise_key, clips.shape)), level


def plane(level: Float[Array, "b"], like: Float[Array, "b t h w c"]) -> Float[Array, "b t h w 1"]:
    """Returns a channel that holds each clip's augmentation level at every pixel.

    Args:
        level: augmentation level of each clip.
        like: clips whose extents and dtype the channel gets.
    """
    level = jnp.broadcast_to(level[:, None, None, None, None], (*like.shape[:-1], 1))
    return level.astype(like.dtype)
