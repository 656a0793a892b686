"""Batches are the same for any number of processes and continue exactly after a restart."""

import itertools
import json
import threading

import numpy as np
import pytest

from stunet.data.pipeline import Feed, Stream, TrainBatches, eval_batches
from stunet.data.synthetic.moving_digits import MovingDigits
from stunet.errors import UserError
from stunet.nn.text import text_encoder


class Numbers:
    """A source whose clip i holds the number `first` + i."""

    def __init__(self, length, first=0):
        self.length, self.first = length, first

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return {"video": np.full((1, 1, 1, 1), self.first + i, np.int32), "caption": str(i)}


class Broken(Numbers):
    def __getitem__(self, i):
        if i == 7:
            raise UserError("clip 7 is not a video; remove it")
        return super().__getitem__(i)


class Counted(Numbers):
    """Sets an event when `enough` clips have been read."""

    def __init__(self, length, enough):
        super().__init__(length)
        self.left = threading.Semaphore(enough)
        self.enough = threading.Event()

    def __getitem__(self, i):
        if not self.left.acquire(blocking=False):
            self.enough.set()
        return super().__getitem__(i)


def numbers(batch):
    return batch["video"].ravel().tolist()


def take(batches, count):
    return [numbers(batch) for batch in itertools.islice(batches, count)]


def batches_of(*sources, seed, batch_size, weights=None, rows=None, num_threads=4):
    """Returns the training batches of one source, or of several with weights."""
    weights = weights or [1.0] * len(sources)
    several = zip(itertools.count(), sources, weights, strict=False)
    names = "main", "second", "third"
    streams = [Stream(s, seed + i, w, i, names[i]) for i, s, w in several]
    return TrainBatches([Feed(streams, batch_size, rows)], num_threads)


def flatten(lists):
    return list(itertools.chain.from_iterable(lists))


def rows_by_process(batch_size, processes):
    """Returns the rows of each process. They are dealt out in turns, as some meshes do."""
    return [range(p, batch_size, processes) for p in range(processes)]


def merge(read, rows_of):
    """Merges the rows that each process has read into global batches."""
    batches = []
    for parts in zip(*read, strict=True):
        placed = [
            pair
            for rows, part in zip(rows_of, parts, strict=True)
            for pair in zip(rows, part, strict=True)
        ]
        batches.append([number for _, number in sorted(placed)])
    return batches


def global_batches(*sources, count, batch_size, state=None, processes=1, **options):
    """Returns the global batches that several processes read, and the state after them."""
    read, rows_of = [], rows_by_process(batch_size, processes)
    for rows in rows_of:
        batches = batches_of(*sources, batch_size=batch_size, rows=rows, **options)
        if state:
            batches.set_state(state)
        read.append(take(batches, count))
        end = batches.get_state()
        batches.close()
    return merge(read, rows_of), end


def test_the_global_batch_is_the_same_for_any_number_of_processes():
    options = {"seed": 3, "batch_size": 8}
    alone, end = global_batches(Numbers(50), count=20, **options)
    assert alone == take(batches_of(Numbers(50), **options), 20)
    for processes in (2, 4):
        several = global_batches(Numbers(50), count=20, processes=processes, **options)
        assert several == (alone, end)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 4), (4, 2)])
def test_restored_batches_continue_exactly(before, after):
    options = {"seed": 0, "batch_size": 8}
    whole, end = global_batches(Numbers(30), count=12, **options)
    _, state = global_batches(Numbers(30), count=5, processes=before, **options)
    state = json.loads(json.dumps(state))
    rest = global_batches(Numbers(30), count=7, state=state, processes=after, **options)
    assert rest == (whole[5:], end)


def test_another_batch_size_continues_with_the_same_examples():
    whole, _ = global_batches(Numbers(30), count=12, seed=0, batch_size=4)
    state = {"global_next_index": 12}
    rest, _ = global_batches(Numbers(30), count=4, state=state, processes=2, seed=0, batch_size=6)
    assert flatten(rest) == flatten(whole)[12:36]


def test_an_iterator_can_return_to_an_earlier_state():
    batches = batches_of(Numbers(20), seed=0, batch_size=4)
    state = batches.get_state()
    first = take(batches, 7)
    batches.set_state(state)
    assert take(batches, 7) == first


def test_each_epoch_has_every_clip_once_in_its_own_order():
    epochs = take(batches_of(Numbers(21), seed=0, batch_size=21), 3)
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    other_seed = take(batches_of(Numbers(21), seed=1, batch_size=21), 1)
    assert len({tuple(order) for order in [range(21), *epochs, *other_seed]}) == 5
    # Batches across the end of an epoch are whole.
    small = take(batches_of(Numbers(21), seed=0, batch_size=9), 7)
    assert flatten(small) == flatten(epochs)


MIXTURE = [Numbers(13), Numbers(7, 100), Numbers(50, 1000)]
MIXED = dict(seed=3, weights=[2.0, 1.0, 0.5], batch_size=8)


def test_a_mixture_is_the_same_for_any_number_of_processes_and_continues_exactly():
    whole, end = global_batches(*MIXTURE, count=20, **MIXED)
    assert global_batches(*MIXTURE, count=20, processes=4, **MIXED) == (whole, end)
    for before, after in ((1, 2), (4, 1)):
        _, state = global_batches(*MIXTURE, count=9, processes=before, **MIXED)
        state = json.loads(json.dumps(state))
        rest = global_batches(*MIXTURE, count=11, state=state, processes=after, **MIXED)
        assert rest == (whole[9:], end)


def test_each_source_of_a_mixture_has_its_share_and_its_own_order():
    mixed = flatten(take(batches_of(*MIXTURE, **MIXED), 70))
    for number, share in enumerate([320, 160, 80]):
        source = MIXTURE[number]
        own = [n for n in mixed if source.first <= n < source.first + len(source)]
        assert len(own) == share
        alone = batches_of(source, seed=3 + number, batch_size=1)
        assert own == flatten(take(alone, share))


def test_examples_say_which_source_they_come_from():
    batch = next(batches_of(*MIXTURE, **MIXED))
    thousands = np.searchsorted([0, 100, 1000], batch["video"].ravel(), side="right") - 1
    np.testing.assert_array_equal(batch["source"], thousands)
    alone = TrainBatches([Feed([Stream(MIXTURE[0], seed=3)], 2)])
    assert set(next(alone)) == {"video"}


def buckets(processes=1, process=0, sizes=(4, 12), state=None):
    """Returns batches of two shapes, two of one source for each of a mixture."""
    second, third = Stream(MIXTURE[1], 4, 1.0, name="x"), Stream(MIXTURE[2], 5, 2.0, name="y")
    streams = [[Stream(MIXTURE[0], 3)], [second, third]]
    feeds = [
        Feed(of, size, rows_by_process(size, processes)[process], name, weight)
        for of, size, name, weight in zip(streams, sizes, "ab", (2.0, 1.0), strict=True)
    ]
    batches = TrainBatches(feeds)
    if state:
        batches.set_state(json.loads(json.dumps(state)))
    return batches


def test_each_batch_comes_from_one_bucket_and_buckets_have_their_shares():
    whole = take(buckets(), 30)
    assert [len(batch) for batch in whole].count(4) == 20
    for position, batch in enumerate(whole):
        assert (len(batch) == 4) == (max(batch) < 13), position
    # Each bucket has the batches that it has without the others.
    alone = Feed([Stream(MIXTURE[0], 3)], 4)
    assert [b for b in whole if len(b) == 4] == take(TrainBatches([alone]), 20)


def test_buckets_are_the_same_for_any_number_of_processes_and_continue_exactly():
    whole = take(buckets(), 30)
    parts = [take(buckets(2, process), 30) for process in range(2)]
    for batch, *read in zip(whole, *parts, strict=True):
        assert merge([[r] for r in read], rows_by_process(len(batch), 2)) == [batch]
    for taken in (1, 7, 12):
        batches = buckets()
        take(batches, taken)
        rest = buckets(state=batches.get_state())
        assert take(rest, 30 - taken) == whole[taken:]


def test_other_batch_sizes_continue_with_the_examples_that_no_batch_has_used():
    whole, batches = take(buckets(), 60), buckets()
    take(batches, 10)
    later = take(buckets(sizes=(6, 3), state=batches.get_state()), 30)

    def examples(batches, of_first):
        return flatten(batch for batch in batches if (max(batch) < 13) == of_first)

    for of_first in (True, False):
        rest = examples(whole[10:], of_first)
        found = examples(later, of_first)
        assert found == rest[: len(found)]


def test_a_source_that_has_grown_is_told():
    state = batches_of(Numbers(20), seed=0, batch_size=4).get_state()
    assert batches_of(Numbers(20), seed=0, batch_size=4).set_state(state) == []
    (told,) = batches_of(Numbers(1021), seed=0, batch_size=4).set_state(state)
    assert told.startswith("the source main has 1,021 training clips now, and had 20: they come in")
    # As earlier versions saved it.
    assert batches_of(Numbers(21), seed=0, batch_size=4).set_state({"global_next_index": 4}) == []


def test_batches_read_ahead_do_not_count():
    source = Counted(100, enough=4 + 8)
    batches = batches_of(source, seed=0, batch_size=4, num_threads=3)
    expected = take(batches_of(Numbers(100), seed=0, batch_size=4, num_threads=0), 2)
    assert take(batches, 1) == expected[:1]
    assert source.enough.wait(timeout=10)
    state = batches.get_state()
    assert state == {"global_next_index": 4, "clips_of_main": 100}
    batches.set_state(state)
    assert take(batches, 1) == expected[1:]


@pytest.mark.parametrize("num_threads", [0, 4])
def test_an_error_of_the_source_passes_through_unchanged(num_threads):
    batches = batches_of(Broken(10), seed=0, batch_size=2, num_threads=num_threads)
    with pytest.raises(UserError, match="clip 7 is not a video"):
        take(batches, 5)
    # The position stays, so that the next call reads the same batch.
    state = batches.get_state()
    with pytest.raises(UserError, match="clip 7 is not a video"):
        next(batches)
    assert batches.get_state() == state


def test_evaluation_reads_the_first_clips_in_order():
    for processes in (1, 2):
        rows_of = rows_by_process(6, processes)
        read = [take(eval_batches(Numbers(20), 6, 3, rows=rows), 9) for rows in rows_of]
        batches = merge(read, rows_of)
        assert batches == np.arange(18).reshape(3, 6).tolist()


def test_batches_are_stacked_arrays_without_captions():
    encode_text = text_encoder("bytes", 24, 16)
    source = MovingDigits("train", 4, 10, 12, encode_text=encode_text)
    batch = next(batches_of(source, seed=0, batch_size=6))
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert shapes == {
        "video": ((6, 4, 10, 12, 1), np.uint8),
        "text": ((6, 24, 16), np.float32),
        "text_mask": ((6, 24), np.bool_),
        "source": ((6,), np.int32),
    }


def test_requests_that_the_source_cannot_fill_are_refused():
    with pytest.raises(UserError, match=r"need 24 clips.*20"):
        eval_batches(Numbers(20), 8, 3)
