"""A person clicks through the page of `stunet demo`: a real server, a real browser."""

import os
import pathlib
import re
import shlex
import shutil
import socket
import subprocess
import sys

import numpy as np
import pytest
import stand_in
from PIL import Image

from stunet import cli

pytest.importorskip("gradio", reason="the page needs Gradio (the extra demo)")
pytest.importorskip("selenium", reason="Selenium clicks on the page (the extra test-all)")
from browser import PROGRAMS, Page, missing

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=f"no {missing()}: apt-get install {PROGRAMS}"),
]
FRAMES = np.random.default_rng(0).integers(0, 256, (4, 8, 8), np.uint8)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("masked")
    stand_in.save(stand_in.config(masks=stand_in.SHARES, data=dict(fps=10.0)), workdir)
    Image.fromarray(FRAMES[0]).save(workdir / "first.png")
    Image.fromarray(FRAMES[0, :5]).save(workdir / "low.png")
    stand_in.write_gif(workdir / "clip.gif", FRAMES)
    return workdir


@pytest.fixture(scope="module")
def server(workdir, tmp_path_factory):
    """Serves the page from a process of its own, in a temporary directory of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("server")
    words = ["demo", "--workdir", str(workdir), "--port", str(port)]
    with subprocess.Popen(
        [sys.executable, "-m", "stunet", *words],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    ) as process:
        address = next(filter(None, (re.search(r"http\S+", line) for line in process.stdout)))[0]
        yield address, folder
        process.terminate()
        assert process.wait(60) == 0
    # Uploads and clips are gone.
    assert not list(folder.glob("stunet_demo_*"))


@pytest.fixture
def page(server, tmp_path):
    page = Page(server[0], tmp_path)
    page.find("#text-make")
    yield page
    page.driver.quit()


def made(page, task):
    """Clicks on Make, waits for the clip, and returns the command line that the page shows."""
    page.watch_stage()
    page.click(f"#{task}-make")

    def finished():
        seen = page.seen()
        states = [state for state, *_ in seen]
        assert "state-error" not in states, seen[-1]
        # The clip that was there before is gone, and the new one has no state above it.
        return "state-waiting" in states and states[-1] == "" and seen[-1][2]

    page.wait_until(finished)
    return page.value("#command textarea")


def check_downloads(page, command, workdir, out, monkeypatch, uploads=()):
    """Checks that each button downloads the file that the command line writes."""
    monkeypatch.chdir(workdir)
    assert cli.main([*shlex.split(command)[1:], "--out", str(out)]) == 0
    ends = {"gif": ".gif", "mp4": ".mp4", "slice": "_xt.png", "settings": ".json"}
    for name, end in ends.items():
        downloaded = page.download(f"#download-{name}")
        (expected,) = out.glob(f"*{end}")
        # The server adds letters to the name if it has another clip of the same name.
        assert downloaded.name.startswith(expected.name.removesuffix(end))
        assert downloaded.name.endswith(end)
        if name == "settings":
            # The files of the user lie elsewhere on the server.
            text = downloaded.read_text()
            for upload in uploads:
                text = re.sub(rf'"[^"]*/{re.escape(upload)}"', f'"{upload}"', text)
            assert text == expected.read_text()
        else:
            assert downloaded.read_bytes() == expected.read_bytes()


def open_task(page, task):
    page.click(f"button[data-tab-id={task}]")
    page.find(f"#{task}-make")


def give(page, task, flag, file):
    """Uploads a file, and waits until the page names it."""
    page.upload(f"#{task}-{flag}", file)
    page.wait_until(lambda: file.suffix in page.find(f"#{task}-{flag}").text)


def set_steps(page, task, steps):
    page.click(f"#{task}-sampling button")
    page.fill(f"#{task}-steps input[type=number]", steps)


def test_a_caption_becomes_the_clips_of_the_command_with_the_settings_of_the_form(
    server, page, workdir, tmp_path, monkeypatch
):
    fetched = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert all(name.startswith(server[0]) for name in page.driver.execute_script(fetched))

    # A caption of the data is taken by a click.
    page.click("#text-captions button.gallery-item")
    prompt = page.value("#text-prompt textarea")
    seed = "#text-seed input"
    page.click("#text-another")
    page.wait_until(lambda: page.value(seed) != "0")
    set_steps(page, "text", 30)
    page.fill("#text-guidance input[type=number]", 2)
    page.fill("#text-num input[type=number]", 2)
    command = made(page, "text")
    assert shlex.split(command) == [
        *("stunet", "sample", "text", "--workdir", str(workdir), "--prompt", prompt),
        *("--seed", page.value(seed), "--num", "2", "--steps", "30", "--guidance", "2"),
    ]

    # While the clips were made, the page showed how far they were, and what they looked like.
    *before, (_, _, clips) = page.seen()
    assert len(clips) == 4  # two clips and their slices
    assert next(state for state, *_ in before if state) == "state-waiting"
    steps = [(text, pictures) for state, text, pictures in before if state == "state-sampling"]
    done = [int(re.search(r"step (\d+) of 30:", text)[1]) for text, _ in steps]
    assert done == sorted(done)
    assert done[0] < 30
    assert all(len(pictures) == len(clips) for _, pictures in steps)
    assert steps[0][1][0].startswith("data:image/webp")
    assert steps[0][1][0] != clips[0]

    check_downloads(page, command, workdir, tmp_path / "out", monkeypatch)


def test_stop_ends_sampling(server, page, workdir):
    known = set(server[1].glob("stunet_demo_*/samples/*.mp4"))
    # There are 64 clips and 100 steps, so that Stop is clicked long before the end.
    page.fill("#text-prompt textarea", "stopped\n" * 8)
    set_steps(page, "text", 100)
    page.fill("#text-num input[type=number]", 8)
    page.watch_stage()
    page.click("#text-make")
    page.wait_until(lambda: any(state == "state-sampling" for state, *_ in page.seen()))
    page.click("#text-stop")
    page.wait_until(lambda: "Clips appear here" in page.seen()[-1][1])
    *_, text = [text for state, text, _ in page.seen() if state == "state-sampling"]
    assert int(re.search(r"step (\d+) of 100:", text)[1]) < 100

    # A new clip can be made at once, and Stop leaves it alone when it is there.
    page.fill("#text-prompt textarea", "after")
    page.fill("#text-steps input[type=number]", 2)
    page.fill("#text-num input[type=number]", 1)
    made(page, "text")
    page.click("#text-stop")
    page.click("#text-another")
    page.wait_until(lambda: page.value("#text-seed input") != "0")
    assert len(page.all("#stage figure img")) == 2

    # One thing is made at a time. So sampling has ended by now, and it has left no files.
    (after,) = set(server[1].glob("stunet_demo_*/samples/*.mp4")) - known
    assert after.name.startswith("after")


def paint(page, task):
    """Draws a stroke with the brush, and waits until the page offers the mask."""
    page.repeat(
        lambda: page.drag(f"#{task}-editor canvas", (0, 0), (0.1, 0)),
        lambda: ".png" in page.find(f"#{task}-mask").text,
    )


def fetch_mask(server, workdir):
    """Copies the newest mask that the page has made to `workdir`, and returns the copy."""
    masks = server[1].glob("stunet_demo_*/samples/masks/*/mask.png")
    newest = max(masks, key=lambda mask: mask.stat().st_mtime_ns)
    return pathlib.Path(shutil.copy(newest, workdir))


def test_a_region_is_chosen_by_two_clicks_or_by_the_brush(
    server, page, workdir, tmp_path, monkeypatch
):
    # A picture of another size gets one sentence.
    open_task(page, "cinemagraph")
    page.upload("#cinemagraph-image", workdir / "low.png")
    assert "low.png is 8 pixels wide and 5 high" in page.find("#cinemagraph-problem .error").text

    # A box between two clicks.
    page.click("#cinemagraph-image button[aria-label='Clear'], #cinemagraph-image [title='Clear']")
    page.upload("#cinemagraph-image", workdir / "first.png")
    page.click_at("#cinemagraph-picture img", 1.5 / 8, 2.5 / 8)
    page.wait_for("#cinemagraph-box :is(input, textarea)", "2,1,1,1")
    page.click_at("#cinemagraph-picture img", 5.5 / 8, 4.5 / 8)
    page.wait_for("#cinemagraph-box :is(input, textarea)", "2,1,3,5")
    command = made(page, "cinemagraph")
    page.find("#stage figure.given")
    assert "--image first.png --box 2,1,3,5 --seed 0" in command

    # A mask that the brush paints takes the place of the box.
    page.click("#tab-cinemagraph button[data-tab-id=mask]")
    paint(page, "cinemagraph")
    command = made(page, "cinemagraph")
    assert "--mask mask.png" in command
    assert "--box" not in command
    mask = fetch_mask(server, workdir)
    assert 0 < (np.asarray(Image.open(mask)) == 255).sum() < 64
    # The clip of the box had the same name, and other bytes.
    uploads = ("first.png", mask.name)
    check_downloads(page, command, workdir, tmp_path / "out", monkeypatch, uploads)


def test_a_picture_begins_a_clip(page, workdir):
    open_task(page, "image")
    give(page, "image", "image", workdir / "first.png")
    page.fill("#image-seed input", 7)
    command = made(page, "image")
    assert "--image first.png --seed 7" in command
    page.find("#stage figure.given")


def test_a_video_is_repainted_where_the_brush_was(server, page, workdir, tmp_path, monkeypatch):
    open_task(page, "inpaint")
    give(page, "inpaint", "video", workdir / "clip.gif")
    page.click("#tab-inpaint button[data-tab-id=mask]")
    paint(page, "inpaint")
    command = made(page, "inpaint")
    assert "--video clip.gif --mask mask.png" in command
    page.find("#stage figure.given")
    uploads = ("clip.gif", fetch_mask(server, workdir).name)
    check_downloads(page, command, workdir, tmp_path / "out", monkeypatch, uploads)


def test_a_video_is_changed_as_strongly_as_the_slider_says(page, workdir):
    open_task(page, "video")
    give(page, "video", "video", workdir / "clip.gif")
    page.fill("#video-strength input[type=number]", 0.35)
    page.fill("#video-prompt textarea", "a 3")
    command = made(page, "video")
    assert "--video clip.gif --strength 0.35" in command
    assert "--prompt 'a 3'" in command
