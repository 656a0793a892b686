"""Opens the clips and captions of a run. `SOURCES` lists all kinds of sources."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from stunet import extensions
from stunet.configs import check_data_path
from stunet.data.clips import ClipRecords, read_metadata
from stunet.data.draws import draw, normal
from stunet.data.shots import layout
from stunet.data.shots.latents import find_latents
from stunet.data.shots.source import ShotClips
from stunet.data.shots.states import find_encoder
from stunet.data.spec import AutoencoderSpec, ClipSpec, TextSpec, make_autoencoder, make_encoder
from stunet.data.synthetic.motions import Motions
from stunet.data.synthetic.moving_digits import MovingDigits
from stunet.data.synthetic.stage import Stage
from stunet.errors import UserError
from stunet.files import refusals_explained
from stunet.nn.autoencoder import Latents
from stunet.nn.autoencoder.enlarged import encode_blurred
from stunet.nn.text import Encoded as EncodedText
from stunet.stores import mirror

Source = grain.sources.RandomAccessDataSource


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Says where the clips of a run come from.

    Attributes:
        source: kind of source, a key of `SOURCES`.
        clip: shape and rate of the clips, in pixels.
        text: encoder of the captions.
        seed: seed for sources that draw their clips.
        options: settings that only this kind of source has, such as the `path` of stored clips.
        cut_from: number of frames in each clip of the source. Each such clip is cut into as many
            clips of the run as fit. 0 reads only the frames that one clip of the run spans.
        num_clips: use only the first `num_clips` training clips of the source; 0 uses all.
        autoencoder: the autoencoder whose latents of the clips are read instead of pixels; None
            reads pixels. Latents of stored clips are stored too, and drawn clips are encoded when
            they are read.
        low_factor: with an autoencoder and above 1, each clip is followed, along the channels, by
            the latents of its low-resolution clip (`stunet.nn.autoencoder.enlarged`), which is
            smaller by this factor. 1 reads the clip alone.
    """

    source: str
    clip: ClipSpec
    text: TextSpec
    seed: int
    options: Mapping[str, Any]
    cut_from: int = 0
    num_clips: int = 0
    autoencoder: AutoencoderSpec | None = None
    low_factor: int = 1

    @property
    def of_pixels(self) -> "Dataset":
        """Returns the same clips as frames of pixels."""
        return dataclasses.replace(self, autoencoder=None, low_factor=1)

    @property
    def is_stored(self) -> bool:
        """Tells whether clips are read from files. Other sources draw their clips."""
        return self.source == "clips"


class Encoded:
    """Encodes each clip of a source with an autoencoder, when the clip is read."""

    def __init__(self, source: Source, spec: AutoencoderSpec, low_factor: int = 1):
        """Reads the autoencoder.

        Args:
            source: source of clips of pixels.
            spec: the autoencoder.
            low_factor: see `Dataset`.

        Raises:
            UserError: the autoencoder cannot be read, or has another size than `spec` says.
        """
        self._source, self._autoencoder = source, make_autoencoder(spec)
        self._low_factor = low_factor

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        frames = _frames(example)
        return example | {"video": self._with_low(self._encode(frames).mean, frames)}

    def draw(self, index: int, words: Sequence[int]) -> dict[str, Any]:
        """Returns an example with random latents; their noise comes from the last of `words`."""
        example = draw(self._source, index, words)
        frames = _frames(example)
        latents = self._encode(frames)
        drawn = latents.sample(normal(words[-1], latents.mean.shape))
        return example | {"video": self._with_low(drawn, frames)}

    def truth(self, index: int) -> Any:
        """Returns the source's description of the motion in clip `index`."""
        return self._source.truth(index)

    def _encode(self, frames: np.ndarray) -> Latents:
        # All frames at once, whose number never changes: nothing is compiled again.
        return self._autoencoder.encode(frames, at_once=len(frames))

    def _with_low(self, latents: np.ndarray, frames: np.ndarray) -> np.ndarray:
        if self._low_factor == 1:
            return latents
        low = encode_blurred(self._autoencoder, frames, self._low_factor, at_once=len(frames))
        return np.concatenate([latents, low], axis=-1)


def _frames(example: dict[str, Any]) -> np.ndarray:
    """Returns the frames of an example, float32 [t, h, w, c] in -1..1."""
    return example["video"].astype(np.float32) / 127.5 - 1


class First:
    """Takes the first `length` examples of a source. Nothing in them is random."""

    def __init__(self, source: Source, length: int):
        self._source, self._length = source, min(length, len(source))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[index]

    def truth(self, index: int) -> Any:
        """Returns the source's description of the motion in clip `index`."""
        return self._source.truth(index)


class Spread:
    """Takes `length` evenly spaced examples of a source, or all examples if there are fewer."""

    def __init__(self, source: Source, length: int):
        self._source, self._length = source, min(length, len(source))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._length:
            raise IndexError(f"clip {index} of {self._length}")
        return self._source[index * len(self._source) // self._length]


class Cut:
    """Cuts each clip of a source into as many pieces of `frames` frames as fit.

    Each piece begins with the last frame of the piece before. Clip i * pieces + j is piece j of the
    source's clip i, and has the caption of the source's clip. Nothing in them is random.

    Attributes:
        source: source of the longer clips.
        pieces: number of pieces in each clip of the source.
    """

    def __init__(self, source: Source, length: int, frames: int):
        """Counts the pieces in each clip.

        Args:
            source: source of clips with `length` frames each.
            length: number of frames in each clip of the source.
            frames: number of frames in each piece, at most `length`.
        """
        self.source, self._frames = source, frames
        self._hop = max(1, frames - 1)
        self.pieces = (length - frames) // self._hop + 1

    def __len__(self) -> int:
        return len(self.source) * self.pieces

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        clip, piece = divmod(index, self.pieces)
        example, begin = self.source[clip], piece * self._hop
        return example | {"video": example["video"][begin : begin + self._frames]}


class Strided:
    """Keeps every `stride`-th frame of each clip of a source, beginning with the first."""

    def __init__(self, source: Source, stride: int):
        self._source, self._stride = source, stride

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._keep(self._source[index])

    def draw(self, index: int, words: Sequence[int]) -> dict[str, Any]:
        """Returns a random example (`stunet.data.draws.draw`)."""
        return self._keep(draw(self._source, index, words))

    def _keep(self, example: dict[str, Any]) -> dict[str, Any]:
        return example | {"video": np.ascontiguousarray(example["video"][:: self._stride])}

    def truth(self, index: int) -> Any:
        """Returns the source's description of the motion in clip `index`.

        Velocities are in pixels per frame of the source. Neighbouring frames of the strided clip
        are `stride` frames of the source apart.
        """
        return self._source.truth(index)


def make_source(dataset: Dataset, split: str) -> Source:
    """Opens the examples of a split, "train" or "val", with clips of the shape that the run needs.

    First, the function opens clips with every frame of the source. Each clip has `cut_from` frames
    or, if `cut_from` is 0, the number of frames that one clip of the run spans. Then the function
    takes the first `num_clips` clips, cuts them into pieces, and applies the stride. The stride
    comes last, so that all networks of a cascade see the same `num_clips` clips.

    Args:
        dataset: where the clips come from, and which shape and rate they have.
        split: "train" or "val".

    Returns:
        A random-access source: `len(source)` examples, each a dict. `video` is uint8
        `[t, h, w, c]`, or float latents if `dataset.autoencoder` is set, with those of the
        low-resolution clip after them if `dataset.low_factor` is above 1. `caption` is a string,
        `text` holds its token states `[l, d]`, and `text_mask` `[l]` is True on tokens.

    Raises:
        UserError: the data do not exist or have another shape.
    """
    check_data_path(dataset.source, dataset.options.get("path", ""))
    clip = dataset.clip
    frames = dataset.cut_from or clip.span
    make = extensions.find(SOURCES, dataset.source, extensions.Source)
    whole = dataclasses.replace(clip, frames=frames, stride=1)
    latents = dict(autoencoder=dataset.autoencoder, low_factor=dataset.low_factor)
    stored = latents if dataset.is_stored else {}
    try:
        source = make(split, whole, dataset.text, dataset.seed, **dataset.options, **stored)
    except UserError as error:
        if frames == clip.frames:
            raise
        raise UserError(
            f"{error}; data.frames is {clip.frames}, which at data.stride {clip.stride} spans "
            f"{clip.span} frames of the source, and data.cut_from, the number of frames in each "
            f"clip of the source, is {dataset.cut_from}"
        ) from error
    if split == "train" and dataset.num_clips:
        source = First(source, dataset.num_clips)
    if frames > clip.span:
        source = Cut(source, frames, clip.span)
    source = Strided(source, clip.stride) if clip.stride > 1 else source
    is_encoded_now = dataset.autoencoder and not dataset.is_stored
    if is_encoded_now:
        return Encoded(source, dataset.autoencoder, dataset.low_factor)
    return source


def stored_fingerprint(dataset: Dataset) -> str:
    """Returns the fingerprint of the encoder that made the stored text states of a data set.

    Returns "" if clips are drawn, or if no states or no fingerprint are stored.

    Raises:
        UserError: the notes beside the records are damaged, or a set of shots holds no text states
            that fit.
    """
    if not dataset.is_stored:
        return ""
    path = _fetched(dataset.options["path"])
    if layout.holds_shots(path):
        encoder = find_encoder(path, dataset.text)
        return encoder.fingerprint if encoder else ""
    return read_metadata(path).get("text_encoder", {}).get("fingerprint", "")


def autoencoder_fingerprint(dataset: Dataset) -> str:
    """Returns the fingerprint of the autoencoder that makes the latents of a data set.

    Raises:
        UserError: the data set holds no latents of the autoencoder, or clips are drawn and the
            autoencoder cannot be read.
    """
    if not dataset.is_stored:
        return make_autoencoder(dataset.autoencoder).fingerprint
    path, clip = _fetched(dataset.options["path"]), dataset.clip
    return find_latents(path, dataset.autoencoder, clip.height, clip.width).fingerprint


def representatives(source: Source, num: int, dataset: Dataset) -> Source:
    """Returns a source whose first `num` clips represent all clips of `source`.

    Stored clips lie in the order of their videos, so the first clips may all show one class. For
    stored clips, the result therefore holds `num` evenly spaced clips, or all clips if there are
    fewer. Drawn clips are independent of each other, so the result is `source` itself.
    """
    return Spread(source, num) if dataset.is_stored else source


def held_out_captions(dataset: Dataset, num: int) -> list[str]:
    """Returns the different captions of `num` held-out clips; none if the data are not here."""
    dataset = dataset.of_pixels
    try:
        with refusals_explained():
            source = representatives(make_source(dataset, "val"), num, dataset)
            found = [source[i]["caption"] for i in range(min(num, len(source)))]
    except UserError:
        return []
    return list(dict.fromkeys(filter(None, found)))


def _moving_digits(split: str, clip: ClipSpec, text: TextSpec, seed: int, **options) -> Source:
    return MovingDigits(split, *clip.shape, seed=seed, encode_text=make_encoder(text), **options)


def _motions(
    split: str,
    clip: ClipSpec,
    text: TextSpec,
    seed: int,
    *,
    motion: str,
    caption_speed: bool,
    **options,
) -> Source:
    return Motions(
        split,
        Stage(motion, clip.height, clip.width, **options),
        clip.frames,
        clip.channels,
        seed=seed,
        encode_text=make_encoder(text),
        caption_speed=caption_speed,
    )


def _clips(
    split: str, clip: ClipSpec, text: TextSpec, seed: int, *, path: str, **of_shots
) -> Source:
    path = _fetched(path)
    if layout.holds_shots(path):
        return ShotClips(path, split, clip, text, **of_shots)
    if of_shots.get("autoencoder"):
        raise UserError(
            f"{path} holds clips of one shape and no latents; run `stunet prepare --latents` on "
            "the videos, and name the shots that it writes as data.path"
        )
    records = ClipRecords(
        path,
        split,
        frames=clip.frames,
        height=clip.height,
        width=clip.width,
        channels=clip.channels,
        fps=clip.fps,
        encode_text=functools.partial(_encode, text),
        text_encoder=text.encoder,
        text_fingerprint=text.fingerprint,
        text_shape=text.shape,
    )
    if records.text_shape is None:
        make_encoder(text)
    return records


def _fetched(text: str) -> pathlib.Path:
    """Returns the path of stored clips. If they are in a bucket, downloads what opens them.

    Shots stay in the bucket until they are read. Data sets of other programs are downloaded whole.
    """
    path = mirror.fetched(text, layout.is_opened)
    return path if layout.holds_shots(path) else mirror.fetched(text)


def _encode(text: TextSpec, captions: Sequence[str]) -> EncodedText:
    """Encodes captions with an encoder that is made at the first call.

    Records that hold text states need no encoder, and the machine may have no encoder installed.
    """
    return make_encoder(text)(captions)


# Functions `make(split, clip, text, seed, **options)` that open a source, by the kind of source.
SOURCES: dict[str, Callable[..., Source]] = {
    "moving_digits": _moving_digits,
    "motions": _motions,
    "clips": _clips,
}
