"""Plans hold without the TPU compiler, and with it where it is installed."""

import dataclasses
import importlib.util
import json
import os
import re
import subprocess
from unittest import mock

import jax
import jax.numpy as jnp
import pytest
import tiny
from from_config import make_source, model_flops

from stunet.errors import UserError
from stunet.parallel import mesh as meshes
from stunet.plan import chips, costs, gpu_compiler, hlo, report, search
from stunet.plan.plan import Plan, bytes_on_a_chip, make_plan, unsplit_levels
from stunet.train.optim.methods import METHODS
from stunet.train.parts import make_parts
from stunet.train.program import abstract_batch
from stunet.train.state import abstract_state

PLAN = Plan(
    chip="v5p",
    platform="tpu",
    devices=64,
    chips=64,
    estimated=False,
    mesh={"slice": 1, "data": 1, "fsdp": 64, "context": 1, "tensor": 1},
    settings={"model.remat": "full"},
    params=1_200_000_000,
    frozen=0,
    bytes={"params": 1e9, "optimizer": 2e9, "ema": 1e9, "batch": 1e7, "temporaries": 4e9},
    hbm=chips.TPUS["v5p"].hbm,
    excess=0.0,
    flops=64 * 459e12,
    peak_flops=459e12,
    least_seconds=1.0,
    seconds={"blocks": 1.6, "noise and loss": 0.1, "update": 0.1, "exposed collectives": 0.2},
    hidden_seconds=0.1,
    collectives={"all-gather": hlo.Collective(10, 2**30)},
    between_slices={},
    costs=[costs.Cost("conv", 2, 0.5)],
    unsplit=[],
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
    assert "50.0%" in report.as_text({"": PLAN})
    # 1,000 steps of 2 s on 64 chips.
    assert f"{1000 * 2 * 64 / 3600:,.0f} for 1,000 steps" in report.as_text({"": PLAN})


def test_plans_of_several_buckets_make_up_the_plan_of_the_run():
    small = {"params": 2**30, "temporaries": 2**20}
    pictures = dataclasses.replace(PLAN, seconds={"blocks": 0.5}, bytes=small, clips=256, steps=250)
    plans = {"16x32x32": PLAN, "1x32x32": pictures}
    said = report.as_text(plans)
    assert "clips of 1x32x32, 256 in a step, 250 steps" in said
    total = 1000 * 2 + 250 * 0.5
    *_, last = said.split("\n\n")
    assert "in steps on clips of 16x32x32" in last
    assert f"{total / 1250:.3f} s" in last
    assert f"{total * 64 / 3600:,.0f} for 1,250 steps" in last
    assert json.loads(report.as_json(plans))["1x32x32"]["clips"] == 256


def test_a_plan_that_does_not_fit_says_so():
    larger = dataclasses.replace(PLAN, excess=2**30, seconds={}, hidden_seconds=None)
    said = report.as_text({"": larger})
    assert "it DOES NOT FIT: 1.00 GiB too much" in said
    assert json.loads(report.as_json({"": larger}))["fits"] is False


def test_a_plan_does_not_make_up_unknown_values():
    unknown = dict.fromkeys(
        ("hbm", "excess", "peak_flops", "least_seconds", "hidden_seconds"), None
    )
    plan = dataclasses.replace(PLAN, **unknown, seconds={}, unknown=["the peak of a device"])
    said = report.as_text({"": plan})
    assert "memory of a chip (size not known)" in said
    assert not {"%", "predicted", "bound", "utilised", "FIT", "fits"} & set(
        said.replace("%", " % ").split()
    )
    assert said.endswith("not known here:\n  - the peak of a device")
    values = json.loads(report.as_json({"": plan}))
    assert values["fits"] is values["mfu"] is None


def test_a_gpu_has_the_memory_that_jax_may_allocate_and_its_published_peak():
    def device(kind):
        stats = {"bytes_limit": 60 * 2**30, "bytes_in_use": 0}
        return mock.Mock(device_kind=kind, platform="gpu", memory_stats=lambda: stats)

    known, unknown = (
        chips.describe(device("NVIDIA A100-SXM4-80GB")),
        chips.describe(device("NVIDIA T4")),
    )
    assert (known.hbm, known.flops, known.hertz) == (60 * 2**30, 312e12, None)
    assert (unknown.hbm, unknown.flops) == (60 * 2**30, None)
    assert chips.describe(jax.devices()[0]).hbm is None


def test_a_plan_says_by_how_much_a_device_is_too_small():
    config = tiny.config(model=tiny.ONE_LEVEL_KEYS)
    small = chips.Chip("small", hbm=100_000, flops=1e12)
    devices = jax.devices()[:1]
    plan = make_plan(config, chips.Topology("local", "cpu", small, 1, 1, devices))
    assert plan.excess == sum(plan.bytes.values()) - 100_000 > 0
    assert "DOES NOT FIT" in report.as_text({"": plan})
    # Two moments and the average: twelve bytes a parameter beside its own four.
    assert plan.bytes["params"] == 4 * plan.params
    assert plan.bytes["ema"] + plan.bytes["optimizer"] == pytest.approx(12 * plan.params, rel=1e-3)


@pytest.mark.slow
def test_a_plan_for_this_machine(tmp_path):
    mesh = ["--config.mesh.data=2", "--config.mesh.fsdp=2"]
    flags = ["--config", tiny.experiment(tmp_path), "--topology", "local", "--json"]
    done = tiny.run("plan", *flags, *mesh, devices=4)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["chip"], plan["chips"]) == ("cpu", 4)
    assert plan["fits"] is plan["hbm"] is plan["mfu"] is plan["step_seconds"] is None
    assert plan["unknown"][:2] == [
        "how long a step really takes, which benchmarks/train_step.py measures on the machine",
        "how much memory a device has for the program",
    ]
    assert plan["flops"] == model_flops(tiny.config())
    assert plan["bytes"]["temporaries"] > 0
    assert {"all-gather", "all-reduce"} <= set(plan["collectives"])


def test_levels_that_do_not_split_are_named():
    config = tiny.config(data=dict(frames=8, height=16, width=16))
    assert unsplit_levels(make_parts(config), abstract_mesh(context=4)) == []
    # There are 8 rows at the first level and 4 at the second.
    assert unsplit_levels(make_parts(config), abstract_mesh(context=8)) == [
        "level 1: 4 rows do not split over context 8"
    ]
    by_frames = tiny.config(mesh=dict(context_axis="frames"), data=dict(frames=8))
    assert unsplit_levels(make_parts(by_frames), abstract_mesh(context=8)) == [
        "level 1: 4 frames do not split over context 8"
    ]


def test_the_planned_batch_is_the_pipelines_batch():
    config = tiny.config()
    mesh = meshes.make_mesh(meshes.Layout(), jax.devices()[:1])
    planned = abstract_batch(make_parts(config), mesh)
    example = make_source(config, "train")[0]
    for key, leaf in planned.items():
        assert leaf.shape == (config.train.batch_size, *example[key].shape), key
        assert leaf.dtype == example[key].dtype, key


@pytest.mark.parametrize(
    ("topology", "message"),
    [
        ("v9:2x2", "--topology is 'v9:2x2'; write the name that Google Cloud gives to TPUs, such"),
        ("v5p", "their generation (v4, v5e, v5p, v6e, tpu7x) and shape, such as v5p:4x4x4"),
        ("v5e-17", "and there is no such slice; the number counts chips: 1, 4, 8, 16, 32"),
        ("h100", "how many GPUs each host has, 1 to 8, such as h100:8"),
        ("h100:0", "how many GPUs each host has"),
        ("h100:16", "--slices 2 plans for two such hosts"),
    ],
)
def test_topologies_are_checked(topology, message):
    with pytest.raises(UserError, match=re.escape(message)):
        chips.find(topology)


def test_gpus_have_the_memory_that_jax_may_allocate(monkeypatch):
    monkeypatch.delenv("XLA_PYTHON_CLIENT_MEM_FRACTION", raising=False)
    found = chips.find("h100:8", slices=2, estimate=True)
    assert (found.count, found.slices, found.platform) == (16, 2, "cuda")
    assert found.chip.hbm == 0.75 * 80e9
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    assert chips.find("h100:1", estimate=True).chip.hbm == pytest.approx(72e9)
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "90%")
    with pytest.raises(UserError, match="XLA_PYTHON_CLIENT_MEM_FRACTION is '90%'"):
        chips.find("h100:1", estimate=True)


def test_without_their_compiler_gpus_get_an_estimate(monkeypatch):
    assert chips.find("h100:8", estimate=True).devices == ()
    monkeypatch.setattr(gpu_compiler, "is_installed", lambda: False)
    assert chips.find("h100:8") == chips.find("h100:8", estimate=True)


def test_an_estimate_for_tpus_needs_no_compiler():
    found = chips.find("v5p:2x4x4", slices=2, estimate=True)
    assert (found.count, found.platform, found.devices) == (64, "tpu", ())


def test_an_estimate_says_that_it_is_one():
    config = tiny.config(model=tiny.ONE_LEVEL_KEYS)
    plan = make_plan(config, chips.find("a100-80gb:1", estimate=True))
    state = {key: plan.bytes[key] for key in ("params", "optimizer", "ema")}
    assert plan.estimated
    assert plan.bytes["params"] == 4 * plan.params
    assert sum(plan.bytes.values()) > sum(state.values()) + plan.bytes["params"]
    assert plan.step_seconds is plan.mfu is None
    assert plan.least_seconds >= plan.flops / 312e12
    text = report.as_text({"": plan})
    assert "an estimate from traces of the network, not a compiled program" in text
    assert "by this estimate, it fits" in text
    assert "compiled in" not in text


@pytest.mark.parametrize("optimizer", METHODS)
def test_a_plan_counts_the_bytes_of_each_optimisers_state(optimizer):
    model = tiny.ONE_LEVEL_KEYS | dict(channels=128, groups=8)
    parts = make_parts(tiny.config(model=model, train=dict(optimizer=optimizer)))
    state = abstract_state(parts.denoiser, parts.optimizer, abstract_mesh())
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), state.params)
    real = jax.tree.leaves(parts.optimizer.transformation.init(params))
    assert bytes_on_a_chip(state.opt_state) == sum(leaf.nbytes for leaf in real)
    found = search.state_bytes(parts)
    assert found.whole - found.trained == found.trained + bytes_on_a_chip(state.opt_state) + 4
    # Of 8 chips, each holds an eighth of all that is as large as a kernel.
    mesh = abstract_mesh(fsdp=8)
    split = abstract_state(parts.denoiser, parts.optimizer, mesh).opt_state
    assert bytes_on_a_chip(split) < 0.2 * bytes_on_a_chip(state.opt_state)


def test_estimates_fall_with_fsdp_and_with_remat():
    def planned(fsdp, remat):
        config = tiny.config(
            train=dict(batch_size=8),
            mesh=dict(data=-1, fsdp=fsdp),
            model=dict(tiny.ONE_LEVEL_KEYS, remat=remat),
        )
        return make_plan(config, chips.find("h100:8", estimate=True))

    replicated, sharded = planned(1, "none"), planned(8, "none")
    for kind in ("params", "optimizer", "ema"):
        assert sharded.bytes[kind] < 0.3 * replicated.bytes[kind]
    assert sharded.bytes["temporaries"] < replicated.bytes["temporaries"]
    assert planned(8, "full").bytes["temporaries"] < sharded.bytes["temporaries"]
    assert planned(8, "full").least_seconds > sharded.least_seconds


def test_an_estimate_that_does_not_fit_names_layouts_that_do(tmp_path):
    clips = [
        f"--config.data.{key}={n}" for key, n in dict(frames=64, height=256, width=256).items()
    ]
    flags = ["--topology", "rtx4090:1", "--estimate", *tiny.ONE_LEVEL]
    flags += ["--config.train.batch_size=64"]
    done = tiny.run("plan", "--config", tiny.experiment(tmp_path), *flags, *clips)
    assert done.returncode == 1
    assert "by this estimate, it DOES NOT FIT" in done.stdout
    assert "by estimate, the program does not fit RTX 4090" in done.stderr
    (words,) = [line for line in done.stderr.splitlines() if "it fits with" in line]
    suggested = words.split("it fits with ")[1].split()
    done = tiny.run("plan", "--config", tiny.experiment(tmp_path), *flags, *clips, *suggested)
    assert done.returncode == 0, done.stderr


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
    assert set(plan["seconds"]) == {"blocks", "noise and loss", "update", "exposed collectives"}
    assert min(plan["seconds"].values()) > 0
    assert plan["step_seconds"] == pytest.approx(sum(plan["seconds"].values()))


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
    # At least every gradient crosses once, sharded; small gradients are padded to tiles.
    assert plan["between_slices"]["all-reduce"]["bytes"] >= plan["bytes"]["params"]


@pytest.mark.skipif(not gpu_compiler.is_installed(), reason="needs the extra [cuda]")
def test_a_plan_for_gpus_is_compiled(tmp_path):
    flags = ["--topology", "a100-80gb:2", "--config.mesh.data=1", "--config.mesh.fsdp=2", "--json"]
    done = tiny.run("plan", "--config", tiny.experiment(tmp_path), *flags, *tiny.ONE_LEVEL)
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert (plan["fits"], plan["estimated"], plan["chips"]) == (True, False, 2)
    assert plan["bytes"]["temporaries"] > 0
    assert "all-gather" in plan["collectives"]
    assert plan["step_seconds"] is None
