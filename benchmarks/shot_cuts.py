"""Measures how well cuts are found, on real videos with cuts that are known.

    python experiments/fetch_real_clips.py runs/videos
    pip install --no-deps scenedetect==0.7.2 platformdirs
    python benchmarks/shot_cuts.py runs/videos

The cuts of the three videos were found by eye. Then stretches of their 8 scenes are spliced, 200 at
a time: as they are; with each picture shown twice, as in animation; at three times the speed; and
with jumps within a scene. Precision is the share of the cuts found that are cuts, and recall the
share of the cuts that are found, each within one picture. PySceneDetect is measured if it is
installed.
"""

import argparse
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
from PIL import Image

from stunet.prepare.cuts import Cut, with_cuts
from stunet.prepare.looks import seen

# Numbers of the pictures that begin a scene, found by eye.
CUTS = {
    "bikes.mp4": [30, 76, 137, 187, 242],
    "cityCC0.mpg": [116],
    "carphone_pristine.mp4": [],
}
STRETCHES, SIZE = 200, (160, 90)
KINDS = {"as they are": (1, 1), "each picture twice": (2, 1), "three times as fast": (1, 3)}

Detector = Callable[[np.ndarray], set[int]]


def pictures_of(path: Path) -> np.ndarray:
    """Returns all pictures of a video, uint8 [t, 90, 160, 3]."""
    with av.open(str(path)) as container:
        frames = [frame.to_image().resize(SIZE, Image.BOX) for frame in container.decode(video=0)]
    return np.stack([np.asarray(frame) for frame in frames])


def spliced(scenes, rng, twice: int, faster: int, jumps: bool) -> tuple[np.ndarray, set[int]]:
    """Joins random stretches of scenes, and returns the pictures and where the cuts are."""
    pieces, cuts, before = [], [], -1
    for _ in range(STRETCHES):
        choices = [i for i in range(len(scenes)) if jumps or i != before]
        before = int(rng.choice(choices))
        scene = scenes[before][::faster]
        length = int(rng.integers(12, min(len(scene), 60) + 1)) if len(scene) > 12 else len(scene)
        begin = int(rng.integers(0, len(scene) - length + 1))
        pieces.append(np.repeat(scene[begin : begin + length], twice, axis=0))
        cuts.append(sum(map(len, pieces)))
    return np.concatenate(pieces), set(cuts[:-1])


def ours(threshold: float) -> Detector:
    def detect(pictures: np.ndarray) -> set[int]:
        found, count = set(), 0
        for entry in with_cuts(seen((picture, 1) for picture in pictures), threshold):
            found |= {count} if isinstance(entry, Cut) else set()
            count += not isinstance(entry, Cut)
        return found

    return detect


def ffmpeg(threshold: float) -> Detector:
    """Returns FFmpeg's scene change detector, the filter scdet, with its threshold in percent."""

    def detect(pictures: np.ndarray) -> set[int]:
        graph = av.filter.Graph()
        height, width = pictures.shape[1:3]
        nodes = [
            graph.add_buffer(width=width, height=height, format="rgb24", time_base="1/25"),
            graph.add("format", pix_fmts="gray"),
            graph.add("scdet", threshold=str(threshold)),
            graph.add("metadata", mode="select", key="lavfi.scd.time"),
            graph.add("buffersink"),
        ]
        for node, following in itertools.pairwise(nodes):
            node.link_to(following)
        graph.configure()
        found = set()
        for count, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = count
            graph.vpush(frame)
            try:
                found.add(graph.vpull().pts)
            except (av.error.BlockingIOError, av.error.EOFError):
                continue
        return found

    return detect


def scenedetect(name: str) -> Detector | None:
    """Returns a detector of PySceneDetect with its own defaults, or None without the package."""
    try:
        import scenedetect as package
        from scenedetect.common import FrameTimecode
    except ImportError:
        return None

    def detect(pictures: np.ndarray) -> set[int]:
        detector = getattr(package, name)()
        found = set()
        for count, picture in enumerate(pictures):
            time = FrameTimecode(count, 25.0)
            cuts = detector.process_frame(time, np.ascontiguousarray(picture[..., ::-1]))
            found |= {cut.frame_num for cut in cuts}
        return found

    return detect


def scores(found: set[int], cuts: set[int]) -> tuple[float, float]:
    """Returns precision and recall, each within one picture."""
    near = {cut + step for cut in cuts for step in (-1, 0, 1)}
    hit = sum(1 for cut in cuts if found & {cut - 1, cut, cut + 1})
    return sum(1 for f in found if f in near) / max(1, len(found)), hit / max(1, len(cuts))


def sets(videos: dict[str, np.ndarray]) -> Iterator[tuple[str, list[tuple[np.ndarray, set[int]]]]]:
    """Yields names of sets of pictures, and the pictures with their cuts."""
    yield "the three videos", [(video, set(CUTS[name])) for name, video in videos.items()]
    scenes = []
    for name, video in videos.items():
        ends = [0, *CUTS[name], len(video)]
        scenes += [video[a:b] for a, b in itertools.pairwise(ends) if b - a > 20]
    rng = np.random.default_rng(0)
    for kind, (twice, faster) in KINDS.items():
        yield kind, [spliced(scenes, rng, twice, faster, jumps=False)]
    yield "jumps within a scene", [spliced(scenes, rng, 1, 1, jumps=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", type=Path, help="folder of the three videos")
    folder = parser.parse_args().videos
    videos = {name: pictures_of(folder / name) for name in CUTS}
    detectors = {f"`--cut-threshold {t:g}`": ours(t) for t in (4, 6, 10)}
    detectors |= {f"FFmpeg scdet, {t:g}": ffmpeg(t) for t in (5, 10)}
    for name in ("ContentDetector", "AdaptiveDetector"):
        detectors[f"PySceneDetect {name}"] = scenedetect(name)
    tried = {name: detector for name, detector in detectors.items() if detector}
    print(f"| precision / recall | {' | '.join(tried)} |\n|---|{'---:|' * len(tried)}")
    for kind, examples in sets(videos):
        cells = []
        for detector in tried.values():
            found = {(i, f) for i, (pictures, _) in enumerate(examples) for f in detector(pictures)}
            # Numbers of different videos are kept far apart.
            spread = {i * 10**6 + f for i, f in found}
            cuts = {i * 10**6 + cut for i, (_, known) in enumerate(examples) for cut in known}
            cells.append("{:.3f} / {:.3f}".format(*scores(spread, cuts)))
        print(f"| {kind} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
