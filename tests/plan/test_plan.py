"""What a plan says, without and, where it is installed, with the TPU compiler."""

import dataclasses
import importlib.util
import json
import os
import subprocess
from unittest import mock

import jax
import pytest
import tiny
from from_config import make_source, model_flops

from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips, costs, hlo, report
from stunet.plan.plan import Plan, fallbacks, make_plan
from stunet.plan.whole import abstract_batch
from stunet.train.parts import make_parts

PLAN = Plan(
    chip="v5p",
    chips=64,
    mesh={"slice": 1, "data": 1, "fsdp": 64, "context": 1, "tensor": 1},
    settings={"model.remat": "full"},
    params=1_200_000_000,
    frozen=0,
    bytes={"params": 1e9, "optimizer": 2e9, "ema": 1e9, "batch": 1e7, "temporaries": 4e9},
    hbm=chips.CHIPS["v5p"].hbm,
    over=0.0,
    flops=64 * 459e12,
    peak_flops=459e12,
    step_seconds=2.0,
    collective_seconds=0.1,
    collectives={"all-gather": hlo.Collective(10, 2**30)},
    between_slices={},
    costs=[costs.Cost("conv", 2, 0.5)],
    fallbacks=[],
    clips=64,
    steps=1000,
    unknown=["whether the data keep up"],
    compile_seconds=1.0,
)


def abstract_mesh(**extents):
    shape = tuple(extents.get(axis, 1) for axis in meshes.AXES)
    return jax.sharding.AbstractMesh(shape, meshes.AXES)


def test_utilisation_is_the_share_of_the_peak():
    assert PLAN.mfu == pytest.approx(0.5)
    assert "50.0%" in report.text(PLAN)
    # 1,000 steps of 2 s on 64 chips.
    assert f"{1000 * 2 * 64 / 3600:,.0f} for 1,000 steps" in report.text(PLAN)


def test_what_does_not_fit_is_said():
    larger = dataclasses.replace(PLAN, over=2**30, step_seconds=None, collective_seconds=None)
    said = report.text(larger)
    assert "DOES NOT FIT, by 1.00 GiB" in said
    assert json.loads(report.as_json(larger))["fits"] is False


def test_what_is_not_known_is_not_made_up():
    unknown = dict.fromkeys(
        ("hbm", "over", "peak_flops", "step_seconds", "collective_seconds"), None
    )
    plan = dataclasses.replace(PLAN, **unknown, unknown=["the peak of a device"])
    said = report.text(plan)
    assert "memory of a chip (not known)" in said
    assert not {"%", "predicted", "utilised", "FIT"} & set(said.replace("%", " % ").split())
    assert said.endswith("not known here: the peak of a device")
    values = json.loads(report.as_json(plan))
    assert values["fits"] is values["mfu"] is None


def test_a_gpu_has_the_memory_that_jax_may_allocate_and_its_published_peak():
    def device(kind):
        stats = {"bytes_limit": 60 * 2**30, "bytes_in_use": 0}
        return mock.Mock(device_kind=kind, platform="gpu", memory_stats=lambda: stats)

    known, unknown = chips.local(device("NVIDIA A100-SXM4-80GB")), chips.local(device("NVIDIA T4"))
    assert (known.hbm, known.flops, known.hertz) == (60 * 2**30, 312e12, None)
    assert (unknown.hbm, unknown.flops) == (60 * 2**30, None)
    assert chips.local(jax.devices()[0]).hbm is None


def test_a_device_too_small_is_said_to_be_by_how_much():
    config = tiny.config(model=tiny.ONE_LEVEL_KEYS)
    small = chips.Chip("small", hbm=100_000, flops=1e12)
    plan = make_plan(config, small, jax.devices()[:1])
    assert plan.over == sum(plan.bytes.values()) - 100_000 > 0
    assert "DOES NOT FIT" in report.text(plan)
    # Twelve bytes of state a parameter beside its own four.
    assert plan.bytes["params"] == 4 * plan.params
    assert plan.bytes["ema"] + plan.bytes["optimizer"] == pytest.approx(12 * plan.params, rel=1e-3)


def test_a_plan_for_this_machine(tmp_path):
    mesh = ["--config.mesh.data=2", "--config.mesh.fsdp=2"]
    flags = ["--config", tiny.experiment(tmp_path), "--topology", "local", "--json"]
    done = tiny.run("plan", *flags, *mesh, devices=4)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["chip"], plan["chips"]) == ("cpu", 4)
    assert plan["fits"] is plan["hbm"] is plan["mfu"] is plan["step_seconds"] is None
    assert plan["unknown"][:2] == [
        "how long a step takes, which benchmarks/train_step.py measures",
        "how much memory a device has for it",
    ]
    assert plan["flops"] == model_flops(tiny.config())
    assert plan["bytes"]["temporaries"] > 0
    assert {"all-gather", "all-reduce"} <= set(plan["collectives"])


def test_levels_that_do_not_split_are_named():
    config = tiny.config(data=dict(frames=8, height=16, width=16))
    assert fallbacks(make_parts(config), abstract_mesh(context=4)) == []
    # 8 rows at the first level, 4 at the second.
    assert fallbacks(make_parts(config), abstract_mesh(context=8)) == [
        "level 1: 4 rows do not split over context 8"
    ]
    by_frames = tiny.config(mesh=dict(context_axis="frames"), data=dict(frames=8))
    assert fallbacks(make_parts(by_frames), abstract_mesh(context=8)) == [
        "level 1: 4 frames do not split over context 8"
    ]


def test_the_batch_planned_for_is_the_one_that_comes():
    config = tiny.config()
    mesh = meshes.make_mesh(meshes.Layout(), jax.devices()[:1])
    planned = abstract_batch(make_parts(config), mesh)
    example = make_source(config, "train")[0]
    for key, leaf in planned.items():
        assert leaf.shape == (config.train.batch_size, *example[key].shape), key
        assert leaf.dtype == example[key].dtype, key


@pytest.mark.parametrize(
    ("topology", "message"),
    [("v9:2x2", "unknown TPU generation 'v9'"), ("v5p", "a generation and a shape, such as")],
)
def test_topologies_are_checked(topology, message):
    with pytest.raises(UserError, match=message):
        chips.devices(topology)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the extra [tpu]")
def test_a_plan_from_the_command_line(tmp_path):
    command = tiny.command(
        "plan", "--config", tiny.experiment(tmp_path), "--topology", "v5e:2x2", "--json"
    )
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=900)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["fits"]
    assert plan["chips"] == 4
    assert 0 < plan["mfu"] < 1
    assert plan["bytes"]["optimizer"] == pytest.approx(2 * plan["bytes"]["params"], rel=0.01)


@pytest.mark.skipif(not importlib.util.find_spec("libtpu"), reason="needs the extra [tpu]")
def test_sums_of_gradients_alone_cross_between_slices(tmp_path):
    flags = ["--topology", "v5e:2x2", "--slices", "2", "--memory-only", "--json"]
    mesh = [f"--config.mesh.{k}={n}" for k, n in dict(slice=2, data=1, fsdp=2, context=2).items()]
    # With a single row on a chip, the compiler gathers clips of both slices for some gradients.
    rows = ["--config.data.height=16", "--config.data.width=16"]
    command = tiny.command("plan", "--config", tiny.experiment(tmp_path), *flags, *mesh, *rows)
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=900)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["chips"] == 8
    assert set(plan["between_slices"]) == {"all-reduce"}
    # At least every gradient, each once, as it is sharded; small ones are padded to tiles.
    assert plan["between_slices"]["all-reduce"]["bytes"] >= plan["bytes"]["params"]
