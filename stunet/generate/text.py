"""Text-to-video: clips from prompts, of a trained working directory."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from stunet import configs
from stunet.data import media
from stunet.data.sources import make_encoder
from stunet.errors import UserError
from stunet.generate.request import check_seed
from stunet.parallel import mesh as meshes
from stunet.progress import OnStep
from stunet.train.checkpoints import Checkpoints
from stunet.train.conditioning import kind
from stunet.train.sampling import make_sampler
from stunet.train.state import abstract_state


@dataclasses.dataclass(frozen=True)
class Written:
    """Where a sample's files lie."""

    gif: pathlib.Path
    mp4: pathlib.Path
    xt: pathlib.Path

    @classmethod
    def of(cls, directory: pathlib.Path, name: str) -> "Written":
        """Of that name, whether they are there or not."""
        return cls(*(directory / f"{name}{end}" for end in (".gif", ".mp4", "_xt.png")))


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained working directory, to be sampled from.

    Attributes:
        config: of the run, with the settings of `configs.Sample` that replace its own.
        params: the averaged weights of the newest checkpoint.
        mesh: the devices, over which clips are split.
        sample: of `make_sampler`, which compiles when it is first called.
        checkpoint: updates of `params`.
    """

    config: configs.Config
    params: Any
    mesh: jax.sharding.Mesh
    sample: Callable[..., Iterator[jax.Array]]
    checkpoint: int = 0


# Conditioning -> what is wrong with a run whose network needs more than a caption.
_NEEDS_A_CLIP = {
    "upscale": "a super-resolution network (upscale.factor is {config.upscale.factor}), which "
    "enlarges clips and makes none from text alone; give the directory of a base network's run",
    "tsr": "a temporal super-resolution network (tsr.stride is {config.tsr.stride}), which fills "
    "in the frames between keyframes and makes none from text alone; give the directory of the "
    "keyframes' run, and this one as --tsr",
}


def load(workdir: pathlib.Path, *, devices: int = 1, **sample: object) -> Run:
    """Reads the newest checkpoint of a training run.

    Args:
        workdir: of the run.
        devices: that clips are to be split over; each holds all weights.
        sample: settings of `configs.Sample` that replace the run's own.

    Raises:
        UserError: `workdir` holds no training run or no checkpoint, or a setting is out of range.
    """
    config = load_config(workdir, **sample)
    mesh = meshes.make_mesh(configs.Mesh(data=devices), jax.devices()[:devices])
    with meshes.use(mesh), Checkpoints(workdir) as checkpoints:
        params = checkpoints.restore_averaged(abstract_state(config, mesh))
        step = checkpoints.latest()
    return Run(config, params, mesh, make_sampler(config), step)


def load_config(workdir: pathlib.Path, **sample: object) -> configs.Config:
    """The config of `load`'s run.

    Raises:
        UserError: `workdir` holds no training run, or a setting is out of range.
    """
    file = workdir / "config.json"
    if not file.is_file():
        raise UserError(f"{workdir} holds no training run: there is no config.json in it")
    # On one device, whatever the run was trained on: a few clips do not split over many.
    config = dataclasses.replace(configs.read(file), mesh=configs.Mesh(data=1))
    config = dataclasses.replace(config, sample=dataclasses.replace(config.sample, **sample))
    return configs.resolve(dataclasses.asdict(config))


def load_unconditioned(workdir: pathlib.Path, *, devices: int = 1, **sample: object) -> Run:
    """`load`, of a run that needs nothing but a caption.

    Raises:
        UserError: as `load`, or it is a super-resolution network's, which needs a clip to enlarge
            or keyframes to fill in between.
    """
    check_unconditioned(workdir, load_config(workdir, **sample))
    return load(workdir, devices=devices, **sample)


def check_unconditioned(workdir: pathlib.Path, config: configs.Config) -> None:
    """Raises: UserError, if the network of the run in `workdir` needs more than a caption."""
    if problem := _NEEDS_A_CLIP.get(kind(config)):
        raise UserError(f"{workdir} holds {problem.format(config=config)}")


def text_to_video(
    workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = lambda done, total: None,
    **sample: object,
) -> tuple[Float[np.ndarray, "n t h w c"], configs.Config]:
    """Samples one clip for each prompt, with the averaged weights of the newest checkpoint.

    Args:
        workdir: of a training run.
        prompts: captions in the manner of those trained on.
        seed: of the noise; clip i depends on it, on i and on the settings alone.
        batch_size: clips sampled at once, which bounds memory; by default all of them. Of those
            settings only if the sampler is ancestral.
        on_step: called with the steps done and their number, over all batches.
        sample: settings of `configs.Sample` that replace the run's own.

    Returns:
        Clips in -1..1, and the run's config with those settings.

    Raises:
        UserError: as `load_unconditioned`, or the seed is out of range.
    """
    run = load_unconditioned(workdir, **sample)
    clips = sample_clips(run, prompts, seed=seed, batch_size=batch_size, on_step=on_step)
    return clips, run.config


def sample_clips(
    run: Run,
    prompts: Sequence[str],
    clean: Any = None,
    *,
    level: float = 0.0,
    start: Float[np.ndarray, "n t h w c"] | None = None,
    seed: int = 0,
    number: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = lambda done, total: None,
) -> Float[np.ndarray, "n t h w c"]:
    """Samples one clip for each prompt.

    Args:
        run: that has been loaded.
        prompts: one for each clip.
        clean: what a conditioned network is given (`make_sampler`), for each clip.
        level: at which that is augmented, 0..1.
        start: clips that `run.sample` begins with, if it does not begin with noise.
        number: of the first clip, which has the noise of that clip among many.
        seed, batch_size, on_step: see `text_to_video`.

    Returns:
        Clips in -1..1.

    Raises:
        UserError: the seed is out of range.
    """
    check_seed(seed)
    count, steps = len(prompts), run.config.sample.steps
    devices = run.mesh.size
    size = -(-min(batch_size or count, count) // devices) * devices
    firsts, sampled = range(0, count, size), []
    text, mask = make_encoder(run.config.text)(list(prompts))
    split = meshes.batch_sharding(run.mesh)
    with meshes.use(run.mesh):
        for batch, first in enumerate(firsts):
            # The last batch is filled up with its first clips, and so compiled like the others.
            rows = np.resize(np.arange(first, min(first + size, count)), size)
            states, tokens, given, begun = jax.tree.map(
                lambda x, rows=rows: jax.device_put(x[rows], split), (text, mask, clean, start)
            )
            estimates = run.sample(
                run.params, states, tokens, seed, given, level, number + first, begun
            )
            for done, clips in enumerate(estimates, 1):
                clips.block_until_ready()
                on_step(batch * steps + done, len(firsts) * steps)
            sampled.append(np.asarray(clips))
    return np.clip(np.concatenate(sampled)[:count], -1, 1)


def write(
    directory: pathlib.Path,
    name: str,
    clips: Float[np.ndarray, "n t h w c"],
    captions: Sequence[str],
    fps: float,
    columns: int | None = None,
) -> Written:
    """Writes clips as GIF, MP4 and X-T slice under `directory`; so many clips in a row, by default
    as many as make the sheet about 3:2."""
    directory.mkdir(parents=True, exist_ok=True)
    written = Written.of(directory, name)
    media.write_gif(written.gif, clips, fps, captions, columns=columns)
    media.write_mp4(written.mp4, clips, fps, captions, columns=columns)
    media.write_xt(written.xt, clips, captions, columns=columns)
    return written
