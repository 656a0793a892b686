"""Keys of the clips, and what they say together."""

import dataclasses
import json
from typing import Any

from stunet import extensions
from stunet.configs.schema.key import field


class Mix(dict[str, dict[str, Any]]):
    """Maps names of further sources to the keys of `data` in which they differ from `data`.

    Unlike other dicts, it can be hashed, as a config must be. It must not be changed.
    """

    def __hash__(self) -> int:
        return hash(json.dumps(self, sort_keys=True))


@dataclasses.dataclass(frozen=True)
class Data:
    """The training clips: their source, their size and their speed (`stunet.data`)."""

    source: str = field(
        "moving_digits",
        "Source of clips. 'moving_digits': handwritten digits that move, drawn on demand. "
        "'motions': simple objects whose motion is known exactly, drawn on demand. 'clips': "
        "records on disk, at `data.path`.",
        choices=("moving_digits", "motions", "clips"),
        own=extensions.Source,
    )
    weight: float = field(
        1.0,
        "Share of the training clips that come from this source, in proportion to the weights of "
        "the sources in `data.mix`. 0: no training clip comes from it, and it is only validated "
        "on. Without `data.mix`, it has no effect.",
        least=0,
    )
    mix: Mix = field(  # noqa: RUF009 (a `Mix` is never changed)
        Mix(),
        "Further sources of training clips, by names of your choice. Each has the keys of the main "
        "source, which the other keys of this group describe, with some of them changed, such as "
        "{'digits': {'weight': 0.5, 'source': 'moving_digits'}}. On the command line: "
        "--config.data.mix.digits.weight=0.5. Held-out clips and sample clips come from the main "
        "source. Clips of other shapes than the main source's go into batches of their own, and "
        "weights then count batches. No source has larger clips than the main one.",
    )
    clips_per_update: int = field(
        0,
        "For a source in `data.mix` whose clips have another shape than those of the main source: "
        "number of clips in each update on clips of that shape, over all devices. 0: a multiple of "
        "`train.batch_size` with about as many pixels. The main source leaves it 0, and has "
        "`train.batch_size`.",
        least=0,
    )
    path: str = field(
        "",
        "For the source 'clips': directory of shots that `stunet prepare` wrote, or directory of "
        "a prepared data set of TensorFlow Datasets. For the source 'moving_digits': file of "
        "handwriting that experiments/fetch_handwriting.py wrote; empty: the 1,797 images of 8x8 "
        "pixels that scikit-learn ships.",
        path=str,
    )
    frames: int = field(
        16,
        "Number of frames in each clip. 1: pictures, which pass through the spatial layers of the "
        "network alone.",
        least=1,
    )
    stride: int = field(
        1,
        "A clip takes every stride-th frame of its source. 1: every frame. Above 1: keyframes, as "
        "the first network of a cascade learns them.",
        least=1,
    )
    cut_from: int = field(
        0,
        "Above 0: each source clip has this many frames and is cut into as many training clips as "
        "fit; each begins with the last frame of the one before it. 0: one training clip is taken "
        "from each source clip.",
        least=0,
    )
    height: int = field(16, "Height of each clip, in pixels.", least=1)
    width: int = field(16, "Width of each clip, in pixels.", least=1)
    channels: int = field(3, "Colour channels of each clip. 1: grey. 3: RGB.", choices=(1, 3))
    fps: float = field(
        8.0,
        "Frames per second of the source. Clips are written to play at `data.fps` / `data.stride`. "
        "Shots that `stunet prepare` wrote are read at this rate, which may be lower than theirs.",
        above=0,
    )
    crop: str = field(
        "centre",
        "For shots: which part of a picture is trained on, if the picture has another shape than "
        "the clip. 'centre': always its centre. 'random': any part, another one in each epoch.",
        choices=("centre", "random"),
    )
    max_crop: float = field(
        1.0,
        "For shots: largest share of a picture, from 0 to 1, that may be cut off to give it the "
        "shape of the clip. Shots that would lose more are left out. With clips of several shapes, "
        "this sends each shot to the shapes that it fits. 1: no shot is left out.",
        least=0,
        most=1,
    )
    mirror: bool = field(
        False,
        "For shots: True mirrors half of the training clips from left to right. Captions stay as "
        "they are, so leave it False if they say 'left' or 'right', or if pictures hold writing.",
    )
    num_digits: int = field(
        1, "For the source 'moving_digits': number of digits in each clip.", least=1
    )
    digit_size: int = field(
        8, "For the source 'moving_digits': height and width of each digit, in pixels.", least=8
    )
    digit_styles: int = field(
        0,
        "For the source 'moving_digits': number of handwritten images of each digit to draw from. "
        "0: all of them, about 160 without `data.path`.",
        least=0,
    )
    look: str = field(
        "grey",
        "For the source 'moving_digits': how clips look. 'grey': white digits on black. 'colours': "
        "digits of six colours on dark grounds with patterns, which captions name; "
        "`data.channels` must be 3. 'neon' and 'paper': the same clips in two styles, as glowing "
        "tubes and as ink on ruled paper, with the captions of 'colours'.",
        choices=("grey", "colours", "neon", "paper"),
    )
    trail: float = field(
        0.0,
        "For the source 'moving_digits' and looks in colour: opacity of the trail that a moving "
        "digit leaves behind it. With a trail, a single frame shows how the digit moves, and the "
        "captions of pictures say it too. 0: no trail.",
        least=0,
        most=1,
    )
    motion: str = field(
        "glide",
        "For the source 'motions': how objects move. 'glide': along a row or a column; what "
        "leaves at one edge comes back at the opposite one. 'cross': two objects glide in "
        "opposite directions. 'bounce': to and fro between two walls. 'rotate': an arm turns "
        "about the centre. 'fall': down to the floor and up again, under gravity. 'pendulum': to "
        "and fro on an arc, with damping. 'wander': on a random smooth path. 'turn': as 'glide', "
        "with one change of direction that no caption names.",
        choices=("glide", "cross", "bounce", "rotate", "fall", "pendulum", "wander", "turn"),
    )
    object_size: float = field(
        4.0, "For the source 'motions': diameter of each object, in pixels.", least=2
    )
    speed: float = field(
        1.0,
        "For the source 'motions': speed of objects, or of the end of a rotating arm, in pixels "
        "per frame; if the speed changes, its mean over a period. For the source 'moving_digits': "
        "factor by which all speeds are multiplied.",
        above=0,
    )
    period: float = field(
        0.0,
        "For the source 'motions': number of frames after which an object is back at its first "
        "position. For 'fall', it is the time from bounce to bounce; for 'wander', the shortest "
        "period of the path's waves. Above 0, it replaces `data.speed`. 0: `data.speed` counts.",
        least=0,
    )
    speed_spread: float = field(
        0.0,
        "For the source 'motions': each object's speed is multiplied by a random factor between "
        "1 - `data.speed_spread` and 1 + `data.speed_spread`.",
        least=0,
        most=0.95,
    )
    speed_octaves: float = field(
        0.0,
        "For the source 'motions': each object's speed is multiplied by 2^u, where u is random "
        "between -`data.speed_octaves` and `data.speed_octaves`. 1 draws speeds from half to twice "
        "`data.speed`. Either this key or `data.speed_spread` is 0.",
        least=0,
        most=4,
    )
    caption_speed: bool = field(
        False,
        "For the source 'motions': captions also say how fast each object moves, in words that "
        "stand for five equal parts of the range that `data.speed_octaves` gives: very slowly, "
        "slowly, (no words), fast, very fast. Needs `data.speed_octaves` above 0.",
    )
    num_clips: int = field(
        0,
        "Number of clips to train on, taken from the beginning of the source; of shots, always the "
        "same frames. 0: all clips.",
        least=0,
    )
    num_threads: int = field(
        2,
        "Number of threads in each process that read batches ahead. 0: a batch is read when it is "
        "needed.",
        least=0,
    )


# Name of the source that `data` itself describes, beside those in `data.mix`.
MAIN = "main"

# Keys of `data` that no entry of `data.mix` changes: those of the network and of the process.
OF_ALL_SOURCES = ("mix", "channels", "num_threads")


def all_sources(data: Data) -> dict[str, Data]:
    """Returns what describes each source of a run, by its name, with the main source first.

    An entry of `data.mix` without a weight has the weight 1. If its kind of source is another one
    than the main source's, it does not take over the path, which would be of no use to it.
    """
    main = dataclasses.replace(data, mix=Mix())
    mixed = {}
    for name, entry in data.mix.items():
        is_of_same_kind = entry.get("source", main.source) == main.source
        own = {"weight": 1.0, "path": main.path if is_of_same_kind else ""}
        mixed[name] = dataclasses.replace(main, **own | entry)
    return {MAIN: main} | mixed


def shape(data: Data) -> str:
    """Returns the shape of a source's clips: frames, rows and columns, such as "16x64x64"."""
    return f"{data.frames}x{data.height}x{data.width}"


def clip_span(data: Data) -> int:
    """Returns how many frames of the source a clip spans, its first and last frame included."""
    return (data.frames - 1) * data.stride + 1
