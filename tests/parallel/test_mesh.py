"""Every mesh gives the same update, and extents that do not fit are refused."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest
import tiny
from jax.sharding import PartitionSpec

from stunet.errors import UserError
from stunet.nn.sharding import partition_spec
from stunet.parallel import mesh as meshes

ONE, *OTHERS = [
    {"data": 1},
    {"data": 8},
    {"fsdp": 8},
    {"context": 4, "data": 2},
    {"context": 4, "data": 2, "context_axis": "frames"},
    {"tensor": 2, "fsdp": 4},
    {"context": 4, "fsdp": 2, "dtype": "bfloat16"},
]


def on_eight_devices(out: pathlib.Path, *asked: str) -> pathlib.Path:
    """Runs one_update.py, which writes its files into `out`."""
    command = [sys.executable, pathlib.Path(__file__).with_name("one_update.py"), out, *asked]
    subprocess.run(command, env=tiny.environment(devices=8), check=True, timeout=900)
    return out


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return on_eight_devices(tmp_path_factory.mktemp("layers"), "layers")


@pytest.fixture(scope="module")
def updates(tmp_path_factory):
    out = tmp_path_factory.mktemp("updates")
    on_eight_devices(out, *(json.dumps(m) for m in (ONE, *OTHERS)))
    return [dict(np.load(out / f"{i}.npz")) for i in range(1 + len(OTHERS))]


def test_convolutions_are_right_where_clip_and_features_are_split(directory):
    assert np.load(directory / "convolution.npz")["error"] < 1e-5


def test_rows_are_exchanged_before_norm_and_activation_without_an_error(directory):
    found = dict(np.load(directory / "exchange.npz"))
    # XLA sends the row from above and the row from below together.
    assert found.pop("collective-permute") == 1
    assert set(found) == {"y", "x", "factor", "offset", "kernel"}  # No other collectives.
    assert max(found.values()) < 1e-5


def test_flash_attention_is_the_same_on_every_chip_s_share(directory):
    assert np.load(directory / "attention.npz")["error"] < 1e-6


@pytest.mark.parametrize("context_axis", ["rows", "frames"])
def test_stable_diffusion_s_blocks_are_the_same_where_clip_and_features_are_split(
    directory, context_axis
):
    errors = dict(np.load(directory / f"stable_{context_axis}.npz"))
    assert len(errors) > 30
    assert max(errors.values()) < 1e-5


def test_on_each_gpu_cudnn_computes_its_own_share_of_clips_queries_and_heads(directory):
    shapes = np.load(directory / "attention.npz")["cudnn"].tolist()
    # [clips x frames, queries or keys, heads, features], each extent but the keys' halved.
    assert shapes == ["3x8x2x8", "3x24x2x8", "3x24x2x8"]


def test_a_low_resolution_clip_is_enlarged_where_it_lies_but_for_one_row_each_way(directory):
    split = dict(np.load(directory / "upscaling.npz"))
    assert split.pop("error") < 1e-6
    assert split == {"collective-permute": 2}


@pytest.mark.parametrize("index", range(len(OTHERS)), ids=[str(m) for m in OTHERS])
@pytest.mark.slow
def test_every_mesh_computes_the_same_update(updates, index):
    one, other = updates[0], updates[1 + index]
    exact = "dtype" not in OTHERS[index]
    np.testing.assert_allclose(other["loss"], one["loss"], rtol=1e-5 if exact else 1e-2)
    # Compare first moments, which after one update are a multiple of the clipped gradient.
    gradients = {k: v for k, v in one.items() if k.startswith("gradient")}
    largest = max(np.abs(v).max() for v in gradients.values())
    for key, gradient in gradients.items():
        near = (
            dict(rtol=1e-3, atol=1e-5 * largest) if exact else dict(rtol=0.2, atol=0.05 * largest)
        )
        np.testing.assert_allclose(other[key], gradient, err_msg=key, **near)
        if exact:
            # AdamW's first update is the gradient's sign, which near zero depends on rounding.
            decided = np.abs(gradient) > 1e-4 * largest
            param = key.replace("gradient", "param", 1)
            np.testing.assert_allclose(
                other[param][decided], one[param][decided], rtol=1e-5, atol=1e-6, err_msg=param
            )


@pytest.mark.slow
def test_weights_are_split_where_the_mesh_says_so(updates):
    split = dict(
        zip((str(m) for m in (ONE, *OTHERS)), (int(u["sharded"]) for u in updates), strict=True)
    )
    replicated = [m for m in (ONE, *OTHERS) if not {"fsdp", "tensor"} & set(m)]
    for asked in (ONE, *OTHERS):
        count = split[str(asked)]
        assert count == 0 if asked in replicated else count > 50, asked


@pytest.mark.slow
def test_collectives_of_the_step(updates):
    """Compares the counts with those in collectives.json, which may change only for a reason."""
    counted = {
        str(m): {k.removeprefix("count "): int(v) for k, v in u.items() if k.startswith("count ")}
        for m, u in zip((ONE, *OTHERS), updates, strict=True)
        if "dtype" not in m
    }
    golden = pathlib.Path(__file__).with_name("collectives.json")
    assert counted == json.loads(golden.read_text())


@pytest.mark.slow
def test_splitting_rows_exchanges_borders_and_gathers_no_clips(updates):
    rows = updates[1 + OTHERS.index({"context": 4, "data": 2})]
    assert rows["count collective-permute"] > 0
    # Attention within frames gathers its keys and its values once, in each of four layers.
    assert rows["count all-gather"] == 2 * 4
    assert "count all-to-all" not in rows


def test_extents_must_fit_the_devices():
    assert meshes.make_mesh(meshes.Layout(), jax.devices()[:1]).shape["data"] == 1
    with pytest.raises(UserError, match=r"data 3 .* does not fit 1 devices"):
        meshes.make_mesh(meshes.Layout(data=3), jax.devices()[:1])


@pytest.mark.parametrize(
    ("extents", "devices", "slices", "nearest"),
    [
        # One extent changes, and an axis with -1 takes the rest.
        (dict(fsdp=64), 16, 1, dict(fsdp=16)),
        (dict(fsdp=64, data=1, context=-1), 16, 1, dict(fsdp=16)),
        # The smallest factor is chosen: halving `fsdp` changes less than making `context` 1.
        (dict(data=1, fsdp=4, context=4), 8, 1, dict(fsdp=2)),
        # With equal factors, clips stay split as they are.
        (dict(data=2, fsdp=2, context=2), 4, 1, dict(data=1)),
        (dict(data=1, fsdp=8), 8, 2, dict(slice=2, fsdp=4)),
        (dict(data=1, fsdp=64, context=4), 128, 2, dict(slice=2, fsdp=16)),
    ],
)
def test_a_mesh_that_does_not_fit_gets_the_nearest_that_does(extents, devices, slices, nearest):
    layout = meshes.Layout(**extents)
    said = " ".join(f"--config.mesh.{axis}={n}" for axis, n in nearest.items())
    with pytest.raises(UserError, match=f"the nearest mesh that fits: {said}$"):
        meshes.abstract_mesh(layout, devices, slices)
    mesh = meshes.abstract_mesh(dataclasses.replace(layout, **nearest), devices, slices)
    assert mesh.size == devices


def tpus(slices: int) -> list[jax.Device]:
    """Returns stand-ins for the chips of `slices` slices of 2x2, one slice after the other."""
    return [
        mock.Mock(
            spec=jax.Device,
            id=100_000 * (s + 1) + i,
            platform="tpu",
            device_kind="TPU v5 lite",
            process_index=s,
            slice_index=s,
            coords=[i % 2, i // 2, 0],
            core_on_chip=0,
        )
        for s in range(slices)
        for i in range(4)
    ]


@pytest.mark.parametrize(
    "extents", [dict(slice=2, fsdp=4, data=1), dict(slice=4, context=-1, data=2)]
)
def test_only_the_axis_slice_crosses_between_slices(extents):
    mesh = meshes.make_mesh(meshes.Layout(**extents), tpus(2))
    found = np.vectorize(lambda device: device.slice_index)(mesh.devices)
    assert mesh.size == 8
    # Along every other axis, all chips belong to one slice.
    for part in found:
        assert len(set(part.flat)) == 1
    assert set(found.flat) == {0, 1}


def test_an_axis_other_than_slice_may_not_cross_between_slices():
    with pytest.raises(UserError, match=r"the devices are 2 slices, .*: --config.mesh.slice=2$"):
        meshes.make_mesh(meshes.Layout(), tpus(2))
    assert meshes.make_mesh(meshes.Layout(), tpus(1)).shape["data"] == 4


def test_batch_must_split_over_mesh_and_parts():
    mesh = jax.sharding.AbstractMesh((1, 4, 2, 1, 1), meshes.AXES)
    meshes.check_batch(16, 1, mesh)
    with pytest.raises(UserError, match="make it a multiple of 16"):
        meshes.check_batch(24, 2, mesh)


def test_axes_that_do_not_divide_stay_whole():
    import flax.linen as nn

    with nn.logical_axis_rules(meshes.RULES):
        names = (None, None, None, "in_channels", "out_channels")
        extents = {"slice": 1, "data": 1, "fsdp": 4, "context": 1, "tensor": 2}
        split = partition_spec(names, (1, 3, 3, 8, 6), extents)
        assert split == PartitionSpec(None, None, None, ("fsdp",), ("tensor",))
        assert partition_spec(names, (1, 3, 3, 3, 5), extents) == PartitionSpec(*[None] * 5)
