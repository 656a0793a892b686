"""`stunet evaluate` as a user runs it, and the scenes of each source."""

import dataclasses
import json

import numpy as np
import pytest
import stand_in
import tiny
from from_config import make_source, sampling_flops, train
from scenes import scaled

from stunet import configs
from stunet.data import media, sources
from stunet.data.sources import First
from stunet.errors import UserError
from stunet.evaluate import comparison, groups, metrics, run
from stunet.evaluate.evaluator import read_clips
from stunet.evaluate.generator import make_generator
from stunet.evaluate.scene import Scene, scene_of
from stunet.generate import cascade


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


def test_metrics_of_sampled_and_real_clips_are_printed_and_written(workdir, tmp_path):
    sizes = ("--num", 5, "--batch-size", 2, "--window", 4)
    done = tiny.run("evaluate", "--workdir", workdir, *sizes, devices=2)
    assert done.returncode == 0, done.stderr
    rows = done.stdout.splitlines()
    assert rows[0].split() == ["metric", "generated", "real"]
    steady = next(row for row in rows if row.startswith("steady velocity (share of clips)"))
    assert steady.endswith("100%  higher is better")
    assert "border" in done.stdout
    written = json.loads((workdir / "evaluation.json").read_text())
    assert str(workdir / "evaluation.json") in done.stdout
    assert written["real"]["coherent"]["mean"] == 1
    assert len(written["generated"]["speed"]["clips"]) == written["num"] == 5
    assert written["real"]["speed"]["mean"] == pytest.approx(1, abs=0.02)
    # One device samples the same clips as two.
    one = run.evaluate(workdir, num=5, batch_size=3, window=4, out=tmp_path)
    error = written["generated"]["frame_error"]["clips"]
    np.testing.assert_allclose(one.generated["frame_error"], error, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_the_batch_size_does_not_change_the_noise(workdir, tmp_path):
    seen = []
    first = run.evaluate(
        workdir, num=3, batch_size=2, out=tmp_path / "a", on_step=lambda *s: seen.append(s)
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    again = run.evaluate(workdir, num=3, batch_size=2, out=tmp_path / "b")
    more = run.evaluate(workdir, num=4, batch_size=2, out=tmp_path / "c")
    other = run.evaluate(workdir, num=3, batch_size=2, seed=1, out=tmp_path / "d")
    error = first.generated["frame_error"]
    np.testing.assert_array_equal(error, again.generated["frame_error"])
    np.testing.assert_allclose(error, more.generated["frame_error"][:3], rtol=1e-4)
    assert (error != other.generated["frame_error"]).all()
    # Each of the three clips has its own noise.
    assert len(set(error.round(9))) == 3


@pytest.fixture
def features(monkeypatch):
    """Replaces I3D by means over parts of a clip, and lists the sizes of the batches it gets."""
    batch_sizes = []

    def measure(clips):
        batch_sizes.append(len(clips))
        parts = clips.reshape(len(clips), -1, 16)
        return np.concatenate([parts.mean(2), parts.std(2)], axis=1)[:, :400].astype(np.float32)

    monkeypatch.setattr(groups, "_features", lambda: measure)
    monkeypatch.setattr(groups.i3d, "check_clips", lambda frames: None)
    return batch_sizes


def test_an_evaluation_that_was_stopped_loses_one_batch(workdir, tmp_path, features):
    options = dict(metrics="fvd", num=20, batch_size=8)
    whole = run.evaluate(workdir, out=tmp_path / "whole", **options)

    def stop(done, total):
        assert total == 6
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.evaluate(workdir, out=tmp_path / "cut", on_step=stop, **options)
    assert not (tmp_path / "cut" / "evaluation.json").exists()
    seen, measured = [], []
    features.clear()
    again = run.evaluate(
        workdir,
        out=tmp_path / "cut",
        on_step=lambda *s: seen.append(s),
        on_clips=lambda *s: measured.append(s),
        **options,
    )
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    # Two batches are sampled, then the real, the shuffled and the reference clips are measured.
    assert features == [8, 4] + 3 * [8, 8, 4]
    assert measured[:3] == [("real", 8, 20), ("real", 16, 20), ("real", 20, 20)]
    for column, metric_values in whole.columns.items():
        for name, values in metric_values.items():
            np.testing.assert_array_equal(values, again.columns[column][name])
    # The cache holds all measurements, and the clips to show.
    features.clear()
    (tmp_path / "cut" / "samples" / "evaluation_seed0.gif").unlink()
    run.evaluate(workdir, out=tmp_path / "cut", on_step=stop, **options)
    assert features == []
    assert (tmp_path / "cut" / "samples" / "evaluation_seed0.gif").exists()
    # Another group is measured without repeating the first one.
    more = run.evaluate(workdir, out=tmp_path / "cut", **options | {"metrics": "pixels,fvd"})
    assert features == []
    assert "detail" in more.generated


def test_a_frechet_distance_stands_beside_that_of_shuffled_clips(workdir, tmp_path, features):
    found = run.evaluate(workdir, metrics="fvd", num=20, out=tmp_path)
    written = json.loads(found.file.read_text())
    assert set(found.columns) == {"generated", "real", "shuffled"}
    assert "fvd" not in written["metrics"]
    distances = {name: column["frechet_i3d"][0] for name, column in found.columns.items()}
    assert distances["real"] < distances["shuffled"]
    assert distances["real"] < distances["generated"]
    title = "Fréchet distance of I3D logits, 20 clips at 2x16 enlarged to 224x224"
    assert written["words"] == {"frechet_i3d": title}
    assert written["sets"] == {"generated": 20, "real": 20, "shuffled": 20, "reference": 20}


@pytest.fixture
def few_held_out(monkeypatch):
    """`few_held_out(count)` limits the held-out clips of the source."""

    def limit(count):
        def make(dataset, split):
            source = sources.make_source(dataset, split)
            return First(source, count) if split == "val" else source

        monkeypatch.setattr(comparison, "make_source", make)

    return limit


def test_distances_use_equally_many_clips_of_each_set(
    workdir, tmp_path, features, few_held_out, monkeypatch
):
    few_held_out(17)
    distance = groups.frechet_distance
    compared = []

    def record_sizes(one, other):
        compared.append((len(one), len(other)))
        return distance(one, other)

    monkeypatch.setattr(groups, "frechet_distance", record_sizes)
    options = dict(metrics="fvd", num=20, out=tmp_path)
    found = run.evaluate(workdir, **options)
    title = "Fréchet distance of I3D logits, 17 clips against 20 at 2x16 enlarged to 224x224"
    assert found.titles == {"frechet_i3d": title}
    assert found.clips == {"generated": 20, "real": 17, "shuffled": 17, "reference": 20}
    # All generated clips are compared too, since they may be enough for an FVD.
    assert compared == [(20, 20), (17, 20), (17, 20), (17, 20)]
    monkeypatch.setattr(groups, "FVD_CLIPS", 20)
    monkeypatch.setattr(groups, "FVD_FRAMES", 8)
    monkeypatch.setattr(groups, "FVD_SIZE", 2)
    both = run.evaluate(workdir, **options)
    assert set(both.titles) == {"fvd", "frechet_i3d"}
    assert both.generated["frechet_i3d"][0] == found.generated["frechet_i3d"][0]
    assert both.generated["fvd"][0] != found.generated["frechet_i3d"][0]
    assert "fvd" not in both.real


def test_too_few_clips_are_found_before_any_is_sampled(workdir, tmp_path, features, few_held_out):
    def stop(done, total):
        pytest.fail("clips were sampled")

    options = dict(metrics="fvd", out=tmp_path, on_step=stop)
    sentence = "fvd needs 16 clips in each set, and there are 15 generated, 15 held-out, 15 ref"
    with pytest.raises(UserError, match=sentence):
        run.evaluate(workdir, num=15, **options)
    few_held_out(3)
    with pytest.raises(UserError, match="are 64 generated, 3 held-out, 64 reference ones"):
        run.evaluate(workdir, **options)


def test_a_protocol_brings_its_own_clips(workdir, tmp_path, features):
    for i in range(20):
        file = tmp_path / "videos" / "YoYo" / f"{i:02}.mp4"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(i).integers(0, 256, (1, 6, 16, 16, 1), np.uint8)
        media.write_mp4(file, noise, 10)
    file = tmp_path / "yo_yo.py"
    file.write_text(
        "from stunet.evaluate.comparison import Protocol\n"
        f"def get_protocol():\n    return Protocol('Toys', {str(tmp_path / 'videos')!r}, 1, 20, "
        "samples=24, frames=5, fps=10.0, prompt=str.lower, source='toys')\n"
    )
    found = run.evaluate(workdir, protocol=file, batch_size=16)
    assert found.file == workdir / "yo_yo" / "evaluation.json"
    written = json.loads(found.file.read_text())
    assert written["protocol"] == "yo_yo"
    assert written["sets"] == {"generated": 24, "reference": 20}
    assert set(written["metrics"]) == {"frechet_i3d"}
    assert features == [16, 8, 16, 4]


def test_clips_that_a_metric_cannot_measure_are_refused_before_sampling(workdir, tmp_path):
    def stop(done, total):
        pytest.fail("clips were sampled")

    with pytest.raises(UserError, match="I3D needs clips of 9 frames or more; these have 8"):
        run.evaluate(workdir, metrics="fvd", out=tmp_path, on_step=stop)
    with pytest.raises(UserError, match="unknown metric 'fdv'"):
        run.evaluate(workdir, metrics="fdv", out=tmp_path, on_step=stop)


def test_a_directory_without_a_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no training run"):
        run.evaluate(tmp_path)


def test_moving_digits_are_tracked_as_gliding():
    source = make_source(tiny.config(data=dict(frames=12, height=16, width=16, speed=1.2)), "val")
    clips = scaled([source[i]["video"] for i in range(20)])
    scene = scene_of(source, range(20))
    found = metrics.measure(clips, scene.stage, truth=scene.truth)
    assert found["faithful"].all()
    assert scene.stage.speeds == pytest.approx((0.6, 2.4))
    backwards = metrics.measure(clips[:, ::-1], scene.stage, truth=scene.truth)
    assert backwards["coherent"].all()
    assert not backwards["faithful"].any()


def test_the_truth_is_left_out_if_nothing_gives_the_direction():
    source = make_source(config(), "val")
    assert scene_of(source, [0, 1]).truth.shape == (2, 1, 8, 2)
    assert scene_of(source, [0, 1], captions=False, keyframes=False).truth is None
    two = tiny.config(data=dict(num_digits=2))
    assert scene_of(make_source(two, "val"), [0]) == Scene()


def test_captions_leave_open_what_they_do_not_say():
    spread = dict(speed=1.0, speed_octaves=1.0)
    source = make_source(config(**spread), "val")
    assert scene_of(source, [0, 1]).factors is None
    indices = range(40)
    factors = scene_of(source, indices, keyframes=False).factors
    speeds = np.array([[m.speed for m in source.movers(i)] for i in indices])
    # All speeds of the data are as right as the true one.
    np.testing.assert_allclose(factors * speeds[..., None], [[source.stage.speeds]] * 40)
    told = make_source(config(caption_speed=True, **spread), "val")
    factors = scene_of(told, indices, keyframes=False).factors
    np.testing.assert_allclose(np.log2(factors[..., 1] / factors[..., 0]), 2 / 5)
    assert (factors[..., 0] <= 1).all()
    assert (factors[..., 1] >= 1).all()
    # A caption does not say when and where an object turns. Keyframes show it.
    turning = make_source(config(motion="turn"), "val")
    assert scene_of(turning, [0, 1], keyframes=False).truth is None
    assert scene_of(turning, [0, 1], captions=False).truth.shape == (2, 1, 8, 2)


def test_a_single_piece_of_a_clip_has_the_scene_of_the_clip():
    cut, whole = (make_source(config(frames=n, cut_from=10), "val") for n in (9, 10))
    assert scene_of(cut, [0, 1]).cut(9).as_json() == scene_of(whole, [0, 1]).cut(9).as_json()
    pieces = make_source(config(frames=5, cut_from=10), "val")
    assert scene_of(pieces, [0, 1]) == Scene()


def test_tables_have_a_row_for_each_metric_that_any_column_has():
    columns = {
        "one": {"coherent": np.array([1.0, 0.0]), "speed": np.array([1.0, np.nan])},
        "other": {"coherent": np.array([0.0]), "jump": np.array([np.nan])},
    }
    head, speed, coherent, jump = metrics.table(columns).splitlines()
    assert head.split() == ["metric", "one", "other"]
    assert speed.split() == ["median", "speed", "(px/frame)", "1.00", "-"]
    assert coherent.endswith("50%     0%  higher is better")
    assert jump.split()[-2:] == ["-", "-"]
    assert metrics.table(columns, markdown=True).splitlines()[1] == "| --- | ---: | ---: | --- |"
    retitled = metrics.table(columns, titles={"speed": "speed of the dot"})
    assert "speed of the dot" in retitled
    assert "median speed" not in retitled


@pytest.fixture(scope="module")
def cascaded(tmp_path_factory):
    """Trains two runs for two updates: keyframes 4 frames apart, and the frames between them."""
    directory = tmp_path_factory.mktemp("cascade")
    data = dict(frames=3, stride=4)
    train(config(**data), directory / "keyframes")
    windowed = config(frames=5, cut_from=9)
    train(dataclasses.replace(windowed, tsr=configs.Tsr(stride=4)), directory / "tsr")
    return directory


@pytest.mark.slow
def test_a_cascade_is_measured_at_the_borders_of_its_windows(cascaded):
    workdir, tsr = cascaded / "keyframes", cascaded / "tsr"
    found = run.evaluate(workdir, tsr=tsr, out=cascaded / "judged", num=3, batch_size=2)
    assert found.file == cascaded / "judged" / "evaluation.json"
    written = json.loads(found.file.read_text())
    assert written["real"]["coherent"]["mean"] == 1
    # Clips of 9 frames have a border between two windows.
    assert "border_jump" in written["metrics"]
    networks = [configs.read(run / "config.json") for run in (workdir, tsr)]
    assert written["sampling_flops"] == sum(map(sampling_flops, networks, (1, 2)))
    assert list((cascaded / "judged" / "samples").glob("*.gif"))


@pytest.mark.slow
def test_a_network_that_fills_in_is_given_true_keyframes(cascaded, monkeypatch):
    given = []
    fill = cascade.fill

    def record(loaded, keyframes, *args, **kwargs):
        given.append((keyframes, kwargs["augmentation"]))
        return fill(loaded, keyframes, *args, **kwargs)

    monkeypatch.setattr(cascade, "fill", record)
    found = run.evaluate(cascaded / "tsr", num=2)
    # True keyframes give the direction of motion, so the velocity error is measured.
    assert json.loads(found.file.read_text())["given"] == "true keyframes"
    assert "velocity_error" in found.generated
    source = make_source(config(frames=9), "val")
    real = scaled([source[i]["video"] for i in range(2)])
    ((keyframes, augmentation),) = given
    np.testing.assert_allclose(keyframes, real[:, ::4], atol=1e-6)
    assert augmentation == 0


@pytest.mark.parametrize("cut_from", [9, 10])
@pytest.mark.slow
def test_a_strided_tsr_network_is_compared_with_strided_clips(
    cascaded, tmp_path, monkeypatch, cut_from
):
    # Keyframes are 4 frames of the source apart. The network adds one frame between two of them.
    strided = config(frames=3, stride=2, cut_from=cut_from)
    stand_in.save(dataclasses.replace(strided, tsr=configs.Tsr(stride=2)), tmp_path)
    source = make_source(config(frames=9), "val")
    whole = scaled([source[i]["video"] for i in range(2)])
    given = []
    fill = cascade.fill

    def record(loaded, keyframes, *args, **kwargs):
        given.append(keyframes)
        return fill(loaded, keyframes, *args, **kwargs)

    monkeypatch.setattr(cascade, "fill", record)
    for runs in (dict(workdir=cascaded / "keyframes", tsr=tmp_path), dict(workdir=tmp_path)):
        generator = make_generator(**runs)
        real = read_clips(sources.make_source(generator.dataset, "val"), range(2))
        np.testing.assert_array_equal(real, whole[:, ::2])
        clips = generator.make(0, ["", ""], real, lambda *step: None)
        assert clips.shape == real.shape
        assert generator.borders == (2,)
        assert generator.dataset.clip.frame_rate == generator.parts.denoiser.clip.fps / 2
    np.testing.assert_array_equal(given[1], whole[:, ::4])
