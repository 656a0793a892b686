"""Says what the state, the step and the loop need of a network and of what it learns.

`stunet.train.objectives.denoising` trains a network to denoise clips, and
`stunet.train.objectives.reconstruction` trains an autoencoder.
"""

from collections.abc import Mapping
from typing import Any, Protocol, Self

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

from stunet.data.spec import ClipSpec
from stunet.train.optim.trainable import Trainable

Batch = dict[str, Array]


class Model(Protocol):
    """A network to train, and what is needed to call it.

    Attributes:
        clip: shape and rate of the clips that the network sees.
        trainable: which parameters of the network are trained.
        network_of_clips: the Flax module that these clips pass through.
    """

    clip: ClipSpec
    trainable: Trainable

    @property
    def network_of_clips(self) -> nn.Module: ...

    def clip_shape(self, batch: int) -> tuple[int, ...]:
        """Returns the shape `[b, t, h, w, c]` of a batch of clips from the data."""

    def abstract_arguments(self, batch: int) -> tuple[jax.ShapeDtypeStruct, ...]:
        """Returns shapes and dtypes of the network's arguments for `batch` clips."""

    def init_params(self, key: Array) -> Any:
        """Returns fresh parameters of the network, each boxed with the names of its axes."""


class Objective(Protocol):
    """Defines what a network learns: draws what is random in an update, and computes the loss.

    Attributes:
        model: the network.
        more_passes: forward passes of the network that an update has beside the trained one.
    """

    @property
    def model(self) -> Model: ...

    @property
    def more_passes(self) -> int: ...

    def with_clip(self, clip: ClipSpec) -> Self:
        """Returns the same objective for clips of another shape."""

    def draw(self, key: Array, batch: Batch) -> tuple[Any, ...]:
        """Draws everything that is random in one update.

        Args:
            key: random key of the update.
            batch: `video` uint8 `[b, t, h, w, c]`, or float32 for latents, `text` `[b, l, d]` and
                `text_mask` `[b, l]`.

        Returns:
            The arguments of `loss` after `params`. Their first axis is the batch.
        """

    def loss(self, params: Any, *inputs: Any, teacher: Any = None) -> Float[Array, "b"]:
        """Returns the loss of each clip.

        Args:
            params: parameters of the network.
            inputs: what `draw` returns.
            teacher: parameters of the teacher's network, if the network is distilled.
        """

    def measure(
        self, params: Any, key: Array, batch: Batch, teacher: Any = None
    ) -> Mapping[str, Float[Array, ""]]:
        """Returns means over held-out clips by name, of which one is "loss".

        They depend on the key alone, so those after different updates can be compared.

        Args:
            params: parameters of the network.
            key: random key, the same after each update.
            batch: see `draw`.
            teacher: see `loss`.
        """


def to_float(video: UInt8[Array, "b t h w c"] | Float[Array, "b t h w c"]) -> Array:
    """Maps pixels 0..255 to -1..1. Returns latents, which are floats, unchanged."""
    if jnp.issubdtype(video.dtype, jnp.floating):
        return video
    return video.astype(jnp.float32) / 127.5 - 1.0
