"""Inflates a text-to-image U-Net: it becomes the frozen spatial half of a Space-Time U-Net.

The method is Lumiere's (arXiv 2401.12945, section 3.1). The result is a run with no updates yet.
"""

import dataclasses
import functools
import itertools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun
from jax.interpreters.partial_eval import dce_jaxpr

from stunet import configs, jsonfiles
from stunet.configs import text_encoders
from stunet.data.spec import make_encoder
from stunet.errors import UserError
from stunet.nn.parameters import EMPTY_TEXT, is_temporal
from stunet.nn.text import TextEncoder
from stunet.parallel import mesh as meshes
from stunet.stores import addresses
from stunet.stores.mirror import check_vacant, new_directory
from stunet.train.parts import Parts, make_parts
from stunet.train.saved.checkpoint_names import check_path
from stunet.train.saved.checkpoints import Checkpoints
from stunet.train.saved.retention import Retention
from stunet.train.state import TrainState, abstract_state, count_parameters, quick_to_compile
from stunet.weights import diffusers_config, diffusers_unet, lora_files, pipeline
from stunet.weights.lora import Lora, Merged

# Bytes of weights that are drawn at a time, and bytes of each tree that are packed for the disk.
AT_ONCE = 32 * 2**20
# Number of weights that one program draws.
DRAWN_AT_ONCE = 64
# Folder in the run for the text encoder, if a LoRA changes it.
TEXT_ENCODER = "text_encoder"

Path = tuple[str, ...]
_OfUNet = diffusers_unet.Directory | Merged
Leaves = Mapping[Path, jax.ShapeDtypeStruct]


@dataclasses.dataclass(frozen=True)
class Source:
    """Reads the weights that a run begins with.

    Attributes:
        unet: reads those of the U-Net.
        empty_text: token states of an empty caption, float32 [l, d]; None if the network has none.
    """

    unet: _OfUNet
    empty_text: np.ndarray | None

    def read(self, path: Path, index: tuple[slice, ...], dtype: Any) -> np.ndarray:
        """Reads one of our weights, or a part of it, as `diffusers_unet.Directory.read` does."""
        if path == (EMPTY_TEXT,):
            return self.empty_text[index].astype(dtype)
        return self.unet.read(path, index, dtype)


def inflate(
    t2i: pathlib.Path,
    out: pathlib.Path,
    frames: int,
    temporal_factors: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    lora: pathlib.Path | None = None,
    lora_scale: float = 1.0,
) -> str:
    """Writes the working directory of a run that begins with a text-to-image U-Net's weights.

    Checkpoint 0 of the run has these weights unchanged, and new temporal layers. The temporal
    layers start as no-ops or nearest-neighbour resizing. So for a static clip the network at first
    gives in every frame what the U-Net gives for its picture. (`stunet.nn.stunet` says what it
    gives for other clips.) Other runs start from this checkpoint with `train.init_from`.

    Each shard of a weight is read by itself and placed where the config's mesh puts it. So the host
    holds its shards of the weights only once. Packing data for the disk takes another `AT_ONCE`
    bytes, or the size of the largest weight if that is more. Averages and moments take no extra
    memory.

    Args:
        t2i: directory of a diffusers U-Net of DeepFloyd IF's or of Stable Diffusion's family, or of
            a whole pipeline of Stable Diffusion, whose other parts then determine the text, the
            latents and the noise.
        out: directory to create.
        frames: frames in each clip.
        temporal_factors: for each level, finest first, the factor by which the number of frames
            shrinks on the way into the level. None means 1 for the finest level and 2 otherwise.
        overrides: `--config.a.b=value` flags, for all settings that the U-Net does not determine.
            If no flag names the data, `stunet train` will ask for it.
        lora: LoRA file for the U-Net and its text encoder (`stunet.weights.lora_files`), which is
            merged into the weights. A text encoder that the file changes is written to the folder
            `text_encoder` in `out`, and the config names it. None merges none.
        lora_scale: factor of the LoRA's change. 0 leaves the weights as they are.

    Returns:
        A summary of what was found and written. If the config names no data, the summary says so.

    Raises:
        UserError: `t2i` holds no complete U-Net of these families, another part of the pipeline
            or `lora` cannot be read, `overrides` ask for another network, `out` exists already, or
            the disk is full.
    """
    check_vacant(out)
    check_path(out)
    given = pipeline.read(t2i)
    file = given.unet / diffusers_unet.CONFIG
    found = jsonfiles.read(file, jsonfiles.Object)
    config = diffusers_config.to_stunet(found, str(file), frames, temporal_factors, given.keys)
    config = _overridden(config, overrides, str(file))
    parts = make_parts(config)
    mesh = meshes.make_mesh(parts.layout)
    abstract = abstract_state(parts.denoiser, parts.optimizer, mesh)
    tensors = diffusers_unet.table(parts.denoiser, abstract)
    source = diffusers_unet.Directory(given.unet, tensors)
    lines, changed = list(given.found), None
    if lora:
        changes, encoder = lora_files.read_with_text(lora, tensors, parts.denoiser.text)
        source = Merged(source, changes, lora_scale)
        changed = encoder and encoder.changed(changes.of_texts(lora_scale))
        lines += _about_lora(lora, lora_scale, changes, out)
    with new_directory(out) as partial, meshes.use(mesh, parts.layout.context_axis):
        written = changed and changed.write(partial / TEXT_ENCODER)
        if written:
            config = configs.replace(config, _text_keys(parts, written, out))
        source = Source(source, _empty_text(parts, written))
        with Checkpoints(partial, Retention(1), at_once=AT_ONCE) as checkpoints:
            checkpoints.save(_state(parts, abstract, source), {"global_next_index": 0})
            checkpoints.wait()
        configs.write(config, partial / "config.json")
    trained, frozen = map(count_parameters, (abstract.params, abstract.frozen))
    summary = "".join(f"{line}\n" for line in lines)
    summary += (
        f"{out}: {trained + frozen:,} parameters, {trained:,} to be trained and {frozen:,} frozen"
    )
    if parts.dataset.is_stored and not parts.dataset.options["path"]:
        summary += "\nno data is named yet; train with --config.data.path=RECORDS"
    return summary


def _about_lora(
    file: pathlib.Path, scale: float, changes: Lora, out: pathlib.Path
) -> Iterator[str]:
    """Yields lines about a LoRA file that is merged into the run `out`."""
    yield f"{file}: merged into {len(changes.factors)} weights of the U-Net, times {scale:g}"
    if count := sum(map(len, changes.texts)):
        yield f"{file}: merged into {count} weights of the text encoder, in {out / TEXT_ENCODER}"
    if changes.left_out:
        yield changes.left_out


def _text_keys(parts: Parts, written: TextEncoder, out: pathlib.Path) -> dict[str, str]:
    """Returns the keys of the config that name the text encoder written to the run `out`."""
    family = parts.denoiser.text.encoder.partition(":")[0]
    place = addresses.shown(str(out / TEXT_ENCODER))
    return {"text.encoder": f"{family}:{place}", "text.fingerprint": written.fingerprint}


def _empty_text(parts: Parts, changed: TextEncoder | None) -> np.ndarray | None:
    """Returns the states of an empty caption, if the network has such weights.

    Args:
        parts: parts of the run.
        changed: the text encoder, if it is another one than that of `parts`.

    Raises:
        UserError: the text encoder cannot be read, or is none of CLIP.
    """
    denoiser = parts.denoiser
    if not denoiser.network.empty_text_tokens:
        return None
    if not text_encoders.is_clip(denoiser.text.encoder):
        raise UserError(
            f"model.empty_text_tokens is {denoiser.network.empty_text_tokens}, and text.encoder "
            f"{denoiser.text.encoder!r} has no states of an empty caption; set "
            "model.empty_text_tokens to 0, or text.encoder to 'clip:DIR'"
        )
    return (changed or make_encoder(denoiser.text)).empty()


def _overridden(
    config: configs.Experiment, overrides: Sequence[str], place: str
) -> configs.Experiment:
    """Returns the config with overrides, which must not change the network of the U-Net.

    Raises:
        UserError: the overrides ask for a network other than the U-Net at `place`.
    """
    asked = configs.override(config, overrides)
    described, wanted = make_parts(config), make_parts(asked)
    if rank := wanted.denoiser.trainable.lora_rank:
        raise UserError(
            f"lora.rank is {rank}, and adapters are no part of {place}; leave them to a "
            "run that begins with this one (train.init_from)"
        )
    described, wanted = map(diffusers_config.to_diffusers, (described, wanted))
    for key, value in described.items():
        # The size of pictures is in no weight.
        if wanted[key] != value and key != "sample_size":
            raise UserError(
                f"{place} has {key!r} {value!r}, and the network that --config asks for "
                f"{wanted[key]!r}; leave that to a run that begins with this one (train.init_from)"
            )
    return asked


def _state(parts: Parts, abstract: TrainState, source: Source) -> TrainState:
    """Returns the state before the first update, sharded like `abstract`.

    The state is for saving, not for training, because leaves with equal values share one array.
    """
    flat = flatten_dict(abstract.params)
    drawn = {path: leaf for path, leaf in flat.items() if is_temporal(path)}
    given = {path: leaf for path, leaf in flat.items() if not is_temporal(path)}
    params = unflatten_dict(_draw(parts, drawn) | _read(given, source))
    frozen = unflatten_dict(_read(flatten_dict(abstract.frozen), source))
    zeros = functools.cache(_zeros)
    return abstract.replace(
        step=zeros(abstract.step),
        params=params,
        frozen=frozen,
        ema=params,
        opt_state=_first_moments(parts.optimizer.transformation.init, params, abstract.opt_state),
        guard=jax.tree.map(zeros, abstract.guard),
        power_ema=dict.fromkeys(abstract.power_ema, params),
    )


def _first_moments(init: Callable[[Any], Any], params: Any, abstract: Any) -> Any:
    """Returns the optimiser's state before the first update. Equal arrays of zeros are one array.

    Args:
        init: makes that state from the parameters.
        params: the parameters.
        abstract: shapes and shardings of the state.
    """
    # Most arrays of the state start at zero, whatever the parameters are and however large.
    tiny = jax.tree.map(lambda leaf: jnp.ones((1,) * leaf.ndim, leaf.dtype), params)
    is_other = [bool(leaf.any()) for leaf in jax.tree.leaves(init(tiny))]
    leaves, structure = jax.tree.flatten(abstract)

    def others(params: Any) -> list[jax.Array]:
        return list(itertools.compress(jax.tree.leaves(init(params)), is_other))

    shardings = [leaf.sharding for leaf in itertools.compress(leaves, is_other)]
    computed = iter(jax.jit(others, out_shardings=shardings)(params))
    zeros = functools.cache(_zeros)
    first = [
        next(computed) if other else zeros(leaf)
        for leaf, other in zip(leaves, is_other, strict=True)
    ]
    return jax.tree.unflatten(structure, first)


def _read(leaves: Leaves, source: Source) -> dict[Path, jax.Array]:
    """Reads the U-Net's weights, each shard by itself."""
    return {
        path: jax.make_array_from_callback(
            leaf.shape,
            leaf.sharding,
            lambda index, path=path, leaf=leaf: source.read(path, index, leaf.dtype),
        )
        for path, leaf in leaves.items()
    }


def _draw(parts: Parts, leaves: Leaves) -> dict[Path, jax.Array]:
    """Draws initial weights, as for a run that starts without the weights of another network.

    Several programs draw some weights each, which takes less memory than one program for all. The
    random bits of a program and the values made from them take as much memory as its results, and
    compiling a longer program takes more memory.
    """

    def fresh() -> list[jax.Array]:
        params = flatten_dict(meshes.unbox(parts.denoiser.init_params(jax.random.key(parts.seed))))
        return [params[path] for path in leaves]

    # The network is traced once. Each program is the part of that trace that its weights need.
    whole = jax.make_jaxpr(fresh)()
    drawn: dict[Path, jax.Array] = {}
    for part in _parts(leaves):
        shardings = [leaf.sharding for leaf in part.values()]
        needed, _ = dce_jaxpr(whole.jaxpr, [path in part for path in leaves])
        program = jaxpr_as_fun(ClosedJaxpr(needed, whole.consts))
        options = quick_to_compile(shardings[0].mesh)
        values = jax.jit(program, out_shardings=shardings, **options)()
        drawn |= dict(zip(part, values, strict=True))
    return drawn


def _parts(leaves: Leaves) -> Iterator[Leaves]:
    """Yields the leaves in order, in groups of up to `AT_ONCE` bytes and `DRAWN_AT_ONCE` leaves.

    A group has at least one leaf, even if the leaf is larger than `AT_ONCE`.
    """
    part, size = {}, 0
    for path, leaf in leaves.items():
        extent = leaf.size * leaf.dtype.itemsize
        if part and (size + extent > AT_ONCE or len(part) == DRAWN_AT_ONCE):
            yield part
            part, size = {}, 0
        part[path] = leaf
        size += extent
    if part:
        yield part


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    shard = leaf.sharding.shard_shape(leaf.shape)
    return jax.make_array_from_callback(
        leaf.shape, leaf.sharding, lambda _: np.zeros(shard, leaf.dtype)
    )
