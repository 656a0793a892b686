"""The page: it holds all members, needs nothing but itself, and says what the figures say."""

import base64
import dataclasses
import html.parser
import io
import json
import re

import numpy as np
import pytest
import tiny
from PIL import Image

from stunet import configs
from stunet.data import media
from stunet.errors import UserError
from stunet.report import drawing, report
from stunet.report.report import write_report
from stunet.report.results import flat
from stunet.sweep import workdir as workdirs
from stunet.sweep.members import Member, Step, product

ONE_LEVEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
VOID = {"meta", "img", "br", "line", "circle", "polyline", "polygon"}


class Page(html.parser.HTMLParser):
    """Checks that every element is closed, and keeps text and attributes."""

    def __init__(self, source: str):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], "", [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.text += data


def write_run(directory, losses, samples=False):
    """What a run that measured these losses would leave."""
    lines = [{"step": i + 1, "loss": loss} for i, loss in enumerate(losses)]
    lines.append({"step": len(losses), "val/loss": 2 * losses[-1], "val/loss_t=0.5": 1.0})
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "metrics.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
    if samples:
        clips = np.random.default_rng(0).uniform(-1, 1, (2, 4, 8, 8, 1)).astype(np.float32)
        for step in (4, 8):
            media.write_gif(directory / "samples" / f"step_{step:08d}.gif", clips, 8)
            media.write_xt(directory / "samples" / f"step_{step:08d}_xt.png", clips)


@pytest.fixture
def sweep(tmp_path):
    """Two arms of three seeds, and two steps that make something of both; `he` is the worse."""
    base = tiny.config(model=ONE_LEVEL)
    grid = {"model.temporal_resize_init": ("nearest", "he"), "seed": (0, 1, 2)}
    entries = [type(m)(m.name, configs.resolve(m.config)) for m in product(base, grid)]
    needs = tuple(f"temporal_resize_init={init},seed=0" for init in ("nearest", "he"))
    entries.append(Step("both,seed=0", ("evaluate", "{sweep}/x"), needs, "both,seed=0/x"))
    directory = tmp_path / "a <b> & 'c'"
    workdirs.claim(directory, entries, ["sweep", "--config", "<s>.py"])
    for entry in entries[:-1]:
        worse = 0.1 * (entry.config.model.temporal_resize_init == "he")
        losses = [1 / (i + 1) + worse + 0.01 * entry.config.seed for i in range(8)]
        write_run(directory / entry.name, losses, samples=True)
    return directory


def drawn(directory) -> tuple[str, Page]:
    write_report(directory, directory / "report.html")
    source = (directory / "report.html").read_text()
    return source, Page(source)


def test_page_needs_nothing_but_itself(sweep):
    source, page = drawn(sweep)
    assert "http" not in source
    assert "url(" not in source
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert links
    assert all(re.match(r"data:image/(gif|png);base64,", value) for value in links)
    starts = {base64.b64decode(value.split(",")[1])[:4] for value in links}
    assert starts == {b"GIF8", b"\x89PNG"}


def test_every_member_is_in_it_and_names_are_text(sweep):
    source, page = drawn(sweep)
    for init in ("nearest", "he"):
        assert f"temporal_resize_init={init}" in page.text
        for seed in (0, 1, 2):
            assert f"temporal_resize_init={init}, seed {seed}" in page.text
    assert "a <b> & 'c'" in page.text
    assert "<b>:" not in source
    assert "<s>.py" in page.text
    assert "model.temporal_resize_init" in page.text


def test_the_same_directory_gives_the_same_page(sweep):
    assert drawn(sweep)[0] == drawn(sweep)[0]


def test_answer_is_by_pairs_of_seeds(sweep):
    _, page = drawn(sweep)
    # Both arms vary as much with the seed as they differ, but the seeds vary alike.
    assert re.search(
        r"Lowest validation loss: temporal_resize_init=nearest, 0\.27\d? ± 0\.0\d+\. "
        r"Clearly higher: temporal_resize_init=he by 0\.2",
        page.text,
    )
    assert "equal" in page.text


def test_evaluations_become_figures_and_composed_arms(sweep):
    for seed, share in enumerate((0.5, 0.6, 0.4)):
        for init, more in (("nearest", 0.0), ("he", 0.01 * seed)):
            file = sweep / f"temporal_resize_init={init},seed={seed}" / "evaluation.json"
            metrics = {"fast": {"coherent <share>": share + more, "broken": float("nan")}}
            better = {"fast / coherent <share>": "higher"}
            file.write_text(json.dumps({"metrics": metrics, "better": better}))
    (sweep / "both,seed=0").mkdir()
    (sweep / "both,seed=0" / "evaluation.json").write_text(
        json.dumps({"metrics": {"fast": {"coherent <share>": 0.9}}})
    )
    _, page = drawn(sweep)
    assert "Highest fast / coherent <share>: both, 0.9." in page.text
    assert "broken" not in page.text
    made_of = "temporal_resize_init=nearest,seed=0, temporal_resize_init=he,seed=0"
    assert f"both is made of {made_of}" in page.text
    # Its members' operations are its own.
    row = re.search(r"training FLOPs of a run([\d.]+) M([\d.]+) M([\d.]+) M", page.text)
    a, b, both = map(float, row.groups())
    assert both == pytest.approx(a + b, rel=1e-3)


@pytest.fixture
def two_groups(tmp_path):
    """Of slow and of fast motion: one network, and a pair of them, also on true keyframes."""
    entries, evaluated = [], {}
    for group, worse in (("slow", 0.0), ("fast", 0.5)):
        for seed in (0, 1, 2):
            names = [f"{group},{name},seed={seed}" for name in ("whole", "first", "second")]
            for i, name in enumerate(names):
                # Arms are told apart by their configs.
                of_arm = dict(data=dict(fps=8.0 + worse), log=dict(every=i + 1))
                config = tiny.config(model=ONE_LEVEL, **of_arm)
                entries.append(Member(name, dataclasses.replace(config, seed=seed), group))
            for name, needs, share in (
                ("pair", names[1:], 0.9 - worse),
                ("pair_true", names[2:], 0.99),
            ):
                name = f"{group},{name},seed={seed}"
                entries.append(Step(name, ("x",), tuple(needs), f"{name}/x", group))
                given = "true keyframes" if "true" in name else ""
                evaluated[name] = dict(share=share + 0.01 * seed, given=given)
            evaluated[names[0]] = dict(share=0.8 + 0.01 * seed, given="")
    workdirs.claim(tmp_path, entries, ["sweep"])
    for entry in entries:
        if isinstance(entry, Member):
            write_run(tmp_path / entry.name, [1.0] * entry.config.train.steps)
    for name, found in evaluated.items():
        (tmp_path / name).mkdir(exist_ok=True)
        metrics = {"coherent": found["share"]}
        content = {"metrics": metrics, "better": {"coherent": "higher"}, "given": found["given"]}
        (tmp_path / name / "evaluation.json").write_text(json.dumps(content))
    return tmp_path


def test_groups_are_answered_by_themselves(two_groups):
    _, page = drawn(two_groups)
    # What was given true keyframes is shown, and is no rival.
    assert re.search(r"slow\s*Highest coherent: pair, 0\.91", page.text)
    assert re.search(r"fast\s*Highest coherent: whole, 0\.81", page.text)
    assert "Clearly lower: pair by 0.4" in page.text
    assert "pair_true" not in page.text[: page.text.index("Final figures")]
    for group in ("slow", "fast"):
        table = page.text[page.text.index(f"Final figures: {group}") :]
        table = table[: table.index("Curves")]
        assert "pair_true" in table
        assert "true keyframes" in table
        # Shown in the curves, and parts of pairs here.
        assert "first" not in table


def test_unfinished_members_are_named_and_left_out_of_the_figures(sweep):
    write_run(sweep / "temporal_resize_init=he,seed=2", [9.0, 9.0])
    (sweep / "temporal_resize_init=he,seed=1" / "metrics.jsonl").unlink()
    _, page = drawn(sweep)
    assert "temporal_resize_init=he,seed=2 is at update 2 of 8" in page.text
    assert "temporal_resize_init=he,seed=1 has not begun" in page.text
    row = re.search(r"validation loss \(lower is better\)(.*?)training loss", page.text)
    assert "18" not in row[1]


def test_losses_of_other_objectives_are_not_ranked(tmp_path):
    base = tiny.config(model=ONE_LEVEL)
    grid = {"diffusion.prediction": ("v", "x0"), "seed": (0, 1)}
    entries = [type(m)(m.name, configs.resolve(m.config)) for m in product(base, grid)]
    workdirs.claim(tmp_path, entries, ["sweep"])
    for entry in entries:
        write_run(tmp_path / entry.name, [1.0, 0.5] * 4)
    _, page = drawn(tmp_path)
    assert "Lowest" not in page.text
    assert "which differ in diffusion.prediction" in page.text


def test_single_run(tmp_path):
    directory = tmp_path / "alone"
    configs.write(tiny.config(model=ONE_LEVEL), directory / "config.json")
    write_run(directory, [0.8, 0.4, 0.2])
    _, page = drawn(directory)
    assert "validation loss: 0.4" in page.text
    assert "alone is at update 3 of 8" in page.text


def test_pictures_beyond_the_budget_are_left_out_and_named(sweep):
    for init in ("nearest", "he"):
        gif = sweep / f"temporal_resize_init={init},seed=2" / "samples" / "step_00000008.gif"
        gif.write_bytes(gif.read_bytes() + bytes(4_000_000))
    source, page = drawn(sweep)
    assert len(source) < 5_000_000
    left_out = "temporal_resize_init=nearest,seed=2, temporal_resize_init=he,seed=2"
    assert f"Left out, to keep the page small: {left_out}" in page.text


def test_real_clips_play_as_fast_as_their_source():
    # Frames every 5 of the source's, at 8 a second.
    gif, _ = report._real(tiny.config(data=dict(frames=4, stride=5)))
    with Image.open(io.BytesIO(gif)) as image:
        lasts = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
    assert sum(lasts) == 4 * 1000 * 5 / 8


def test_mistakes_get_one_sentence(tmp_path, sweep):
    with pytest.raises(UserError, match="holds neither a sweep nor a training run"):
        write_report(tmp_path / "nowhere", tmp_path / "out.html")
    configs.write(tiny.config(), tmp_path / "new" / "config.json")
    with pytest.raises(UserError, match="nothing has been trained"):
        write_report(tmp_path / "new", tmp_path / "out.html")
    (sweep / "temporal_resize_init=he,seed=0" / "evaluation.json").write_text("[1]")
    with pytest.raises(UserError, match="is no evaluation"):
        write_report(sweep, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_nested_figures_by_name():
    nested = {"a": 1, "b": {"c": 0.5, "d": {"e": 2}}, "f": "text", "g": float("inf")}
    assert dict(flat(nested)) == {"a": 1, "b / c": 0.5, "b / d / e": 2}


def test_ticks_are_round_and_inside():
    for low, high in ((0.0, 1.0), (-3.2, 0.7), (0.0, 1234.0), (0.05, 0.051)):
        ticks = drawing._ticks(low, high)
        assert 3 <= len(ticks) <= 7
        assert all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
        steps = np.diff(ticks)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert drawing._log_ticks(0.04, 1.1) == [0.05, 0.1, 0.2, 0.5, 1.0]
