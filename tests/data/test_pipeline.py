import itertools
import json
import threading

import numpy as np
import pytest

from stunet.data.pipeline import eval_batches, train_batches
from stunet.data.synthetic.moving_digits import MovingDigits
from stunet.errors import UserError
from stunet.nn.text import text_encoder


class Numbers:
    """Clip i holds the number i."""

    def __init__(self, length):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, i):
        return {"video": np.full((1, 1, 1, 1), i, np.int32), "caption": str(i)}


class Broken(Numbers):
    def __getitem__(self, i):
        if i == 7:
            raise UserError("clip 7 is not a video; remove it")
        return super().__getitem__(i)


class Counted(Numbers):
    """Tells when `enough` clips have been read."""

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


def joined(lists):
    return list(itertools.chain.from_iterable(lists))


def shares(batch_size, processes):
    """Rows of each of so many processes; they are dealt out in turns, as some meshes do."""
    return [range(p, batch_size, processes) for p in range(processes)]


def put_together(read, rows_of):
    """Batches of whole rows, from what each process has read of each batch."""
    together = []
    for parts in zip(*read, strict=True):
        placed = [
            pair
            for rows, part in zip(rows_of, parts, strict=True)
            for pair in zip(rows, part, strict=True)
        ]
        together.append([number for _, number in sorted(placed)])
    return together


def global_batches(source, count, batch_size, state=None, processes=1, **options):
    """What so many processes read, put together as the mesh does, and where they end."""
    read, rows_of = [], shares(batch_size, processes)
    for rows in rows_of:
        batches = train_batches(source, batch_size=batch_size, rows=rows, **options)
        if state:
            batches.set_state(state)
        read.append(take(batches, count))
        end = batches.get_state()
        batches.close()
    return put_together(read, rows_of), end


def test_the_global_batch_is_the_same_for_any_number_of_processes():
    options = {"seed": 3, "batch_size": 8}
    alone, end = global_batches(Numbers(50), 20, **options)
    assert alone == take(train_batches(Numbers(50), **options), 20)
    for processes in (2, 4):
        together = global_batches(Numbers(50), 20, processes=processes, **options)
        assert together == (alone, end)


@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 4), (4, 2)])
def test_restored_batches_continue_exactly(before, after):
    options = {"seed": 0, "batch_size": 8}
    whole, end = global_batches(Numbers(30), 12, **options)
    _, state = global_batches(Numbers(30), 5, processes=before, **options)
    state = json.loads(json.dumps(state))
    rest = global_batches(Numbers(30), 7, state=state, processes=after, **options)
    assert rest == (whole[5:], end)


def test_another_batch_size_continues_with_the_same_examples():
    whole, _ = global_batches(Numbers(30), 12, seed=0, batch_size=4)
    rest, _ = global_batches(
        Numbers(30), 4, state={"global_next_index": 12}, processes=2, seed=0, batch_size=6
    )
    assert joined(rest) == joined(whole)[12:36]


def test_an_iterator_can_be_set_back():
    batches = train_batches(Numbers(20), seed=0, batch_size=4)
    state = batches.get_state()
    first = take(batches, 7)
    batches.set_state(state)
    assert take(batches, 7) == first


def test_each_epoch_has_every_clip_once_in_its_own_order():
    epochs = take(train_batches(Numbers(21), seed=0, batch_size=21), 3)
    assert all(sorted(epoch) == list(range(21)) for epoch in epochs)
    other_seed = take(train_batches(Numbers(21), seed=1, batch_size=21), 1)
    assert len({tuple(order) for order in [range(21), *epochs, *other_seed]}) == 5
    # No batch is dropped or shortened where epochs meet.
    small = take(train_batches(Numbers(21), seed=0, batch_size=9), 7)
    assert joined(small) == joined(epochs)


def test_batches_read_ahead_do_not_count():
    source = Counted(100, enough=4 + 8)
    batches = train_batches(source, seed=0, batch_size=4, num_threads=3)
    expected = take(train_batches(Numbers(100), seed=0, batch_size=4, num_threads=0), 2)
    assert take(batches, 1) == expected[:1]
    assert source.enough.wait(timeout=10)
    state = batches.get_state()
    assert state == {"global_next_index": 4}
    batches.set_state(state)
    assert take(batches, 1) == expected[1:]


@pytest.mark.parametrize("num_threads", [0, 4])
def test_a_mistake_in_the_data_surfaces_as_itself(num_threads):
    batches = train_batches(Broken(10), seed=0, batch_size=2, num_threads=num_threads)
    with pytest.raises(UserError, match="clip 7 is not a video"):
        take(batches, 5)
    # The place is kept: asked again, it is the same batch that fails.
    state = batches.get_state()
    with pytest.raises(UserError, match="clip 7 is not a video"):
        next(batches)
    assert batches.get_state() == state


def test_evaluation_reads_the_first_clips_in_order():
    for processes in (1, 2):
        rows_of = shares(6, processes)
        read = [take(eval_batches(Numbers(20), 6, 3, rows=rows), 9) for rows in rows_of]
        batches = put_together(read, rows_of)
        assert batches == np.arange(18).reshape(3, 6).tolist()


def test_batches_are_stacked_arrays_without_captions():
    encode_text = text_encoder("bytes", 24, 16)
    source = MovingDigits("train", 4, 10, 12, encode_text=encode_text)
    batch = next(train_batches(source, seed=0, batch_size=6))
    shapes = {key: (value.shape, value.dtype) for key, value in batch.items()}
    assert shapes == {
        "video": ((6, 4, 10, 12, 1), np.uint8),
        "text": ((6, 24, 16), np.float32),
        "text_mask": ((6, 24), np.bool_),
    }


def test_impossible_requests_say_why():
    with pytest.raises(UserError, match="no clips"):
        train_batches(Numbers(0), seed=0, batch_size=1)
    with pytest.raises(UserError, match=r"need 24 clips.*20"):
        eval_batches(Numbers(20), 8, 3)
