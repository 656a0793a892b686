"""Defines the training objective: what is drawn at random for a batch, and the loss of a clip."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from stunet.diffusion.loss import clip_loss, stratified_times
from stunet.train.conditioning import Given
from stunet.train.denoiser import Denoiser

Batch = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """Computes the denoising loss over whole clips, in a single pass of the network.

    Attributes:
        denoiser: the network, its conditioning and its noise schedule.
        weighting: how noise levels are weighted: "uniform" or "min_snr".
        min_snr_gamma: gamma of the weighting "min_snr" (Hang et al., arXiv 2303.09556).
        caption_dropout: share of clips whose caption is dropped in training, 0..1. Classifier-free
            guidance needs a network that was also trained without captions.
    """

    denoiser: Denoiser
    weighting: str
    min_snr_gamma: float
    caption_dropout: float

    def draw(self, key: Array, batch: Batch) -> tuple[Any, ...]:
        """Draws everything that is random in one update.

        Args:
            key: random key of the update.
            batch: `video` uint8 `[b, t, h, w, c]`, `text` `[b, l, d]` and `text_mask` `[b, l]`.

        Returns:
            The arguments of `loss` after `params`: clean clips, `given` (what the network sees
                besides the noisy clips), noise times, noise, text states and their mask. The text
                states and mask of a clip are zero if its caption is dropped.
        """
        time_key, noise_key, caption_key = jax.random.split(key, 3)
        clips = to_float(batch["video"])
        x0, given = self.denoiser.conditioning.draw(jax.random.fold_in(key, 3), clips)
        t = stratified_times(time_key, len(x0))
        noise = jax.random.normal(noise_key, x0.shape)
        keep = jax.random.bernoulli(caption_key, 1.0 - self.caption_dropout, (len(x0),))
        text, text_mask = drop_text(batch["text"], batch["text_mask"], keep)
        return x0, given, t, noise, text, text_mask

    def loss(
        self,
        params: Any,
        x0: Float[Array, "b t h w c"],
        given: Given,
        t: Float[Array, "b"],
        noise: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"],
        text_mask: Array,
    ) -> Float[Array, "b"]:
        """Returns the loss of each clip.

        Args:
            params: parameters of the network.
            x0: clean clips, -1..1.
            given: what the network sees besides the noisy clips.
            t: noise time of each clip, 0..1.
            noise: Gaussian noise.
            text: token states.
            text_mask: bool `[b, l]`, True at tokens.
        """
        denoiser = self.denoiser
        return clip_loss(
            lambda x_t, time: denoiser.predict(params, x_t, time, text, text_mask, *given),
            x0,
            t,
            noise,
            schedule=denoiser.schedule,
            prediction=denoiser.prediction,
            weighting=self.weighting,
            min_snr_gamma=self.min_snr_gamma,
        )


def to_float(video: UInt8[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    """Maps pixels 0..255 to -1..1."""
    return video.astype(jnp.float32) / 127.5 - 1.0


def drop_text(text: Array, text_mask: Array, keep: Array) -> tuple[Array, Array]:
    """Sets text states `[b, l, d]` and masks `[b, l]` to zero where `keep` `[b]` is False."""
    return text * keep[:, None, None], text_mask & keep[:, None]
