"""`stunet data` writes clips of a config's data, which `stunet sample` can read back."""

import json

import numpy as np
import pytest
import tiny
from PIL import Image

from stunet import cli, configs
from stunet.data.sources import make_source
from stunet.data.spec import ClipSpec
from stunet.generate import arrays, data, inputs, pictures
from stunet.train.parts import make_parts


@pytest.fixture
def colours(tmp_path):
    keys = dict(channels=3, look="colours", height=16, width=16, frames=4, fps=8.0)
    config = tiny.config(data=keys)
    configs.write(config, tmp_path / "config.json")
    return tmp_path, config


def test_clips_are_written_together_and_one_by_one(colours, capsys):
    directory, config = colours
    out = directory / "out"
    words = ["data", "--config", str(directory / "config.json"), "--split", "val", "--num", "3"]
    assert cli.main([*words, "--out", str(out)]) == 0, capsys.readouterr().err
    source = make_source(make_parts(config).dataset, "val")
    shown = arrays.read(out / "val.npz")
    assert shown.captions == tuple(source[i]["caption"] for i in range(3))
    assert shown.command.startswith("stunet data --config ")
    assert {p.name for p in out.iterdir()} == {
        *("val.gif", "val.mp4", "val_xt.png", "val.npz", "val.jsonl"),
        *(f"val_{i}.{end}" for i in range(3) for end in ("mp4", "png")),
    }
    listed = [json.loads(line) for line in (out / "val.jsonl").read_text().splitlines()]
    assert [row["path"] for row in listed] == [f"val_{i}.mp4" for i in range(3)]
    assert tuple(row["caption"] for row in listed) == shown.captions
    clip = ClipSpec(4, 16, 16, 3, 8.0)
    for i in range(3):
        video = source[i]["video"].astype(np.float32) / 127.5 - 1
        np.testing.assert_array_equal(shown.clips[i], source[i]["video"])
        np.testing.assert_allclose(
            pictures.read_picture(out / f"val_{i}.png", clip), video[0], atol=1e-6
        )
        # H.264 keeps half of the colours' resolution.
        error = np.abs(inputs.read_clip(out / f"val_{i}.mp4", clip) - video)
        assert error.mean() < 0.03


def test_pictures_show_the_first_clips_of_many(colours, monkeypatch):
    directory, config = colours
    dataset = make_parts(config).dataset
    data.write(directory / "two", dataset, "train", 2)
    monkeypatch.setattr(data, "MOST_SHOWN", 2)
    data.write(directory / "many", dataset, "train", 5)
    for name in ("train.gif", "train.mp4", "train_xt.png"):
        assert (directory / "many" / name).read_bytes() == (directory / "two" / name).read_bytes()
    assert len(arrays.read(directory / "many" / "train.npz").clips) == 5
    assert (directory / "many" / "train_4.mp4").exists()


def test_grey_frames_are_grey_pictures(tmp_path):
    configs.write(tiny.config(), tmp_path / "config.json")
    words = ["data", "--config", str(tmp_path / "config.json"), "--num", "1", "--out"]
    assert cli.main([*words, str(tmp_path / "out")]) == 0
    assert Image.open(tmp_path / "out" / "train_0.png").mode == "L"
