"""`stunet inflate` and `stunet data` with addresses, on emulators."""

import shutil

import jax
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import tiny_unet
from test_pipeline import save, text_lora, zeros

from stunet import cli, configs
from stunet.data.spec import make_encoder
from stunet.stores import addresses, mirror, objects
from stunet.train.parts import make_parts
from stunet.weights import inflate as inflating

pytestmark = pytest.mark.slow
_SMALL = ("--frames=4", "--config.text.max_length=8", "--config.model.temporal_attention_blocks=1")


@pytest.fixture(scope="module")
def t2i(tmp_path_factory):
    directory = tmp_path_factory.mktemp("t2i")
    tiny_unet.save(directory, tiny_unet.flags((8, 16), norm_num_groups=2))
    return directory


@pytest.fixture(scope="module")
def expected(t2i):
    """The arrays of checkpoint 0 of a run that is inflated on a disk."""
    out = t2i.parent / "inflated"
    assert cli.main(["inflate", f"--t2i={t2i}", f"--out={out}", *_SMALL]) == 0
    return _arrays(out / "checkpoints" / "0")


def _arrays(checkpoint) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(ocp.load_checkpointables(checkpoint))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def test_inflate_reads_a_model_from_a_bucket_and_writes_a_run_there(bucket, t2i, expected, capsys):
    if bucket.startswith("s3"):
        pytest.skip("checkpoints are uploaded as other files are")
    for file in t2i.iterdir():
        objects.put(f"{bucket}/unet/{file.name}", file)
    out = f"{bucket}/inflated"
    words = ["inflate", f"--t2i={bucket}/unet", f"--out={out}", *_SMALL]
    assert cli.main(words) == 0
    assert out in capsys.readouterr().out
    copy = addresses.local(out)
    mirror.pull(copy)
    found = _arrays(mirror.place(copy, "checkpoints") / "0")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name
    assert "config.json" in objects.listing(out)
    assert cli.main(words) == 1
    assert f"{out} exists already" in capsys.readouterr().err


def test_data_writes_its_files_to_a_bucket(bucket, capsys):
    out = f"{bucket}/looks"
    assert cli.main(["data", "--config=quickstart", f"--out={out}", "--num=1"]) == 0
    assert f"{out}/train_0.mp4" in capsys.readouterr().out
    assert {"train_0.mp4", "train_0.png"} <= objects.listing(out).keys()


def test_a_text_encoder_that_a_lora_changes_lies_in_the_bucket(bucket, tmp_path, monkeypatch):
    saved, file = save(tmp_path / "sdxl", "sdxl"), text_lora(tmp_path, 2)
    monkeypatch.setattr(inflating, "_draw", zeros)
    words = ["inflate", f"--t2i={saved.folder}", f"--lora={file}", _SMALL[0], _SMALL[2]]
    states = []
    for out in (str(tmp_path / "run"), f"{bucket}/styled"):
        assert cli.main([*words, f"--out={out}"]) == 0
        shutil.rmtree(addresses.local(f"{bucket}/styled"), ignore_errors=True)
        mirror.fetched.cache_clear()
        config = configs.read(mirror.fetched(f"{out}/config.json"))
        assert config.text.encoder == f"sdxl:{out}/text_encoder"
        encode = make_encoder(make_parts(config).denoiser.text)
        states.append(encode(["a dog runs"])[0])
    np.testing.assert_array_equal(*states)
