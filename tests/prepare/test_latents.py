"""Stored latents are those of the clips that training would cut, however they came to be stored."""

import hashlib
import shutil

import ml_dtypes
import numpy as np
import pytest
import tiny_autoencoder
from videos import make_video, noise

from stunet.data.shots.latents import MADE_FILE
from stunet.data.shots.layout import Spec, read_index
from stunet.data.shots.source import ShotClips
from stunet.data.spec import AutoencoderSpec, ClipSpec, TextSpec
from stunet.errors import UserError
from stunet.nn import autoencoder
from stunet.prepare import latents
from stunet.prepare.filters import Filters
from stunet.prepare.latents import Encoding
from stunet.prepare.run import prepare

SPEC = Spec(side=32, fps=10.0, min_seconds=0.5, max_seconds=30.0, cut_threshold=0.0)
CLIP = ClipSpec(frames=4, height=16, width=24, channels=3, fps=5.0)
TEXT = TextSpec("bytes", 8, 16)
FACTORS = {"AutoencoderKL": 2, "AutoencoderTiny": 4}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Three videos: one that is longer than what is decoded at once, and one that is dark."""
    folder = tmp_path_factory.mktemp("latents") / "videos"
    for name, frames in (("a", noise(70, 1)), ("b", noise(20, 2) // 8), ("c", noise(20, 3))):
        make_video(folder / f"{name}.mp4", frames)
    return folder


@pytest.fixture(scope="module", params=FACTORS)
def vae(request, tmp_path_factory):
    return autoencoder.read(tiny_autoencoder.write(tmp_path_factory.mktemp("vae"), request.param))


@pytest.fixture(scope="module")
def of_kl(tmp_path_factory):
    return autoencoder.read(tiny_autoencoder.write(tmp_path_factory.mktemp("vae"), "AutoencoderKL"))


def make(videos, output, vae, workers=1, **options):
    encodings = [Encoding(vae, CLIP.height, CLIP.width)] if vae else []
    options = dict(val_fraction=0, progress=False, workers=workers, encodings=encodings) | options
    return prepare(videos, output, SPEC, **options)


def spec_of(vae, **changes):
    shape = dict(factor=FACTORS[vae.kind], channels=2, fingerprint=vae.fingerprint)
    return AutoencoderSpec(path="", **shape | changes)


def opened(output, vae=None, clip=CLIP, **changes):
    return ShotClips(output, "train", clip, TEXT, autoencoder=vae and spec_of(vae, **changes))


def digests(output):
    return {
        file.relative_to(output).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in output.glob("latents/**/*")
        if file.is_file()
    }


def test_latents_are_those_of_the_clips_of_pixels(videos, vae, tmp_path):
    make(videos, tmp_path, vae)
    pixels, stored = opened(tmp_path), opened(tmp_path, vae)
    assert len(stored) == len(pixels) == 10 + 2 + 2  # A clip spans 7 pictures, at half their rate.
    words = [2**63, 0, 12345, 0]
    for index in (0, 9, 13):
        expected = vae.encode(pixels[index]["video"].astype(np.float32) / 127.5 - 1)
        rounded = [x.astype(ml_dtypes.bfloat16).astype(np.float32) for x in expected]
        found = stored[index]
        assert found["caption"] == pixels[index]["caption"]
        np.testing.assert_allclose(found["video"], rounded[0], rtol=2**-7, atol=1e-5)
        drawn = vae.encode(pixels.draw(index, words)["video"].astype(np.float32) / 127.5 - 1)
        z = (stored.draw(index, words)["video"] - drawn.mean) / np.maximum(drawn.std, 1e-9)
        if vae.architecture.has_std:
            assert drawn.std.min() > 0.05
            np.testing.assert_allclose([z.mean(), z.std()], [0, 1], atol=0.1)
        else:
            np.testing.assert_allclose(drawn.mean, stored.draw(index, words)["video"], rtol=2**-7)
    again, other = (stored.draw(0, [*words[:2], seed, 0])["video"] for seed in (12345, 12346))
    np.testing.assert_array_equal(again, stored.draw(0, words)["video"])
    assert np.array_equal(again, other) != vae.architecture.has_std


def test_the_bytes_depend_neither_on_the_workers_nor_on_a_stop(
    videos, of_kl, tmp_path, monkeypatch
):
    make(videos, tmp_path / "one", of_kl)
    make(videos, tmp_path / "two", None, workers=2)
    write, written = latents._write, []

    def stops(file, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(file)
        write(file, *rest)

    monkeypatch.setattr(latents, "_write", stops)
    with pytest.raises(KeyboardInterrupt):
        make(videos, tmp_path / "two", of_kl)
    with pytest.raises(UserError, match=r"000001\.safetensors is missing, or lacks latents"):
        opened(tmp_path / "two", of_kl)
    opened(tmp_path / "two")  # Pixels can be trained on meanwhile.
    made = written[0].stat().st_mtime_ns
    monkeypatch.setattr(latents, "_write", write)
    make(videos, tmp_path / "two", of_kl, workers=2)
    assert written[0].stat().st_mtime_ns == made
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 3 + 1


def test_shots_that_a_filter_drops_have_no_latents_until_it_keeps_them(videos, of_kl, tmp_path):
    make(videos, tmp_path / "all", of_kl)
    make(videos, tmp_path / "some", of_kl, filters=Filters(min_brightness=40))
    assert read_index(tmp_path / "some").frames.tolist() == [70, 0, 20]
    assert len(opened(tmp_path / "some", of_kl)) == 12
    make(videos, tmp_path / "some", None)
    with pytest.raises(UserError, match="lacks latents of shots"):
        opened(tmp_path / "some", of_kl)
    make(videos, tmp_path / "some", of_kl)
    assert digests(tmp_path / "some") == digests(tmp_path / "all")
    make(videos, tmp_path / "some", None, filters=Filters(min_brightness=40))
    assert len(opened(tmp_path / "some", of_kl)) == 12  # Latents that are no longer used stay.


def test_latents_that_do_not_fit_are_refused(videos, of_kl, tmp_path):
    with pytest.raises(UserError, match="takes multiples of 2 rows and columns"):
        Encoding(of_kl, 15, 16).made()
    make(videos, tmp_path, of_kl)
    wanted = "holds no latents of 16x24 pixels by the autoencoder f00d, with 2 channels and a"
    with pytest.raises(UserError, match=f"{wanted} factor of 2, but 16x24 pixels by the Auto"):
        opened(tmp_path, of_kl, fingerprint="f00d")
    larger = ClipSpec(frames=4, height=32, width=24, channels=3, fps=5.0)
    with pytest.raises(UserError, match="no latents of 32x24 pixels"):
        opened(tmp_path, of_kl, larger)
    other = autoencoder.read(tiny_autoencoder.write(tmp_path / "vae", "AutoencoderKL", seed=1))
    make(videos, tmp_path, other)
    with pytest.raises(UserError, match=r"by several autoencoders; set autoencoder\.fingerprint"):
        opened(tmp_path, of_kl, fingerprint="")
    file = next(tmp_path.glob("latents/*/000001.safetensors"))
    shutil.copy(file.with_name("000000.safetensors"), file)
    with pytest.raises(UserError, match=r"000001\.safetensors is missing, or lacks latents"):
        opened(tmp_path, of_kl, fingerprint=file.parent.name.split("-")[1])
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="is damaged"):
        opened(tmp_path, of_kl, fingerprint=file.parent.name.split("-")[1])
    assert (file.parent / MADE_FILE).is_file()


def test_a_shard_that_is_made_again_loses_its_latents(videos, of_kl, tmp_path):
    make(videos, tmp_path, of_kl)
    before = digests(tmp_path)
    (tmp_path / "shards" / "000001.json").unlink()
    make(videos, tmp_path, None)
    assert len(digests(tmp_path)) == len(before) - 1
    make(videos, tmp_path, of_kl)
    assert digests(tmp_path) == before


def test_a_fingerprint_tells_autoencoders_apart(of_kl, tmp_path):
    same = autoencoder.read(tiny_autoencoder.write(tmp_path / "same", "AutoencoderKL"))
    other = autoencoder.read(tiny_autoencoder.write(tmp_path / "other", "AutoencoderKL", seed=1))
    file = tmp_path / "same" / "config.json"
    file.write_text(file.read_text().replace("0.36", "0.37"))
    scaled = autoencoder.read(tmp_path / "same")
    assert of_kl.fingerprint == same.fingerprint
    assert len({of_kl.fingerprint, other.fingerprint, scaled.fingerprint}) == 3
