"""Runs in latents, and runs that train an autoencoder."""

import operator

from stunet.configs.combinations.mistakes import Mistakes, divides
from stunet.configs.schema import Config, fields


def run_in_latents(config: Config) -> Mistakes:
    """Checks that nothing needs pixels where the network denoises latents."""
    if not config.autoencoder.path:
        return
    data = config.data
    needs_pixels = {
        f"data.crop is {data.crop!r}": (
            data.crop != "centre",
            "latents are stored of the centre of each picture: set data.crop to 'centre'",
        ),
        "data.mirror is True": (
            data.mirror,
            "latents of a picture are not those of its mirror image: set data.mirror to False",
        ),
        f"sample.threshold is {config.sample.threshold!r}": (
            config.sample.threshold != "none",
            "latents are not bounded by -1 and 1: set sample.threshold to 'none'",
        ),
        f"distil.threshold is {config.distil.threshold!r}": (
            config.distil.steps > 0 and config.distil.threshold != "none",
            "latents are not bounded by -1 and 1: set distil.threshold to 'none'",
        ),
    }
    for what, (is_so, remedy) in needs_pixels.items():
        if is_so:
            yield f"autoencoder.path is set and {what}; {remedy}"


# Groups and keys that say how clips are denoised, or what a network that denoises is begun with.
_OF_DENOISERS = (
    *("freeze", "model.", "diffusion.", "masks.", "upscale.", "tsr.", "lora.", "distil."),
    *("train.init_from", "train.temporal_rate", "train.spatial_rate", "train.text_rate"),
    *("log.validate_times", "evaluate.", "sample."),
)


# Keys of these that an autoencoder has too: how many clips are shown, and which weights are read.
_OF_BOTH = ("sample.num", "sample.checkpoint")


def trained_autoencoder(config: Config) -> Mistakes:
    """Checks the autoencoder that a run trains, and that nothing else is asked of the run."""
    of = config.autoencoder
    if not of.level_features:
        return
    if of.path:
        yield (
            f"autoencoder.level_features and autoencoder.path, {of.path!r}, are set; a run trains "
            "an autoencoder or a network on the latents of one: keep one of the two"
        )
    if min(of.level_features) < 1:
        yield f"autoencoder.level_features is {of.level_features}; each level has at least one"
    for level, features in enumerate(of.level_features):
        yield from divides(
            features, f"autoencoder.level_features[{level}]", of.groups, "autoencoder.groups"
        )
    for key, field in fields():
        value = operator.attrgetter(key)(config)
        if key.startswith(_OF_DENOISERS) and key not in _OF_BOTH and value != field.default:
            yield (
                f"autoencoder.level_features is set and {key} is {value!r}; the run trains an "
                f"autoencoder, which does not denoise: leave {key} at {field.default!r}"
            )
