"""A pipeline in a bucket is inflated, and the run names its parts by their addresses."""

import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import numpy as np
from test_pipeline import CAPTION, inflate, save

from stunet import configs
from stunet.data.spec import make_autoencoder, make_encoder
from stunet.nn.text import text_encoder
from stunet.stores import addresses, mirror, objects
from stunet.train.parts import make_parts

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quickly_compiled_convolutions"),
]


@pytest.mark.parametrize("kind", ["sd21", "sdxl"])
def test_another_machine_finds_the_parts_by_the_config(bucket, kind, tmp_path, monkeypatch):
    here, there = tmp_path / "pipeline", f"{bucket}/{kind}"
    save(here, kind)
    for file in here.rglob("*"):
        if file.is_file():
            objects.put(f"{there}/{file.relative_to(here).as_posix()}", file)
    assert inflate(there, tmp_path / "run") == 0
    config = configs.read(tmp_path / "run" / "config.json")
    family, folder = {"sd21": ("clip", "/text_encoder"), "sdxl": ("sdxl", "")}[kind]
    assert config.text.encoder == f"{family}:{there}{folder}"
    assert config.autoencoder.path == f"{there}/vae"

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of another machine"))
    for kept in (mirror.fetched, make_autoencoder, make_encoder):
        kept.cache_clear()
    parts = make_parts(config)
    found = make_encoder(parts.denoiser.text)([CAPTION])
    expected = text_encoder(f"{family}:{here}{folder}", config.text.max_length)([CAPTION])
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)
    assert make_autoencoder(parts.dataset.autoencoder).fingerprint == config.autoencoder.fingerprint
    copies = {path.name for path in addresses.local(there).iterdir() if path.is_dir()}
    texts = ("", "_2") if kind == "sdxl" else ("",)
    wanted = {f"{part}{number}" for part in ("text_encoder", "tokenizer") for number in texts}
    assert copies == {"vae"} | wanted
