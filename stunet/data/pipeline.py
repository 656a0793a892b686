"""Makes batches from a source of examples, for one process to feed to its devices.

A batch is a dict of stacked NumPy arrays: `video` uint8 [b, t, h, w, c], `text` float32 [b, l, d]
for l tokens and d features, `text_mask` bool [b, l], and any other arrays in the source's examples.
Values that are not arrays, such as the caption, are dropped.

Each process reads the rows of the global batch that its devices hold. The global batch is therefore
the same, row by row, for any number of processes and any mesh. (grain's own ElasticIterator deals
examples out in turns, which permutes the rows when the number of processes changes.)
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from stunet.data.draws import draw, random_words
from stunet.data.turns import Turns
from stunet.errors import UserError

Batch = dict[str, np.ndarray]

# Keys in the saved state: the position of one of several feeds, and the length of a source.
_INDEX, _CLIPS = "next_index_{}", "clips_of_{}"


@dataclasses.dataclass(frozen=True)
class Stream:
    """One of the sources of a run, from which training draws examples without end.

    Attributes:
        source: the examples, by index. Several threads read it at once. Examples are drawn with
            `stunet.data.draws.draw`.
        seed: seed of the order and of the random words, 0 to 2**32-1.
        weight: weight of the source among those in the same batches.
        number: number of the source in the run, which each example then holds as `source`; None
            leaves it out.
        name: name of the source, in the saved position and in messages.
    """

    source: grain.sources.RandomAccessDataSource
    seed: int
    weight: float = 1.0
    number: int | None = None
    name: str = "main"

    def examples(self) -> grain.MapDataset:
        """Returns the endless examples. Every epoch has an order of its own."""
        order = grain.MapDataset.range(len(self.source)).seed(self.seed).shuffle().repeat()
        examples = order.map_with_index(_Draw(self.source, self.seed)).map(_only_arrays)
        if self.number is None:
            return examples
        number = {"source": np.array(self.number, np.int32)}
        return examples.map(lambda example: example | number)


@dataclasses.dataclass(frozen=True)
class Feed:
    """Sources of examples of one shape, which are mixed in the same batches.

    Attributes:
        streams: the sources, at least one. Each has at least one example.
        batch_size: clips in the global batch.
        rows: which rows of each global batch this process reads, as ascending numbers from 0; None
            reads all rows.
        name: name of the feed in the saved position.
        weight: weight of the feed's batches among those of all feeds.
    """

    streams: Sequence[Stream]
    batch_size: int
    rows: Sequence[int] | None = None
    name: str = ""
    weight: float = 1.0

    def batches(self, first: int) -> grain.MapDataset:
        """Returns the endless batches.

        Args:
            first: position of the example that is row 0 of batch 0. It may be negative if the first
                batches are never read.
        """
        examples = [stream.examples() for stream in self.streams]
        turns = Turns([stream.weight for stream in self.streams])
        mixed = _Mixed(examples, turns) if len(examples) > 1 else examples[0]
        return _in_batches(mixed, self.batch_size, self.rows, first)


class TrainBatches:
    """Iterates endlessly over shuffled batches from a position that can be saved and restored.

    Each batch comes from one feed, and feeds take turns (`stunet.data.turns`). Examples of a source
    come in the same order as without the other sources. Each epoch of a source has an order of its
    own and contains each example exactly once. While iterating, errors of a source pass through
    unchanged.

    Args:
        feeds: the feeds, at least one.
        num_threads: number of threads that read ahead. At most `num_threads` batches wait in
            memory. 0 reads each batch when it is needed.
    """

    def __init__(self, feeds: Sequence[Feed], num_threads: int = 4):
        self._feeds, self._num_threads = feeds, num_threads
        self._turns = Turns([feed.weight for feed in feeds])
        # Number of batches that the caller has taken, and of examples of each feed.
        self._taken, self._positions = 0, [0] * len(feeds)
        self._batches = None

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = self._read()
        try:
            batch = next(self._batches)
        except BaseException:
            # The reader cannot return to the batch that failed. A new reader begins with it.
            self.close()
            raise
        feed, _ = self._turns.at(self._taken)
        self._positions[feed] += self._feeds[feed].batch_size
        self._taken += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """Returns the position of the next batch as a JSON value.

        Only batches that the caller has taken count, not batches that were read ahead.

        The state is the same on every process. It can be restored with any number of processes and
        any batch sizes.
        """
        if len(self._feeds) == 1:
            return {"global_next_index": self._positions[0]} | self._clips()
        positions = {
            _INDEX.format(feed.name): position
            for feed, position in zip(self._feeds, self._positions, strict=True)
        }
        return {"next_batch": self._taken} | positions | self._clips()

    def _clips(self) -> dict[str, int]:
        """Returns the length of each source, which its order depends on."""
        streams = (stream for feed in self._feeds for stream in feed.streams)
        return {_CLIPS.format(stream.name): len(stream.source) for stream in streams}

    def set_state(self, state: dict[str, int]) -> list[str]:
        """Continues at a position that `get_state` returned, in this or another process.

        Returns:
            A sentence for each source that has another number of clips than it had then.
        """
        self.close()
        if len(self._feeds) == 1:
            self._taken, self._positions = 0, [int(state["global_next_index"])]
        else:
            self._taken = int(state["next_batch"])
            self._positions = [int(state[_INDEX.format(feed.name)]) for feed in self._feeds]
        # Positions that earlier versions saved do not hold the lengths of sources.
        streams = [stream for feed in self._feeds for stream in feed.streams]
        lengths = [(of, state.get(_CLIPS.format(of.name), len(of.source))) for of in streams]
        return [
            f"the source {of.name} has {len(of.source):,} training clips now, and had {before:,}: "
            "they come in another order from here on"
            for of, before in lengths
            if before != len(of.source)
        ]

    def close(self) -> None:
        """Stops reading ahead. A later call of `next` starts to read ahead again."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None

    def _read(self) -> grain.DatasetIterator:
        before = self._turns.counts(self._taken)
        # Where batch sizes have changed, the next batch of a feed still has its next examples.
        batches = [
            feed.batches(position - count * feed.batch_size)
            for feed, position, count in zip(self._feeds, self._positions, before, strict=True)
        ]
        return _read_ahead(_Mixed(batches, self._turns)[self._taken :], self._num_threads)


def eval_batches(
    source: grain.sources.RandomAccessDataSource,
    batch_size: int,
    num_batches: int,
    *,
    rows: Sequence[int] | None = None,
    num_threads: int = 4,
) -> Iterator[Batch]:
    """Iterates over the first `num_batches` batches of the source in order.

    The clips are the same every time. While iterating, errors of the source pass through unchanged.

    Args:
        source: the examples, by index. Several threads read it at once.
        batch_size: clips in the global batch.
        num_batches: number of batches.
        rows: as in `Feed`.
        num_threads: as for `TrainBatches`.

    Raises:
        UserError: the source has fewer than `batch_size * num_batches` clips.
    """
    clips = batch_size * num_batches
    if clips > len(source):
        raise UserError(
            f"{num_batches} evaluation batches of {batch_size} clips need {clips} clips, but the"
            f" source has {len(source)}"
        )
    examples = grain.MapDataset.source(source).map(_only_arrays)[:clips]
    return iter(_read_ahead(_in_batches(examples, batch_size, rows), num_threads))


@dataclasses.dataclass(frozen=True)
class _Draw(grain.transforms.MapWithIndex):
    """Reads the example that the order of a run has at a position.

    All randomness depends on the position in the endless order, never on a worker.
    """

    source: Any
    seed: int

    def map_with_index(self, index: int, element: int) -> dict[str, Any]:
        return draw(self.source, element, random_words(self.seed, index))


class _Mixed(grain.MapDataset):
    """Takes the elements of several endless data sets in turns."""

    def __init__(self, parents: Sequence[grain.MapDataset], turns: Turns):
        super().__init__(parents)
        self._members, self._turns = parents, turns

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        member, place = self._turns.at(index)
        return self._members[member][place]


class _Rows(grain.MapDataset):
    """Splits the examples into batches of `batch_size` and keeps the given rows of each batch."""

    def __init__(
        self, examples: grain.MapDataset, batch_size: int, rows: Sequence[int], first: int
    ):
        super().__init__(examples)
        self._examples, self._first = examples, first
        self._batch_size, self._rows = batch_size, rows

    def __len__(self) -> int:
        examples = min(sys.maxsize, len(self._examples) - self._first)
        return examples // self._batch_size * len(self._rows)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._examples[self._first + batch * self._batch_size + self._rows[row]]


def _in_batches(
    examples: grain.MapDataset, batch_size: int, rows: Sequence[int] | None, first: int = 0
) -> grain.MapDataset:
    """Returns batches of the given rows, beginning with the example at position `first`."""
    rows = range(batch_size) if rows is None else rows
    return _Rows(examples, batch_size, rows, first).batch(len(rows), drop_remainder=True)


def _read_ahead(batches: grain.MapDataset, num_threads: int) -> grain.DatasetIterator:
    """Iterates over batches, and reads ahead in threads."""
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    return iter(batches.to_iter_dataset(options))


def _only_arrays(example: dict[str, Any]) -> Batch:
    return {key: value for key, value in example.items() if isinstance(value, np.ndarray)}
