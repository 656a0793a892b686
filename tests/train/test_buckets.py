"""Clips of several shapes in one run: which batches there are, and what pictures pass through."""

import dataclasses
import itertools
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax.traverse_util import flatten_dict, unflatten_dict
from from_config import abstract_state, train
from orbax.checkpoint import v1 as ocp

from stunet import configs
from stunet.data.mixtures import open_streams
from stunet.nn.parameters import is_temporal
from stunet.parallel import mesh as meshes
from stunet.plan import chips
from stunet.plan.plan import make_plan
from stunet.train import pieces
from stunet.train.measured.flops import mean_flops, model_flops
from stunet.train.parts import bucket_configs, make_parts
from stunet.train.program import abstract_batch
from stunet.train.state import count_parameters

ONE_LEVEL = {f"model.{key}": value for key, value in tiny.ONE_LEVEL_KEYS.items()}
MIX = {
    "motions": {"source": "motions", "weight": 0.5},
    "photos": {"frames": 1, "weight": 1.0},
    "wide": {"frames": 2, "width": 12, "weight": 0.5},
}
STEPS = 7


def config(**keys):
    changes = {key.replace("__", "."): value for key, value in keys.items()}
    return configs.replace(tiny.config(), {"data.mix": MIX} | changes)


def test_sources_of_one_shape_share_batches_and_batches_are_of_equal_cost():
    parts = make_parts(config(train__batch_size=6))
    found = {b.name: (b.batch_size, b.weight, [of.name for of in b.mixture]) for b in parts.buckets}
    assert found == {
        "4x8x8": (6, 1.5, ["main", "motions"]),
        "1x8x8": (24, 1.0, ["photos"]),
        # 256 pixels are more than once and less than twice 192.
        "2x8x12": (6, 0.5, ["wide"]),
    }
    mix = MIX | {"photos": MIX["photos"] | {"clips_per_update": 10}}
    asked = make_parts(config(data__mix=mix)).buckets
    assert [bucket.batch_size for bucket in asked] == [4, 10, 4]
    assert [of.name for of in parts.sources] == ["main", "motions", "photos", "wide"]
    numbers = [stream.number for of in open_streams(parts.buckets, 0) for stream in of]
    assert numbers == [0, 1, 2, 3]


def test_each_bucket_has_the_batches_for_which_its_step_is_compiled():
    parts = make_parts(config())
    mesh = meshes.make_mesh(parts.layout, jax.devices()[:1])
    for bucket, streams in zip(parts.buckets, open_streams(parts.buckets, 0), strict=True):
        planned = abstract_batch(parts.only(bucket), mesh)
        example = streams[0].examples()[0]
        assert {k: (v.shape[1:], v.dtype) for k, v in planned.items()} == {
            k: (v.shape, v.dtype) for k, v in example.items()
        }
        assert {v.shape[0] for v in planned.values()} == {bucket.batch_size}


def test_each_bucket_is_planned_as_a_run_of_its_own():
    whole = configs.replace(config(train__steps=100), ONE_LEVEL)
    alone = bucket_configs(whole)
    sizes = {name: (one.train.batch_size, one.train.steps) for name, one in alone.items()}
    assert sizes == {"4x8x8": (4, 50), "1x8x8": (16, 33), "2x8x12": (4, 17)}
    for one in alone.values():
        assert configs.resolve(dataclasses.asdict(one)) == one
        assert len(make_parts(one).buckets) == 1
    parts = {name: make_parts(one) for name, one in alone.items()}
    flops = {name: model_flops(one.denoiser, one.batch_size) for name, one in parts.items()}
    mean = (1.5 * flops["4x8x8"] + flops["1x8x8"] + 0.5 * flops["2x8x12"]) / 3
    assert mean_flops(make_parts(whole)) == pytest.approx(mean)
    assert bucket_configs(tiny.config()) == {"4x8x8": tiny.config()}


def test_pictures_are_planned_without_temporal_layers():
    small = configs.replace(config(), ONE_LEVEL | {"model.temporal": True})
    alone = bucket_configs(small)
    for name, one in alone.items():
        blocks = {piece.name.split()[0] for piece in pieces.find(make_parts(one).denoiser, 1)}
        assert ("TemporalAttention" in blocks) == (name != "1x8x8")
    plan = make_plan(alone["1x8x8"], chips.find("a100-80gb:1", estimate=True))
    assert plan.clips == 16
    assert plan.unsplit == []
    # Weights of all layers are on the chip in each step.
    state = abstract_state(small, meshes.abstract_mesh(make_parts(small).layout, 1))
    assert plan.params == count_parameters(state.params)


@pytest.mark.parametrize("scan", [False, True])
def test_pictures_pass_through_the_spatial_layers_alone(scan):
    one_level = dict(tiny.ONE_LEVEL_KEYS, temporal=True, layers_per_level=3, scan_layers=True)
    model = one_level if scan else {}
    denoiser = make_parts(tiny.config(model=model)).denoiser
    params = jax.jit(lambda key: meshes.unbox(denoiser.init_params(key)))(jax.random.key(0))
    # Temporal layers start as no-ops, so other weights tell whether they are used.
    params = jax.tree.map(lambda x: x + 0.1, params)
    keys = jax.random.split(jax.random.key(1), 2)
    picture = jax.random.normal(keys[0], (2, 1, 8, 8, 1))
    text = jax.random.normal(keys[1], (2, 3, 16)), jnp.ones((2, 3), bool)
    time = jnp.array([0.3, 0.8])
    flat = flatten_dict(params)
    kept = unflatten_dict({path: x for path, x in flat.items() if not is_temporal(path)})
    assert len(flatten_dict(kept)) < len(flat)
    spatial = denoiser.network.clone(temporal_factors=None)
    expected = jax.jit(spatial.apply)({"params": kept}, picture, time, *text)
    found = jax.jit(denoiser.predict)(params, picture, time, *text)
    np.testing.assert_array_equal(found, expected)


def arrays(workdir):
    items = ocp.load_checkpointables(workdir / "checkpoints" / str(STEPS))
    leaves = jax.tree_util.tree_leaves_with_path(items)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("buckets") / "whole"
    run = configs.replace(
        config(train__steps=STEPS, checkpoint__every=1, checkpoint__keep=99), ONE_LEVEL
    )
    train(run, workdir)
    return run, workdir


def test_a_run_in_several_buckets_continues_bit_for_bit(whole):
    run, workdir = whole
    again = workdir.with_name("again")
    shutil.copytree(workdir, again)
    for step in range(4, STEPS + 1):
        shutil.rmtree(again / "checkpoints" / str(step))
    train(run, again)
    one, other = arrays(workdir), arrays(again)
    assert one.keys() == other.keys()
    for key in one:
        np.testing.assert_array_equal(one[key], other[key], err_msg=key)
    losses = [
        [{k: v for k, v in line.items() if "loss" in k} for line in tiny.metrics(where)]
        for where in (workdir, again)
    ]
    assert losses[0] == losses[1]


def test_each_update_is_on_one_bucket_and_tells_the_losses_of_its_sources(whole):
    _, workdir = whole
    lines = tiny.metrics(workdir)
    seen = [frozenset(re.findall(r"loss/(\w+)", " ".join(line))) for line in lines]
    buckets = [{"main", "motions"}, {"photos"}, {"wide"}]
    found = [[of <= bucket for bucket in buckets].index(True) for of in seen]
    # Shares of 1/2, 1/3 and 1/6, each within less than one update.
    assert [found.count(0) // 3, found.count(1) // 2, found.count(2)] == [1, 1, 1]
    assert len(list(itertools.groupby(found))) > 4
    for of, line in zip(found, lines, strict=True):
        clips = line["clips_per_second"] * line["seconds_per_step"]
        assert clips == pytest.approx((4, 16, 4)[of])
