"""The object that `stunet.load` returns: a trained run that makes clips."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from stunet.generate import hub, networks
from stunet.generate.text import Run, load_unconditioned, sample_clips
from stunet.progress import sampling_bar
from stunet.stores import mirror


@dataclasses.dataclass(frozen=True)
class Model:
    """A trained text-to-video network, with its text encoder and its settings for sampling.

    Attributes:
        run: the loaded training run, with its averaged weights.
    """

    run: Run

    @property
    def fps(self) -> float:
        """Frames per second of the clips, the same as in training."""
        return self.run.parts.clip.frame_rate

    def sample(
        self,
        prompt: str | Sequence[str],
        *,
        seed: int = 0,
        batch_size: int | None = None,
        progress: bool = True,
        **settings: object,
    ) -> Float[np.ndarray, "t h w c"] | Float[np.ndarray, "b t h w c"]:
        """Makes the same clips as `stunet sample text` with these prompts, seed and settings.

        The first call compiles. Later calls with the same number of clips and the same settings do
        not.

        Args:
            prompt: a caption, or a list of them.
            seed: seed of the noise. Clip i of a list depends only on the seed, i and the settings.
            batch_size: clips made at once, which bounds memory; None makes all at once.
            progress: True shows a bar.
            settings: settings that replace the run's own, such as `guidance_scale` (see
                `SamplerSettings`).

        Returns:
            Clips in -1..1: one clip for one caption, a batch for a list.

        Raises:
            UserError: a setting or the seed is out of range.
        """
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        run = self.run.with_sampling(dataclasses.replace(self.run.parts.sampling, **settings))
        show = {"on_step": sampling_bar()} if progress else {}
        clips = sample_clips(run, prompts, seed=seed, batch_size=batch_size, **show)
        return clips[0] if isinstance(prompt, str) else clips


def load(workdir: str | os.PathLike, **settings: object) -> Model:
    """Loads a trained run. `stunet.load` calls this function and describes it."""
    place = os.fspath(workdir)
    is_of_hub = place.startswith(hub.SCHEME)
    network = hub.fetch(place) if is_of_hub else networks.find(mirror.fetched(place), "text")
    return Model(load_unconditioned(network, **settings))
