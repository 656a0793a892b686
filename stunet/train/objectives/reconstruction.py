"""Trains an autoencoder: its frames come out as they went in, and its latents are nearly normal.

It is a variational autoencoder (Kingma and Welling, arXiv 1312.6114) whose penalty on latents is
small, as in Rombach et al. (arXiv 2112.10752, section 3.1). Unlike there, errors are of pixels
alone: no second network judges what frames look like.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from stunet.data.spec import ClipSpec
from stunet.nn.autoencoder import Architecture
from stunet.train.measured.preview import Shown
from stunet.train.objectives.objective import Batch, to_float
from stunet.train.optim.trainable import Trainable

# Error of a pixel's value -> what the loss has of it.
ERRORS = {"l1": jnp.abs, "l2": jnp.square}


@dataclasses.dataclass(frozen=True)
class Compressor:
    """Holds an autoencoder to train, and what is needed to call it on clips.

    Frames pass through it by themselves.

    Attributes:
        architecture: the network. Its latents are neither shifted nor scaled while it trains.
        clip: shape and rate of the clips.
        trainable: says that all parameters are trained.
    """

    architecture: Architecture
    clip: ClipSpec

    trainable = Trainable()

    @property
    def network_of_clips(self) -> nn.Module:
        """Returns the Flax module, which takes frames."""
        return self.architecture.module

    def clip_shape(self, batch: int) -> tuple[int, ...]:
        """Returns the shape `[b, t, h, w, c]` of a batch of clips."""
        return (batch, *self.clip.shape)

    def abstract_arguments(self, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Returns shape and dtype of the frames of `batch` clips."""
        frames = (batch * self.clip.frames, *self.clip.frame_shape)
        return (jax.ShapeDtypeStruct(frames, jnp.float32),)

    def init_params(self, key: Array) -> Any:
        """Returns fresh parameters, each boxed with the names of its axes."""
        side = self.architecture.factor
        frames = jnp.zeros((1, side, side, self.architecture.channels))
        # See `Denoiser.init_params`.
        with nn.logical_axis_rules(()):
            return self.network_of_clips.init(key, frames)["params"]

    def latent_shape(self, batch: int) -> tuple[int, ...]:
        """Returns the shape `[b, t, y, x, z]` of the latents of a batch of clips."""
        of = self.architecture
        size = self.clip.height // of.factor, self.clip.width // of.factor
        return (batch, self.clip.frames, *size, of.latent_channels)

    def encode(
        self, params: Any, clips: Float[Array, "b t h w c"]
    ) -> tuple[Float[Array, "b t y x z"], Float[Array, "b t y x z"]]:
        """Returns the means of the clips' latents, and the logarithms of their variances."""
        moments = self._apply(params, clips, "encode")
        return self.architecture.split(moments)

    def decode(self, params: Any, latents: Float[Array, "b t y x z"]) -> Float[Array, "b t h w c"]:
        """Returns the frames of latents, about -1..1."""
        return self._apply(params, latents, "decode")

    def _apply(self, params: Any, clips: Array, method: str) -> Array:
        frames = clips.reshape(-1, *clips.shape[2:])
        out = self.network_of_clips.apply({"params": params}, frames, method=method)
        return out.reshape(*clips.shape[:2], *out.shape[1:])


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Computes the error of reconstructed clips, and the divergence of their latents from normal.

    The loss of a clip is the mean error of its values, plus `kl_weight` times the divergence of its
    latents' distribution, in nats for each value of a frame. The error is that of latents drawn
    from their distribution.

    Attributes:
        compressor: the autoencoder.
        error: error of a value, a key of `ERRORS`.
        kl_weight: weight of the divergence. As in Rombach et al., both terms are sums over a frame;
            here both are divided by the number of its values.
    """

    compressor: Compressor
    error: str
    kl_weight: float

    # See `Objective`: an update has no other passes than the trained one.
    more_passes = 0

    @property
    def model(self) -> Compressor:
        """Returns the autoencoder."""
        return self.compressor

    def with_clip(self, clip: ClipSpec) -> "Reconstruction":
        """Returns the same objective for clips of another shape."""
        compressor = dataclasses.replace(self.compressor, clip=clip)
        return dataclasses.replace(self, compressor=compressor)

    def draw(self, key: Array, batch: Batch) -> tuple[Array, Array]:
        """Returns the clips, -1..1, and standard normal noise for their latents."""
        clips = to_float(batch["video"])
        return clips, jax.random.normal(key, self.compressor.latent_shape(len(clips)))

    def loss(
        self,
        params: Any,
        clips: Float[Array, "b t h w c"],
        noise: Float[Array, "b t y x z"],
        *,
        teacher: Any = None,
    ) -> Float[Array, "b"]:
        """Returns the loss of each clip; see the class.

        Args:
            params: parameters of the autoencoder.
            clips: clips, -1..1.
            noise: standard normal noise.
            teacher: None, since an autoencoder has no teacher.
        """
        mean, log_variance = self.compressor.encode(params, clips)
        latents = mean + jnp.exp(log_variance / 2) * noise
        error = ERRORS[self.error](self.compressor.decode(params, latents) - clips)
        nats = divergence(mean, log_variance).sum(_WITHIN) / clips[0].size
        return error.mean(_WITHIN) + self.kl_weight * nats

    def measure(
        self, params: Any, key: Array, batch: Batch, teacher: Any = None
    ) -> dict[str, Float[Array, ""]]:
        """Returns means over held-out clips.

        "psnr" is the ratio of peak signal to noise, in dB, of what the means of latents decode to.
        "kl" is the divergence of a latent value, in nats. "loss" is the loss.
        """
        clips, noise = self.draw(key, batch)
        mean, log_variance = self.compressor.encode(params, clips)
        decoded = jnp.clip(self.compressor.decode(params, mean), -1, 1)
        squares = jnp.square(decoded - clips).mean(_WITHIN)
        return {
            "psnr": (10 * jnp.log10(4 / squares)).mean(),
            "kl": divergence(mean, log_variance).mean(),
            "loss": self.loss(params, clips, noise).mean(),
        }


# Axes of a clip in a batch.
_WITHIN = (1, 2, 3, 4)


def divergence(mean: Array, log_variance: Array) -> Array:
    """Returns the divergence of normal distributions from the unit Gaussian, in nats.

    It is Kullback and Leibler's (Kingma and Welling, arXiv 1312.6114, appendix B).
    """
    return (jnp.square(mean) + jnp.exp(log_variance) - 1 - log_variance) / 2


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """Shows held-out clips, each beside what the autoencoder makes of it.

    Attributes:
        compressor: the autoencoder.
    """

    compressor: Compressor

    def begin(self, examples: list[dict[str, Any]]) -> Shown:
        @jax.jit
        def compute(params: Any, videos: Array) -> Array:
            clips = to_float(videos)
            mean, _ = self.compressor.encode(params, clips)
            return jnp.concatenate([clips, self.compressor.decode(params, mean)], axis=3)

        return Shown(np.stack([example["video"] for example in examples]), compute, None)

    def to_frames(self, clips: Any) -> Any:
        return clips.clip(-1, 1)
