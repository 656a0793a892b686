"""Keys of what the network sees beside noisy clips."""

import dataclasses

from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Masks:
    """The share of training clips that get each kind of mask (`stunet.diffusion.masks`).

    By default all shares are 0, and the network sees the noisy clip alone. Otherwise the shares
    sum to 1. The network then sees the noisy clip, a given part of the clean clip, and a mask of
    this part.
    """

    text: float = field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given nothing except the "
        "caption.",
        least=0,
        most=1,
    )
    image: float = field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given the first frame.",
        least=0,
        most=1,
    )
    inpaint: float = field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given everything outside "
        "a random rectangle.",
        least=0,
        most=1,
    )
    outpaint: float = field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given a random rectangle.",
        least=0,
        most=1,
    )
    cinemagraph: float = field(
        0.0,
        "Share of training clips, from 0 to 1, for which the network is given the first frame and "
        "everything outside a random rectangle. Outside the rectangle, every frame of the "
        "training clip is replaced by the first frame.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Upscale:
    """Spatial super-resolution: the network sees a low-resolution clip too.

    See `stunet.diffusion.upscaling`.
    """

    factor: int = field(
        1,
        "Factor by which the network enlarges the height and the width of a low-resolution clip "
        "that it sees. It must divide `data.height` and `data.width`. 1: no super-resolution.",
        least=1,
    )
    max_augmentation: float = field(
        1.0,
        "Largest augmentation level in training, the amount of noise that is added to the "
        "low-resolution clip. Levels are drawn from 0 to this value. 0: no noise. 1: up to pure "
        "noise.",
        least=0,
        most=1,
    )


@dataclasses.dataclass(frozen=True)
class Tsr:
    """Temporal super-resolution: the network sees keyframes (`stunet.diffusion.keyframes`)."""

    stride: int = field(
        1,
        "Number of frames from one given keyframe to the next. The first and the last frame of a "
        "clip are keyframes, so `data.frames` - 1 must be a multiple of this stride. 1: no "
        "keyframes are given.",
        least=1,
    )
    max_augmentation: float = field(
        1.0,
        "Largest augmentation level in training, the amount of noise that is added to the given "
        "keyframes. Levels are drawn from 0 to this value. 0: no noise. 1: up to pure noise.",
        least=0,
        most=1,
    )
