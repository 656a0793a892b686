"""Reads clips by index from any TFDS data set in ArrayRecord files.

TFDS describes the files, ArrayRecord reads them, and `stunet.data.records` parses the records.
"""

import bisect
import contextlib
import errno
import itertools
import operator
import os
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, SupportsIndex, TypedDict

import msgspec
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source, array_record_module
from google.protobuf.message import DecodeError

from stunet import jsonfiles
from stunet.data.features import load_features
from stunet.data.records import METADATA_FILE, find_clip_fields
from stunet.data.spec import EncodeText
from stunet.errors import UserError


class ClipRecords:
    """Gives random access to the clips of one split.

    Indexing returns an example: `video` uint8 [t, h, w, c], `caption` str, and, if the records or
    an encoder provide them, `text` float32 [l, d] and `text_mask` bool [l]. Arrays may be
    read-only. Reading is thread-safe. A pickled copy reopens the files.

    Attributes:
        shape: (t, h, w, c) of the clips. A size is None if it differs between records and the
            caller did not fix it.
        fps: frames per second; None if the data set does not state the rate.
        text_shape: (l, d) of the stored text states, for l tokens and d features; None if the
            records hold no text states.
        metadata: the frame rate and text encoder that `prepare` noted beside the records; empty for
            a data set that another program made.
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
        """Opens the split and checks that its clips are as requested.

        If a size, `fps`, `text_encoder` or `text_shape` is None, any value in the data set is
        accepted.

        Args:
            directory: a TFDS data set in ArrayRecord files, with its dataset_info.json.
            split: name of the split, such as "train" or "val", or a TFDS slice, such as
                "train[:10%]".
            frames: frames in each clip. If the clips of the data set differ in length, only the
                first `frames` frames of each clip are used.
            height: height of the clips in pixels.
            width: width of the clips in pixels.
            channels: channels of the clips.
            fps: frames per second, checked if the data set states its rate.
            encode_text: encodes each caption when its clip is read; used only if the records hold
                no text states.
            text_encoder: name of the encoder with which stored text states must have been made. For
                name such as "t5:DIR", any directory is accepted.
            text_fingerprint: fingerprint of `text_encoder`, checked if the data set notes a
                fingerprint.
            text_shape: required shape (l, d) of stored text states, for l tokens and d features.
            video_feature: path of the clip's feature, such as "steps/image"; None chooses the first
                feature with the shape of a clip.
            caption_feature: name of a text or class label feature. None chooses "caption", "text",
                or the first class label, whose class names become the captions. If the data set has
                none of these, captions are empty.

        Raises:
            UserError: the data set, split or feature does not exist, the clips are not as
                requested, a file is damaged, or the data set has more files than this process may
                open. Damaged files and too many files may also be found later, while reading.
        """
        self.directory, self.split = Path(directory), split
        info = _open_data_set(self.directory)
        self.metadata = read_metadata(self.directory)
        self.fps = self.metadata.get("fps")
        self._encode_text = encode_text
        self._fields = find_clip_fields(
            self.directory, info.features, video_feature, caption_feature
        )
        self.shape = self._check_shape(self._fields.shape, (frames, height, width, channels))
        if None not in (fps, self.fps) and fps != self.fps:
            raise UserError(
                f"{self.directory} holds clips at {self.fps:g} frames per second, not {fps:g};"
                " prepare it again or change fps"
            )
        self.text_shape = self._fields.text_shape
        if self.text_shape:
            stored = self.metadata.get("text_encoder", {})
            self._check_encoder(
                (stored.get("name"), stored.get("fingerprint")), (text_encoder, text_fingerprint)
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
        if not self._files:
            raise UserError(f"{self.directory} has no clips in the split {split!r}")
        _raise_open_file_limit()
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
            raise UserError(f"{self._locate(index)} is damaged ({error})") from error
        if None in self._fields.shape:
            example["video"] = self._crop(example["video"], index)
        if self.text_shape is None and self._encode_text is not None:
            states, mask = self._encode_text([example["caption"]])
            example["text"], example["text_mask"] = states[0], mask[0]
        return example

    def _check_shape(self, stored, requested):
        """Returns the shape of the clips; raises a UserError if stored and requested shape differ.

        None in either shape fits any size.
        """
        pairs = list(zip(stored, requested, strict=True))
        if any(None not in pair and pair[0] != pair[1] for pair in pairs):
            wanted = _describe_shape(s if r is None else r for s, r in pairs)
            raise UserError(
                f"{self.directory} holds clips of {_describe_shape(stored)}, not {wanted};"
                " prepare it again or change the config"
            )
        return tuple(s if s is not None else r for s, r in pairs)

    def _check_encoder(self, stored, requested):
        """Raises a UserError if the stored text states come from another encoder than requested.

        Both arguments are (name, fingerprint) of an encoder.
        """
        (stored_name, stored_print), (name, fingerprint) = stored, requested
        kinds = [n and n.partition(":")[0] for n in (stored_name, name)]
        if None not in kinds and kinds[0] != kinds[1]:
            raise UserError(
                f"{self.directory} holds text states of the encoder {stored_name!r}, not {name!r};"
                " prepare it again or change the text encoder"
            )
        if stored_print and fingerprint and stored_print != fingerprint:
            raise UserError(
                f"{self.directory} holds text states of {stored_name!r} with the fingerprint"
                f" {stored_print}, but the text encoder {name!r} has {fingerprint}: it has other"
                " weights or another tokenizer; prepare it again"
            )

    def _crop(self, video, index):
        """Returns the first `self.shape[0]` frames of a clip, and checks their height and width."""
        video = video[: self.shape[0]]
        if any(s not in (None, v) for s, v in zip(self.shape, video.shape, strict=True)):
            raise UserError(
                f"{self._locate(index)} is a clip of {_describe_shape(video.shape)}, not"
                f" {_describe_shape(self.shape)}"
            )
        return video

    def _locate(self, index):
        """Returns "record N of FILE", for messages."""
        file = bisect.bisect_right(self._ends, index)
        begin = self._ends[file] - self._files[file].take
        return f"record {index - begin + self._files[file].skip} of {self._files[file].filename}"


def _open_data_set(directory: Path):
    """Reads TFDS's description of the data set; raises a UserError if it cannot be read."""
    for name in ("dataset_info.json", "features.json"):
        if not (directory / name).is_file():
            raise UserError(
                f"{directory} holds no shots and is not a TFDS data set: it has neither shots.json "
                f"nor {name}; `stunet prepare` makes shots"
            )
    try:
        described = jsonfiles.read(directory / "dataset_info.json", _DatasetInfo)
        identity = tfds.core.dataset_info.DatasetIdentity(
            name=described["name"],
            version=tfds.core.Version(described["version"]),
            data_dir=str(directory),
            module_name="",
        )
        # Like tfds.builder_from_directory, but with features that do not need TensorFlow.
        info = tfds.core.DatasetInfo(builder=identity, features=load_features(directory))
        info.read_from_directory(directory)
        file_format = info.file_format.value
    except UserError:
        raise
    except Exception as error:  # TFDS and protobuf raise all kinds, also AssertionError.
        raise UserError(f"{directory} cannot be opened as a TFDS data set ({error})") from error
    if file_format != "array_record":
        raise UserError(
            f"{directory} holds {file_format} files; prepare it again with"
            " file_format='array_record'"
        )
    return info


class _DatasetInfo(TypedDict):
    """Describes the keys of dataset_info.json that are read here. TFDS reads the other keys."""

    name: str
    version: str


class _TextEncoder(TypedDict, total=False):
    """Describes the text encoder that `prepare` used. `name` is None if no name was given."""

    name: str | None
    fingerprint: str


class Metadata(TypedDict, total=False):
    """Describes the notes about a data set that `prepare` writes to a file beside the records."""

    fps: Annotated[float, msgspec.Meta(gt=0, le=1e6)]
    text_encoder: _TextEncoder


def read_metadata(directory: Path) -> Metadata:
    """Reads the frame rate and the text encoder that `prepare` noted beside the records.

    Returns an empty dict for a data set that another program made.

    Raises:
        UserError: the file with these notes is damaged.
    """
    path = directory / METADATA_FILE
    if not path.is_file():
        return {}
    # Older files list every video too, which would take much memory.
    return jsonfiles.read(path, Metadata)


def _check_files(files) -> None:
    """Raises a UserError if a file does not hold as many records as TFDS's description says.

    ArrayRecord stores the number of records at the very end of each file. If a file was cut short,
    ArrayRecord opens it as a file without records, and fails only when the file is read or closed.
    TFDS does not compare this number with its description.
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


def _raise_open_file_limit() -> None:
    """Raises this process's limit of open files to the highest value that the system allows.

    ArrayRecord keeps every file open that it has read from, and a terabyte of clips is thousands of
    files. The usual limit is 1,024, because programs that call `select` need such a low limit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Some systems report an unlimited hard limit but refuse to set it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _check_open_files(error: Exception, directory: str | Path, count: int) -> None:
    """Raises a UserError if ArrayRecord failed because too many files are open.

    The text of ArrayRecord's exception then contains the system's error message.
    """
    if any(os.strerror(code) in str(error) for code in (errno.EMFILE, errno.ENFILE)):
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        raise UserError(
            f"too many files are open: {directory} has {count} for this split, and this process may"
            f" open {limit} in all; raise the limit (ulimit -Hn), or prepare the clips again with a"
            " larger shard_bytes"
        ) from error


def _describe_shape(shape) -> str:
    frames, height, width, channels = ("any" if size is None else size for size in shape)
    return f"{frames} frames of {height}x{width} pixels and {channels} channels"
