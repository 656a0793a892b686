"""`stunet evaluate`, as a user runs it, and what is known of the clips of each source."""

import json

import numpy as np
import pytest
import tiny
from scenes import scaled

from stunet import configs
from stunet.data.sources import make_source
from stunet.errors import UserError
from stunet.evaluate import figures, run
from stunet.train.loop import train


def config(**data) -> configs.Config:
    return tiny.config(
        data=dict(source="motions", frames=8, height=2, width=16) | data,
        train=dict(steps=2),
        model=dict(
            channel_multipliers=(1,), attention_levels=(False,), temporal_factors=(1,), patch_size=2
        ),
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "two_updates"
    train(config(), workdir)
    return workdir


def test_figures_of_samples_and_of_real_clips_are_printed_and_written(workdir):
    done = tiny.run(
        *("evaluate", "--workdir", workdir, "--num", 5, "--batch-size", 2, "--window", 4)
    )
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["generated", "real"]
    assert next(row for row in rows if row.startswith("coherent:")).endswith("100%")
    assert "border" in done.stdout
    written = json.loads((workdir / "evaluation.json").read_text())
    assert str(workdir / "evaluation.json") in done.stdout
    assert written["real"]["coherent"]["mean"] == 1
    assert len(written["generated"]["speed"]["clips"]) == written["num"] == 5
    assert written["real"]["speed"]["mean"] == pytest.approx(1, abs=0.02)


def test_batches_bound_memory_and_change_no_seed(workdir):
    seen = []
    first = run.evaluate(workdir, num=3, batch_size=2, on_step=lambda *s: seen.append(s))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = run.evaluate(workdir, num=3, batch_size=2)
    more = run.evaluate(workdir, num=4, batch_size=2)
    other = run.evaluate(workdir, num=3, batch_size=2, seed=1)
    error = first.generated["frame_error"]
    np.testing.assert_array_equal(error, again.generated["frame_error"])
    np.testing.assert_allclose(error, more.generated["frame_error"][:3], rtol=1e-4)
    assert (error != other.generated["frame_error"]).all()
    # Three clips have three kinds of noise.
    assert len(set(error.round(9))) == 3


def test_without_a_run_it_says_so(tmp_path):
    with pytest.raises(UserError, match="no training run"):
        run.evaluate(tmp_path)


def test_moving_digits_are_tracked_as_gliding():
    source = make_source(tiny.config(data=dict(frames=12, height=16, width=16, speed=1.2)), "val")
    clips = scaled([source[i]["video"] for i in range(20)])
    scene = run.scene_of(source, range(20))
    found = figures.measure(clips, scene.stage, truth=scene.truth)
    assert found["faithful"].all()
    assert scene.stage.speeds == pytest.approx((0.6, 2.4))
    backwards = figures.measure(clips[:, ::-1], scene.stage, truth=scene.truth)
    assert backwards["coherent"].all()
    assert not backwards["faithful"].any()


def test_what_no_caption_told_is_not_asked():
    source = make_source(config(), "val")
    assert run.scene_of(source, [0, 1], told=True).truth.shape == (2, 1, 8, 2)
    assert run.scene_of(source, [0, 1], told=False).truth is None
    two = tiny.config(data=dict(num_digits=2))
    assert run.scene_of(make_source(two, "val"), [0]) == run.Scene()


def test_tables_have_a_row_for_each_figure_that_any_column_has():
    columns = {
        "one": {"coherent": np.array([1.0, 0.0]), "speed": np.array([1.0, np.nan])},
        "other": {"coherent": np.array([0.0]), "jump": np.array([np.nan])},
    }
    head, speed, coherent, jump = figures.table(columns).splitlines()
    assert head.split() == ["one", "other"]
    assert speed.split()[-2:] == ["1.00", "-"]
    assert coherent.split()[-2:] == ["50%", "0%"]
    assert jump.split()[-2:] == ["-", "-"]
    assert figures.table(columns, markdown=True).splitlines()[1] == "| --- | ---: | ---: |"
