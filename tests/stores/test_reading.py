"""Shots in buckets are read as on a disk, in place or through the cache, on emulators."""

import pickle

import numpy as np
import pytest
from array_record.python import array_record_module
from videos import make_video, noise

from stunet.data.shots import layout
from stunet.data.shots.layout import Spec
from stunet.data.shots.shards import Shards
from stunet.data.sources import Dataset, make_source
from stunet.data.spec import ClipSpec, TextSpec
from stunet.errors import UserError
from stunet.files import user_cache
from stunet.prepare.run import prepare
from stunet.stores import addresses, mirror, objects, shelf

pytestmark = pytest.mark.slow
_CLIP = ClipSpec(frames=4, height=16, width=16, channels=3, fps=10.0, stride=1)
_TEXT = TextSpec(encoder="bytes", max_length=8, dim=8, fingerprint="")
_GIB = 2**30


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    """A set of 6 shards on a disk."""
    folder = tmp_path_factory.mktemp("reading")
    for i in range(6):
        make_video(folder / "videos" / f"{i}.mp4", noise(40, i))
    spec = Spec(side=16, fps=10.0, min_seconds=0.5, max_seconds=3.0, cut_threshold=0.0)
    prepare(folder / "videos", folder / "shots", spec, progress=False, workers=1)
    return folder / "shots"


@pytest.fixture
def there(bucket, shots, tmp_path, monkeypatch):
    """The address of the same set in a bucket, of which nothing is on this machine."""
    for file in shots.rglob("*"):
        if file.is_file():
            objects.put(f"{bucket}/shots/{file.relative_to(shots).as_posix()}", file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    mirror.fetched.cache_clear()
    return f"{bucket}/shots"


def clips(path):
    dataset = Dataset("clips", _CLIP, _TEXT, 0, {"path": str(path)})
    return make_source(dataset, "train")


def kept():
    return sorted(user_cache("shards").glob("*.array_record"))


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_clips_are_those_of_a_disk_whatever_the_cache_holds(there, shots, share, monkeypatch):
    total = int(layout.read_index(shots).bytes.sum())
    monkeypatch.setenv(shelf.LIMIT, str(share * total / _GIB))
    expected, found = clips(shots), clips(there)
    assert not kept()  # Nothing is fetched before it is read.
    assert len(found) == len(expected)
    for index in np.random.default_rng(0).permutation(len(expected)).tolist() * 2:
        one, other = expected.draw(index, [index, 1, 2, 3]), found.draw(index, [index, 1, 2, 3])
        assert one.keys() == other.keys()
        for key, value in one.items():
            np.testing.assert_array_equal(value, other[key])
    # One of the six is held out as a whole. What does not fit is read in the bucket.
    assert len(kept()) == (0 if share < 1 else 5)
    assert not [*addresses.local(there).rglob("*.array_record")]


def test_the_shards_that_were_opened_longest_ago_make_room(there, shots, monkeypatch):
    files = [layout.shard_file(addresses.local(there), part) for part in range(6)]
    largest = max(layout.shard_file(shots, part).stat().st_size for part in range(6))
    monkeypatch.setenv(shelf.LIMIT, str(2 * largest / _GIB))
    for part, file in enumerate(files):
        # Sets of one shard each, which fit one by one.
        assert Shards([file]).read(0, 0) == Shards([layout.shard_file(shots, part)]).read(0, 0)
        assert sum(file.stat().st_size for file in kept()) <= 2 * largest
    assert {file.name[:6] for file in kept()} == {"000004", "000005"}


def test_a_file_that_is_compressed_is_read_too(bucket, tmp_path, monkeypatch):
    writer = array_record_module.ArrayRecordWriter(str(tmp_path / "a.array_record"), "group_size:1")
    for record in (b"one", b"two"):
        writer.write(record)
    writer.close()
    objects.put(f"{bucket}/compressed/a.array_record", tmp_path / "a.array_record")
    monkeypatch.setenv(shelf.LIMIT, "0")
    shards = Shards([addresses.local(f"{bucket}/compressed/a.array_record")])
    assert [shards.read(0, number) for number in range(2)] == [b"one", b"two"]


def test_a_shard_that_changes_is_fetched_again(there, shots, monkeypatch):
    files = [layout.shard_file(addresses.local(there), part) for part in range(2)]
    of_disk = Shards([layout.shard_file(shots, part) for part in range(2)])
    before = Shards(files)
    assert before.read(0, 0) == of_disk.read(0, 0)
    assert pickle.loads(pickle.dumps(before)).read(0, 0) == of_disk.read(0, 0)
    objects.put(f"{there}/shards/000000.array_record", layout.shard_file(shots, 1))
    assert Shards(files).read(0, 0) == of_disk.read(1, 0)
    with pytest.raises(UserError, match="is damaged or cut short"):
        Shards(files, [1, 1])
    objects.remove(there, ["shards/000001.array_record"])
    with pytest.raises(UserError, match="is missing"):
        Shards(files)
    monkeypatch.setenv(shelf.LIMIT, "much")
    with pytest.raises(UserError, match="number of GiB"):
        Shards(files[:1])
