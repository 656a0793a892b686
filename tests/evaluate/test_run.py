"""`stunet evaluate`, as a user runs it, and what is known of the clips of each source."""

import dataclasses
import json

import numpy as np
import pytest
import tiny
from scenes import scaled

from stunet import configs
from stunet.data.sources import make_source
from stunet.errors import UserError
from stunet.evaluate import figures, run
from stunet.generate import cascade
from stunet.plan.plan import sampling_flops
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


@pytest.fixture(scope="module")
def cascaded(tmp_path_factory):
    """Runs of two updates: keyframes 4 frames apart, and what fills in between two of them."""
    directory = tmp_path_factory.mktemp("cascade")
    data = dict(frames=3, stride=4)
    train(config(**data), directory / "keyframes")
    windowed = config(frames=5, cut_from=9)
    train(dataclasses.replace(windowed, tsr=configs.Tsr(stride=4)), directory / "tsr")
    return directory


def test_a_cascade_is_judged_as_whole_clips_with_its_own_windows(cascaded):
    workdir, tsr = cascaded / "keyframes", cascaded / "tsr"
    found = run.evaluate(workdir, tsr=tsr, out=cascaded / "judged", num=3, batch_size=2)
    assert found.file == cascaded / "judged" / "evaluation.json"
    written = json.loads(found.file.read_text())
    assert written["real"]["coherent"]["mean"] == 1
    # Of the border of two windows, which clips of 9 frames have.
    assert "border_jump" in written["metrics"]
    networks = [configs.read(run / "config.json") for run in (workdir, tsr)]
    assert written["sampling_flops"] == sum(map(sampling_flops, networks, (1, 2)))
    assert list((cascaded / "judged" / "samples").glob("*.gif"))


def test_a_network_that_fills_in_is_given_true_keyframes(cascaded, monkeypatch):
    given = []
    fill = cascade.fill

    def noting(loaded, keyframes, *args, **kwargs):
        given.append((keyframes, kwargs["augmentation"]))
        return fill(loaded, keyframes, *args, **kwargs)

    monkeypatch.setattr(cascade, "fill", noting)
    found = run.evaluate(cascaded / "tsr", num=2)
    # True keyframes tell which way things move, as nothing tells a network without captions.
    assert json.loads(found.file.read_text())["given"] == "true keyframes"
    assert "velocity_error" in found.generated
    source = make_source(config(frames=9), "val")
    real = scaled([source[i]["video"] for i in range(2)])
    ((keyframes, augmentation),) = given
    np.testing.assert_allclose(keyframes, real[:, ::4], atol=1e-6)
    assert augmentation == 0
