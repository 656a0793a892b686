"""What sampled clips are compared with: the run's own data, or those of a protocol."""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stunet.configs import experiments
from stunet.data.sources import Dataset, Source, make_source, representatives
from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.evaluate import groups
from stunet.prepare.decode import VIDEO_SUFFIXES, decode_clips


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Captions to sample clips for, and real clips.

    Attributes:
      captions: one for each clip.
      reference: real clips, as uint8 `video`, that sets of clips are compared with.
      references: how many of them.
      frames: of a clip that are judged, the first ones.
      metrics: those asked for unless the user says otherwise.
      real: clips that the captions were written for; None: there are none.
      chosen: which of them, for each caption.
    """

    captions: Sequence[str]
    reference: Source
    references: int
    frames: int
    metrics: str
    real: Source | None = None
    chosen: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Sampling by the classes of a data set that the network was not trained on.

    Attributes:
      name: of the data set.
      videos: a folder that holds a folder of videos for each class.
      classes: how many there are.
      clips: how many videos they hold together.
      samples: clips to sample, shared out among the classes as the videos are.
      frames: of a clip that are judged: the first of each video, and of each sample.
      fps: frames per second of the videos.
      prompt: name of a class -> what its clips are sampled for.
      source: where the videos are to be had, in words.
    """

    name: str
    videos: str
    classes: int
    clips: int
    samples: int
    frames: int
    fps: float
    prompt: Callable[[str], str]
    source: str


class FirstFrames:
    """The first clip of each of some videos, in the shape of a run's clips; a source."""

    def __init__(self, videos: Sequence[pathlib.Path], frames: int, fps: float, clip: ClipSpec):
        self._videos = videos
        self._cut = (frames, fps, *clip.frame_shape)

    def __len__(self) -> int:
        return len(self._videos)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        clip = next(decode_clips(self._videos[index], *self._cut), None)
        if clip is None:
            raise UserError(f"{self._videos[index]} is shorter than {self._cut[0]} frames")
        return {"video": clip}


def own(dataset: Dataset, num: int) -> Comparison:
    """With some of the run's held-out clips, whose captions are sampled for, and training clips.

    Args:
      dataset: where the run's clips come from.
      num: clips to sample; captions are taken again where there are fewer.

    Raises:
      UserError: there are no held-out clips.
    """
    held_out, training = (
        representatives(make_source(dataset, split), num, dataset) for split in ("val", "train")
    )
    if not len(held_out):
        raise UserError("the source has no held-out clips to compare with")
    chosen = [i % len(held_out) for i in range(num)]
    written = [held_out[i]["caption"] for i in range(min(num, len(held_out)))]
    return Comparison(
        captions=[written[i] for i in chosen],
        reference=training,
        references=min(num, len(training)),
        frames=dataset.clip.frames,
        metrics=groups.DEFAULT,
        real=held_out,
        chosen=chosen,
    )


def by_protocol(file: pathlib.Path, clip: ClipSpec, num: int | None) -> Comparison:
    """With the videos of a protocol.

    Args:
      file: a Python file with `get_protocol()`, or the name of a protocol that comes with stunet.
      clip: the run's clips, whose size the videos are brought to.
      num: clips to sample, and to compare them with, to try a protocol out; None: as it says, and
        all videos.

    Raises:
      UserError: no such file; videos are missing, or the clips are too short for it.
    """
    protocol = _read(file)
    if clip.frames < protocol.frames:
        raise UserError(
            f"{protocol.name} judges {protocol.frames} frames, and the run makes clips of "
            f"{clip.frames} (data.frames)"
        )
    videos = find_videos(protocol)
    sizes = {name: len(files) for name, files in videos.items()}
    shares = share_out(num or protocol.samples, sizes)
    if num:
        videos = {name: files[: shares[name]] for name, files in videos.items()}
    flat = list(itertools.chain.from_iterable(videos.values()))
    return Comparison(
        captions=[protocol.prompt(name) for name, count in shares.items() for _ in range(count)],
        reference=FirstFrames(flat, protocol.frames, protocol.fps, clip),
        references=len(flat),
        frames=protocol.frames,
        metrics="fvd",
    )


def find_videos(protocol: Protocol) -> dict[str, list[pathlib.Path]]:
    """The files of each class, in the order of their names.

    Raises:
      UserError: the folder is not there, or lacks classes or videos.
    """
    folder = pathlib.Path(protocol.videos)
    remedy = f"put {protocol.source} there"
    if not folder.is_dir():
        raise UserError(f"{protocol.name} needs {folder}, which is not there; {remedy}")
    found = {
        place.name: files
        for place in sorted(folder.iterdir())
        if (files := sorted(f for f in place.glob("*") if f.suffix.lower() in VIDEO_SUFFIXES))
    }
    count = sum(map(len, found.values()))
    if (len(found), count) != (protocol.classes, protocol.clips):
        raise UserError(
            f"{folder} holds {count:,} videos of {len(found)} classes, and {protocol.name} has "
            f"{protocol.clips:,} of {protocol.classes}; {remedy}"
        )
    return found


def share_out(num: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """`num` shared out in proportion to `sizes`: each share is right to less than one, and they add
    up (largest remainders)."""
    total = sum(sizes.values())
    shares = {name: num * size // total for name, size in sizes.items()}
    left = sorted(sizes, key=lambda name: -(num * sizes[name] % total))
    for name in left[: num - sum(shares.values())]:
        shares[name] += 1
    return shares


def _read(file: pathlib.Path) -> Protocol:
    protocol = experiments.call(str(file), "get_protocol")
    if not isinstance(protocol, Protocol):
        raise UserError(f"{file}: get_protocol() must return a Protocol, not {protocol!r}")
    return protocol
