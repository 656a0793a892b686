"""Measures how fast shots are read from a bucket, beside shots on a disk.

The bucket is an emulator on this machine (`tests/stores/servers.py`), which answers without the
delay of a network. So the figures show what the way of reading costs, and not how fast a store is.

    python benchmarks/bucket_reading.py gs
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "tests" / "stores"))

import servers

from stunet.data.shots.layout import Spec, shard_file
from stunet.data.shots.shards import Shards
from stunet.prepare.run import prepare
from stunet.stores import addresses, objects, shelf

THREADS, VIDEOS = 4, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scheme", choices=("gs", "s3"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, servers.running(arguments.scheme) as found:
        os.environ |= found | {"XDG_CACHE_HOME": f"{scratch}/cache"}
        measure(pathlib.Path(scratch), arguments.scheme)


def measure(scratch: pathlib.Path, scheme: str) -> None:
    shots = make_shots(scratch)
    there = f"{scheme}://{servers.BUCKET}/shots"
    for file in shots.rglob("*"):
        if file.is_file():
            objects.put(f"{there}/{file.relative_to(shots).as_posix()}", file)
    size = sum(file.stat().st_size for file in shots.glob("shards/*.array_record"))
    print(f"{VIDEOS} shards, {size / 2**20:.1f} MiB, {THREADS} threads, shots/s:")
    print(f"disk                           {rate(str(shots)):6.0f}")
    print(f"cache, shards fetched          {rate(there):6.0f}")
    print(f"cache, shards there            {rate(there):6.0f}")
    if scheme == "gs":
        os.environ[shelf.LIMIT] = "0"
        print(f"in place                       {rate(there):6.0f}")


def make_shots(scratch: pathlib.Path) -> pathlib.Path:
    """Makes a set with one shard of 4 s of 256x256 noise and slopes for each video."""
    import av

    (scratch / "videos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(VIDEOS):
        with av.open(str(scratch / "videos" / f"{number:03d}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=24)
            stream.height = stream.width = 256
            picture = np.kron(rng.integers(0, 256, (32, 32, 3)), np.ones((16, 16, 1)))
            for shift in range(96):
                view = picture[:256, shift : shift + 256].astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(view), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
    spec = Spec(cut_threshold=0.0, max_seconds=5.0)
    prepare(scratch / "videos", scratch / "shots", spec, progress=False)
    return scratch / "shots"


def rate(path: str) -> float:
    """Returns how many shots are read in a second, in a random order, without decoding them."""
    place = addresses.local(path)
    shards = Shards([shard_file(place, part) for part in range(VIDEOS)])
    order = np.random.default_rng(0).permutation(np.tile(np.arange(VIDEOS), 8)).tolist()
    begin = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda part: shards.read(part, 0), order))
    return len(order) / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
