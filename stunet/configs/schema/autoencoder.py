"""Keys of the autoencoder whose latents the network denoises, or that a run trains."""

import dataclasses

from stunet.configs.schema.key import field


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """The autoencoder: one whose latents the network denoises, or one that the run trains.

    Without `autoencoder.path` and `autoencoder.level_features`, the run trains a network that
    denoises pixels. See `stunet.nn.autoencoder` and `stunet.train.objectives.reconstruction`.
    """

    path: str = field(
        "",
        "Directory of an autoencoder as diffusers saves it, such as vae of Stable Diffusion. The "
        "network then denoises its latents instead of pixels: `data.path` holds latents that "
        "`stunet prepare --latents` stored, and sample clips are decoded with the autoencoder. "
        "Empty: the network denoises pixels.",
        path=str,
    )
    factor: int = field(
        8,
        "Rows, or columns, of a frame for each row or column of its latents. It must divide "
        "`data.height` and `data.width`. Without `autoencoder.path`, it has no effect: that of an "
        "autoencoder to train is 2 for each level of `autoencoder.level_features` after the first.",
        least=1,
    )
    channels: int = field(
        4,
        "Channels of the latents. Without `autoencoder.path` and `autoencoder.level_features`, it "
        "has no effect.",
        least=1,
    )
    fingerprint: str = field(
        "",
        "Fingerprint of the autoencoder's config and weights. Latents and autoencoders with "
        "another fingerprint are refused. Empty: training fills it in when it begins.",
    )
    level_features: tuple[int, ...] = field(
        (),
        "Features of each level of an autoencoder to train, finest level first, such as "
        "(32, 64, 64); each level has half the height and width of the level before. The run then "
        "trains this autoencoder instead of a network that denoises, and `stunet export --format "
        "autoencoder` writes it for `autoencoder.path` of other runs. (): the run trains no "
        "autoencoder.",
    )
    layers_per_level: int = field(
        1,
        "Residual blocks of each level of the encoder of an autoencoder to train. The decoder has "
        "one more.",
        least=1,
    )
    groups: int = field(
        32,
        "Number of groups in each group norm of an autoencoder to train. It must divide each of "
        "`autoencoder.level_features`.",
        least=1,
    )
    error: str = field(
        "l1",
        "Error of reconstructed pixels that an autoencoder is trained on. 'l1': absolute. 'l2': "
        "squared.",
        choices=("l1", "l2"),
    )
    kl_weight: float = field(
        1e-6,
        "Weight of the divergence of latents from the unit Gaussian, for an autoencoder to train "
        "(arXiv 2112.10752, section 3.1). Divergence and error are sums over a frame, both divided "
        "by the number of its values. 0: latents are free.",
        least=0,
    )
