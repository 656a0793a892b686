"""Describes and opens the sources that a run trains on, of which there may be several."""

import dataclasses
from collections.abc import Sequence

from stunet.configs import MAIN, about_source
from stunet.data.draws import seed_of
from stunet.data.pipeline import Stream
from stunet.data.sources import Dataset, make_source
from stunet.errors import UserError


@dataclasses.dataclass(frozen=True)
class Ingredient:
    """One of the sources that a run trains on.

    Attributes:
        name: name of the source, such as "main".
        weight: its share of the training clips, in proportion to the weights of the others; above
            0.
        dataset: where its clips come from.
    """

    name: str
    weight: float
    dataset: Dataset


def open_streams(mixture: Sequence[Ingredient], seed: int) -> list[Stream]:
    """Opens the training clips of each source.

    The main source is read in the same order as in a run on it alone.

    Args:
        mixture: the sources.
        seed: seed of the run.

    Raises:
        UserError: the data of a source do not exist, do not fit the run, or hold no clips.
    """
    streams = []
    for number, of in enumerate(mixture):
        with about_source(of.name):
            source = make_source(of.dataset, "train")
            if not len(source):
                raise UserError("the training source has no clips")
        its_seed = seed if of.name == MAIN else seed_of(seed, of.name)
        streams.append(Stream(source, its_seed, of.weight, number if len(mixture) > 1 else None))
    return streams
