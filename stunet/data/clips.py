"""Reads clips by index from any TFDS data set in ArrayRecord files.

TFDS describes the files, ArrayRecord reads them, and `stunet.data.records` takes records apart.
"""

import bisect
import contextlib
import errno
import itertools
import json
import operator
import os
import resource
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source, array_record_module
from google.protobuf import json_format
from google.protobuf.message import DecodeError

from stunet.data.records import METADATA_FILE, find_clip_fields, load_features
from stunet.errors import UserError

EncodeText = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]


class ClipRecords:
    """A random-access source of the clips of one split.

    Indexing gives an example: `video` uint8 [t, h, w, c], `caption` str, and, where the records or
    an encoder provide them, `text` float32 [l, d] and `text_mask` bool [l]. Arrays may be
    read-only. Reading is thread-safe; a pickled copy opens the files anew.

    Attributes:
      shape: (t, h, w, c); None for what differs from record to record and was not asked for.
      fps: frames per second, or None if the data set does not say.
      text_shape: (l, d) of the stored text states, or None if there are none.
      metadata: as `read_metadata`.
    """

    def __init__(
        self,
        directory: str | Path,
        split: str,
        *,
        frames: int | None = None,
        height: int | None = None,
        width: int | None = None,
        channels: int | None = None,
        fps: float | int | None = None,
        encode_text: EncodeText | None = None,
        text_encoder: str | None = None,
        text_fingerprint: str = "",
        text_shape: tuple[int, int] | None = None,
        video_feature: str | None = None,
        caption_feature: str | None = None,
    ):
        """
        Args:
          directory: a TFDS data set in ArrayRecord files, with its dataset_info.json.
          split: such as "train", "val" or, as TFDS slices, "train[:10%]".
          frames: what is asked of the clips; None accepts whatever there is. Where the clips of a
            data set differ in length, each gives its first `frames` frames.
          height: of the clips, in pixels.
          width: of the clips, in pixels.
          channels: of the clips.
          fps: frames per second, checked if the data set says.
          encode_text: makes the text states as captions are read, if none are stored.
          text_encoder: the encoder that stored states must come from, by its name; of "t5:DIR" the
            directory may be another.
          text_fingerprint: of that encoder, checked if the records note one.
          text_shape: (l, d) that stored states must have.
          video_feature: path of the clip's feature, such as "steps/image"; by default the first
            that has the shape of one.
          caption_feature: name of a text or class label; by default "caption", "text" or the first
            class label, whose name becomes the caption. Without any, captions are empty.

        Raises:
          UserError: no such data set, split or feature; other clips than asked for; a damaged file;
            more files than this process may open. The last two while reading, too.
        """
        self.directory, self.split = Path(directory), split
        info = _open_data_set(self.directory)
        self.metadata = read_metadata(self.directory)
        self.fps = self.metadata.get("fps")
        self._encode_text = encode_text
        self._fields = find_clip_fields(
            self.directory, info.features, video_feature, caption_feature
        )
        asked = (frames, height, width, channels)
        self.shape = self._check_shape(self._fields.shape, asked)
        if None not in (fps, self.fps) and fps != self.fps:
            raise UserError(
                f"{self.directory} holds clips at {self.fps:g} frames per second, not {fps:g};"
                " prepare it again or change fps"
            )
        self.text_shape = self._fields.text_shape
        if self.text_shape:
            noted = self.metadata.get("text_encoder", {})
            self._check_encoder(
                (noted.get("name"), noted.get("fingerprint")), (text_encoder, text_fingerprint)
            )
        if None not in (self.text_shape, text_shape) and self.text_shape != text_shape:
            raise UserError(
                f"{self.directory} holds text states of (length, dim) {self.text_shape}, not"
                f" {text_shape}; prepare it again or change text.max_length and text.dim"
            )
        try:
            self._files = info.splits[split].file_instructions
        except (KeyError, ValueError) as error:
            raise UserError(
                f"{self.directory} has no split {split!r}; it has {', '.join(info.splits)}"
            ) from error
        _allow_open_files()
        _check_files(self._files)
        self._records = array_record_data_source.ArrayRecordDataSource(self._files)
        self._ends = list(itertools.accumulate(file.take for file in self._files))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, index: SupportsIndex) -> dict[str, Any]:
        index = operator.index(index)
        if not 0 <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        try:
            example = self._fields.parse(self._records[index])
        except (RuntimeError, DecodeError, KeyError, ValueError, IndexError) as error:
            _check_open_files(error, self.directory, len(self._files))
            raise UserError(f"{self._place(index)} is damaged ({error})") from error
        if None in self._fields.shape:
            example["video"] = self._fit(example["video"], index)
        if self.text_shape is None and self._encode_text is not None:
            states, mask = self._encode_text([example["caption"]])
            example["text"], example["text_mask"] = states[0], mask[0]
        return example

    def _check_shape(self, held, asked):
        """Raises if the records' shape is not the one asked for; None in either fits anything."""
        if any(None not in pair and pair[0] != pair[1] for pair in zip(held, asked, strict=True)):
            wanted = _say_shape(h if a is None else a for h, a in zip(held, asked, strict=True))
            raise UserError(
                f"{self.directory} holds clips of {_say_shape(held)}, not {wanted};"
                " prepare it again or change the config"
            )
        return tuple(h if h is not None else a for h, a in zip(held, asked, strict=True))

    def _check_encoder(self, held, asked):
        """Raises if the states are of another encoder than asked for, as (name, fingerprint)."""
        kinds = [name and name.partition(":")[0] for name, _ in (held, asked)]
        if None not in kinds and kinds[0] != kinds[1]:
            raise UserError(
                f"{self.directory} holds text states of the encoder {held[0]!r}, not {asked[0]!r};"
                " prepare it again or change the text encoder"
            )
        if held[1] and asked[1] and held[1] != asked[1]:
            raise UserError(
                f"{self.directory} holds text states of {held[0]!r} with the fingerprint"
                f" {held[1]}, and the text encoder {asked[0]!r} has {asked[1]}: other weights or"
                " another tokenizer; prepare it again"
            )

    def _fit(self, video, index):
        video = video[: self.shape[0]]
        if any(s not in (None, v) for s, v in zip(self.shape, video.shape, strict=True)):
            raise UserError(
                f"{self._place(index)} is a clip of {_say_shape(video.shape)}, not"
                f" {_say_shape(self.shape)}"
            )
        return video

    def _place(self, index):
        """Names the record in its file."""
        file = bisect.bisect_right(self._ends, index)
        begin = self._ends[file] - self._files[file].take
        return f"record {index - begin + self._files[file].skip} of {self._files[file].filename}"


def _open_data_set(directory: Path):
    for name in ("dataset_info.json", "features.json"):
        if not (directory / name).is_file():
            raise UserError(
                f"{directory} is no TFDS data set: it has no {name}; `stunet prepare` makes one"
            )
    try:
        described = json.loads((directory / "dataset_info.json").read_text())
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=described["name"],
            version=tfds.core.Version(described["version"]),
            data_dir=str(directory),
            module_name="",
        )
        # tfds.builder_from_directory, but with features that need no TensorFlow.
        info = tfds.core.DatasetInfo(builder=identity, features=load_features(directory))
        info.read_from_directory(directory)
    except (ValueError, KeyError, TypeError, json_format.ParseError) as error:
        raise UserError(f"{directory} cannot be opened as a TFDS data set ({error})") from error
    if info.file_format.value != "array_record":
        raise UserError(
            f"{directory} holds {info.file_format.value} files; prepare it again with"
            " file_format='array_record'"
        )
    return info


def read_metadata(directory: Path) -> dict[str, Any]:
    """The `fps` and `text_encoder` that `prepare` noted beside the records; empty for a data set
    made otherwise.

    Raises:
      UserError: the file is damaged.
    """
    path = directory / METADATA_FILE
    if not path.is_file():
        return {}
    try:
        noted = json.loads(path.read_text())
        # Of the rest nothing is read, and older files list every video: much to keep in memory.
        return {key: noted[key] for key in ("fps", "text_encoder") if key in noted}
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error})") from error


def _check_files(files) -> None:
    """Compares each file's own count of its records, which is at its very end, with TFDS's.

    ArrayRecord opens a file that was cut short as one of no records and complains only when it is
    closed or read; TFDS does not ask.
    """

    def check(file):
        if not os.path.isfile(file.filename):
            raise UserError(f"{file.filename} is missing; copy it again or prepare it again")
        try:
            reader = array_record_module.ArrayRecordReader(str(file.filename))
            count = reader.num_records()
            reader.close()
        except RuntimeError as error:
            _check_open_files(error, os.path.dirname(file.filename), len(files))
            count = 0
        if count != file.examples_in_shard:
            raise UserError(
                f"{file.filename} is damaged or cut short: {count} of {file.examples_in_shard}"
                " records can be read; copy it again or prepare it again"
            )

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check, files))


def _allow_open_files() -> None:
    """Raises this process's limit of open files to what it may be: ArrayRecord keeps every file
    open that it has read of, and a terabyte of clips is thousands. The usual limit is 1,024, for
    the sake of programs that use `select`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems state no limit and refuse it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_open_files(error: Exception, directory: str | Path, count: int) -> None:
    """Raises if ArrayRecord failed for want of files to open: it quotes the system's message."""
    if any(os.strerror(code) in str(error) for code in (errno.EMFILE, errno.ENFILE)):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise UserError(
            f"too many files are open: {directory} has {count} for this split, and this process may"
            f" open {limit} in all; raise that (ulimit -Hn), or prepare with a larger shard_bytes"
        ) from error


def _say_shape(shape) -> str:
    frames, height, width, channels = ("any" if size is None else size for size in shape)
    return f"{frames} frames of {height}x{width} pixels and {channels} channels"
