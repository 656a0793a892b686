"""Run by test_mesh.py in a process of its own: one update on a mesh of virtual devices, saved."""

import json
import pathlib
import sys

import jax
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "train"))
import test_step
import tiny

from stunet.parallel import mesh as meshes
from stunet.train.state import abstract_state, create_state
from stunet.train.step import make_train_step


def one_update(extents: dict[str, int]) -> dict[str, np.ndarray]:
    config = tiny.config(mesh=extents, train=dict(batch_size=8))
    count = int(np.prod([extents.get(axis, 1) for axis in meshes.AXES]))
    mesh = meshes.make_mesh(config.mesh, jax.devices()[:count])
    with meshes.use(mesh):
        state = create_state(config, mesh)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state(config, mesh))
        values = meshes.shard_batch(test_step.batch(config), mesh)
        step = jax.jit(make_train_step(config), donate_argnums=0, out_shardings=(shardings, None))
        state, metrics = step(state, values)
    sharded = sum(not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(state.params))
    moments = state.opt_state[1][0].mu
    leaves = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(moments)}
    return jax.device_get({"loss": metrics["loss"], "sharded": sharded, **leaves})


if __name__ == "__main__":
    out, *meshes_asked = sys.argv[1:]
    for i, extents in enumerate(meshes_asked):
        np.savez(f"{out}/{i}.npz", **one_update(json.loads(extents)))
