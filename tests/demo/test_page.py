"""The page offers what a run can do, and makes the files of `stunet sample`, bit by bit."""

import argparse
import dataclasses
import functools
import html
import importlib.util
import pathlib
import shlex
import socket
import urllib.error
import urllib.request

import numpy as np
import pytest
import stand_in
import tiny_autoencoder
from PIL import Image

from stunet import cli, configs
from stunet.commands import demo as command
from stunet.errors import UserError
from stunet.generate import networks, text
from stunet.nn import autoencoder
from stunet.train.saved import trained

pytest.importorskip("gradio", reason="the page needs Gradio (the extra demo)")
from stunet.demo import forms, page

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)
ENDS = {"GIF": ".gif", "MP4": ".mp4", "X-T slice": "_xt.png", "settings": ".json"}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run with masks, with files to give to its tasks."""
    workdir = tmp_path_factory.mktemp("masked")
    stand_in.save(stand_in.config(masks=stand_in.SHARES, data=dict(fps=10.0)), workdir)
    Image.fromarray(FRAMES[0]).save(workdir / "first.png")
    Image.fromarray(FRAMES[0, :5]).save(workdir / "low.png")
    Image.fromarray(FRAMES[1]).save(workdir / "mask.png")
    stand_in.write_gif(workdir / "clip.gif", FRAMES)
    stand_in.write_gif(workdir / "short.gif", FRAMES[:2])
    return workdir


def asked(workdir, **options):
    """Returns the arguments of a command line."""
    none = dict.fromkeys(("tsr", "base", "style_workdir", "style_lora", "autoencoder"))
    return argparse.Namespace(workdir=workdir, **none | options)


@pytest.fixture(scope="module")
def offered(workdir, tmp_path_factory):
    return command.load(asked(workdir), tmp_path_factory.mktemp("out"))


@pytest.fixture(scope="module")
def offers(offered, workdir, tmp_path_factory):
    """Returns a function of a task that returns a demo that offers the task."""
    factory = tmp_path_factory

    @functools.cache
    def helped(task):
        other, out = factory.mktemp(task), factory.mktemp("out")
        if task == "upscale":
            size = dict(data=dict(height=16, width=16, fps=10.0), upscale=dict(factor=2))
            stand_in.save(stand_in.config(**size), other)
            return command.load(asked(other, base=workdir), out)
        style = stand_in.config(masks=stand_in.SHARES, data=dict(fps=10.0))
        stand_in.save(dataclasses.replace(style, seed=1), other)  # other random weights
        return command.load(asked(workdir, style_workdir=other), out)

    return lambda task: offered if task in offered.runs else helped(task)


def make(offered, task, **filled):
    """Returns everything that the page shows, in order, after a form with `filled` is sent."""
    own = offered.runs[task][1].parts.sampling
    usual = dict(num=1, steps=own.steps, guidance=own.guidance_scale, sampler=own.sampler, seed=0)
    filled = {"prompt": ""} | usual | filled
    return list(page._sample(offered, task, tuple(filled), *filled.values()))


FILLED = {
    "text": dict(prompt="a 3\na 7 moving up", seed=5, num=2, guidance=2.0),
    "image": dict(image="first.png", seed=1, steps=3),
    "inpaint": dict(video="clip.gif", box="1,2,3,4", prompt="a 3"),
    "cinemagraph": dict(image="first.png", mask="mask.png"),
    "video": dict(video="clip.gif", strength=0.5, prompt="a 3", sampler="ancestral"),
    "upscale": dict(video="clip.gif", seed=2),
    "upscale what the base makes": dict(prompt="a 3\na 7", seed=3),
    "style": dict(alpha=0.25, prompt="a 3", seed=4),
}


@pytest.mark.parametrize("case", FILLED)
def test_the_files_are_those_of_the_command_that_is_shown(
    offers, workdir, tmp_path, monkeypatch, case
):
    monkeypatch.chdir(workdir)
    task, filled = case.partition(" ")[0], FILLED[case]
    files = {flag: str(workdir / filled[flag]) for flag in forms.FILES if flag in filled}
    waiting, *steps, last = make(offers(task), task, **filled | files)
    assert "compiling" in waiting[0]
    assert steps
    assert all("step " in stage and "data:image/webp" in stage for stage, *_ in steps)
    stage, line, *buttons = last
    assert "slice through time" in stage
    assert cli.main([*shlex.split(line)[1:], "--out", str(tmp_path)]) == 0
    for name, button in zip(page._DOWNLOADS, buttons, strict=True):
        (ours,) = tmp_path.glob(f"*{ENDS[name]}")
        if name == "settings":
            # The user's file lies elsewhere on the server.
            expected = ours.read_text()
            for file in files.values():
                expected = expected.replace(f'"{file.rpartition("/")[2]}"', f'"{file}"')
            assert pathlib.Path(button["value"]).read_text() == expected
        else:
            assert pathlib.Path(button["value"]).read_bytes() == ours.read_bytes()


@pytest.mark.parametrize(
    ("task", "filled", "sentence"),
    [
        ("text", {}, "arguments are required: --prompt"),
        ("image", {"image": "low.png"}, "low.png is 8 pixels wide and 5 high; the run makes clips"),
        ("inpaint", {"video": "clip.gif"}, "one of the arguments --mask --box is required"),
        ("inpaint", {"video": "short.gif", "box": "1,1,2,2"}, "give a video at least that long"),
        ("inpaint", {"video": "clip.gif", "mask": "short.gif"}, "short.gif has 2 frames"),
        ("cinemagraph", {"image": "first.png", "box": "1,1,9,9"}, "no rectangle inside the run"),
        ("text", {"prompt": "a 3", "seed": 2**31}, "the seed is 2147483648; it must be 0 to"),
    ],
)
def test_mistakes_get_the_sentence_of_the_command(offered, workdir, task, filled, sentence):
    files = {
        key: str(workdir / v) for key, v in filled.items() if key in ("image", "video", "mask")
    }
    *_, (stage, line, *buttons) = make(offered, task, **filled | files)
    assert "state-error" in stage
    assert sentence in html.unescape(stage)
    assert str(workdir) not in stage
    assert line == ""
    assert not any(button["interactive"] for button in buttons)


def test_the_weights_are_read_once_and_programs_are_compiled_once(workdir, monkeypatch):
    read = []
    restore = trained.restore
    monkeypatch.setattr(trained, "restore", lambda *of: read.append(of[0]) or restore(*of))
    load, traced = text.keeping_loader(), []
    stand_in.replace_network(
        monkeypatch, lambda inputs, time: traced.append(1) or 0.5 * inputs[..., :1]
    )
    counts = []
    for settings in ({}, {"steps": 3}, {}, {"steps": 3}):
        run = load(workdir, **settings)
        clips = text.sample_clips(run, ["a 3"], seed=1)
        assert clips.shape == (1, 4, 8, 8, 1)
        counts.append(len(traced))
    assert read == [workdir]
    assert 0 < counts[0] < counts[1] == counts[2] == counts[3]


def components(offered):
    blocks = page.build(offered)
    return {block.elem_id for block in blocks.blocks.values() if getattr(block, "elem_id", None)}


def test_the_page_has_the_tasks_of_the_run_alone(offered, tmp_path):
    with_masks = components(offered)
    tasks = ("text", "image", "inpaint", "cinemagraph", "video")
    assert {f"{task}-make" for task in tasks} <= with_masks
    assert not {"upscale-make", "style-make"} & with_masks
    assert {"inpaint-box", "inpaint-mask", "cinemagraph-picture"} <= with_masks
    assert {"inpaint-editor", "cinemagraph-mask"} <= with_masks
    stand_in.save(stand_in.config(model=dict(stand_in.MODEL, temporal=True)), tmp_path)
    captions_alone = command.load(asked(tmp_path, style_workdir=tmp_path), tmp_path / "out")
    assert list(captions_alone.runs) == ["text", "video", "style"]
    assert captions_alone.words("style", {}) == ("--style-workdir", str(tmp_path))
    lora = command.load(asked(tmp_path, style_lora=tmp_path / "s.safetensors"), tmp_path / "out")
    assert lora.words("style", {}) == ("--style-lora", str(tmp_path / "s.safetensors"))
    assert lora.words("text", {}) == ()
    with pytest.raises(UserError, match=r"--base is for the task upscale, which .* cannot do"):
        command.load(asked(tmp_path, base=tmp_path), tmp_path / "out")


def test_networks_that_help_another_are_words_of_its_task(workdir, tmp_path):
    small = dict(model=dict(stand_in.MODEL, text_features=0))
    stand_in.save(stand_in.config(**small, upscale=dict(factor=2)), tmp_path)
    upscaler = command.load(asked(tmp_path, base=workdir), tmp_path / "out")
    assert upscaler.words("upscale", {"video": None}) == ("--base", str(workdir))
    # A video is enlarged in place of what the base makes.
    assert upscaler.words("upscale", {"video": "clip.mp4"}) == ()
    keyframes = command.load(asked(workdir, tsr=tmp_path), tmp_path / "out")
    assert keyframes.words("text", {"prompt": ["a 3"]}) == ("--tsr", str(tmp_path))
    # What the page shows is what it runs.
    seen = []
    noting = dataclasses.replace(upscaler, make=lambda line, on_step: seen.append(line) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make(noting, "upscale", video=None, prompt="a 3")
    assert command._parsed(seen[0]).base == workdir


def test_an_autoencoder_that_has_moved_is_named_to_each_task(tmp_path, monkeypatch):
    vae = tiny_autoencoder.write(tmp_path / "vae", "AutoencoderKL")
    of = dict(path=str(vae), factor=2, channels=2, fingerprint=autoencoder.read(vae).fingerprint)
    config = stand_in.config(autoencoder=of, data=dict(channels=3), masks=stand_in.SHARES)
    stand_in.save(configs.replace(config, {"sample.threshold": "none"}), tmp_path / "run")
    moved = vae.rename(tmp_path / "moved")
    lost = command.load(asked(tmp_path / "run"), tmp_path / "out")
    assert "vae" in str(make(lost, "text", prompt="a 3")[-1][0])
    read, restore = [], trained.restore
    monkeypatch.setattr(trained, "restore", lambda *of: read.append(of[0]) or restore(*of))
    place, style = str(moved), tmp_path / "run"
    demo = command.load(asked(style, autoencoder=place, style_workdir=style), tmp_path / "out")
    assert all(demo.words(task, {})[-2:] == ("--autoencoder", place) for task in demo.runs)
    assert demo.words("style", {})[:2] == ("--style-workdir", str(style))
    stage, line, *_ = make(demo, "text", prompt="a 3")[-1]
    assert "slice through time" in stage
    assert f"--autoencoder {place}" in line
    # A clip is made with the weights that were read at the start.
    assert read == [style]


def test_a_network_that_only_fills_in_frames_is_told(tmp_path):
    tsr = stand_in.config(data=dict(frames=4), tsr=dict(stride=3))
    stand_in.save(tsr, tmp_path)
    with pytest.raises(UserError, match="conditioned on: tsr"):
        networks.find_tasks(tmp_path)
    with pytest.raises(UserError, match="holds no training run"):
        networks.find_tasks(tmp_path / "nowhere")


def test_without_gradio_the_user_is_told_how_to_install_it(workdir, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo", "--workdir", str(workdir)]) == 1
    assert capsys.readouterr().err == (
        "stunet demo: the page needs Gradio: pip install 'stunet[demo]'\n"
    )


def test_nothing_is_served_but_the_page_its_uploads_and_its_results(offered, workdir, tmp_path):
    """The server is asked for files of the machine, over HTTP."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    blocks = page.build(offered)
    address = page.serve(blocks, "127.0.0.1", port)
    try:
        assert address == f"http://127.0.0.1:{port}/"
        assert not blocks.analytics_enabled
        assert not blocks.share
        with urllib.request.urlopen(address, timeout=60) as answer:
            assert b"stunet demo" in answer.read()
        for file in (workdir / "config.json", workdir / "first.png", "/etc/hostname", __file__):
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(f"{address}gradio_api/file={file}", timeout=60)
            assert refused.value.code in (403, 404)
        with pytest.raises(UserError, match=f"cannot serve at 127.0.0.1, port {port}: "):
            page.serve(page.build(offered), "127.0.0.1", port)
    finally:
        blocks.close()
