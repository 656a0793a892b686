"""Samples clips from prompts with a trained run (text-to-video)."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from stunet.data import media
from stunet.data.spec import make_encoder
from stunet.errors import UserError
from stunet.generate.request import check_seed
from stunet.nn.text import TextEncoder
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.progress import OnStep, nothing
from stunet.train.parts import Parts, read_parts
from stunet.train.sampling import SamplerSettings, make_sampler
from stunet.train.saved import trained


@dataclasses.dataclass(frozen=True)
class Written:
    """The paths of the files that show a set of clips."""

    gif: pathlib.Path
    mp4: pathlib.Path
    xt: pathlib.Path

    @classmethod
    def of(cls, directory: pathlib.Path, name: str) -> "Written":
        """Returns the paths of the files called `name` in `directory`. The files need not exist."""
        return cls(*(directory / f"{name}{end}" for end in (".gif", ".mp4", "_xt.png")))


def _keeping() -> Callable[..., Any]:
    """Returns a function `kept(make, *arguments)`, which is `make(*arguments)` and kept."""
    return functools.lru_cache(maxsize=8)(lambda make, *arguments: make(*arguments))


@dataclasses.dataclass(frozen=True)
class Run:
    """A trained run, ready to sample from.

    Attributes:
        parts: parts that the run's config describes, with the settings used for sampling.
        params: averaged (EMA) parameters of a checkpoint; with autoguidance, a
            `stunet.train.sampling.WithWeaker`.
        mesh: the devices, over which clips are split.
        checkpoint: number of updates that `params` have had.
        compiled: function `compiled(make, *arguments)`, which returns `make(*arguments)` and keeps
            the last 8 results. Programs that the results hold are therefore compiled only once,
            also for copies of this run with other settings.
    """

    parts: Parts
    params: Any
    mesh: jax.sharding.Mesh
    checkpoint: int = 0
    compiled: Callable[..., Any] = dataclasses.field(default_factory=_keeping, repr=False)

    def with_sampling(self, sampling: SamplerSettings) -> "Run":
        """Returns the same run, which samples with other settings."""
        parts = dataclasses.replace(self.parts, sampling=sampling)
        return dataclasses.replace(self, parts=parts)


# Loads a run, as `load` does.
Loader = Callable[..., Run]


# Conditioning -> what is wrong with a run whose network needs more than a caption.
_NEEDS_A_CLIP = {
    "upscale": "a super-resolution network (upscale.factor is {given.upscale_factor}), which "
    "enlarges clips and makes none from text alone; give the directory of a base network's run",
    "tsr": "a temporal super-resolution network (tsr.stride is {given.keyframe_stride}), which "
    "fills in the frames between keyframes and makes none from text alone; give the directory of "
    "the keyframes' run, and this one as --tsr",
}


def load(workdir: pathlib.Path, *, devices: int = 1, **sample: object) -> Run:
    """Reads a checkpoint of a training run, which is the newest unless the config's `sample` says.

    Args:
        workdir: working directory of the run, or a weights file of `stunet export`.
        devices: number of devices that clips are split over; each holds all weights.
        sample: settings that replace the run's own, as `read_parts` takes them.

    Raises:
        UserError: `workdir` holds no training run or no checkpoint, or a setting is out of range.
    """
    parts = read_parts(workdir, **sample)
    mesh = meshes.make_mesh(meshes.Layout(data=devices), jax.devices()[:devices])
    with meshes.use(mesh):
        params, step = trained.restore_to_sample(workdir, parts, mesh)
    return Run(parts, params, mesh, step)


def keeping_loader() -> Loader:
    """Returns a function that loads runs as `load` does, and keeps them.

    The weights of each run are read once, and its programs are compiled once for each choice of
    settings. A run that is still being trained keeps the weights of its first use.
    """
    kept = functools.cache(load)

    def again(workdir: pathlib.Path, *, devices: int = 1, **sample: object) -> Run:
        parts = read_parts(workdir, **sample)
        # Which weights are read, also those of a weaker version.
        of_weights = {k: v for k, v in vars(parts.sampling).items() if k.startswith("autoguidance")}
        of_weights["checkpoint"] = parts.checkpoint
        of_weights["autoencoder"] = sample.get("autoencoder", "")
        return kept(workdir, devices=devices, **of_weights).with_sampling(parts.sampling)

    return again


def load_unconditioned(
    workdir: pathlib.Path, *, loader: Loader = load, devices: int = 1, **sample: object
) -> Run:
    """Reads a checkpoint of a run whose network needs nothing but a caption.

    Arguments are those of `load`, and the function that loads the run.

    Raises:
        UserError: as `load`, or the network is a super-resolution network, which needs a clip to
            enlarge or keyframes to fill in between.
    """
    check_unconditioned(workdir, read_parts(workdir, **sample))
    return loader(workdir, devices=devices, **sample)


def makes_clips_of_captions(parts: Parts) -> bool:
    """Tells whether the network of a run needs nothing but a caption."""
    return parts.denoiser.conditioning.name not in _NEEDS_A_CLIP


def check_unconditioned(workdir: pathlib.Path, parts: Parts) -> None:
    """Checks that the network of the run in `workdir` needs nothing but a caption.

    Raises:
        UserError: the network also needs a clip to enlarge, or keyframes to fill in between.
    """
    given = parts.denoiser.conditioning
    if problem := _NEEDS_A_CLIP.get(given.name):
        raise UserError(f"{workdir} holds {problem.format(given=given)}")


def text_to_video(
    workdir: pathlib.Path,
    prompts: Sequence[str],
    *,
    seed: int = 0,
    batch_size: int | None = None,
    on_step: OnStep = nothing,
    **sample: object,
) -> tuple[Float[np.ndarray, "n t h w c"], Parts]:
    """Samples one clip for each prompt, with the averaged weights of the newest checkpoint.

    Args:
        workdir: working directory of the training run.
        prompts: captions like those that the run was trained on.
        seed: seed of the noise. Clip i depends only on the seed, on i and on the settings.
        batch_size: clips sampled at once, which bounds memory; None samples all at once. With the
            ancestral sampler, clips depend on the batch size too.
        on_step: called with the number of steps done and the number of all steps, over all
            batches, and with the estimate of the clips in the batch at work.
        sample: settings of the config's `sample` that replace the run's own.

    Returns:
        Clips in -1..1, and the run's parts with the settings used for sampling.

    Raises:
        UserError: as `load_unconditioned`, or the seed is out of range.
    """
    run = load_unconditioned(workdir, **sample)
    clips = sample_clips(run, prompts, seed=seed, batch_size=batch_size, on_step=on_step)
    return clips, run.parts


def sample_clips(
    run: Run,
    prompts: Sequence[str],
    clean: Any = None,
    *,
    level: float = 0.0,
    start: Float[np.ndarray, "n t h w c"] | None = None,
    t_start: float = 1.0,
    seed: int = 0,
    number: int = 0,
    batch_size: int | None = None,
    encode: TextEncoder | None = None,
    on_step: OnStep = nothing,
) -> Float[np.ndarray, "n t h w c"]:
    """Samples one clip for each prompt.

    With several processes, every process must call this function, and gets all clips.

    Args:
        run: run that `load` has loaded, or whose weights are on the mesh in another way.
        prompts: one prompt for each clip.
        clean: what a conditioned network is given for each clip; see `make_sampler`.
        level: augmentation level of `clean`, 0..1.
        start: clips to begin with, with the noise of `t_start` added; None begins with noise.
        t_start: noise time at which sampling begins; see `make_sampler`.
        seed: see `text_to_video`.
        batch_size: see `text_to_video`.
        on_step: see `text_to_video`.
        encode: encodes the prompts; None for the run's own text encoder.
        number: number of the first clip. The noise of a clip depends on the clip's number, so a
            long list of clips can be sampled in parts.

    Returns:
        Clips in -1..1.

    Raises:
        UserError: the seed is out of range, or the run's autoencoder cannot be read.
    """
    check_seed(seed)
    space = run.parts.space
    space.load()
    if start is not None:
        start = space.from_frames(start)
    count, steps = len(prompts), run.parts.sampling.steps
    ways = meshes.batch_ways(run.mesh)
    size = -(-min(batch_size or count, count) // ways) * ways
    firsts, sampled = range(0, count, size), []
    sample = run.compiled(make_sampler, run.parts.denoiser, run.parts.sampling, t_start)
    text, mask = (encode or make_encoder(run.parts.denoiser.text))(list(prompts))
    with meshes.use(run.mesh, run.parts.layout.context_axis):
        for batch, first in enumerate(firsts):
            # The last batch is filled up with its first clips, so that no other shape is compiled.
            rows = np.resize(np.arange(first, min(first + size, count)), size)
            states, tokens, given, begun = jax.tree.map(
                lambda x, rows=rows: meshes.split_rows(x, rows, run.mesh),
                (text, mask, clean, start),
            )
            estimates = sample(
                run.params, states, tokens, seed, given, level, number + first, begun
            )
            for done, clips in enumerate(estimates, 1):
                clips.block_until_ready()
                on_step(batch * steps + done, len(firsts) * steps, space.estimate(clips))
            sampled.append(hosts.gather(clips))
    return space.to_frames(np.concatenate(sampled)[:count])


def write(
    directory: pathlib.Path,
    name: str,
    clips: Float[np.ndarray, "n t h w c"],
    captions: Sequence[str],
    fps: float,
    columns: int | None = None,
) -> Written:
    """Writes clips as GIF, MP4 and X-T slice under `directory`.

    Args:
        directory: made if it does not exist.
        name: name of the files, without suffix.
        clips: clips in -1..1.
        captions: one caption for each clip.
        fps: frames per second.
        columns: clips in each row of the grid that shows all clips; None chooses a grid of about
            3:2.
    """
    directory.mkdir(parents=True, exist_ok=True)
    written = Written.of(directory, name)
    media.write_gif(written.gif, clips, fps, captions, columns=columns)
    media.write_mp4(written.mp4, clips, fps, captions, columns=columns)
    media.write_xt(written.xt, clips, captions, columns=columns)
    return written
