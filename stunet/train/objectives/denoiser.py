"""Holds the network and what is needed to call it: conditioning, noise schedule, input shapes."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from stunet.data.spec import ClipSpec, TextSpec
from stunet.diffusion import augmentation
from stunet.diffusion.schedules import NoiseSchedule, input_scale
from stunet.nn.stunet import STUNet
from stunet.train.objectives.conditioning import Conditioning
from stunet.train.optim.trainable import Trainable


@dataclasses.dataclass(frozen=True)
class Denoiser:
    """Holds a network and what is needed to call it on noisy clips.

    Attributes:
        network: the Flax module.
        conditioning: what the network sees besides the noisy clip.
        schedule: noise schedule of the clips.
        prediction: what the network predicts, a key of `stunet.diffusion.prediction.PREDICTIONS`.
        clip: shape and rate of the clips.
        text: encoder of the captions, and the shape of its token states.
        trainable: which parameters of the network are trained.
        input_scale: name of the scale of the noisy clip that the network sees, a key of
            `stunet.diffusion.schedules.INPUT_SCALES`.
    """

    network: STUNet
    conditioning: Conditioning
    schedule: NoiseSchedule
    prediction: str
    clip: ClipSpec
    text: TextSpec
    trainable: Trainable
    input_scale: str = "none"

    def network_for(self, frames: int) -> STUNet:
        """Returns the network that clips of `frames` frames pass through.

        A clip of one frame is a picture. It passes through the spatial layers alone, as in the
        pretrained text-to-image network.
        """
        if frames > 1 or self.network.temporal_factors is None:
            return self.network
        return self.network.spatial

    @property
    def network_of_clips(self) -> STUNet:
        """Returns the network that clips of the shape `clip` pass through."""
        return self.network_for(self.clip.frames)

    def clip_shape(self, batch: int) -> tuple[int, ...]:
        """Returns the shape `[b, t, h, w, c]` of a batch of clips from the data."""
        channels = self.conditioning.clips_in_batch * self.clip.channels
        return (batch, *self.clip.shape[:-1], channels)

    def input_shape(self, batch: int) -> tuple[int, ...]:
        """Returns the shape `[b, t, h, w, c']` of the network's input."""
        # An augmentation level that is embedded has no plane among the channels.
        channels = self.conditioning.channels(self.clip.channels) - self.network.level_embedding
        return (batch, *self.clip.shape[:-1], channels)

    def abstract_arguments(self, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Returns shapes and dtypes of the network's arguments for `batch` clips.

        The arguments are the input, the noise time, the text states and their mask. A network that
        embeds the augmentation level also takes this level as an argument.
        """
        text = (batch, *self.text.shape)
        shapes = [self.input_shape(batch), (batch,), text]
        arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
        arguments += [jax.ShapeDtypeStruct(text[:2], jnp.bool_)]
        if self.network.level_embedding:
            arguments += [jax.ShapeDtypeStruct((batch,), jnp.float32)]
        return tuple(arguments)

    def init_params(self, key: Array) -> Any:
        """Returns fresh parameters of the network, each boxed with the names of its axes."""
        # One clip, as small as the network takes: parameters do not depend on its size.
        network = self.network
        side = network.patch_size * 2 ** (len(network.channels) - 1)
        frames = 1
        for factor in network.temporal_factors or ():
            frames *= factor
        shape = (1, frames, side, side, self.input_shape(1)[-1])
        # One token, and the pooled text for networks that take it.
        rest = [jnp.zeros((1, 2, self.text.dim)), jnp.ones((1, 2), bool)]
        rest += [jnp.zeros(1)] if network.level_embedding else []
        # Without rules, flax does not constrain each parameter by its names while it makes it: the
        # shardings of the whole state are given to jit, and they know about extents that do not
        # divide.
        with nn.logical_axis_rules(()):
            return network.init(key, jnp.zeros(shape), jnp.zeros(1), *rest)["params"]

    def predict(
        self,
        params: Any,
        x_t: Float[Array, "b t h w c"],
        time: Float[Array, "b"],
        text: Float[Array, "b l d"] | None,
        text_mask: Array | None,
        *given: Array,
    ) -> Float[Array, "b t h w c"]:
        """Returns the network's prediction for noisy clips.

        Args:
            params: parameters of the network.
            x_t: noisy clips, with alpha^2 + sigma^2 = 1.
            time: noise time of each clip, 0..1.
            text: token states.
            text_mask: bool `[b, l]`, True at tokens.
            given: what the network sees besides the noisy clips (`Conditioning`).
        """
        if self.input_scale != "none":
            scale = input_scale(self.input_scale, self.schedule(time))
            x_t = x_t * scale[:, None, None, None, None]
        inputs, embedded = self.conditioning.network_input(x_t, *given), ()
        if self.network.level_embedding:
            # The level is told as the time at which the clip would be as noisy, not by a plane.
            inputs = inputs[..., :-1]
            embedded = (self.schedule.time(augmentation.log_snr(given[-1])),)
        network = self.network_for(x_t.shape[1])
        output = network.apply({"params": params}, inputs, time, text, text_mask, *embedded)
        # A learned variance comes after the prediction.
        return output[..., : self.clip.channels]
