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
from stunet.report import drawing, formatting, page, pictures, report, results
from stunet.report.report import write_report
from stunet.report.results import flatten
from stunet.sweep import workdir as workdirs
from stunet.sweep.curves import Curves
from stunet.sweep.members import Member, Step, Sweep, product

ONE_LEVEL = dict(
    channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), temporal=False
)
VOID = {"meta", "img", "br", "line", "circle", "polyline", "polygon", "rect", "path"}


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
    # Noon of 2 January 1970, UTC.
    (directory / "clock.json").write_text(json.dumps({"began": 1.5 * 86400}))
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
    workdirs.claim(directory, Sweep(entries), ["sweep", "--config", "<s>.py"])
    for entry in entries[:-1]:
        worse = 0.1 * (entry.config.model.temporal_resize_init == "he")
        losses = [1 / (i + 1) + worse + 0.01 * entry.config.seed for i in range(8)]
        write_run(directory / entry.name, losses, samples=True)
    return directory


def rendered(directory) -> tuple[str, Page]:
    write_report(directory, directory / "report.html")
    source = (directory / "report.html").read_text()
    return source, Page(source)


def test_page_needs_nothing_but_itself(sweep):
    source, page = rendered(sweep)
    assert "http" not in source
    assert "url(" not in source
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    links = [value for name, value in page.attributes if name in ("src", "href", "srcset")]
    assert links
    assert all(re.match(r"data:image/(gif|png);base64,", value) for value in links)
    starts = {base64.b64decode(value.split(",")[1])[:4] for value in links}
    assert starts == {b"GIF8", b"\x89PNG"}


def test_metrics_measured_in_training_have_curves(sweep):
    assert "steady velocity" not in rendered(sweep)[1].text
    for file in sweep.glob("*/metrics.jsonl"):
        with file.open("a") as lines:
            for step in (4, 8):
                # What says nothing of quality has no curve.
                values = {"eval/coherent": step / 8, "eval/speed": 1.0}
                lines.write(json.dumps({"step": step} | values) + "\n")
    text = rendered(sweep)[1].text
    assert "steady velocity (share of clips), higher is better" in text
    assert "median speed" not in text


def test_every_member_is_in_it_and_names_are_text(sweep):
    source, page = rendered(sweep)
    for init in ("nearest", "he"):
        assert f"temporal resize init = {init}" in page.text
    for seed in (0, 1, 2):
        assert f"Samples of seed {seed}" in page.text
    assert "a <b> & 'c'" in page.text
    assert "<b>:" not in source
    assert "<s>.py" in page.text
    assert "model.temporal_resize_init" in page.text


def test_the_same_directory_gives_the_same_page(sweep):
    assert rendered(sweep)[0] == rendered(sweep)[0]


def test_answer_is_by_pairs_of_seeds(sweep):
    _, page = rendered(sweep)
    # Both arms vary as much with the seed as they differ, but the seeds vary alike.
    assert re.search(
        r"Validation loss is lowest with temporal resize init = nearest \(0\.27\), followed by "
        r"temporal resize init = he \(0\.47\)\."
        r"Temporal resize init = nearest is clearly better than temporal resize init = he \(by 0",
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
    _, page = rendered(sweep)
    assert "Fast / coherent <share> is highest with the both (0.9)" in page.text
    assert "broken" not in page.text
    made_of = "temporal resize init = nearest and temporal resize init = he"
    assert f"Both is made of {made_of}." in page.text
    # Its members' operations are its own.
    row = re.search(r"Work to train one run" + 3 * r"([\d.]+) MFLOPs", page.text)
    # The step was ranked with the two others, and so has the third column.
    a, b, both = map(float, row.groups())
    assert both == pytest.approx(a + b, rel=1e-3)


def test_a_metric_of_a_user_has_its_title_unit_and_format(sweep):
    own = dict(title="growth <fast>", description="how it grows", unit="mm", format="{:.1%}")
    files = [sweep / f"temporal_resize_init={i},seed=0/evaluation.json" for i in ("nearest", "he")]
    content = {"metrics": {"grows": 0.25}, "better": {"grows": "higher"}}
    for file in files:
        file.write_text(json.dumps(content | {"own_metrics": {"grows": own}}))
    _, page = rendered(sweep)
    assert "Growth <fast>" in page.text
    assert "mm, higher is better" in page.text
    assert "how it grows" in page.text
    assert "25.0%" in page.text
    assert formatting.metric("grows").title == "grows"  # Another page does not know it.
    # A format from a file could read attributes or fill the memory.
    for harmful in ("{:9999999999}", "{0.__class__}", "{}{}", "%s"):
        shown = {"grows": own | {"format": harmful}}
        files[0].write_text(json.dumps(content | {"own_metrics": shown}))
        with pytest.raises(UserError, match=r"is no evaluation.*no format of a number"):
            rendered(sweep)


def test_a_metric_of_a_user_that_was_measured_in_training_has_a_curve(sweep):
    own = dict(title="growth <fast>", description="how it grows", unit="mm")
    for file in sweep.glob("*/metrics.jsonl"):
        with file.open("a") as lines:
            for step in (4, 8):
                lines.write(json.dumps({"step": step, "eval/grows": step / 8}) + "\n")
    for better in (None, "higher"):
        for file in sweep.glob("*/metrics.jsonl"):
            content = {"metrics": {"grows": 1}, "own_metrics": {"grows": own | {"better": better}}}
            file.with_name("evaluation.json").write_text(json.dumps(content))
        curve = "growth <fast> (mm), higher is better"
        assert (curve in rendered(sweep)[1].text) == (better is not None)


@pytest.fixture
def two_groups(tmp_path):
    """Of slow and of fast motion: one network, and a pair of them, also on true keyframes."""
    entries, evaluated = [], {}
    for group, worse in (("slow", 0.0), ("fast", 0.5)):
        for seed in (0, 1, 2):
            labels = ("whole", "first", "second")
            names = [f"{group},{name},seed={seed}" for name in labels]
            for i, name in enumerate(names):
                # Arms are told apart by their configs.
                of_arm = dict(data=dict(fps=8.0 + worse), train=dict(warmup_steps=i + 1))
                config = tiny.config(model=ONE_LEVEL, log=dict(every=i + 1), **of_arm)
                config = dataclasses.replace(config, seed=seed)
                entries.append(Member(name, config, f"{group} motion", f"{labels[i]} network"))
            for name, label, needs, share in (
                ("pair", "pair", names[1:], 0.9 - worse),
                ("pair_true", "true pair", names[2:], 0.99),
            ):
                name = f"{group},{name},seed={seed}"
                makes, title = f"{name}/x", f"{group} motion"
                entries.append(Step(name, ("x",), tuple(needs), makes, title, label))
                given = "true keyframes" if "true" in name else ""
                evaluated[name] = dict(share=share + 0.01 * seed, given=given)
            evaluated[names[0]] = dict(share=0.8 + 0.01 * seed, given="")
    workdirs.claim(tmp_path, Sweep(entries, question="Is one network enough?"), ["sweep"])
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
    _, page = rendered(two_groups)
    # What was given true keyframes is shown, and is no rival.
    assert re.search(
        r"Slow motion: velocity stays steady in 91% of the pair's clips, "
        r"81% of the whole network's\.",
        page.text,
    )
    assert re.search(
        r"Fast motion: velocity stays steady in 81% of the whole network's clips, "
        r"41% of the pair's\.",
        page.text,
    )
    assert (
        "The whole network is clearly better than the pair (by 40 points), also after Holm's "
        "correction for 2 comparisons." in page.text
    )
    assert "true pair" not in page.text[: page.text.index("Results in numbers")]
    for group in ("Slow", "Fast"):
        table = page.text[page.text.rindex(f"{group} motion") :]
        table = table[table.index("Results in numbers") : table.index("Training")]
        assert "true pair" in table
        assert "true keyframes" in table
        # Parts of pairs are shown in the curves alone.
        assert "first network" not in table


def test_the_head_says_what_was_compared_and_when(two_groups):
    _, page = rendered(two_groups)
    title, rest = page.text.split("Compared: ")
    assert title.split() == ["Is", "one", "network", "enough?", "Is", "one", "network", "enough?"]
    assert rest.startswith(
        "the whole network and the pair, in 2 groups (slow motion; fast motion), with 3 seeds "
        "each. 18 training runs, begun on 2 January 1970."
    )


def test_an_arm_has_one_colour_and_name_in_all_groups(two_groups):
    source, _ = rendered(two_groups)
    swatch = r'swatch (arm\d+(?: again)?)"></span>([^<]*)</span>([^<]*)'
    found = {}
    for colour, first, rest in re.findall(swatch, source):
        name = (first + rest).strip().lower()
        for arm in ("whole network", "true pair", "pair", "first network", "second network"):
            if name.startswith(arm):
                found.setdefault(arm, set()).add(colour)
                break
    assert len(found) == 5
    assert all(len(colours) == 1 for colours in found.values())
    assert len(set.union(*found.values())) == 5


def test_settings_of_groups_and_of_arms_have_tables_of_their_own(two_groups):
    _, page = rendered(two_groups)
    text = page.text[page.text.index("What differs") :]
    assert "slow motionfast motiondata.fps8.08.5" in text
    assert "whole networkfirst networksecond networktrain.warmup_steps123" in text
    assert "Also different, without an effect on any update: log.every." in text


def test_unfinished_members_are_named_and_left_out_of_the_figures(sweep):
    write_run(sweep / "temporal_resize_init=he,seed=2", [9.0, 9.0])
    (sweep / "temporal_resize_init=he,seed=1" / "metrics.jsonl").unlink()
    _, page = rendered(sweep)
    assert "temporal_resize_init=he,seed=2 is at update 2 of 8" in page.text
    assert "temporal_resize_init=he,seed=1 has not begun" in page.text
    row = re.search(r"Validation loss lower is better(.*?)Training loss", page.text)
    assert "0.27" in row[1]
    assert "18" not in row[1]


def test_losses_of_other_objectives_are_not_ranked(tmp_path):
    base = tiny.config(model=ONE_LEVEL)
    grid = {"diffusion.prediction": ("v", "x0"), "seed": (0, 1)}
    entries = [type(m)(m.name, configs.resolve(m.config)) for m in product(base, grid)]
    workdirs.claim(tmp_path, Sweep(entries), ["sweep"])
    for entry in entries:
        write_run(tmp_path / entry.name, [1.0, 0.5] * 4)
    _, page = rendered(tmp_path)
    assert "lowest" not in page.text
    assert "variants that differ in diffusion.prediction" in page.text


def test_a_single_run_shows_its_command_and_no_words_of_a_sweep(tmp_path):
    directory = tmp_path / "alone"
    configs.write(tiny.config(model=ONE_LEVEL), directory / "config.json")
    write_run(directory, [0.8, 0.4, 0.2], samples=True)
    _, page = rendered(directory)
    assert "Training run alone" in page.text
    assert "Validation loss: 0.4" in page.text
    assert "Update 3 of 8, begun on 2 January 1970." in page.text
    assert f"stunet train --config {directory}/config.json --workdir NEW_FOLDER" in page.text
    for word in ("seed", "arm", "variant", "interval", "Compared"):
        assert word not in page.text, word


def test_skipped_updates_are_counted(tmp_path, sweep):
    directory = tmp_path / "alone"
    configs.write(tiny.config(model=ONE_LEVEL), directory / "config.json")
    write_run(directory, [0.8, 0.4])
    assert "Updates skipped" not in rendered(directory)[1].text
    for run, count in ((directory, 3), (sweep / "temporal_resize_init=he,seed=1", 2)):
        with (run / "metrics.jsonl").open("a") as lines:
            lines.write(json.dumps({"step": 2, "loss": 0.3, "skipped_updates": count}) + "\n")
    assert re.search(r"Updates skipped\s*3", rendered(directory)[1].text)
    assert re.search(r"Updates skipped, all seeds\s*0\s*2", rendered(sweep)[1].text)


def test_pictures_beyond_the_budget_are_left_out_and_named(sweep):
    for init in ("nearest", "he"):
        gif = sweep / f"temporal_resize_init={init},seed=2" / "samples" / "step_00000008.gif"
        gif.write_bytes(gif.read_bytes() + bytes(4_000_000))
    source, page = rendered(sweep)
    assert len(source) < 5_000_000
    left_out = "temporal resize init = nearest, seed 2, temporal resize init = he, seed 2"
    assert f"Left out, to keep the page small: {left_out}" in page.text


def real_clips(directory, **groups):
    """Real clips beside a run of the tiny config with these changes."""
    configs.write(tiny.config(**groups), directory / "config.json")
    return pictures.real_clips(directory / "config.json")


def test_real_clips_play_as_fast_as_their_source(tmp_path):
    # Frames every 5 of the source's, at 8 a second.
    gif, _ = real_clips(tmp_path, data=dict(frames=4, stride=5))
    with Image.open(io.BytesIO(gif)) as image:
        lasts = [image.seek(i) or image.info["duration"] for i in range(image.n_frames)]
    assert sum(lasts) == 4 * 1000 * 5 / 8


def test_captions_stand_under_clips_of_networks_that_saw_captions(tmp_path):
    heights = []
    for features in (16, 0):
        gif, _ = real_clips(tmp_path / str(features), model=dict(text_features=features))
        with Image.open(io.BytesIO(gif)) as image:
            heights.append(image.height)
    assert heights[0] > heights[1]


def test_slices_of_all_arms_stand_side_by_side_with_their_axes(sweep):
    source, page = rendered(sweep)
    # Of two arms with three seeds, and of the real clips, two clips each.
    assert source.count("<div class=slice>") == 2 * (2 * 3 + 1)
    assert page.text.count("time →") == 2 * (2 * 3 + 1)


def test_mistakes_get_one_sentence(tmp_path, sweep):
    with pytest.raises(UserError, match="holds neither a sweep nor a training run"):
        write_report(tmp_path / "nowhere", tmp_path / "out.html")
    configs.write(tiny.config(), tmp_path / "new" / "config.json")
    with pytest.raises(UserError, match="nothing has been trained"):
        write_report(tmp_path / "new", tmp_path / "out.html")
    (sweep / "temporal_resize_init=he,seed=0" / "evaluation.json").write_text("[1]")
    with pytest.raises(UserError, match="is no evaluation"):
        write_report(sweep, tmp_path / "out.html")
    (sweep / "temporal_resize_init=he,seed=0" / "evaluation.json").unlink()
    (picture,) = (sweep / "temporal_resize_init=he,seed=0" / "samples").glob("step_00000008_xt.png")
    picture.write_bytes(picture.read_bytes()[:200])
    with pytest.raises(UserError, match=r"step_00000008_xt\.png: the picture is damaged"):
        write_report(sweep, tmp_path / "out.html")
    assert not (tmp_path / "out.html").exists()


def test_nested_figures_by_name():
    nested = {"a": 1, "b": {"c": 0.5, "d": {"e": 2}}, "f": "text", "g": float("inf")}
    assert dict(flatten(nested)) == {"a": 1, "b / c": 0.5, "b / d / e": 2}


def test_ticks_are_round_and_inside():
    for low, high in ((0.0, 1.0), (-3.2, 0.7), (0.0, 1234.0), (0.05, 0.051)):
        ticks = drawing._ticks(low, high)
        assert 3 <= len(ticks) <= 7
        assert all(low - 1e-9 <= t <= high + 1e-9 for t in ticks)
        steps = np.diff(ticks)
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert drawing._log_ticks(0.04, 1.1) == [0.05, 0.1, 0.2, 0.5, 1.0]


def test_numbers_are_written_for_people():
    assert formatting.flops(1.333e12) == "1.333 TFLOPs"
    assert formatting.flops(12) == "12 FLOPs"
    assert formatting.days([]) == ""
    assert formatting.days([0.0, 86399.0]) == "1 January 1970"
    assert formatting.days([5e8, 0.0]) == "1 January 1970 to 5 November 1985"
    assert formatting.enumerate_words(["a", "b", "c"]) == "a, b and c"
    assert formatting.metric("fast / fvd").title == "fast / FVD"


def test_colours_repeat_as_rings_and_dashes():
    assert len({page.colour(i) for i in range(2 * len(page.LIGHT))}) == 2 * len(page.LIGHT)
    assert page.colour(len(page.LIGHT)) == "arm0 again"


def test_arms_that_are_ranked_have_the_first_colours(two_groups):
    colours = report.choose_colours(results.read(two_groups).groups())
    ranked, given, parts = ["whole network", "pair"], ["true pair"], ["first network"]
    assert list(colours) == [*ranked, *given, *parts, "second network"]
    assert list(colours.values()) == [0, 1, 2, 3, 4]


TAG = '<img src=x onerror="sing()">&amp;'


def test_whatever_files_say_is_text_on_the_page(tmp_path):
    """No word of a file that the report reads becomes HTML, whichever place it stands in."""
    entries = [
        Member(f"m{i},seed={s}", dataclasses.replace(config, seed=s), TAG, f"{i} {TAG}")
        for i, config in ((i, tiny.config(train=dict(warmup_steps=i))) for i in (1, 2))
        for s in (0, 1)
    ]
    entries.append(Step("pair", (TAG,), ("m1,seed=0", "m2,seed=0"), "pair/x", TAG, f"pair {TAG}"))
    curves = Curves(TAG, ("coherent",), ("speed",), (0, 1, 2), TAG, marks=((1, TAG),))
    workdirs.claim(tmp_path, Sweep(entries, (curves,), (TAG,), TAG), ["sweep", TAG])
    for i, entry in enumerate(entries):
        directory = tmp_path / entry.name
        directory.mkdir(exist_ok=True)
        if isinstance(entry, Member):
            write_run(directory, [1.0 + i, 0.5])
        metrics = {TAG: 1.0 + i, "coherent": 0.1 * i, f"a {TAG}": {TAG: 2.0 * i}}
        better = {TAG: "lower", "coherent": "higher", f"a {TAG} / {TAG}": "higher"}
        content = {"metrics": metrics, "better": better, "given": TAG * (i == 3)}
        content["generated"] = {
            name: {"clips": [1, 0, None]} for name in (TAG, "speed", "coherent")
        }
        (directory / "evaluation.json").write_text(json.dumps(content))
    source, page = rendered(tmp_path)
    assert page.text.count(TAG) >= 25
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "<img src=x" not in source
    # Nothing is escaped twice.
    assert "&amp;lt;img" not in source
    evaluation = tmp_path / "pair" / "evaluation.json"
    half = {"metrics": {"half a character \ud800": 1.0}, "better": {}}
    evaluation.write_text(json.dumps(half))
    assert r"half a character \ud800" in rendered(tmp_path)[0]
    evaluation.write_text(json.dumps({"metrics": {"a": 1.0}, "better": {"a": TAG}}))
    with pytest.raises(UserError, match=r"pair/evaluation\.json is no evaluation"):
        rendered(tmp_path)
