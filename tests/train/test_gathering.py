"""A process of its own writes a checkpoint as Orbax writes one here."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from orbax.checkpoint import v1 as ocp

from stunet.train.saved import checkpoint_files, digests
from stunet.train.saved.gathering import Saves, Writing
from stunet.train.saved.retention import Retention


def content(step):
    params = {"kernel": jnp.arange(6.0).reshape(2, 3) + step, "bias": jnp.ones(3, jnp.bfloat16)}
    train = {"step": jnp.int32(step), "params": params, "opt_state": optax.adam(1.0).init(params)}
    return checkpoint_files.with_digests({"train": train}, {"position": 7})


@pytest.mark.slow
def test_checkpoints_hold_what_was_saved_and_errors_reach_the_run(tmp_path):
    saves = Saves(tmp_path, Retention(latest=1))
    for step in (1, 2):
        saves.save(step, content(step), {})
        assert saves.newest == step
    saves.wait()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2"]
    saved = content(2)
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    asked = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), saved["train"]
    )
    loaded = checkpoint_files.load(tmp_path / "2", {"train": asked})
    assert loaded.data == {"position": 7}
    assert not loaded.note
    assert digests.of_arrays(loaded.items) == digests.of_arrays({"train": saved["train"]})
    # The files are those that Orbax writes here, but for their random names.
    with checkpoint_files.context():
        ocp.save_checkpointables(tmp_path / "here", saved)
    there, here = (ocp.load_checkpointables(tmp_path / name) for name in ("2", "here"))
    assert jax.tree.structure(there) == jax.tree.structure(here)
    assert all(map(np.array_equal, jax.tree.leaves(there), jax.tree.leaves(here)))
    # Orbax refuses a directory that is there already.
    with pytest.raises(RuntimeError, match="exists"):
        Writing(tmp_path / "here", saved).wait()
