"""The features of a TFDS data set are read, and no code that the data set names is loaded."""

import json
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from stunet.data.features import load_features
from stunet.errors import UserError

FEATURES = tfds.features.FeaturesDict(
    {
        "a/b": tfds.features.Tensor(shape=(None, 4), dtype=np.float32, encoding="zlib"),
        "steps": tfds.features.Dataset({"image": tfds.features.Image(shape=(8, 8, 3))}),
        "frames": tfds.features.Sequence({"box": tfds.features.BBoxFeature()}, length=3),
        "label": tfds.features.ClassLabel(names=["left", "right"]),
        "words": tfds.features.Translation(("en", "fr")),
        "text": tfds.features.Text(),
        "number": tfds.features.Scalar(dtype=np.int64),
    }
)


def old(feature):
    """Returns the description of a feature as TFDS wrote it before version 4.5."""
    if isinstance(feature, tfds.features.FeaturesDict) and not isinstance(
        feature, tfds.features.Translation
    ):
        content = {key: old(part) for key, part in feature.items()}
    elif isinstance(feature, tfds.features.Sequence):
        content = {"feature": old(feature.feature), "length": feature._length}
    else:
        return feature.to_json()
    return {"type": f"{type(feature).__module__}.{type(feature).__name__}", "content": content}


@pytest.mark.parametrize("describe", ["new", "wrapped", "old"])
def test_all_classes_of_tfds_are_read_as_tfds_reads_them(tmp_path, describe):
    FEATURES.save_config(tmp_path)
    if describe != "new":
        described = FEATURES.to_json() if describe == "wrapped" else old(FEATURES)
        (tmp_path / "features.json").write_text(json.dumps(described))
    found, expected = load_features(tmp_path), tfds.features.FeaturesDict.from_config(tmp_path)
    assert repr(found) == repr(expected)
    assert found.get_tensor_info() == expected.get_tensor_info()


PLACES = {
    "top": lambda node: node,
    "within a dict": lambda node: node["featuresDict"]["features"]["text"],
    "within a list": lambda node: node["featuresDict"]["features"]["frames"]["sequence"]["feature"],
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("key", ["pythonClassName", "type", "python_class_name"])
def test_a_module_that_a_data_set_names_is_not_imported(tmp_path, monkeypatch, place, key):
    canary = tmp_path / "sung"
    (tmp_path / "canary_features.py").write_text(f"open({str(canary)!r}, 'w')")
    monkeypatch.syspath_prepend(tmp_path)
    FEATURES.save_config(tmp_path)
    described = json.loads((tmp_path / "features.json").read_text())
    node = PLACES[place](described)
    del node["pythonClassName"]
    node |= {key: "canary_features.Canary", "content": {}}
    (tmp_path / "features.json").write_text(json.dumps(described))
    with pytest.raises(UserError, match=r"features\.json"):
        load_features(tmp_path)
    assert "canary_features" not in sys.modules
    assert not canary.exists()


def test_the_class_is_named_that_is_not_loaded(tmp_path):
    FEATURES.save_config(tmp_path)
    file = tmp_path / "features.json"
    file.write_text(file.read_text().replace("text_feature.Text", "my_feature.Text"))
    with pytest.raises(UserError, match=r"my_feature\.Text', which is none of TFDS's own"):
        load_features(tmp_path)
