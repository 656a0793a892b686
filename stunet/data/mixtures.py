"""Describes and opens the sources that a run trains on, and sorts them into buckets by shape."""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from stunet.configs import MAIN, about_source
from stunet.data.draws import seed_of
from stunet.data.pipeline import Stream
from stunet.data.sources import Dataset, make_source
from stunet.data.spec import ClipSpec
from stunet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """One of the sources that a run trains on.

    Attributes:
        name: name of the source, such as "main".
        weight: its share, in proportion to the weights of the others; above 0.
        dataset: where its clips come from.
        clips_per_update: clips in each update on clips of this shape; 0 if nothing is asked for.
    """

    name: str
    weight: float
    dataset: Dataset
    clips_per_update: int = 0


@dataclasses.dataclass(frozen=True)
class Bucket:
    """The sources whose clips have one shape. Every batch comes from one bucket.

    Attributes:
        clip: shape of the clips.
        batch_size: clips in a batch.
        mixture: the sources.
    """

    clip: ClipSpec
    batch_size: int
    mixture: tuple[Ingredient, ...]

    @property
    def name(self) -> str:
        """Returns frames, rows and columns of the clips, such as "16x64x64"."""
        return "x".join(map(str, self.clip.shape[:-1]))

    @property
    def weight(self) -> float:
        """Returns the bucket's share of the batches, in proportion to those of other buckets."""
        return math.fsum(of.weight for of in self.mixture)


def sort_into_buckets(
    mixture: Sequence[Ingredient], largest: ClipSpec, batch_size: int
) -> tuple[Bucket, ...]:
    """Sorts sources by the shape of their clips, in the order in which shapes first appear.

    Batches of smaller clips hold more of them, so that all batches have about as many pixels. The
    number of clips is a multiple of `batch_size`: then it splits over the same devices. A source
    may ask for another number.

    Args:
        mixture: the sources.
        largest: clips that are at least as large as those of every source.
        batch_size: clips in a batch of the largest clips.
    """
    shapes = dict.fromkeys(of.dataset.clip.shape for of in mixture)
    buckets = []
    for shape in shapes:
        members = tuple(of for of in mixture if of.dataset.clip.shape == shape)
        asked = max(of.clips_per_update for of in members)
        clips = asked or batch_size * (math.prod(largest.shape) // math.prod(shape))
        buckets.append(Bucket(members[0].dataset.clip, clips, members))
    return tuple(buckets)


def open_streams(buckets: Sequence[Bucket], seed: int) -> list[list[Stream]]:
    """Opens the training clips of each source in each bucket.

    The main source is read in the same order as in a run on it alone. If there are several sources,
    they are numbered, bucket by bucket.

    Args:
        buckets: the buckets of a run.
        seed: seed of the run.

    Raises:
        UserError: the data of a source do not exist, do not fit the run, or hold no clips.
    """
    is_mixed = sum(len(bucket.mixture) for bucket in buckets) > 1
    numbers = itertools.count()
    streams = []
    for bucket in buckets:
        streams.append([])
        for of in bucket.mixture:
            with about_source(of.name):
                source = make_source(of.dataset, "train")
                if not len(source):
                    raise UserError("the training source has no clips")
            its_seed = seed if of.name == MAIN else seed_of(seed, of.name)
            number = next(numbers) if is_mixed else None
            streams[-1].append(Stream(source, its_seed, of.weight, number, of.name))
    return streams
