"""Sets of clips, measured batch by batch, and not again where that is kept already."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from stunet.data.sources import Source
from stunet.evaluate.cache import MeasurementCache
from stunet.evaluate.comparison import Comparison
from stunet.evaluate.generator import Generator, OnStep
from stunet.evaluate.groups import METRIC_GROUPS, Arrays
from stunet.evaluate.scene import Scene, scene_of

# By metric: what was measured of a set of clips.
Measured = Mapping[str, Arrays]
Measure = Callable[[np.ndarray, Scene, Sequence[int]], Arrays]
OnClips = Callable[[str, int, int], None]


@dataclasses.dataclass(frozen=True)
class Measuring:
    """How sets of clips are measured.

    Attributes:
        generator: of the clips that are sampled.
        against: captions, and real clips.
        borders: first frames of windows.
        cache: store of finished batches.
        batch_size: clips at once.
    """

    generator: Generator
    against: Comparison
    borders: tuple[int, ...]
    cache: MeasurementCache
    batch_size: int

    def generated(self, metrics: Sequence[str], on_step: OnStep) -> tuple[Measured, np.ndarray]:
        """Of a clip sampled for each caption; and the first of these clips, to be shown."""
        captions, against, generator = self.against.captions, self.against, self.generator
        few, found = generator.config.sample.num, []
        batches = list(_batches(len(captions), self.batch_size))
        for number, (rows, filled) in enumerate(batches):
            said, real, scene = [captions[i] for i in filled], None, Scene()
            if against.real is not None:
                scene = self._scene(against.real, [against.chosen[i] for i in rows])
                if generator.given:
                    real = read_clips(against.real, [against.chosen[i] for i in filled])

            def make(number=number, rows=rows, said=said, real=real):
                def count(step, steps):
                    on_step(number * steps + step, len(batches) * steps)

                return generator.make(rows.start, said, real, count)[: len(rows)]

            measures = {name: METRIC_GROUPS[name].measure for name in metrics}
            # Clips to show are kept as figures are, since they may not be sampled again.
            measures["clips"] = lambda clips, *_, first=rows.start: {
                "clips": clips[: max(0, few - first)]
            }
            key = [generator.identity, rows.start, said, real]
            found.append(self._measured("generated", measures, key, scene, make))
        joined = _joined(found)
        return joined, joined.pop("clips")["clips"]

    def real(
        self,
        what: str,
        source: Source,
        count: int,
        metrics: Sequence[str],
        on_clips: OnClips,
        change: Callable[[np.ndarray, int], np.ndarray] = lambda clip, index: clip,
    ) -> Measured:
        """Of the first `count` clips of a source, each changed by `change`."""
        measures = {name: METRIC_GROUPS[name].measure for name in metrics}
        found = []
        for rows, _ in _batches(count, self.batch_size):
            clips = read_clips(source, rows)[:, : self.against.frames]
            clips = np.stack([change(clip, i) for clip, i in zip(clips, rows, strict=True)])
            scene = self._scene(source, rows)
            made = self._measured(what, measures, [clips], scene, lambda clips=clips: clips)
            found.append(made)
            on_clips(what, rows.stop, count)
        return _joined(found)

    def _scene(self, source: Source, indices: Sequence[int]) -> Scene:
        # By captions, or by keyframes.
        told = bool(self.generator.given) or self.generator.config.model.text_features > 0
        return scene_of(source, indices, told=told).cut(self.against.frames)

    def _measured(
        self,
        what: str,
        measures: Mapping[str, Measure],
        key: Sequence[Any],
        scene: Scene,
        make: Callable[[], np.ndarray],
    ) -> dict[str, Arrays]:
        """What all of them measure of a batch, which is made if one of them has not seen it yet.

        Args:
            what: the name of the set.
            measures: by name.
            key: what the clips depend on.
            scene: what is known of them.
            make: makes them.
        """
        frames = self.against.frames
        described = [*key, scene.described(), list(self.borders), frames]
        found = {name: self.cache.read(f"{what}-{name}", *described) for name in measures}
        missing = [name for name, arrays in found.items() if arrays is None]
        if missing:
            clips = make()[:, :frames]
            for name in missing:
                found[name] = measures[name](clips, scene, self.borders)
                self.cache.write(found[name], f"{what}-{name}", *described)
        return found


def shuffled(clip: np.ndarray, index: int) -> np.ndarray:
    """A clip with its frames in a random order, which depends on its number alone."""
    return clip[np.random.default_rng(index).permutation(len(clip))]


def read_clips(source: Source, indices: Sequence[int]) -> np.ndarray:
    """Clips of a source, in -1..1."""
    videos = np.stack([source[int(i)]["video"] for i in indices])
    return videos.astype(np.float32) / 127.5 - 1


def _batches(count: int, size: int) -> Iterator[tuple[range, np.ndarray]]:
    """Rows of each batch, and the same filled up with its first ones to the size of all, so that
    nothing is compiled for the last alone."""
    size = min(size, count)
    for first in range(0, count, size):
        rows = range(first, min(first + size, count))
        yield rows, np.resize(np.array(rows), size)


def _joined(batches: Sequence[Measured]) -> dict[str, Arrays]:
    return {
        metric: {key: np.concatenate([b[metric][key] for b in batches]) for key in arrays}
        for metric, arrays in batches[0].items()
    }
