"""Chooses captions to sample clips for, and real clips to compare with.

Both come from the run's own data, or from a protocol, which describes another data set.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from stunet import paths
from stunet.configs import experiments
from stunet.data.sources import Dataset, Source, make_source, representatives
from stunet.data.spec import ClipSpec
from stunet.errors import UserError
from stunet.evaluate import groups
from stunet.prepare.decode import decode_clips
from stunet.prepare.opening import is_video


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Holds captions to sample clips for, and real clips to compare with.

    Attributes:
        captions: one caption for each clip to be sampled.
        reference: real clips to compare sets of clips with. Each example holds a uint8 `video`.
        num_reference: number of reference clips to use.
        frames: number of frames of each clip to judge, from the first frame on.
        default_metrics: metric groups, separated by commas, to measure if the user chooses none.
        real: real clips that the captions describe; None if there are none.
        real_indices: for each caption, the number of the clip in `real` that it describes.
    """

    captions: Sequence[str]
    reference: Source
    num_reference: int
    frames: int
    default_metrics: str
    real: Source | None = None
    real_indices: Sequence[int] = ()


@dataclasses.dataclass(frozen=True)
class Protocol:
    """Describes an evaluation on the classes of a data set that the network was not trained on.

    Attributes:
        name: name of the data set.
        videos: path of a folder, in which each class has a folder of videos.
        classes: number of classes.
        clips: number of videos in all classes together.
        samples: number of clips to sample. Each class gets a share in proportion to its number of
            videos.
        frames: number of frames to judge of each video and each sample, from the first frame on.
        fps: frames per second of the videos.
        prompt: maps the name of a class to the prompt that its clips are sampled for.
        source: where to get the videos, as a phrase for messages.
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
    """Gives the first frames of each video as a clip, resized to the size of a run's clips."""

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


def from_dataset(dataset: Dataset, num: int) -> Comparison:
    """Chooses captions of the run's held-out clips, and training clips as reference.

    Args:
        dataset: the run's data set.
        num: number of clips to sample. Captions repeat if there are fewer held-out clips.

    Raises:
        UserError: there are no held-out clips.
    """
    held_out, training = (
        representatives(make_source(dataset, split), num, dataset) for split in ("val", "train")
    )
    if not len(held_out):
        raise UserError("the source has no held-out clips to compare with")
    indices = [i % len(held_out) for i in range(num)]
    captions = [held_out[i]["caption"] for i in range(min(num, len(held_out)))]
    return Comparison(
        captions=[captions[i] for i in indices],
        reference=training,
        num_reference=min(num, len(training)),
        frames=dataset.clip.frames,
        default_metrics=groups.DEFAULT,
        real=held_out,
        real_indices=indices,
    )


def from_protocol(file: pathlib.Path, clip: ClipSpec, num: int | None) -> Comparison:
    """Chooses the prompts of a protocol's classes, and the protocol's videos as reference.

    Args:
        file: a Python file with `get_protocol()`, or the name of a protocol that comes with stunet.
        clip: shape of the run's clips. The videos are resized to it.
        num: number of clips to sample and of videos to compare with. A small number tries a
            protocol out. None means the protocol's number of clips, and all videos.

    Raises:
        UserError: the file does not exist, videos are missing, or the run's clips are too short.
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
        num_reference=len(flat),
        frames=protocol.frames,
        default_metrics="fvd",
    )


def find_videos(protocol: Protocol) -> dict[str, list[pathlib.Path]]:
    """Returns the video files of each class, sorted by name.

    Raises:
        UserError: the folder does not exist, or classes or videos are missing from it.
    """
    folder = pathlib.Path(protocol.videos)
    remedy = f"put {protocol.source} there"
    if not folder.is_dir():
        raise UserError(f"{protocol.name} needs {folder}, which is not there; {remedy}")
    found = {
        place.name: files
        for place in sorted(folder.iterdir())
        if place.is_dir() and (files := sorted(filter(is_video, place.iterdir())))
    }
    count = sum(map(len, found.values()))
    if (len(found), count) != (protocol.classes, protocol.clips):
        raise UserError(
            f"{folder} holds {count:,} videos of {len(found)} classes, and {protocol.name} has "
            f"{protocol.clips:,} of {protocol.classes}; {remedy}"
        )
    return found


def share_out(num: int, sizes: Mapping[str, int]) -> dict[str, int]:
    """Divides `num` in proportion to `sizes`, by the method of largest remainders.

    Each share is a whole number and differs from the exact proportion by less than one. All shares
    add up to `num`.
    """
    total = sum(sizes.values())
    shares = {name: num * size // total for name, size in sizes.items()}
    by_remainder = sorted(sizes, key=lambda name: -(num * sizes[name] % total))
    for name in by_remainder[: num - sum(shares.values())]:
        shares[name] += 1
    return shares


def _read(file: pathlib.Path) -> Protocol:
    protocol = experiments.call(str(file), "get_protocol")
    if not isinstance(protocol, Protocol):
        raise UserError(f"{file}: get_protocol() must return a Protocol, not {protocol!r}")
    paths.check(protocol.videos)
    return protocol
