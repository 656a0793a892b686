import threading

import pytest

from stunet.errors import UserError
from stunet.stores import addresses, mirror, objects
from stunet.stores.lease import held

pytestmark = pytest.mark.slow


def test_a_directory_comes_back_from_the_bucket(bucket):
    copy = addresses.local(f"{bucket}/there/and/back")
    (copy / "a").mkdir(parents=True)
    (copy / "a" / "x.txt").write_text("1")
    (copy / "y.txt").write_text("2")
    (copy / ".unfinished").write_text("3")
    assert mirror.push(copy) == 2
    assert mirror.push(copy) == 0
    assert set(objects.listing(f"{bucket}/there/and/back")) == {"a/x.txt", "y.txt"}
    # Another machine has no copy yet.
    for file in (copy / "a" / "x.txt", copy / "y.txt", copy / ".bucket.json"):
        file.unlink()
    (copy / "stale.txt").write_text("left over")
    mirror.pull(copy)
    assert (copy / "a" / "x.txt").read_text() == "1"
    assert (copy / "y.txt").read_text() == "2"
    assert not (copy / "stale.txt").exists()
    # What is removed or changed here is removed or changed there.
    (copy / "y.txt").unlink()
    (copy / "a" / "x.txt").write_text("new")
    assert mirror.push(copy) == 1
    assert set(objects.listing(f"{bucket}/there/and/back")) == {"a/x.txt"}
    assert objects.read(f"{bucket}/there/and/back/a/x.txt")[0] == b"new"


def test_a_new_directory_is_there_whole_or_not_at_all(bucket):
    path = addresses.local(f"{bucket}/new")

    def fail() -> None:
        with mirror.new_directory(path) as there:
            there.mkdir(parents=True)
            (there / "config.json").write_text("{}")
            objects.put(f"{bucket}/new/checkpoints/0", there / "config.json")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not objects.listing(f"{bucket}/new")
    with mirror.new_directory(path) as there:
        assert not there.exists()
        there.mkdir()
        (there / "config.json").write_text("{}")
    assert set(objects.listing(f"{bucket}/new")) == {"config.json"}
    with pytest.raises(UserError, match="exists already"), mirror.new_directory(path):
        pass


def test_one_of_several_writers_replaces_an_object(bucket):
    address = f"{bucket}/one"
    first = objects.replace(address, b"0", "")
    assert first
    assert objects.replace(address, b"x", "") == ""
    won, barrier = [], threading.Barrier(8)

    def write(i):
        barrier.wait()
        # Equal contents would have equal tags in s3://.
        won.append(objects.replace(address, b"of %d" % i, first))

    threads = [threading.Thread(target=write, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(map(bool, won)) == 1
    assert objects.read(address)[1] in won


def test_the_second_holder_is_refused_while_the_first_renews(bucket):
    where, told = f"{bucket}/leased", []
    with held(where, "here", "refused", told.append, seconds=2):
        second = held(where, "elsewhere", "refused", told.append, seconds=2)
        with pytest.raises(UserError, match="refused"), second:
            pass
        assert "waiting 2 s" in told[0]
    with held(where, "elsewhere", "refused", told.append, seconds=2):
        assert len(told) == 1


def test_a_lease_that_is_not_renewed_ends(bucket):
    where = f"{bucket}/abandoned"
    objects.replace(f"{where}/.lease.json", b'{"machine": "gone", "holder": "x", "count": 3}', "")
    told = []
    with held(where, "here", "refused", told.append, seconds=1) as lease:
        assert told
        assert not lease.lost.is_set()
        # Another machine takes it over: the first one learns of it.
        _, tag = objects.read(f"{where}/.lease.json")
        objects.replace(f"{where}/.lease.json", b'{"machine": "other", "holder": "y"}', tag)
        assert lease.lost.wait(5)
        with pytest.raises(UserError, match="has taken over"):
            lease.check(where)
    assert objects.read(f"{where}/.lease.json") is not None


def test_a_missing_bucket_is_told(bucket):
    scheme = bucket.partition(":")[0]
    with pytest.raises(UserError, match="nowhere"):
        mirror.pull(addresses.local(f"{scheme}://nowhere/run"))
