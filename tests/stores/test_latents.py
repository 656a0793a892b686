"""Latents are stored with shots in buckets, and read from there, on emulators."""

import numpy as np
import pytest
import tiny_autoencoder
from videos import make_video, noise

from stunet import cli
from stunet.data.shots.source import ShotClips
from stunet.data.sources import Dataset, make_source
from stunet.data.spec import AutoencoderSpec, ClipSpec, TextSpec
from stunet.nn import autoencoder
from stunet.prepare import latents
from stunet.stores import addresses, mirror, objects

pytestmark = pytest.mark.slow
_HOW = ("--side=16", "--fps=10", "--min-seconds=0.5", "--cut-threshold=0", "--workers=1")
_CLIP = ClipSpec(frames=4, height=16, width=24, channels=3, fps=5.0)
_TEXT = TextSpec("bytes", 8, 16)


def test_latents_in_a_bucket_are_those_of_a_disk_and_go_on_after_a_stop(
    bucket, tmp_path, monkeypatch
):
    for i in range(3):
        make_video(tmp_path / "videos" / f"{i}.mp4", noise(20, i))
    vae = tiny_autoencoder.write(tmp_path / "vae", "AutoencoderKL")
    for file in vae.iterdir():
        objects.put(f"{bucket}/vae/{file.name}", file)

    def prepare(out, place) -> int:
        words = ("--latents", str(place), "--latents-size=16x24")
        return cli.main(["prepare", str(tmp_path / "videos"), str(out), *_HOW, *words])

    assert prepare(tmp_path / "shots", vae) == 0
    files = sorted((tmp_path / "shots").glob("latents/*/*"))
    expected = {file.relative_to(tmp_path / "shots").as_posix(): file for file in files}
    assert len(expected) == 3 + 1
    write, written = latents._write, []

    def stops(file, *rest):
        if written:
            raise KeyboardInterrupt
        written.append(file)
        write(file, *rest)

    out = f"{bucket}/shots"
    monkeypatch.setattr(latents, "_write", stops)
    with pytest.raises(KeyboardInterrupt):
        prepare(out, f"{bucket}/vae")
    monkeypatch.setattr(latents, "_write", lambda file, *r: (written.append(file), write(file, *r)))
    # Another machine goes on.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert prepare(out, f"{bucket}/vae") == 0
    # None was made twice, and none stays here.
    assert len(written) == len({file.name for file in written}) == 3
    assert not [*addresses.local(out).glob("latents/*/*.safetensors")]
    found = {name for name in objects.listing(out) if name.startswith("latents/")}
    assert found == expected.keys()
    for name, file in expected.items():
        assert objects.read(f"{out}/{name}")[0] == file.read_bytes(), name
    of = autoencoder.read(vae)
    spec = AutoencoderSpec(path="", factor=2, channels=2, fingerprint=of.fingerprint)
    on_disk = ShotClips(tmp_path / "shots", "train", _CLIP, _TEXT, autoencoder=spec)
    mirror.fetched.cache_clear()
    dataset = Dataset("clips", _CLIP, _TEXT, 0, {"path": out}, autoencoder=spec)
    in_bucket = make_source(dataset, "train")
    assert len(in_bucket) == len(on_disk)
    for index in range(len(on_disk)):
        np.testing.assert_array_equal(on_disk[index]["video"], in_bucket[index]["video"])
