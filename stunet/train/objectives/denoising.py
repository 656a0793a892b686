"""Trains a network to denoise clips: the random inputs of an update, and the loss of a clip."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stunet.data.spec import ClipSpec
from stunet.diffusion import distillation
from stunet.diffusion.distillation import Distillation
from stunet.diffusion.guidance import guided_denoiser
from stunet.diffusion.loss import clip_loss
from stunet.diffusion.prediction import add_noise
from stunet.diffusion.times import Times
from stunet.train.objectives.conditioning import Given
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.objectives.objective import Batch, to_float


@dataclasses.dataclass(frozen=True)
class Denoising:
    """Computes the denoising loss over whole clips, in a single pass of the network.

    If the network is distilled, its targets come from a teacher, not from the clean clips.

    Attributes:
        denoiser: the network, its conditioning and its noise schedule.
        weighting: how noise levels are weighted, a key of `stunet.diffusion.loss.WEIGHTINGS`.
        min_snr_gamma: gamma of the weighting "min_snr" (Hang et al., arXiv 2303.09556).
        sigmoid_log_snr: bias of the weighting "sigmoid" (Hoogeboom et al., arXiv 2410.19324).
        caption_dropout: share of clips whose caption is dropped in training, 0..1. Classifier-free
            guidance needs a network that was also trained without captions.
        times: the density of the noise times.
        held_out_times: noise times, 0..1, at which the loss of held-out clips is measured.
        distillation: which steps the network learns from a teacher; None if it learns from clips.
    """

    denoiser: Denoiser
    weighting: str
    min_snr_gamma: float
    sigmoid_log_snr: float
    caption_dropout: float
    times: Times
    held_out_times: tuple[float, ...]
    distillation: Distillation | None = None

    @property
    def model(self) -> Denoiser:
        """Returns the network."""
        return self.denoiser

    def with_clip(self, clip: ClipSpec) -> "Denoising":
        """Returns the same objective for clips of another shape."""
        return dataclasses.replace(self, denoiser=dataclasses.replace(self.denoiser, clip=clip))

    @property
    def more_passes(self) -> int:
        """Returns how many forward passes of the network an update has beside the trained one."""
        if self.distillation is None:
            return 0
        return 2 if self.distillation.guidance_scale == 1 else 3

    def draw(self, key: Array, batch: Batch) -> tuple[Any, ...]:
        """Draws everything that is random in one update.

        Args:
            key: random key of the update.
            batch: `video` uint8 `[b, t, h, w, c]`, or float32 for latents, `text` `[b, l, d]` and
                `text_mask` `[b, l]`.

        Returns:
            The arguments of `loss` after `params`: clean clips, `given` (what the network sees
                besides the noisy clips), noise times, noise, text states and their mask. The text
                states and mask of a clip are zero if its caption is dropped. If the loss is
                corrected for the density of the times, 1 / density comes last.
        """
        time_key, noise_key, caption_key = jax.random.split(key, 3)
        clips = to_float(batch["video"])
        x0, given = self.denoiser.conditioning.draw(jax.random.fold_in(key, 3), clips)
        t, inverse_density = self.times.draw(time_key, x0.shape)
        noise = jax.random.normal(noise_key, x0.shape)
        keep = jax.random.bernoulli(caption_key, 1.0 - self.caption_dropout, (len(x0),))
        text, text_mask = drop_text(batch["text"], batch["text_mask"], keep)
        last = () if inverse_density is None else (inverse_density,)
        return x0, given, t, noise, text, text_mask, *last

    def loss(
        self,
        params: Any,
        x0: Float[Array, "b t h w c"],
        given: Given,
        t: Float[Array, "b"],
        noise: Float[Array, "b t h w c"],
        text: Float[Array, "b l d"],
        text_mask: Array,
        inverse_density: Float[Array, "b"] | None = None,
        *,
        teacher: Any = None,
    ) -> Float[Array, "b"]:
        """Returns the loss of each clip.

        Args:
            params: parameters of the network.
            x0: clean clips, -1..1, or latents.
            given: what the network sees besides the noisy clips.
            t: noise time of each clip, 0..1.
            noise: Gaussian noise.
            text: token states.
            text_mask: bool `[b, l]`, True at tokens.
            inverse_density: number that each clip's loss is multiplied by; None for 1.
            teacher: parameters of the teacher's network, if the network is distilled.
        """
        denoiser = self.denoiser
        if self.distillation:
            t, x0, noise = self._taught(params, teacher, x0, t, noise, text, text_mask, *given)
        losses = clip_loss(
            lambda x_t, time: denoiser.predict(params, x_t, time, text, text_mask, *given),
            x0,
            t,
            noise,
            schedule=denoiser.schedule,
            prediction=denoiser.prediction,
            weighting=self.weighting,
            min_snr_gamma=self.min_snr_gamma,
            sigmoid_log_snr=self.sigmoid_log_snr,
        )
        return losses if inverse_density is None else losses * inverse_density

    def measure(
        self, params: Any, key: Array, batch: Batch, teacher: Any = None
    ) -> dict[str, Float[Array, ""]]:
        """Returns the loss of held-out clips at each of `held_out_times`, and the mean of these.

        The names are "loss_t=0.1" and so on, and "loss". No caption is dropped.
        """
        noise_key, given_key = jax.random.split(key)
        x0, given = self.denoiser.conditioning.draw(given_key, to_float(batch["video"]))
        noise = jax.random.normal(noise_key, x0.shape)
        text = batch["text"], batch["text_mask"]

        def at(time):
            t = jnp.full(x0.shape[:1], time)
            return self.loss(params, x0, given, t, noise, *text, teacher=teacher).mean()

        # One after the other: compiled once, and in the memory of one.
        losses = jax.lax.map(at, jnp.asarray(self.held_out_times, jnp.float32))
        names = [f"loss_t={time:g}" for time in self.held_out_times]
        return dict(zip(names, losses, strict=True)) | {"loss": losses.mean()}

    def _taught(
        self, params: Any, teacher: Any, x0: Array, t: Array, noise: Array, *prompt_and_given: Array
    ) -> tuple[Array, Array, Array]:
        """Returns the times, clean clips and noise that a student learns instead of the given ones.

        See `stunet.diffusion.distillation.targets`.
        """
        denoiser, plan = self.denoiser, self.distillation

        def denoise(params: Any, guidance_scale: float) -> distillation.Denoise:
            return guided_denoiser(
                functools.partial(denoiser.predict, params),
                *prompt_and_given,
                schedule=denoiser.schedule,
                prediction=denoiser.prediction,
                guidance_scale=guidance_scale,
                threshold_mode=plan.threshold,
            )

        times = plan.times(t)
        x_t = add_noise(x0, noise, denoiser.schedule(times.t))
        taught = distillation.targets(
            *(denoise(teacher, plan.guidance_scale), denoise(params, 1.0)),
            *(x_t, times, denoiser.schedule),
        )
        return times.t, *taught


def drop_text(text: Array, text_mask: Array, keep: Array) -> tuple[Array, Array]:
    """Sets text states `[b, l, d]` and masks `[b, l]` to zero where `keep` `[b]` is False."""
    return text * keep[:, None, None], text_mask & keep[:, None]
