"""Shows what a network does while it trains, for a person to look at."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np
from jaxtyping import Array

from stunet.data import media
from stunet.data.sources import Dataset, make_source, representatives
from stunet.parallel import hosts
from stunet.parallel import mesh as meshes
from stunet.train.measured.metrics import Metrics
from stunet.train.measured.trackers import history
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.objectives.objective import to_float
from stunet.train.objectives.spaces import Space
from stunet.train.sampling import SamplerSettings, make_sampler


class Shown(NamedTuple):
    """Says how clips to show are computed.

    Attributes:
        inputs: a tree of arrays, whose first axis counts the clips.
        compute: maps (params, inputs) to clips `[n, t, h, w, c]`.
        captions: a caption for each clip; None for none.
    """

    inputs: Any
    compute: Callable[[Any, Any], Array]
    captions: Sequence[str] | None


class Preview(Protocol):
    """Makes the pictures that a run shows while it trains."""

    def begin(self, examples: Sequence[dict[str, Any]]) -> Shown:
        """Prepares to show something of each of some held-out examples.

        Raises:
            UserError: something that this needs cannot be read.
        """

    def to_frames(self, clips: np.ndarray) -> np.ndarray:
        """Returns the frames, -1..1, of clips that `Shown.compute` made."""


@dataclasses.dataclass(frozen=True)
class Samples:
    """Shows clips that are sampled with the captions of held-out clips.

    A spatial super-resolution network enlarges held-out clips that were first shrunk. A temporal
    super-resolution network fills in the frames between the keyframes of held-out clips.

    Attributes:
        denoiser: the network.
        space: turns its clips into frames.
        settings: how clips are sampled. Autoguidance is left out.
        seed: seed of the noise, the same after each update.
    """

    denoiser: Denoiser
    space: Space
    settings: SamplerSettings
    seed: int

    def begin(self, examples: Sequence[dict[str, Any]]) -> Shown:
        self.space.load()
        text, mask = (np.stack([e[k] for e in examples]) for k in ("text", "text_mask"))
        # A network without text saw no captions, and its samples show none.
        has_text = self.denoiser.network.text_features
        captions = [e["caption"] for e in examples] if has_text else None
        # The weights of a weaker version are not here.
        settings = dataclasses.replace(self.settings, autoguidance_scale=1.0)
        sample, given = make_sampler(self.denoiser, settings), None
        if clean := self.denoiser.conditioning.clean:
            given = clean(to_float(np.stack([e["video"] for e in examples])))

        def compute(params: Any, inputs: Any) -> Array:
            text, mask, given = inputs
            *_, clips = sample(params, text, mask, self.seed, given)
            return clips

        return Shown((text, mask, given), compute, captions)

    def to_frames(self, clips: np.ndarray) -> np.ndarray:
        return self.space.to_frames(clips)


def make_preview(
    preview: Preview, dataset: Dataset, workdir: pathlib.Path, mesh: jax.sharding.Mesh, num: int
) -> Callable[[Any, int, Metrics], None]:
    """Returns `show(params, step, metrics)`, which writes pictures into `workdir/samples/`.

    Args:
        preview: what is shown.
        dataset: where held-out clips come from.
        workdir: working directory of the run.
        mesh: the devices.
        num: number of clips to show, but not more than there are held-out clips.

    Raises:
        UserError: the data, or what the preview needs, cannot be read.
    """
    source = representatives(make_source(dataset, "val"), num, dataset)
    examples = [source[i] for i in range(min(num, len(source)))]
    shown = preview.begin(examples)
    # Filled up, so that they split over the mesh: otherwise every chip would compute all of them.
    ways = meshes.batch_ways(mesh)
    rows = np.resize(np.arange(len(examples)), -(-len(examples) // ways) * ways)
    first = jax.jit(lambda clips: clips[: len(examples)])

    def show(params: Any, step: int, metrics: Metrics) -> None:
        inputs = jax.tree.map(lambda x: meshes.split_rows(x, rows, mesh), shown.inputs)
        clips = hosts.gather(first(shown.compute(params, inputs)))
        if hosts.is_first():
            stem = history.stem(workdir, step)
            stem.parent.mkdir(exist_ok=True)
            frames = preview.to_frames(clips)
            media.write_gif(f"{stem}.gif", frames, dataset.clip.frame_rate, shown.captions)
            media.write_xt(f"{stem}_xt.png", frames, shown.captions)
            for name, end in history.PICTURES.items():
                metrics.picture(step, name, f"{stem}{end}")

    return show
