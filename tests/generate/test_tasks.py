"""`stunet sample TASK` writes clips, and a JSON file of all settings that they depend on."""

import json
import pathlib
import re
import shlex
import unicodedata

import numpy as np
import pytest
import stand_in
import test_step
from from_config import make_mesh
from PIL import Image

from stunet import cli, configs
from stunet.commands.sample import TASKS
from stunet.generate import arrays, tasks
from stunet.generate.request import Sampled
from stunet.train.parts import make_parts
from stunet.train.saved.checkpoints import Checkpoints

CONFIG = stand_in.config(masks=stand_in.SHARES, data=dict(fps=10.0))
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)

# For each task, the arguments that it alone takes, and the end of its files' names.
OWN = {
    "text": (["--prompt", "a 3"], "a_3_seed2"),
    "image": (["--image", "{dir}/first.png"], "no_prompt_seed2_image_first"),
    "inpaint": (
        ["--video", "{dir}/clip.gif", "--mask", "{dir}/mask.gif"],
        "no_prompt_seed2_inpaint_clip",
    ),
    "cinemagraph": (
        ["--image", "{dir}/first.png", "--box", "0,0,4,4", "--prompt", "a 3"],
        "a_3_seed2_cinemagraph_first",
    ),
    "video": (
        ["--video", "{dir}/clip.gif", "--strength", "0.5"],
        "no_prompt_seed2_video_clip_strength0_5",
    ),
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("masked")
    configs.write(CONFIG, workdir / "config.json")
    with Checkpoints(workdir) as checkpoints:
        state = test_step.random_state(CONFIG, make_mesh(CONFIG))
        checkpoints.save(state.replace(step=state.step + 7), {"global_next_index": 0})
        checkpoints.wait()
    Image.fromarray(FRAMES[0]).save(workdir / "first.png")
    stand_in.write_gif(workdir / "clip.gif", FRAMES)
    stand_in.write_gif(workdir / "mask.gif", 255 - FRAMES // 2)
    return workdir


@pytest.mark.parametrize("task", ["inpaint", "cinemagraph"])
def test_a_picture_as_a_mask_makes_the_clips_of_the_same_box(workdir, tmp_path, monkeypatch, task):
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.5 * inputs[..., :1])
    white = np.zeros((8, 8), np.uint8)
    white[1:4, 2:7] = 255
    Image.fromarray(white).save(tmp_path / "mask.png")
    own = [a.format(dir=workdir) for a in OWN[task][0][:2]]
    made = []
    for region in (["--box", "1,2,3,5"], ["--mask", str(tmp_path / "mask.png")]):
        words = ["sample", task, "--workdir", str(workdir), "--steps", "1", *own, *region]
        out = tmp_path / region[0].strip("-")
        assert cli.main([*words, "--out", str(out), "--arrays", "--name", "mine"]) == 0
        made.append(arrays.read(out / "mine.npz"))
    np.testing.assert_array_equal(made[0].clips, made[1].clips)
    np.testing.assert_array_equal(made[0].given, made[1].given)


def test_every_task_is_tried_here():
    assert set(OWN) <= set(TASKS)


@pytest.mark.parametrize("task", OWN)
def test_a_task_writes_clips_and_all_that_they_depend_on(
    workdir, tmp_path, monkeypatch, capsys, task
):
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.5 * inputs[..., :1])
    own, name = OWN[task]
    own = [a.format(dir=workdir) for a in own]
    shared = ["--workdir", workdir, "--out", tmp_path, "--num", 2, "--seed", 2, "--steps", 1]
    status = cli.main(["sample", task, *map(str, shared), *own])
    printed = capsys.readouterr()
    assert status == 0, printed.err
    ends = (".gif", ".mp4", "_xt.png", ".json")
    assert {p.name for p in tmp_path.iterdir()} == {name + end for end in ends}
    assert all(str(tmp_path / f"{name}{end}") in printed.out for end in ends)
    noted = json.loads((tmp_path / f"{name}.json").read_text())
    expected = {"task": task, "workdir": str(workdir), "checkpoint": 7, "seed": 2}
    assert noted | expected == noted
    assert len(noted["prompts"]) == 2
    assert noted["sample"]["steps"] == 1
    given = dict(zip(own[::2], own[1::2], strict=True))
    for flag, value in given.items():
        assert flag == "--prompt" or str(noted[flag.strip("-")]) == value


@pytest.mark.parametrize("task", OWN)
def test_arrays_hold_the_clips_and_what_was_given(workdir, tmp_path, monkeypatch, task):
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.5 * inputs[..., :1])
    own = [a.format(dir=workdir) for a in OWN[task][0]]
    words = ["sample", task, "--workdir", str(workdir), "--out", str(tmp_path), "--steps", "1"]
    words += [*own, "--num", "2", "--arrays", "--name", "mine"]
    assert cli.main(words) == 0
    ends = (".gif", ".mp4", "_xt.png", ".json", ".npz")
    assert {p.name for p in tmp_path.iterdir()} == {f"mine{end}" for end in ends}
    shown = arrays.read(tmp_path / "mine.npz")
    assert shown.command == shlex.join(["stunet", *words])
    assert (shown.task, shown.fps, shown.clips.shape) == (task, 10.0, (2, 4, 8, 8, 1))
    if task == "text":
        assert shown.given is None
        return
    given = shown.given[0, ..., 0].astype(int)
    if task in ("image", "cinemagraph"):
        # The box of the cinemagraph is drawn on the picture.
        border = np.zeros((8, 8), bool)
        border[:4, :4] = task == "cinemagraph"
        border[1:3, 1:3] = False
        np.testing.assert_allclose(given[0], np.where(border, 255, FRAMES[0]), atol=1)
        np.testing.assert_allclose(shown.clips[:, 0, 4:, :, 0], FRAMES[[0, 0], 4:], atol=1)
    elif task == "inpaint":
        hole = FRAMES // 2 <= 127 - 0.5
        assert np.isin(given[hole], (127, 128)).mean() > 0.9
    else:
        np.testing.assert_allclose(given, FRAMES, atol=2)


@pytest.mark.parametrize("name", ["", "a/b", "..", "x" * 300])
def test_names_that_are_no_names_of_files_are_refused(workdir, capsys, name):
    words = ["sample", "text", "--workdir", str(workdir), "--prompt", "a", "--name", name]
    with pytest.raises(SystemExit):
        cli.main(words)
    assert "is no name of a file" in capsys.readouterr().err


def test_samples_made_otherwise_are_kept_and_the_same_command_takes_its_own_name_again(
    workdir, tmp_path, monkeypatch, capsys
):
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.5 * inputs[..., :1])

    def sample(*options):
        shared = ["--workdir", str(workdir), "--out", str(tmp_path), "--prompt", "a 3"]
        assert cli.main(["sample", "text", *shared, "--steps", "1", *options]) == 0
        gif, *_, settings = (line.split()[-1] for line in capsys.readouterr().out.splitlines())
        assert settings == gif.replace(".gif", ".json")
        return pathlib.Path(gif)

    plain = sample()
    assert plain == tmp_path / "a_3_seed0.gif"
    others = [
        sample(*options)
        for options in (
            ("--guidance", "2"),
            ("--steps", "2"),
            ("--sampler", "ancestral"),
            ("--prompt", "a 7"),
            ("--num", "2"),
        )
    ]
    assert len({plain, *others}) == 6
    assert all(re.fullmatch(r"a_3_seed0_[0-9a-f]{8}", gif.stem) for gif in others)
    assert json.loads(plain.with_suffix(".json").read_text())["sample"]["steps"] == 1
    before = set(tmp_path.iterdir())
    assert len(before) == 6 * 4
    plain.write_bytes(b"")
    assert (sample(), sample("--guidance", "2")) == (plain, others[0])
    assert set(tmp_path.iterdir()) == before
    assert plain.stat().st_size > 0
    # A file without a JSON file of settings beside it.
    tmp_path.joinpath("a_3_seed4_xt.png").write_bytes(b"evaluation's")
    assert sample("--seed", "4").stem.startswith("a_3_seed4_")
    assert tmp_path.joinpath("a_3_seed4_xt.png").read_bytes() == b"evaluation's"


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("Ein Hund, der läuft", "ein_hund_der_läuft_seed0"),
        ("собака бежит", "собака_бежит_seed0"),
        ("一只狗在跑", "一只狗在跑_seed0"),
        ("दौड़ता कुत्ता", "दौड़ता_कुत्ता_seed0"),
        ("狗" * 70, "狗" * 20 + "_seed0"),
        ("a " * 40, "a_" * 30 + "_seed0"),
        ("🐕!", "no_prompt_seed0"),
    ],
)
def test_names_keep_the_letters_of_all_alphabets(workdir, tmp_path, monkeypatch, prompt, name):
    stand_in.replace_network(monkeypatch, lambda inputs, time: 0.5 * inputs[..., :1])
    shared = ["--workdir", str(workdir), "--out", str(tmp_path), "--steps", "1"]
    assert cli.main(["sample", "text", *shared, "--prompt", prompt]) == 0
    ends = (".gif", ".mp4", "_xt.png", ".json")
    expected = {unicodedata.normalize("NFC", name) + end for end in ends}
    assert {p.name for p in tmp_path.iterdir()} == expected


def test_a_name_of_many_labels_is_none_that_a_disk_refuses(workdir, tmp_path, monkeypatch):
    made = Sampled(
        np.zeros((1, 4, 8, 8, 1), np.float32), make_parts(CONFIG), 7, labels=("狗" * 40,) * 9
    )
    monkeypatch.setattr(tasks, "text_to_video", lambda *arguments: made)
    shared = ["--workdir", str(workdir), "--out", str(tmp_path), "--prompt", "a 3"]
    for seed in ("0", "1"):
        assert cli.main(["sample", "text", *shared, "--seed", seed]) == 0
    assert len(list(tmp_path.iterdir())) == 2 * 4


def test_no_task_or_none_of_that_name_gets_one_sentence(capsys):
    for arguments in (["--workdir", "w"], [], ["imag"]):
        assert cli.main(["sample", *arguments]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert all(task in line for task in TASKS)
    assert "did you mean 'image'?" in line


def test_what_a_run_was_not_trained_for(workdir, tmp_path, capsys):
    configs.write(stand_in.config(), tmp_path / "config.json")
    for task in ("image", "inpaint", "cinemagraph"):
        own = [a.format(dir=workdir) for a in OWN[task][0]]
        assert cli.main(["sample", task, "--workdir", str(tmp_path), *own]) == 1
        assert "train one with masks.image" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        (["--guidance", "-1"], "sample.guidance_scale is -1.0; it must be at least 0"),
        (["--sampler", "dddim"], "sample.sampler is 'dddim'; did you mean 'ddim'?"),
        (["--out", "{dir}/first.png"], "first.png is a file; name a directory"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_anything_is_sampled(
    workdir, capsys, asked, sentence
):
    own = [a.format(dir=workdir) for a in [*OWN["text"][0], *asked]]
    assert cli.main(["sample", "text", "--workdir", str(workdir), *own]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert sentence in line
