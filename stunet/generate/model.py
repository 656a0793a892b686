"""`stunet.load`: a trained run as an object that makes clips."""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet import configs
from stunet.generate.text import Run, load_unconditioned, sample_clips
from stunet.progress import sampling_bar
from stunet.train.sampling import make_sampler


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained text-to-video network, with its text encoder and the settings to sample at.

    Attributes:
        run: its config, its averaged weights and the checkpoint that they are of.
    """

    run: Run

    @property
    def fps(self) -> float:
        """Frames per second at which clips play at the speed of those trained on."""
        return configs.frame_rate(self.run.config.data)

    def sample(
        self,
        prompt: str | Sequence[str],
        *,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = True,
        **settings: object,
    ) -> Float[np.ndarray, "t h w c"] | Float[np.ndarray, "b t h w c"]:
        """Makes the clips of `stunet sample text` with the same prompts, seed and settings.

        The first call compiles; later ones with as many clips and the same settings do not.

        Args:
            prompt: a caption, or a list of them.
            seed: of the noise; clip i of a list depends on it, on i and on the settings alone.
            batch_size: clips made at once, which bounds memory; by default all of them.
            progress: whether to show a bar.
            settings: of `configs.Sample` that replace the model's, such as `guidance_scale`.

        Returns:
            In -1..1; of one caption one clip, of a list a batch.

        Raises:
            UserError: a setting or the seed is out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        run = self.run
        if settings:
            sample = dataclasses.replace(run.config.sample, **settings)
            config = dataclasses.replace(run.config, sample=sample)
            run = dataclasses.replace(run, config=config, sample=_sampler(config))
        show = {"on_step": sampling_bar()} if progress else {}
        clips = sample_clips(run, prompts, seed=seed, batch_size=batch_size, **show)
        return clips[0] if isinstance(prompt, str) else clips


def load(workdir: str | os.PathLike, **settings: object) -> Model:
    """See `stunet.load`."""
    return Model(load_unconditioned(pathlib.Path(workdir), **settings))


# Compiled programs are the sampler's: one for each choice of settings.
_sampler = functools.lru_cache(maxsize=8)(make_sampler)
