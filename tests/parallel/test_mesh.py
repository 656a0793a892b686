"""Meshes: what fits, and that the same update comes out of every one."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from stunet import configs
from stunet.errors import UserError
from stunet.nn.sharding import partition_spec
from stunet.parallel import mesh as meshes

ONE, *OTHERS = [
    {"data": 1},
    {"data": 4},
    {"fsdp": 4},
    {"data": 2, "fsdp": 2},
]


@pytest.fixture(scope="module")
def updates(tmp_path_factory):
    out = tmp_path_factory.mktemp("updates")
    script = pathlib.Path(__file__).with_name("one_update.py")
    command = [sys.executable, script, out, *(json.dumps(m) for m in (ONE, *OTHERS))]
    subprocess.run(command, env=tiny.environment(devices=4), check=True, timeout=600)
    return [dict(np.load(out / f"{i}.npz")) for i in range(1 + len(OTHERS))]


@pytest.mark.parametrize("index", range(len(OTHERS)), ids=[str(m) for m in OTHERS])
def test_every_mesh_computes_the_same_update(updates, index):
    reference, other = updates[0], updates[1 + index]
    np.testing.assert_allclose(other["loss"], reference["loss"], rtol=1e-5)
    # The first moment after one update is the clipped gradient: what all else follows from.
    largest = max(np.abs(v).max() for k, v in reference.items() if k.startswith("["))
    for key in reference:
        if key.startswith("["):
            np.testing.assert_allclose(
                other[key], reference[key], rtol=1e-3, atol=1e-5 * largest, err_msg=key
            )


def test_weights_are_split_where_the_mesh_says_so(updates):
    split = [int(u["sharded"]) for u in updates]
    assert split[0] == 0
    assert split[1] == 0  # data: replicas
    assert split[2] > 50  # fsdp
    assert split[3] > 50


def test_extents_must_fit_the_devices():
    assert meshes.make_mesh(configs.Mesh(), jax.devices()[:1]).shape["data"] == 1
    with pytest.raises(UserError, match=r"data 3 .* does not fit 1 devices"):
        meshes.make_mesh(configs.Mesh(data=3), jax.devices()[:1])


def test_batch_must_split_over_mesh_and_parts():
    mesh = jax.sharding.AbstractMesh((1, 4, 2), meshes.AXES)
    meshes.check_batch(configs.Train(batch_size=16), mesh)
    with pytest.raises(UserError, match="make it a multiple of 16"):
        meshes.check_batch(configs.Train(batch_size=24, accumulate=2), mesh)


def test_axes_that_do_not_divide_stay_whole():
    import flax.linen as nn

    with nn.logical_axis_rules(meshes.RULES):
        names = (None, None, None, "in_channels", "out_channels")
        extents = {"slice": 1, "data": 1, "fsdp": 4}
        split = partition_spec(names, (1, 3, 3, 8, 6), extents)
        assert split == PartitionSpec(None, None, None, ("fsdp",), None)
        assert partition_spec(names, (1, 3, 3, 3, 5), extents) == PartitionSpec(*[None] * 5)
