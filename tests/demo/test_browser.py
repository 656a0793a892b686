"""A person clicks through the page of `stunet demo`: a real server, a real browser."""

import hashlib
import os
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
    yield page
    page.driver.quit()


def test_a_person_makes_clips_by_clicks(server, page, workdir, tmp_path, monkeypatch):
    page.find("#text-make")
    fetched = "return performance.getEntriesByType('resource').map(entry => entry.name)"
    assert all(name.startswith(server[0]) for name in page.driver.execute_script(fetched))

    # Text: a caption of the data is taken by a click.
    page.click("#text-captions button.gallery-item")
    page.value("#text-prompt textarea")
    page.click("#text-make")
    page.find("#state-waiting, #state-sampling, #stage figure")
    command = page.value("#command textarea")
    assert shlex.split(command)[:5] == ["stunet", "sample", "text", "--workdir", str(workdir)]
    assert len(page.all("#stage figure img")) == 2  # the clip and its slice

    # A picture of another size gets one sentence.
    page.click("button[data-tab-id=cinemagraph]")
    page.upload("#cinemagraph-image", workdir / "low.png")
    assert "low.png is 8 pixels wide and 5 high" in page.find("#cinemagraph-problem .error").text

    # A box between two clicks.
    page.click("#cinemagraph-image button[aria-label='Clear'], #cinemagraph-image [title='Clear']")
    page.upload("#cinemagraph-image", workdir / "first.png")
    page.click_at("#cinemagraph-picture img", 1.5 / 8, 2.5 / 8)
    page.wait_for("#cinemagraph-box :is(input, textarea)", "2,1,1,1")
    page.click_at("#cinemagraph-picture img", 5.5 / 8, 4.5 / 8)
    page.wait_for("#cinemagraph-box :is(input, textarea)", "2,1,3,5")
    page.click("#cinemagraph-make")
    page.find("#stage figure.given")
    command = page.value("#command textarea")
    assert "--image first.png --box 2,1,3,5 --seed 0" in command

    # A mask that the brush paints takes the place of the box.
    page.click("#tab-cinemagraph button[data-tab-id=mask]")
    page.drag("#cinemagraph-editor canvas", (0, 0), (0.1, 0))
    page.wait_until(lambda: ".png" in page.find("#cinemagraph-mask").text)
    page.click("#cinemagraph-make")
    page.wait_until(lambda: "--mask mask.png" in page.value("#command textarea"))
    page.find("#stage figure.given")
    command = page.value("#command textarea")
    assert "--box" not in command
    (mask,) = server[1].glob("stunet_demo_*/samples/masks/*/mask.png")
    assert 0 < (np.asarray(Image.open(mask)) == 255).sum() < 64
    shutil.copy(mask, workdir)

    # What can be downloaded is what the command writes.
    monkeypatch.chdir(workdir)
    assert cli.main([*shlex.split(command)[1:], "--out", str(tmp_path / "out")]) == 0
    (expected,) = (tmp_path / "out").glob("*.mp4")
    # The clip of the box has the same name, and other bytes.
    served = {hashlib.sha256(file.read_bytes()).digest() for file in server[1].rglob("*.mp4")}
    assert hashlib.sha256(expected.read_bytes()).digest() in served
