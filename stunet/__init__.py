"""Trainer for Space-Time U-Nets: video diffusion over the whole clip in a single pass."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stunet.generate.model import Model

__version__ = "0.1.0"


def load(workdir: str | os.PathLike, **settings: object) -> "Model":
    """Loads a trained run to make clips with, as in `stunet.load(DIR).sample("a 9 moving left")`.

    The weights are the averaged (EMA) weights of the run's newest checkpoint, unless the setting
    `checkpoint` names another one. They are placed on the first device, and compared with the
    digests that were saved with them.

    Args:
        workdir: working directory of a run whose network needs only a caption, a weights file of
            `stunet export`, a directory of several networks, such as that of a sweep, or a model on
            the Hugging Face hub, such as "hf://OWNER/NAME" or "hf://OWNER/NAME@REVISION".
        settings: settings of the config's `sample`, such as `steps=20` or `checkpoint="best"`, that
            replace the run's own. For a run on latents, also `autoencoder="DIR"`, if its
            autoencoder is not where the run says.

    Returns:
        A `Model`. Its `sample` takes a caption and returns a clip, float32 `[t, h, w, c]` in -1..1;
        for a list of captions it returns clips `[b, t, h, w, c]`.

    Raises:
        UserError: `workdir` holds no such run or no checkpoint, the checkpoint is damaged, the run
            needs more than a caption, a setting is unknown or out of range, or the hub has no such
            model.
    """
    # Here, so that `import stunet` takes no time.
    from stunet.generate.model import load

    return load(workdir, **settings)
