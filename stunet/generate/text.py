"""Text-to-video: clips from prompts, of a trained working directory."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jaxtyping import Float

from stunet import configs
from stunet.data import media
from stunet.data.sources import make_encoder
from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.train.checkpoints import Checkpoints
from stunet.train.sampling import make_sampler
from stunet.train.state import abstract_state, is_upscaling


@dataclasses.dataclass(frozen=True)
class Written:
    """Where a sample's files lie."""

    gif: pathlib.Path
    mp4: pathlib.Path
    xt: pathlib.Path


def text_to_video(
    workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    **sample: object,
) -> tuple[Float[np.ndarray, "n t h w c"], configs.Config]:
    """Samples one clip for each prompt, with the averaged weights of the newest checkpoint.

    Args:
        workdir: of a training run.
        prompts: captions in the manner of those trained on.
        seed: of the noise; clip i depends on it, on i and on the settings alone.
        batch_size: clips sampled at once, which bounds memory, and is one of those settings; by
            default all of them.
        on_step: called with the steps done and their number, over all batches.
        sample: settings of `configs.Sample` that replace the run's own.

    Returns:
        Clips in -1..1, and the run's config with those settings.

    Raises:
        UserError: `workdir` holds no training run or no checkpoint, or a super-resolution network,
            which needs a clip to enlarge.
    """
    # On one device, whatever the run was trained on: a few clips do not split over many.
    config = dataclasses.replace(read_config(workdir), mesh=configs.Mesh(data=1))
    config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, **sample))
    if is_upscaling(config):
        raise UserError(
            f"{workdir} holds a super-resolution network (upscale.factor is "
            f"{config.upscale.factor}), which enlarges clips and makes none from text alone; give "
            "the directory of a base network's run"
        )
    mesh = meshes.make_mesh(config.mesh, devices=jax.devices()[:1])
    with meshes.use(mesh), Checkpoints(workdir) as checkpoints:
        params = checkpoints.restore_ema(abstract_state(config, mesh))
        text, mask = make_encoder(config.text)(list(prompts))
        sampler, size = make_sampler(config), min(batch_size or len(prompts), len(prompts))
        starts, clips = range(0, len(prompts), size), []
        for batch, start in enumerate(starts):
            # The last batch is filled up with its first clips, and so compiled like the others.
            rows = np.resize(np.arange(start, min(start + size, len(prompts))), size)
            steps = sampler(params, text[rows], mask[rows], _seed(seed, batch))
            for done, estimate in enumerate(steps, 1):
                estimate.block_until_ready()
                on_step(batch * config.sample.steps + done, len(starts) * config.sample.steps)
            clips.append(np.asarray(estimate))
    return np.clip(np.concatenate(clips)[: len(prompts)], -1, 1), config


def read_config(workdir: pathlib.Path) -> configs.Config:
    """The config of a training run.

    Raises:
        UserError: `workdir` holds none.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir} holds no training run: there is no config.json in it")
    return configs.read(file)


def _seed(seed: int, batch: int) -> int:
    """Of the noise of a batch: the given one for the first, unrelated ones after it."""
    return seed if batch == 0 else int(np.random.SeedSequence([seed, batch]).generate_state(1)[0])


def write(
    directory: pathlib.Path,
    name: str,
    clips: Float[np.ndarray, "n t h w c"],
    captions: Sequence[str],
    fps: float,
) -> Written:
    """Writes clips as GIF, MP4 and X-T slice under `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    written = Written(
        gif=directory / f"{name}.gif",
        mp4=directory / f"{name}.mp4",
        xt=directory / f"{name}_xt.png",
    )
    media.write_gif(written.gif, clips, fps, captions)
    media.write_mp4(written.mp4, clips, fps, captions)
    media.write_xt(written.xt, clips, captions)
    return written
