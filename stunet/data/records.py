"""How clips lie in records: writes them as a TFDS data set, takes records of any such set apart.

A record of ours is a tf.train.Example whose fields are all bytes: the clip as raw uint8, its
caption, the caption's token states and their mask, and where the clip came from. Raw, and without
the file format's own compression, because on real 64x64 clips that compression saved 14% of the
bytes and took a third of the reading speed, and decoding JPEG or video takes far more.

Records of plain bytes are taken apart here, at nearly twice the speed of TFDS's general parser
(`benchmarks/read_records.py`); all others go through that parser.
"""

import collections
import dataclasses
import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module
from google.protobuf import json_format
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from stunet.errors import UserError

# What `prepare` notes beside the records: frames per second, text encoder; and, by itself because
# only people read it and it may be large, what became of each video.
METADATA_FILE = "clips.json"
VIDEOS_FILE = "videos.json"


class ClipWriter:
    """Writes examples into a new data set, which is readable after `close`."""

    def __init__(self, directory: Path, name: str, shard_bytes: int):
        """
        Args:
          directory: an existing empty directory.
          name: of the data set, for TFDS.
          shard_bytes: size at which a new file begins.
        """
        self._directory, self._name, self._shard_bytes = directory, name, shard_bytes
        self._lengths = collections.defaultdict(list)
        self._sizes = collections.defaultdict(int)
        self._open = {}

    def write(self, split: str, example: dict[str, str | np.ndarray]) -> None:
        """Appends one example; every example has the same keys and shapes."""
        feature = {
            key: tf_feature_pb2.Feature(
                bytes_list=tf_feature_pb2.BytesList(
                    value=[value.encode() if isinstance(value, str) else value.tobytes()]
                )
            )
            for key, value in example.items()
        }
        features = tf_feature_pb2.Features(feature=feature)
        record = tf_example_pb2.Example(features=features).SerializeToString()
        if split not in self._open:
            path = self._shard(split, len(self._lengths[split]))
            options = "group_size:1,uncompressed"
            self._open[split] = array_record_module.ArrayRecordWriter(str(path), options), 0
            self._lengths[split].append(0)
        file, size = self._open[split]
        file.write(record)
        size += len(record)
        self._open[split] = file, size
        self._lengths[split][-1] += 1
        self._sizes[split] += len(record)
        if size >= self._shard_bytes:
            self._close_shard(split)

    def close(self, shape: tuple[int, ...], text_shape: tuple[int, ...] | None) -> int:
        """Completes the files and describes them to TFDS.

        Args:
          shape: (t, h, w, c) of the clips.
          text_shape: (l, d) of the text states, or None if examples have none.

        Returns:
          The size of the record files in bytes.
        """
        for split in list(self._open):
            self._close_shard(split)
        infos = []
        for split, lengths in sorted(self._lengths.items()):
            for i in range(len(lengths)):
                self._shard(split, i).rename(self._shard(split, i, len(lengths)))
            size = self._sizes[split]
            infos.append(tfds.core.SplitInfo(name=split, shard_lengths=lengths, num_bytes=size))
        tfds.folder_dataset.write_metadata(
            data_dir=self._directory,
            features=_features(shape, text_shape),
            split_infos=infos,
            check_data=False,
            description=f"Clips cut by stunet; {METADATA_FILE} says how, {VIDEOS_FILE} from what.",
        )
        return sum(path.stat().st_size for path in self._directory.glob("*.array_record-*"))

    def _close_shard(self, split: str) -> None:
        # ArrayRecord writes in the background and reports a full disk here, not in write.
        self._open.pop(split)[0].close()

    def _shard(self, split: str, index: int, count: int | None = None) -> Path:
        of = "" if count is None else f"-of-{count:05d}"
        return self._directory / f"{self._name}-{split}.array_record-{index:05d}{of}"


def _features(shape, text_shape) -> tfds.features.FeaturesDict:
    features = {
        "video": tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes"),
        "caption": tfds.features.Text(),
        "source": tfds.features.Text(doc="the video, and which of its clips this is"),
    }
    if text_shape is not None:
        length, dim = text_shape
        features |= {
            "text": tfds.features.Tensor(shape=(length, dim), dtype=np.float32, encoding="bytes"),
            "text_mask": tfds.features.Tensor(shape=(length,), dtype=np.bool_, encoding="bytes"),
        }
    return tfds.features.FeaturesDict(features)


@dataclasses.dataclass(frozen=True)
class ClipFields:
    """Where in a record the parts of an example are.

    Attributes:
      directory: of the data set.
      video: path of the clip's feature, its parts joined by slashes.
      shape: (t, h, w, c) of the clip, with None for what varies.
      caption: name of the caption's feature, or None.
      class_names: by label, if that feature is a class label.
      text_shape: (l, d) of stored text states, or None.
      plain: whether all of these are fields of raw bytes.
    """

    directory: Path
    video: str
    shape: tuple[int | None, ...]
    caption: str | None
    class_names: tuple[str, ...] | None
    text_shape: tuple[int, int] | None
    plain: bool

    def parse(self, record: bytes) -> dict[str, Any]:
        """The example: `video`, `caption`, and, if stored, `text` and `text_mask`."""
        return self._parse_plain(record) if self.plain else self._parse_with_tfds(record)

    def _parse_plain(self, record):
        fields = tf_example_pb2.Example.FromString(record).features.feature

        def array(name, dtype, shape):
            return np.frombuffer(fields[name].bytes_list.value[0], dtype).reshape(shape)

        example = {"video": array(self.video, np.uint8, self.shape), "caption": ""}
        if self.caption:
            example["caption"] = fields[self.caption].bytes_list.value[0].decode()
        if self.text_shape:
            example["text"] = array("text", np.float32, self.text_shape)
            example["text_mask"] = array("text_mask", np.bool_, self.text_shape[:1])
        return example

    def _parse_with_tfds(self, record):
        parsed = _cached_features(self.directory).deserialize_example_np(record)
        video = parsed
        for part in self.video.split("/"):
            video = video[part]
        example = {"video": np.asarray(video, np.uint8), "caption": ""}
        if self.caption:
            value = parsed[self.caption]
            example["caption"] = self.class_names[value] if self.class_names else value.decode()
        if self.text_shape:
            example |= {key: parsed[key] for key in ("text", "text_mask")}
        return example


def find_clip_fields(
    directory: Path,
    features: tfds.features.FeatureConnector,
    video: str | None = None,
    caption: str | None = None,
) -> ClipFields:
    """Chooses what to read of a data set's features; see `ClipRecords` for how.

    Raises:
      UserError: there is no clip, or not the feature that was asked for.
    """
    # Sorted: TFDS reads features in no fixed order, and every process must choose the same.
    infos = dict(sorted(_flatten(features.get_tensor_info()).items()))
    clips = [path for path, info in infos.items() if _is_clip(info)]
    video = video or next(iter(clips), None)
    if video not in clips:
        wanted = (
            f"clip feature {video!r}" if video else "feature that is a clip, uint8 [t, h, w, c]"
        )
        raise UserError(f"{directory} has no {wanted}; it has {', '.join(infos)}")
    # Some sets are a sequence of steps instead of a dict: these have no feature for a whole clip.
    top = dict(sorted(features.items())) if isinstance(features, tfds.features.FeaturesDict) else {}
    texts = [name for name, feature in top.items() if isinstance(feature, tfds.features.Text)]
    labels = [
        name for name, feature in top.items() if isinstance(feature, tfds.features.ClassLabel)
    ]
    if caption is None:
        caption = next((n for n in ("caption", "text") if n in texts), next(iter(labels), None))
    elif caption not in texts + labels:
        raise UserError(
            f"{directory} has no text or class label {caption!r};"
            f" it has {', '.join(texts + labels) or 'none'}"
        )
    text_shape = None
    if {"text", "text_mask"} <= infos.keys() and infos["text"].np_dtype == np.float32:
        text_shape = tuple(infos["text"].shape)
    used = [video, *(["text", "text_mask"] if text_shape else [])]
    plain = all(_is_bytes(top.get(name)) for name in used) and None not in infos[video].shape
    return ClipFields(
        directory=directory,
        video=video,
        shape=tuple(infos[video].shape),
        caption=caption,
        class_names=tuple(top[caption].names) if caption in labels else None,
        text_shape=text_shape,
        plain=plain and (caption is None or caption in texts),
    )


def _flatten(infos, path="") -> dict[str, Any]:
    if not isinstance(infos, dict):
        return {path: infos}
    flat = {}
    for name, info in infos.items():
        flat |= _flatten(info, f"{path}/{name}" if path else name)
    return flat


def _is_clip(info) -> bool:
    return len(info.shape) == 4 and info.np_dtype == np.uint8 and info.shape[-1] in (1, 3)


def _is_bytes(feature) -> bool:
    return (
        isinstance(feature, tfds.features.Tensor) and feature.to_json_content().encoding == "bytes"
    )


def load_features(directory: Path) -> tfds.features.FeatureConnector:
    """The features of a TFDS data set, as its features.json says.

    TFDS cannot make a `Video` feature without TensorFlow, only for a check of its dtype. It is a
    sequence of images in all but name, so it is read as one.
    """
    described = json.loads((directory / "features.json").read_text())
    return tfds.features.FeatureConnector.from_json(_videos_as_images(described))


# ClipFields does not keep the features, because it would have to carry them to every worker.
_cached_features = functools.cache(load_features)


def _videos_as_images(node):
    if not isinstance(node, dict):
        return node
    if not node.get("pythonClassName", "").endswith(".Video"):
        return {key: _videos_as_images(value) for key, value in node.items()}
    video = node["video"]
    frames, *shape = (None if int(n) < 0 else int(n) for n in video["shape"]["dimensions"])
    image = tfds.features.Image(shape=shape, encoding_format=video.get("encodingFormat"))
    return json_format.MessageToDict(tfds.features.Sequence(image, length=frames).to_proto())
