"""From a source of examples to the batches that one process feeds to its devices.

A batch is a dict of stacked NumPy arrays: `video` uint8 [b, t, h, w, c], `text` float32 [b, l, d],
`text_mask` bool [b, l], and whatever other arrays the source's examples have. What is not an array,
such as the caption, stays behind.

Each process reads the rows of the one global batch that its devices hold, so that the global batch
is the same, row by row, for any processes and any mesh. (grain's own ElasticIterator deals the
examples out in turns, which permutes the rows when the number of processes changes.)
"""

from collections.abc import Iterator, Sequence
from typing import Any

import grain
import numpy as np

from stunet.errors import UserError

Batch = dict[str, np.ndarray]


class TrainBatches:
    """An endless iterator over shuffled batches that knows its place; see `train_batches`."""

    def __init__(
        self,
        examples: grain.MapDataset,
        batch_size: int,
        rows: Sequence[int] | None,
        num_threads: int,
    ):
        self._examples = examples
        self._batch_size = batch_size
        self._rows = rows
        self._num_threads = num_threads
        self._position = 0
        self._batches = None

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> Batch:
        if self._batches is None:
            self._batches = _read(
                self._examples[self._position :],
                self._batch_size,
                self._rows,
                self._num_threads,
            )
        try:
            batch = next(self._batches)
        except BaseException:
            # The reader has lost the batch that failed; asked again, a new one begins with it.
            self.close()
            raise
        self._position += self._batch_size
        return batch

    def get_state(self) -> dict[str, int]:
        """Where the next batch begins, for JSON; batches read ahead do not count.

        It is the same on every process, and fits any number of processes and any batch size.
        """
        return {"global_next_index": self._position}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from where `get_state` was called, here or in another run of the same source."""
        self.close()
        self._position = int(state["global_next_index"])

    def close(self) -> None:
        """Stops reading ahead. The next batch, if one is asked for, starts it again."""
        if self._batches is not None:
            self._batches.close()
            self._batches = None


def train_batches(
    source: grain.sources.RandomAccessDataSource,
    *,
    seed: int,
    batch_size: int,
    rows: Sequence[int] | None = None,
    num_threads: int = 4,
) -> TrainBatches:
    """Shuffled batches without end; every epoch has its own order and each clip exactly once.

    Args:
      source: the examples, by index; read from several threads at once.
      seed: of the order, 0 to 2**32-1.
      batch_size: clips in the global batch.
      rows: which of each batch's to read, ascending; None reads all.
      num_threads: each reads one batch ahead, and that many wait in memory; 0 reads when asked.

    Raises:
      UserError: a source without clips. While iterating: whatever the source raises, unchanged.
    """
    if not len(source):
        raise UserError("the training source has no clips")
    # All randomness hangs on the position in this endless sequence, never on a worker: transforms
    # that draw belong after `repeat`, as `random_map`.
    examples = grain.MapDataset.source(source).seed(seed).shuffle().repeat().map(_only_arrays)
    return TrainBatches(examples, batch_size, rows, num_threads)


def eval_batches(
    source: grain.sources.RandomAccessDataSource,
    batch_size: int,
    num_batches: int,
    *,
    rows: Sequence[int] | None = None,
    num_threads: int = 4,
) -> Iterator[Batch]:
    """The source's first `num_batches` batches in order: the same clips every time.

    The arguments and errors are those of `train_batches`.

    Raises:
      UserError: also when the source has fewer than `batch_size * num_batches` clips.
    """
    clips = batch_size * num_batches
    if clips > len(source):
        raise UserError(
            f"{num_batches} evaluation batches of {batch_size} clips need {clips} clips, but the"
            f" source has {len(source)}"
        )
    examples = grain.MapDataset.source(source).map(_only_arrays)[:clips]
    return iter(_read(examples, batch_size, rows, num_threads))


class _Rows(grain.MapDataset):
    """Of every `batch_size` examples those at `rows`."""

    def __init__(self, examples: grain.MapDataset, batch_size: int, rows: Sequence[int]):
        super().__init__(examples)
        self._examples = examples
        self._batch_size = batch_size
        self._rows = rows

    def __len__(self) -> int:
        return len(self._examples) // self._batch_size * len(self._rows)

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return self.slice(index)
        batch, row = divmod(index, len(self._rows))
        return self._examples[batch * self._batch_size + self._rows[row]]


def _read(
    examples: grain.MapDataset, batch_size: int, rows: Sequence[int] | None, num_threads: int
) -> grain.DatasetIterator:
    """Iterates over rows of each batch, read ahead by threads."""
    rows = range(batch_size) if rows is None else rows
    mine = _Rows(examples, batch_size, rows).batch(len(rows), drop_remainder=True)
    read_ahead = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads)
    return iter(mine.to_iter_dataset(read_ahead))


def _only_arrays(example: dict[str, Any]) -> Batch:
    return {key: value for key, value in example.items() if isinstance(value, np.ndarray)}
