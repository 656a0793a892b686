"""Measurements are found again for the same description, and for no other."""

import numpy as np

from stunet.evaluate import cache


def test_arrays_are_found_for_the_same_description_only(tmp_path):
    store, clips = cache.MeasurementCache(tmp_path / "evaluation"), np.zeros((2, 3), np.float32)
    settings = {"seed": 0, "captions": ["a", "b"]}
    assert store.read("logits", settings, clips) is None
    store.write({"logits": np.eye(3)[:, ::-1], "empty": np.zeros(0)}, "logits", settings, clips)
    found = cache.MeasurementCache(tmp_path / "evaluation").read("logits", settings, clips.copy())
    np.testing.assert_array_equal(found["logits"], np.eye(3)[:, ::-1])
    assert found["empty"].shape == (0,)
    store.write({}, "flow", settings)
    assert store.read("flow", settings) == {}
    changed = clips.copy()
    changed[1, 2] = 1e-6
    for other in (({"seed": 1, "captions": ["a", "b"]}, clips), (settings, changed)):
        assert store.read("logits", *other) is None
    assert store.read("logits", settings) is None
    assert store.read("flow", settings, clips) is None


def test_a_changed_program_finds_nothing(tmp_path, monkeypatch):
    store = cache.MeasurementCache(tmp_path)
    store.write({"a": np.zeros(2)}, "name", 1)
    monkeypatch.setattr(cache, "_source", lambda: b"another")
    assert store.read("name", 1) is None


def test_a_damaged_file_counts_as_missing(tmp_path):
    store = cache.MeasurementCache(tmp_path)
    store.write({"a": np.zeros(200)}, "name", 1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert store.read("name", 1) is None
