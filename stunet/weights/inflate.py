"""Inflation: a text-to-image U-Net becomes the frozen spatial half of a Space-Time U-Net (Lumiere,
arXiv 2401.12945, section 3.1), as a run of no updates yet."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from stunet import configs
from stunet.errors import UserError
from stunet.files import atomic_directory, check_vacant
from stunet.nn.stunet import is_temporal
from stunet.parallel import mesh as meshes
from stunet.tensorfiles import read_json
from stunet.train.checkpoints import Checkpoints
from stunet.train.state import (
    TrainState,
    abstract_state,
    begin,
    count_parameters,
    init_params,
    quick_to_compile,
    split,
)
from stunet.weights import diffusers_config, diffusers_unet


def inflate(
    t2i: pathlib.Path,
    out: pathlib.Path,
    frames: int,
    temporal_factors: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
) -> str:
    """Writes the working directory of a run that begins with a text-to-image U-Net's weights.

    Its checkpoint 0 has them as they are, and temporal layers that do nothing yet: whatever the
    run makes is what the U-Net makes of its frames (`stunet.nn.stunet` says which). Other runs
    begin with it by `train.init_from`.

    One part of a weight is read at a time, and put where the config's mesh has it: the host holds
    its shards, once, and beside them the largest weight.

    Args:
        t2i: directory of a diffusers U-Net of DeepFloyd IF's family.
        out: directory to create.
        frames: of a clip.
        temporal_factors: of each level; None: 1 for the finest and 2 for the others.
        overrides: `--config.a.b=value` flags, for all that the U-Net does not say.

    Returns:
        What was written, in a line.

    Raises:
        UserError: `t2i` holds no such U-Net, or not all of it, or the network that `overrides` ask
            for is another; `out` is there already; the disk is full.
    """
    check_vacant(out)
    file = t2i / diffusers_unet.CONFIG
    config = diffusers_config.to_stunet(read_json(file), str(file), frames, temporal_factors)
    config = _overridden(config, overrides, str(file))
    mesh = meshes.make_mesh(config.mesh)
    abstract = abstract_state(config, mesh)
    source = diffusers_unet.Directory(t2i, diffusers_unet.table(config, abstract))
    with atomic_directory(out) as partial, meshes.use(mesh, config.mesh.clip_axis):
        with Checkpoints(partial, keep=1) as checkpoints:
            checkpoints.save(_state(config, abstract, source), {"global_next_index": 0})
            checkpoints.wait()
        configs.write(config, partial / "config.json")
    trained, frozen = map(count_parameters, (abstract.params, abstract.frozen))
    return (
        f"{out}: {trained + frozen:,} parameters, {trained:,} to be trained and {frozen:,} frozen"
    )


def _overridden(config: configs.Config, overrides: Sequence[str], place: str) -> configs.Config:
    """Raises: UserError, if what is asked for is not the network of the U-Net at `place`."""
    asked = configs.override(config, overrides)
    if asked.lora.rank:
        raise UserError(
            f"lora.rank is {asked.lora.rank}, and adapters are no part of {place}; leave them to a "
            "run that begins with this one (train.init_from)"
        )
    described, wanted = map(diffusers_config.to_diffusers, (config, asked))
    for key, value in described.items():
        # The size of pictures is in no weight.
        if wanted[key] != value and key != "sample_size":
            raise UserError(
                f"{place} has {key!r} {value!r}, and the network that --config asks for "
                f"{wanted[key]!r}; leave that to a run that begins with this one (train.init_from)"
            )
    return asked


def _state(
    config: configs.Config, abstract: TrainState, source: diffusers_unet.Directory
) -> TrainState:
    """The state before the first update, laid out as `abstract` is."""

    def read(tree) -> dict[tuple[str, ...], jax.Array]:
        return {
            path: jax.make_array_from_callback(
                leaf.shape,
                leaf.sharding,
                lambda index, path=path, leaf=leaf: source.read(path, index, leaf.dtype),
            )
            for path, leaf in flatten_dict(tree).items()
            if not is_temporal(path)
        }

    def begun(given):
        # Of the fresh weights only those that are not given are computed.
        fresh, _ = split(config, meshes.unbox(init_params(config)))
        return begin(config, unflatten_dict(flatten_dict(fresh) | given))

    trained = dataclasses.replace(abstract, frozen={})
    shardings = jax.tree.map(lambda leaf: leaf.sharding, trained)
    mesh = abstract.step.sharding.mesh
    state = jax.jit(begun, out_shardings=shardings, **quick_to_compile(mesh))(read(trained.params))
    return dataclasses.replace(state, frozen=unflatten_dict(read(abstract.frozen)))
