"""Clips sampled from stored ones, which lie class by class, include every class."""

import dataclasses
import json
from unittest import mock

import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from from_config import make_mesh, make_preview, make_source, make_validation
from read_records import ClipWriter

from stunet import configs
from stunet.data import media
from stunet.errors import UserError
from stunet.evaluate import comparison
from stunet.parallel import mesh as meshes
from stunet.report import pictures
from stunet.train.measured import preview, validation
from stunet.train.parts import make_parts

CLASSES, SHAPE, TEXT_SHAPE = "ABCDE", (4, 8, 8, 1), (24, 16)  # As in the tiny config.
CLIPS = {"train": 36, "val": 8}  # Of each class.


@pytest.fixture
def config(tmp_path):
    """Config of records written class by class; clips of a class have one brightness."""
    writer = ClipWriter(tmp_path, "clips", shard_bytes=10**6)
    for number, name in enumerate(CLASSES):
        for split, count in CLIPS.items():
            for i in range(count):
                writer.write(
                    split,
                    {
                        "video": np.full(SHAPE, number, np.uint8),
                        "caption": name,
                        "source": f"{name}#{i}",
                        "text": np.zeros(TEXT_SHAPE, np.float32),
                        "text_mask": np.ones(TEXT_SHAPE[:1], bool),
                    },
                )
    writer.close(SHAPE, TEXT_SHAPE)
    (tmp_path / "clips.json").write_text(json.dumps({"fps": 8}))
    return tiny.config(
        data=dict(source="clips", path=str(tmp_path), fps=8.0),
        log=dict(validate_every=1, validate_clips=20, sample_every=1),
        sample=dict(num=5),
    )


def test_captions_and_reference_clips_include_all_classes(config):
    for num in (5, 10, 17, 40):
        compared = comparison.from_dataset(make_parts(config).dataset, num)
        references = [compared.reference[i]["caption"] for i in range(compared.num_reference)]
        assert len(compared.captions) == len(references) == num
        for captions in (compared.captions, references):
            counts = [list(captions).count(name) for name in CLASSES]
            assert max(counts) - min(counts) <= 1
        real = [compared.real[i]["caption"] for i in compared.real_indices]
        assert real == list(compared.captions)


def test_captions_repeat_when_there_are_too_few_clips(config):
    compared = comparison.from_dataset(make_parts(config).dataset, 90)
    assert list(compared.captions[:40]) == list(compared.captions[40:80])
    assert compared.captions[:40].count("C") == CLIPS["val"]
    assert len(compared.reference) == compared.num_reference == 90


def test_validation_includes_all_classes(config, monkeypatch):
    monkeypatch.setattr(
        validation,
        "make_validation_step",
        lambda *_: lambda params, batch, teacher: {"loss": batch["video"].mean()},
    )
    mesh = make_mesh(config)
    with meshes.use(mesh, config.mesh.context_axis):
        measured = make_validation(config, mesh)(None)
    assert measured["val/loss"] == pytest.approx(2)  # The mean of 0, 1, 2, 3, 4.


def test_fewer_held_out_clips_than_a_batch_are_refused_with_what_holds_out_more(config):
    count = CLIPS["val"] * len(CLASSES)
    config = configs.replace(config, {"train.batch_size": count + 1})
    message = f"held-out clips: {count}, fewer than one batch of {count + 1}.*--val-fraction"
    with pytest.raises(UserError, match=message):
        make_validation(config, make_mesh(config))


def test_samples_and_the_real_clips_beside_them_include_all_classes(config, tmp_path, monkeypatch):
    shown, write_gif = [], media.write_gif

    def note(path, clips, fps, captions):
        shown.append(list(captions))
        write_gif(path, clips, fps, captions)

    monkeypatch.setattr(media, "write_gif", note)
    monkeypatch.setattr(preview, "make_sampler", lambda *_: lambda *_: (jnp.zeros((5, *SHAPE)),))
    make_preview(config, tmp_path, make_mesh(config))(None, 1, mock.Mock())
    configs.write(config, tmp_path / "config.json")
    assert pictures.real_clips(tmp_path / "config.json")
    assert shown == [list(CLASSES)] * 2


def test_samples_of_a_network_without_text_show_no_captions(config, tmp_path, monkeypatch):
    shown = []
    for write in ("write_gif", "write_xt"):
        monkeypatch.setattr(media, write, lambda *given: shown.append(given[-1]))
    monkeypatch.setattr(preview, "make_sampler", lambda *_: lambda *_: (jnp.zeros((5, *SHAPE)),))
    for features, captions in ((16, list(CLASSES)), (0, None)):
        model = dataclasses.replace(config.model, text_features=features)
        blind = dataclasses.replace(config, model=model)
        mesh = make_mesh(config)
        make_preview(blind, tmp_path, mesh)(None, 1, mock.Mock())
        assert shown == [captions] * 2
        shown.clear()


@pytest.mark.parametrize("source", ["moving_digits", "motions"])
def test_drawn_sources_give_their_first_clips(source):
    config = tiny.config(data=dict(source=source))
    made = {split: make_source(config, split) for split in ("train", "val")}
    compared = comparison.from_dataset(make_parts(config).dataset, 6)
    for i in range(6):
        assert compared.captions[i] == made["val"][i]["caption"]
        for given, split in ((compared.reference, "train"), (compared.real, "val")):
            np.testing.assert_array_equal(given[i]["video"], made[split][i]["video"])
    # The source keeps its type, by which its motion is known.
    assert isinstance(compared.real, type(made["val"]))
