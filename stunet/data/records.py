"""Parses the records of a TFDS data set into clips, captions and text states.

A record that `stunet prepare` writes is a tf.train.Example whose fields are all bytes: the clip as
raw uint8, its caption, the caption's token states, their mask, and where the clip came from. The
bytes are raw and uncompressed. On real 64x64 clips, the file format's own compression saved 14% of
the bytes and cost a third of the reading speed. Decoding JPEG or video costs far more.

Records of plain bytes are parsed here, at nearly twice the speed of TFDS's general parser
(`benchmarks/read_records.py`). TFDS's parser reads all other records.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from stunet.data.features import cached_features
from stunet.errors import UserError

# The file beside the records in which `prepare` notes frames per second and the text encoder.
METADATA_FILE = "clips.json"


@dataclasses.dataclass(frozen=True)
class ClipFields:
    """Says which features of a record hold clip, caption and text states, and parses records.

    Attributes:
        directory: directory of the data set.
        video: path of the clip's feature, such as "steps/image".
        shape: (t, h, w, c) of the clip; None stands for a size that varies.
        caption: name of the caption's feature, or None.
        class_names: name of each class, if the caption's feature is a class label; otherwise None.
        text_shape: (l, d) of stored text states, or None.
        plain: True if the features of clip, caption and text states are all fields of raw bytes.
    """

    directory: Path
    video: str
    shape: tuple[int | None, ...]
    caption: str | None
    class_names: tuple[str, ...] | None
    text_shape: tuple[int, int] | None
    plain: bool

    def parse(self, record: bytes) -> dict[str, Any]:
        """Returns the example: `video`, `caption`, and, if stored, `text` and `text_mask`."""
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
        parsed = cached_features(self.directory).deserialize_example_np(record)
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
    """Chooses the features of a data set that hold clips and captions.

    `video` and `caption` are the arguments `video_feature` and `caption_feature` of `ClipRecords`.

    Raises:
        UserError: no feature is a clip, or the requested feature does not exist.
    """
    # TFDS reads features in no fixed order, and every process must choose the same ones.
    infos = dict(sorted(_flatten(features.get_tensor_info()).items()))
    clips = [path for path, info in infos.items() if _is_clip(info)]
    video = video or next(iter(clips), None)
    if video not in clips:
        wanted = (
            f"clip feature {video!r}" if video else "feature that is a clip, uint8 [t, h, w, c]"
        )
        raise UserError(f"{directory} has no {wanted}; it has {', '.join(infos)}")
    # Some data sets are a sequence of steps instead of a dict, and have no top-level features.
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
        shape = tuple(infos["text"].shape)
        is_text = len(shape) == 2 and None not in shape
        text_shape = shape if is_text and infos["text_mask"].shape == shape[:1] else None
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
    """Maps the path of each feature, such as "steps/image", to the feature's description."""
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
