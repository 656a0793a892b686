"""Prepares a large collection with one process and with several, and compares every byte.

    python benchmarks/shot_collection.py runs/collection --videos 20000

FFmpeg's sources (fractals, the game of life, cellular automata, gradients, test patterns) are
encoded as small videos of one second, each with a caption. A tenth is damaged: cut off, or with
changed bytes in the middle. Then `stunet prepare` runs with 1 process and with 2. Printed are the
rates, the skipped videos, the memory of the first process early and late, and whether all files are
equal.
"""

import argparse
import hashlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

SIZE, RATE = "64x48", 12
# Sources; `{seed}` makes each video another one.
SOURCES = (
    "life=size={size}:rate={rate}:seed={seed}:ratio=0.3:mold=10",
    "cellauto=size={size}:rate={rate}:seed={seed}:rule=110",
    "gradients=size={size}:rate={rate}:seed={seed}:speed=0.05",
    "mandelbrot=size={size}:rate={rate}:start_scale=0.{seed:06d}1:end_pts=200",
    "testsrc2=size={size}:rate={rate},hue=h={seed}",
)
# Of each ten videos, one is damaged.
DAMAGED = 10


def make(path: Path, seed: int) -> None:
    """Writes a video of one second."""
    source = SOURCES[seed % len(SOURCES)].format(size=SIZE, rate=RATE, seed=seed)
    with (
        av.open(f"{source},format=yuv420p", format="lavfi") as made,
        av.open(str(path), "w") as container,
    ):
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast"})
        stream.width, stream.height = map(int, SIZE.split("x"))
        stream.thread_count = 1
        for count, frame in enumerate(made.decode(video=0)):
            if count == RATE:
                break
            frame.pts = None
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def damage(path: Path, seed: int) -> None:
    """Cuts a video off, or changes bytes in its middle."""
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if seed % (2 * DAMAGED):
        third = len(content) // 3
        content[third : 2 * third] = np.random.default_rng(seed).bytes(third)
    else:
        del content[half:]
    path.write_bytes(content)


def generate(folder: Path, videos: int) -> None:
    """Writes the videos that are missing, and their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{seed // 1000:03d}/{seed:06d}.mp4" for seed in range(videos)]
    for seed, name in enumerate(names):
        path = folder / name
        if not path.is_file():
            path.parent.mkdir(exist_ok=True)
            make(path.with_suffix(".new.mp4"), seed)
            if seed % DAMAGED == 0:
                damage(path.with_suffix(".new.mp4"), seed)
            path.with_suffix(".new.mp4").replace(path)
    lines = [
        json.dumps(
            {
                "path": name,
                "caption": f"{SOURCES[seed % len(SOURCES)].partition('=')[0]} number {seed}",
            }
        )
        for seed, name in enumerate(names)
    ]
    (folder / "videos.jsonl").write_text("\n".join(lines))


def memory(process: int) -> int:
    """Returns the memory of a process in bytes, or 0 if it has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    sizes = [line.split()[1] for line in text.splitlines() if line.startswith("VmRSS")]
    return int(sizes[0]) * 1024 if sizes else 0


def processor_seconds() -> float:
    """Returns the processor time of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def prepare(given: Path, output: Path, workers: int) -> None:
    """Runs `stunet prepare`, and prints how fast it was and the memory that it took."""
    words = ["prepare", str(given), str(output), "--side", "48", "--fps", str(RATE)]
    words += ["--min-seconds", "0.5", "--cut-threshold", "0", "--workers", str(workers)]
    began, before, sizes = time.monotonic(), processor_seconds(), []
    command = [sys.executable, "-m", "stunet", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes.append(memory(process.pid))
            time.sleep(1)
        print(process.stdout.read().decode().splitlines()[0])
    seconds, work = time.monotonic() - began, processor_seconds() - before
    found = [json.loads(path.read_text()) for path in output.glob("shards/*.json")]
    videos = [video for manifest in found for video in manifest["videos"]]
    skipped = sum(bool(video["skipped"]) for video in videos)
    quarter, most = sizes[len(sizes) // 4], max(sizes)
    print(
        f"{workers} processes: {len(videos):,} videos, {skipped:,} of them skipped, in "
        f"{seconds:,.0f} s, {len(videos) / seconds:,.1f} videos/s; {work:,.0f} s of processor "
        f"time, {len(videos) / work:,.1f} videos for each; memory of the first process "
        f"{quarter / 2**20:,.0f} MiB after a quarter of the time, at most {most / 2**20:,.0f} MiB",
        flush=True,
    )


def digests(output: Path) -> dict[str, str]:
    """Returns the digest of every file of a set but the page, which tells times."""
    files = [file for file in sorted(output.rglob("*")) if file.is_file()]
    return {
        file.relative_to(output).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in files
        if file.suffix != ".html"
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("place", type=Path, help="directory for the videos and the sets of shots")
    parser.add_argument("--videos", type=int, default=20_000)
    parsed = parser.parse_args(arguments)
    began = time.monotonic()
    generate(parsed.place / "videos", parsed.videos)
    print(f"{parsed.videos:,} videos are there after {time.monotonic() - began:,.0f} s", flush=True)
    found = []
    for workers in (1, 2):
        output = parsed.place / f"shots{workers}"
        prepare(parsed.place / "videos" / "videos.jsonl", output, workers)
        found.append(digests(output))
    print(f"{len(found[0]):,} files are {'equal' if found[0] == found[1] else 'NOT equal'}")


if __name__ == "__main__":
    main()
