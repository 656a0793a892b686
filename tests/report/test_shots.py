"""The page of a set of shots tells what became of each video, and shows clips that play."""

import base64
import html
import io
import json
import re

import numpy as np
import pytest
from PIL import Image

from stunet.commands.prepare import COMMAND
from stunet.data.shots.codecs import make_codec
from stunet.errors import UserError
from stunet.report.histograms import Layer, histogram
from stunet.report.shots import PAGE_FILE


def write_video(path, pictures):
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *pictures.shape[1:3], "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def moving(seed, frames=20):
    """Returns blocks that move, uint8 [frames, 32, 48, 3]."""
    wide = np.random.default_rng(seed).integers(0, 256, (4, 30, 3))
    wide = np.kron(wide, np.ones((8, 8, 1))).astype(np.uint8)
    return np.stack([wide[:, 2 * i : 2 * i + 48] for i in range(frames)])


def run(*words):
    arguments = COMMAND.parser("stunet prepare").parse(list(map(str, words)))
    COMMAND.run(arguments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page") / "my <videos>"
    folder.mkdir()
    for seed in range(3):
        write_video(folder / f"{seed}.mp4", moving(seed))
    write_video(folder / "still.mp4", np.repeat(moving(3, 1), 20, axis=0))
    write_video(folder / "short.mp4", moving(4, 5))
    (folder / "broken.mp4").write_bytes((folder / "0.mp4").read_bytes()[:2000])
    lines = [{"file": f"{i}.mp4", "caption": f"blocks & <b>number {i}</b>"} for i in range(3)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return folder


def test_the_page_tells_what_became_of_each_video(folder, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--fps", 10, "--min-motion", 0.02, "--workers", 1, "--cut-threshold", 0]
    run(folder, out, *words)
    assert f"page       {out / PAGE_FILE}" in capsys.readouterr().out
    page = (out / PAGE_FILE).read_text()
    text = re.sub(r"\s+", " ", html.unescape(re.sub("<[^>]*>", " ", page)))
    for expected in (
        "Shots of " + str(folder),
        "kept 3 shots 6.0 s, 70.6%",
        "dropped: too little motion 1 shot 2.0 s, 23.5% still.mp4 at 0.0 s",
        "left out: shorter than 1 s 1 video 0.5 s, 5.9%",
        "skipped: cannot be read 1 video " + str(folder / "broken.mp4"),
        "blocks & <b>number 1</b> 1.mp4 at 0.0 s",
        "least motion, ",
        "too little motion: 1 shot no caption still.mp4 at 0.0 s",
    ):
        assert expected in text
    assert re.search(r"The slowest files .* 0\.mp4 [\d.]+ s 20 ", text)
    assert "<b>number" not in page
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    run(folder, out, *words)
    assert "The slowest files" not in (out / PAGE_FILE).read_text()


def test_clips_loop_and_show_the_shots(folder, tmp_path):
    run(folder, tmp_path / "out", "--fps", 10, "--workers", 1, "--cut-threshold", 0)
    page = (tmp_path / "out" / PAGE_FILE).read_text()
    sheet = re.search("Shots that are kept</h2>.*?<h2>", page, re.DOTALL)[0]
    images = [
        Image.open(io.BytesIO(base64.b64decode(data)))
        for data in re.findall(r"data:image/webp;base64,([^\"]+)", sheet)
    ]
    assert len(images) == 4
    for seed, image in enumerate(images[:3]):
        assert image.info["loop"] == 0
        assert image.n_frames == 16
        for frame in (0, 9):
            image.seek(frame)
            shown = np.asarray(image.convert("RGB").resize((48, 32), Image.Resampling.BOX))
            assert np.abs(shown.astype(int) - moving(seed)[frame]).mean() < 20
    assert make_codec("h264").name in page


def test_a_histogram_counts_every_value_once():
    rng = np.random.default_rng(0)
    layers = [Layer(0, rng.exponential(1, 500)), Layer(1, rng.exponential(3, 300))]
    drawn = histogram(layers, "seconds", mark=0.5)
    tall = 160 - 34 - 16
    heights = [
        sum(map(float, re.findall(rf'class="bar arm{arm}"[^>]*height="([\d.]+)"', drawn)))
        for arm in (0, 1)
    ]
    most = int(re.search(r'<text x="8" y="12">([\d,]+)</text>', drawn)[1])
    assert [round(height * most / tall) for height in heights] == pytest.approx([500, 300], abs=5)
    assert "histogram of seconds" in drawn
    single = histogram([Layer(None, np.array([4.0]))], "words", whole=True)
    assert single.count("bar") == 1


def test_a_damaged_shot_is_named(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out, "--fps", 10, "--workers", 1, "--cut-threshold", 0, "--codec", "jpeg")
    shard = out / "shards" / "000000.array_record"
    content = shard.read_bytes()
    shard.write_bytes(content.replace(b"\xff\xd8\xff\xe0", b"\xff\xd8\x00\xe0"))
    with pytest.raises(UserError, match=r"record 0 of .*000000.array_record is damaged"):
        run(folder, out, "--fps", 10, "--workers", 1, "--cut-threshold", 0, "--codec", "jpeg")
    options = ["--cut-threshold", 0, "--codec", "jpeg", "--verify"]
    run(folder, out, "--fps", 10, "--workers", 1, *options)
