"""Averages of any length follow from snapshots of two, as if they had been computed in the run."""

import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from stunet import cli, configs
from stunet.evaluate.generator import make_generator
from stunet.nn import parameters
from stunet.parallel import mesh as meshes
from stunet.train.loop import train
from stunet.train.optim import power_ema
from stunet.train.optim.guard import Guard
from stunet.train.optim.optimizer import Optimizer, make_optimizer
from stunet.train.parts import make_parts, read_parts, with_fingerprint
from stunet.train.saved import checkpoint_files, checkpoints, snapshots, trained, weights_file
from stunet.train.state import TrainState, abstract_state
from stunet.train.step import apply_gradients

STEPS = 96


def weights(length: float, steps: int) -> np.ndarray:
    """Returns the share of each update in the average, by its definition as an integral."""
    power = power_ema.exponent(length) + 1
    edges = (np.arange(steps + 1) / steps) ** power
    return np.diff(edges)


def trajectory(seed: int = 0) -> np.ndarray:
    """Returns a random walk of eight weights, [update, weight]."""
    return np.random.default_rng(seed).normal(size=(STEPS, 8)).cumsum(axis=0)


@pytest.mark.parametrize("length", [0.02, 0.05, 0.1, 0.2, 0.28])
def test_the_length_is_the_standard_deviation_of_the_weights(length):
    shares, times = weights(length, 100_000), (np.arange(100_000) + 0.5) / 100_000
    mean = shares @ times
    assert np.sqrt(shares @ (times - mean) ** 2) == pytest.approx(length, rel=1e-3)


def test_the_averages_of_a_run_are_the_weighted_sums_of_its_weights():
    walk = trajectory()
    averages = power_ema.init(jnp.full(8, 1e6))  # The first weights have no share.
    step = jax.jit(power_ema.update)
    for i, point in enumerate(walk, 1):
        averages = step(averages, jnp.asarray(point, jnp.float32), jnp.int32(i))
    for name, length in power_ema.LENGTHS.items():
        np.testing.assert_allclose(averages[name], weights(length, STEPS) @ walk, rtol=1e-4)


def reconstructed(walk: np.ndarray, times, length: float) -> tuple[np.ndarray, float]:
    """Returns an average from stored ones, each computed as a direct sum, and its error."""
    lengths = [length for _ in times for length in power_ema.LENGTHS.values()]
    times = [time for time in times for _ in power_ema.LENGTHS]
    stored = [weights(of, t) @ walk[:t] for t, of in zip(times, lengths, strict=True)]
    factors, error = power_ema.coefficients(times, lengths, length)
    assert factors.sum() == pytest.approx(1)
    return factors @ np.array(stored), error


@pytest.mark.parametrize("length", [0.05, 0.1])
def test_a_stored_length_is_reconstructed_exactly(length):
    walk = trajectory()
    found, error = reconstructed(walk, range(12, STEPS + 1, 12), length)
    np.testing.assert_allclose(found, weights(length, STEPS) @ walk, rtol=1e-8)
    assert error < 1e-6


@pytest.mark.parametrize(("length", "tolerance"), [(0.03, 0.02), (0.07, 0.003), (0.2, 0.02)])
def test_other_lengths_come_close_and_the_closer_the_more_snapshots(length, tolerance):
    walk = trajectory()
    exact = weights(length, STEPS) @ walk
    spread = walk.std()
    errors = []
    for every in (24, 12, 6, 3):
        found, error = reconstructed(walk, range(every, STEPS + 1, every), length)
        errors.append(error)
        # The error bounds the difference of weightings; sums with a smooth walk differ less.
        assert np.abs(found - exact).max() < error * spread
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < tolerance


def test_a_skipped_update_counts_as_one_that_left_the_weights_as_they_were():
    numbers = dict(steps=9, learning_rate=0.1, warmup_steps=0, final_learning_rate=1.0)
    numbers |= dict(decay_begin=0, beta1=0.9, beta2=0.99, weight_decay=0.0, clip_norm=1.0)
    made = make_optimizer(optimizer="lion", schedule="constant", ema_decay=0.9, **numbers)
    guard = Guard(skip_nonfinite=True)
    made = Optimizer(
        made.transformation, made.learning_rate, 0.9, keeps_power_ema=True, guard=guard
    )
    params = {"x": {"kernel": jnp.ones((2, 2))}}
    state = made.transformation.init(params)
    averages = power_ema.init(params)
    state = TrainState(jnp.int32(0), params, {}, params, state, guard.init(), averages)
    update, walk = jax.jit(lambda s, loss: apply_gradients(made, s, loss, s.params)[0]), []
    for loss in (0.0, np.nan, 0.0, np.nan):
        state = update(state, jnp.float32(loss))
        walk.append(np.asarray(state.params["x"]["kernel"]))
    np.testing.assert_array_equal(walk[0], walk[1])
    assert not np.array_equal(walk[1], walk[2])
    for name, length in power_ema.LENGTHS.items():
        exact = np.tensordot(weights(length, 4), walk, 1)
        np.testing.assert_allclose(state.power_ema[name]["x"]["kernel"], exact, rtol=1e-5)


def config(**keys) -> configs.Config:
    keys = dict(steps=7, ema_snapshots=2) | keys
    return with_fingerprint(
        tiny.config(model=tiny.ONE_LEVEL_KEYS, train=keys, checkpoint=dict(every=1, keep=9))
    )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory, quickly_compiled_convolutions):
    workdir = tmp_path_factory.mktemp("power_ema") / "run"
    assert train(make_parts(config()), workdir) == 7
    return workdir


def stored(workdir, step):
    parts = read_parts(workdir)
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh):
        abstract = abstract_state(parts.denoiser, parts.optimizer, mesh)
        return parameters.flatten(snapshots.load(workdir, step, abstract)["long"])


def read_weights(file: pathlib.Path) -> tuple[dict[str, np.ndarray], int]:
    """Returns the parameters in a weights file, by name, and after which update they are."""
    parts = read_parts(file)
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh):
        params, step = trained.restore(file, parts, mesh)
    return parameters.flatten(jax.tree.map(np.asarray, params)), step


def after_each_update(workdir: pathlib.Path) -> list[dict[str, np.ndarray]]:
    """Returns the parameters after each update of the run, from its checkpoints."""
    parts = read_parts(workdir)
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    with meshes.use(mesh):
        train = checkpoints.items(abstract_state(parts.denoiser, parts.optimizer, mesh))["train"]
    saved = [workdir / "checkpoints" / str(step) for step in range(1, 8)]
    loaded = [checkpoint_files.load(place, {"train": train}).items["train"] for place in saved]
    return [parameters.flatten(jax.tree.map(np.asarray, one["params"])) for one in loaded]


def test_a_continued_run_writes_the_same_snapshots_bit_for_bit(workdir, tmp_path):
    assert snapshots.steps(workdir) == [2, 4, 6, 7]
    again = tmp_path / "run"
    shutil.copytree(workdir, again)
    for step in (4, 5, 6, 7):
        shutil.rmtree(again / "checkpoints" / str(step))
    # A snapshot that the continued run must not leave as it is.
    shutil.rmtree(again / "snapshots" / "6")
    shutil.copytree(again / "snapshots" / "2", again / "snapshots" / "6")
    assert train(make_parts(config()), again) == 7
    assert snapshots.steps(again) == [2, 4, 6, 7]
    for step in (4, 6, 7):
        jax.tree.map(np.testing.assert_array_equal, stored(again, step), stored(workdir, step))


def test_an_average_becomes_a_weights_file_that_other_commands_take(workdir, capsys):
    assert cli.main(["ema", f"--workdir={workdir}", "--length", "0.1", "0.2"]) == 0
    shown = capsys.readouterr().out
    files = [workdir / "ema" / name for name in ("7_0.1.safetensors", "7_0.2.safetensors")]
    assert re.findall(r"length (\S+) after update 7, from 4 snapshots, .*: (\S+)", shown) == [
        ("0.1", str(files[0])),
        ("0.2", str(files[1])),
    ]
    params, step = read_weights(files[0])
    assert step == 7 == weights_file.read_header(files[1]).step
    # An evaluation tells the file's weights from those of the run.
    assert make_generator(files[0]).identity[1][1] == 7
    for name, leaf in stored(workdir, 7).items():
        np.testing.assert_allclose(params[name], leaf, rtol=1e-4, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("length", [0.07, 0.2])
def test_an_average_of_a_run_is_as_close_to_the_weighted_sum_as_is_printed(workdir, length, capsys):
    """The printed error bounds that of each parameter, by the inequality of Cauchy and Schwarz.

    The bound is the error of the weighting, times the norm of the exact weighting, times the
    deviation of the parameter over the updates. The mean of the parameter has no part in it, since
    both weightings sum to 1.
    """
    assert cli.main(["ema", f"--workdir={workdir}", "--length", str(length)]) == 0
    (error,) = re.findall(r"weights within ([\d.]+)%", capsys.readouterr().out)
    error = (float(error) + 0.05) / 100  # It is rounded.
    params, _ = read_weights(workdir / "ema" / f"7_{length}.safetensors")
    walk = after_each_update(workdir)
    power = power_ema.exponent(length)
    norm = (power + 1) / np.sqrt(2 * power + 1)
    ours, theirs = 0.0, 0.0
    for name, found in params.items():
        steps = np.array([one[name] for one in walk], np.float64)
        exact, stored_one = (np.tensordot(weights(of, 7), steps, 1) for of in (length, 0.1))
        difference = found - exact
        bound = error * norm * steps.std(axis=0) + 1e-6 * np.abs(steps).max(axis=0)
        assert np.all(np.abs(difference) <= bound), name
        ours, theirs = ours + np.sum(difference**2), theirs + np.sum((stored_one - exact) ** 2)
    # The average of a stored length would not do.
    assert ours < 0.25**2 * theirs


def test_only_updates_with_a_snapshot_end_an_average(workdir, capsys):
    assert cli.main(["ema", f"--workdir={workdir}", "--length", "0.1", "--step", "5"]) == 1
    assert "no snapshot after update 5; the nearest is 4" in capsys.readouterr().err


def test_a_length_without_an_average_is_refused(workdir, capsys):
    with pytest.raises(SystemExit):
        cli.main(["ema", f"--workdir={workdir}", "--length", "0.3"])
    assert "0.3 is not between 0.01 and 0.28" in capsys.readouterr().err


def test_a_run_without_snapshots_says_how_to_get_them(tmp_path, capsys):
    workdir = tmp_path / "run"
    workdir.mkdir()
    configs.write(tiny.config(), workdir / "config.json")
    assert cli.main(["ema", f"--workdir={workdir}", "--length", "0.1"]) == 1
    assert "train with --config.train.ema_snapshots=N" in capsys.readouterr().err


def test_a_damaged_snapshot_is_refused(workdir, tmp_path, capsys):
    again = tmp_path / "run"
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "ema", ignore_errors=True)  # What another test has written.
    for file in (again / "snapshots" / "4" / "power_ema").rglob("*"):
        if file.is_file() and file.stat().st_size > 1000:
            file.write_bytes(file.read_bytes()[:100])
    assert cli.main(["ema", f"--workdir={again}", "--length", "0.1"]) == 1
    assert "snapshots/4" in capsys.readouterr().err
    assert not (again / "ema").exists()
