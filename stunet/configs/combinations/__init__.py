"""Checks that values of several keys fit together, for example that one divides another.

Each check is a generator that takes the config and yields a sentence for each mistake. The sentence
says what is wrong and what would be right. To add a check, write a generator in the file of its
topic and add it to `_CHECKS`.
"""

from collections.abc import Callable

from stunet.configs.combinations import data, denoising, latents, mixtures, network, training
from stunet.configs.combinations.data import about_source, check_data, check_data_path
from stunet.configs.combinations.mistakes import Mistakes
from stunet.configs.schema import Config
from stunet.errors import UserError

__all__ = ["about_source", "check_combinations", "check_data", "check_data_path"]

# The order matters: later checks rely on `levels`, that each list has an entry for each level.
_CHECKS: tuple[Callable[[Config], Mistakes], ...] = (
    latents.trained_autoencoder,
    network.levels,
    network.family,
    network.pooled_text,
    network.attention,
    network.level_embedding,
    network.frozen_weights,
    data.frames,
    network.resolution,
    network.features,
    data.text_encoder,
    data.source,
    latents.run_in_latents,
    training.validation,
    training.profile,
    denoising.noise_schedule,
    denoising.zero_terminal_snr,
    denoising.sampling,
    denoising.distillation,
    training.mesh,
    training.batch,
    training.learning_rate,
    training.schedule_free,
    training.checkpoints,
    training.evaluation,
    denoising.conditioning,
    mixtures.mix,
)


def check_combinations(config: Config) -> None:
    """Checks the keys whose values must fit together.

    Raises:
        UserError: values do not fit together. The sentence names the first mistake and what
            would be right.
    """
    for check in _CHECKS:
        for mistake in check(config):
            raise UserError(mistake)
