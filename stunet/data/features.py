"""Reads the features of a TFDS data set without running code that the data set names.

TFDS itself imports the module of each class that features.json names, even a module in the current
directory. The functions here accept only the names of TFDS's own classes.
"""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from stunet import jsonfiles
from stunet.errors import UserError

FeatureConnector = tfds.features.FeatureConnector

_CLASSES: tuple[type[FeatureConnector], ...] = (
    tfds.features.Audio,
    tfds.features.BBoxFeature,
    tfds.features.ClassLabel,
    tfds.features.Dataset,
    tfds.features.FeaturesDict,
    tfds.features.Image,
    tfds.features.LabeledImage,
    tfds.features.Scalar,
    tfds.features.Sequence,
    tfds.features.Tensor,
    tfds.features.Text,
    tfds.features.Translation,
    tfds.features.TranslationVariableLanguages,
    tfds.features.Video,
)
# The class of each name that features.json may have. A class may also have names of older versions.
_BY_NAME = {
    name: cls
    for cls in _CLASSES
    for name in (f"{cls.__module__}.{cls.__name__}", *vars(cls).get("ALIASES", ()))
}


def load_features(directory: Path) -> FeatureConnector:
    """Reads the features of a TFDS data set from its features.json.

    Raises:
        UserError: the file is damaged, or names a class that is not part of TFDS.
    """
    file = directory / "features.json"
    described = jsonfiles.read(file, jsonfiles.Object)
    try:
        return _build(described)
    except UserError as error:
        raise UserError(f"{file} {error}") from error
    except Exception as error:  # TFDS and protobuf raise all kinds, also AssertionError.
        raise UserError(f"{file} describes no features that TFDS knows ({error})") from error


# Cached for `ClipFields`, which is pickled for every worker.
cached_features = functools.cache(load_features)


def _build(node: Mapping[str, Any]) -> FeatureConnector:
    """Returns the feature that a node of the tree in features.json describes.

    Versions of TFDS before 4.5 wrote the class of a node under "type", and its fields under
    "content".
    """
    name = node["type"] if "type" in node else node["pythonClassName"]
    cls = _BY_NAME.get(name)
    if cls is None:
        raise UserError(
            f"names the class {name!r}, which is none of TFDS's own; code that a data set names is "
            "not loaded: write the data set with classes of tfds.features"
        )
    if cls is tfds.features.FeaturesDict:
        return cls({key: _build(part) for key, part in _content(node, "featuresDict").items()})
    if cls in (tfds.features.Sequence, tfds.features.Dataset):
        content = _content(node, "sequence")
        return cls(_build(content["feature"]), length=_size(content.get("length")))
    if cls is tfds.features.Video:
        return _video(_content(node, "video"))
    # No class that remains describes others within it.
    return FeatureConnector.from_json(node)


def _content(node: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    """Returns a node's fields without its class. New versions of TFDS store them under `field`."""
    content = node["content"] if "type" in node else node[field]
    if isinstance(content, str):
        content = jsonfiles.parse(content, jsonfiles.Object, "has a content that")
    # Files of some versions have new contents in old nodes.
    is_new = field in node or bool(node.get("proto_cls"))
    return content.get("features", {}) if is_new and field == "featuresDict" else content


def _size(length: Any) -> int | None:
    """Returns `length` as int. Returns None if it is negative or missing: the size then varies."""
    return None if length is None or int(length) < 0 else int(length)


def _video(content: Mapping[str, Any]) -> FeatureConnector:
    """Returns the feature of a video, as a sequence of images.

    TFDS stores a video like a sequence of images, but needs TensorFlow to make its `Video` feature.
    """
    shape = content["shape"]
    frames, *image = map(_size, shape["dimensions"] if isinstance(shape, Mapping) else shape)
    encoding = content.get("encodingFormat") or content.get("encoding_format")
    return tfds.features.Sequence(
        tfds.features.Image(shape=image, encoding_format=encoding), length=frames
    )
