"""Measures how fast shots are read from a bucket, beside shots on a disk.

The bucket is an emulator on this machine (`tests/stores/servers.py`), which answers without the
delay of a network. So the rates show what the way of reading costs, and not how fast a store is.
Printed too are the bytes that are fetched for each shot, without those that ArrayRecord itself
reads in gs://.

    python benchmarks/bucket_reading.py gs
"""

import argparse
import os
import pathlib
import shutil
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "stores"))

import servers

from stunet.data.shots.layout import Spec, read_index, shard_file
from stunet.data.shots.shards import Shards
from stunet.prepare.run import prepare
from stunet.stores import addresses, objects, shelf

# More shards than a run keeps open. Several hold the same shots.
THREADS, VIDEOS, SHARDS, READS = 4, 8, 512, 2048


class Counted:
    """Counts the bytes that are fetched from buckets, by stunet's functions for it."""

    def __init__(self):
        self.bytes = 0
        fetch, read_part = objects.fetch, objects.read_part

        def counted_fetch(address: str, file: pathlib.Path) -> None:
            fetch(address, file)
            self.bytes += file.stat().st_size

        def counted_part(address: str, begin: int, size: int) -> bytes:
            found = read_part(address, begin, size)
            self.bytes += len(found)
            return found

        objects.fetch, objects.read_part = counted_fetch, counted_part


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheme", choices=("gs", "s3"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, servers.running(arguments.scheme) as found:
        os.environ |= found | {"XDG_CACHE_HOME": f"{scratch}/cache"}
        measure(pathlib.Path(scratch), arguments.scheme)


def measure(scratch: pathlib.Path, scheme: str) -> None:
    shots = make_shots(scratch)
    there, size, places = f"{scheme}://{servers.BUCKET}/shots", 0, []
    records = read_index(shots).records.tolist()
    for part in range(SHARDS):
        source, file = shard_file(shots, part % VIDEOS), shard_file(shots, part)
        if part >= VIDEOS:
            file.hardlink_to(source)
        objects.put(f"{there}/shards/{file.name}", file)
        size += file.stat().st_size
        places += [(part, number) for number in range(records[part % VIDEOS])]
    order = np.random.default_rng(0).permutation(np.array(places))[:READS].tolist()
    print(
        f"{SHARDS} shards, {len(places):,} shots, {size / 2**20:.0f} MiB, {READS:,} shots read by "
        f"{THREADS} threads"
    )
    counted = Counted()

    def show(name: str, path: str) -> None:
        counted.bytes = 0
        shots_per_second = rate(path, order)
        fetched = counted.bytes / len(order) / 2**10
        print(f"{name:30} {shots_per_second:6.0f} shots/s, {fetched:6.1f} KiB fetched for each")

    show("disk", str(shots))
    show("cache, shards fetched", there)
    show("cache, shards there", there)
    shutil.rmtree(scratch / "cache")
    os.environ[shelf.LIMIT] = str(size / 2 / 2**30)
    show("cache for half of the set", there)


def make_shots(scratch: pathlib.Path) -> pathlib.Path:
    """Makes a set with a shard for each video, of 16 shots of half a second and 256x256 pixels."""
    import av

    (scratch / "videos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        with av.open(str(scratch / "videos" / f"{number:03d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.height = stream.width = 256
            picture = np.kron(rng.integers(0, 256, (32, 32, 3)), np.ones((16, 16, 1)))
            for shift in range(192):
                view = picture[:256, shift : shift + 256].astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    spec = Spec(cut_threshold=0.0, min_seconds=0.5, max_seconds=0.5)
    prepare(scratch / "videos", scratch / "shots", spec, progress=False)
    return scratch / "shots"


def rate(path: str, order: list[list[int]]) -> float:
    """Returns how many shots are read in a second, in the given order, without decoding them."""
    place = addresses.local(path)
    shards = Shards([shard_file(place, part) for part in range(SHARDS)])
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda place: shards.read(*place), order))
    return len(order) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
