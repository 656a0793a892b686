"""Measures sets of clips batch by batch, and reuses batches that the cache holds already."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from stunet import progress
from stunet.data.sources import Source
from stunet.evaluate.cache import MeasurementCache
from stunet.evaluate.comparison import Comparison
from stunet.evaluate.generator import Generator, OnStep
from stunet.evaluate.groups import Arrays, find
from stunet.evaluate.scene import Scene, scene_of

# Arrays of a set of clips, by the name of the metric group.
Measurements = Mapping[str, Arrays]
Measure = Callable[[np.ndarray, Scene, Sequence[int]], Arrays]
# Called with the name of a set, the number of clips measured so far, and the number of all.
OnClips = Callable[[str, int, int], None]


class CaptionBatch(NamedTuple):
    """A batch of captions to generate clips for.

    The last batch has fewer rows than the others. Its captions and real clips are repeated up to
    the size of a full batch.

    Attributes:
        rows: numbers of the clips to generate.
        captions: a caption for each clip.
        real: real clips that the generator gets to see parts of; None if it sees none.
        scene: what is known about the clips in `rows`.
    """

    rows: range
    captions: list[str]
    real: np.ndarray | None
    scene: Scene


@dataclasses.dataclass(frozen=True)
class Evaluator:
    """Measures generated and real clips in the same way.

    Attributes:
        generator: makes the clips to be judged.
        comparison: captions to generate clips for, and real clips to compare with.
        borders: first frame of each window except the first window. A window is a stretch of frames
            that a network makes at a time.
        cache: store of the measurements of each batch.
        batch_size: clips in each batch.
    """

    generator: Generator
    comparison: Comparison
    borders: tuple[int, ...]
    cache: MeasurementCache
    batch_size: int

    def measure_generated(
        self, groups: Sequence[str], on_step: OnStep
    ) -> tuple[Measurements, np.ndarray]:
        """Generates and measures one clip for each caption.

        Args:
            groups: names of groups of metrics.
            on_step: called with the number of finished sampling steps and the number of all steps.

        Returns:
            The measurements, and the first clips to show (the config's `sample.num` clips).
        """
        num_shown, measured = self.generator.parts.preview_clips, []
        num_batches = len(list(_batches(len(self.comparison.captions), self.batch_size)))
        for number, batch in enumerate(self.caption_batches()):

            def generate(number=number, batch=batch):
                def count_steps(step, steps, clips):
                    on_step(number * steps + step, num_batches * steps)

                return self.generate(batch, count_steps)

            first, measures = batch.rows.start, {name: find(name).measure for name in groups}
            # Clips to show are stored like measurements, since a stored batch is not sampled again.
            measures["clips"] = lambda clips, *_, first=first: {
                "clips": clips[: max(0, num_shown - first)]
            }
            key = [self.generator.identity, first, batch.captions, batch.real]
            measured.append(self._measure_batch("generated", measures, key, batch.scene, generate))
        joined = join(measured)
        return joined, joined.pop("clips")["clips"]

    def caption_batches(self) -> Iterator[CaptionBatch]:
        """Yields the captions to generate clips for, with what is known about their clips."""
        comparison = self.comparison
        for rows, padded_rows in _batches(len(comparison.captions), self.batch_size):
            captions, real, scene = [comparison.captions[i] for i in padded_rows], None, Scene()
            if comparison.real is not None:
                indices = [comparison.real_indices[i] for i in padded_rows]
                scene = self._scene(comparison.real, indices[: len(rows)])
                if self.generator.given:
                    real = read_clips(comparison.real, indices)
            yield CaptionBatch(rows, captions, real, scene)

    def generate(self, batch: CaptionBatch, on_step: progress.OnStep) -> np.ndarray:
        """Generates a clip in -1..1 for each row of a batch of captions."""
        clips = self.generator.make(batch.rows.start, batch.captions, batch.real, on_step)
        return clips[: len(batch.rows)]

    def measure_source(
        self,
        name: str,
        source: Source,
        count: int,
        groups: Sequence[str],
        on_clips: OnClips,
        transform: Callable[[np.ndarray, int], np.ndarray] = lambda clip, index: clip,
    ) -> Measurements:
        """Measures the first `count` clips of a source.

        Args:
            name: name of the set of clips.
            source: source of the clips.
            count: number of clips.
            groups: names of groups of metrics.
            on_clips: called with the name, the clips measured so far, and `count`.
            transform: maps a clip and its number to the clip that is measured.
        """
        measures = {group: find(group).measure for group in groups}
        measured = []
        for rows, _ in _batches(count, self.batch_size):
            clips = read_clips(source, rows)[:, : self.comparison.frames]
            clips = np.stack([transform(clip, i) for clip, i in zip(clips, rows, strict=True)])
            scene = self._scene(source, rows)
            batch = self._measure_batch(name, measures, [clips], scene, lambda clips=clips: clips)
            measured.append(batch)
            on_clips(name, rows.stop, count)
        return join(measured)

    def _scene(self, source: Source, indices: Sequence[int]) -> Scene:
        # What may give the network the direction of motion.
        given = dict(
            captions=self.generator.parts.denoiser.network.text_features > 0,
            keyframes=bool(self.generator.given),
        )
        return scene_of(source, indices, **given).cut(self.comparison.frames)

    def _measure_batch(
        self,
        set_name: str,
        measures: Mapping[str, Measure],
        key: Sequence[Any],
        scene: Scene,
        make_clips: Callable[[], np.ndarray],
    ) -> dict[str, Arrays]:
        """Returns one batch's measurements. Makes the clips only if a measurement is not cached.

        Args:
            set_name: name of the set of clips.
            measures: functions that measure clips, by name.
            key: JSON values and arrays that determine the clips.
            scene: what is known about the clips.
            make_clips: returns the clips.
        """
        frames = self.comparison.frames
        description = [*key, scene.as_json(), list(self.borders), frames]
        measured = {name: self.cache.read(f"{set_name}-{name}", *description) for name in measures}
        missing = [name for name, arrays in measured.items() if arrays is None]
        if missing:
            clips = make_clips()[:, :frames]
            for name in missing:
                measured[name] = measures[name](clips, scene, self.borders)
                self.cache.write(measured[name], f"{set_name}-{name}", *description)
        return measured


def shuffle_frames(clip: np.ndarray, index: int) -> np.ndarray:
    """Returns a clip with its frames in a random order that depends on the clip's number alone."""
    return clip[np.random.default_rng(index).permutation(len(clip))]


def read_clips(source: Source, indices: Sequence[int]) -> np.ndarray:
    """Reads clips of a source, in -1..1."""
    videos = np.stack([source[int(i)]["video"] for i in indices])
    return videos.astype(np.float32) / 127.5 - 1


def _batches(count: int, size: int) -> Iterator[tuple[range, np.ndarray]]:
    """Yields the rows of each batch, and the same rows repeated up to the size of a full batch.

    With repeated rows the last batch has the same shape, so that no other shape is compiled.
    """
    size = min(size, count)
    for first in range(0, count, size):
        rows = range(first, min(first + size, count))
        yield rows, np.resize(np.array(rows), size)


def join(batches: Sequence[Measurements]) -> dict[str, Arrays]:
    """Concatenates the arrays of all batches."""
    return {
        group: {name: np.concatenate([b[group][name] for b in batches]) for name in arrays}
        for group, arrays in batches[0].items()
    }
