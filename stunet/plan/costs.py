"""How long a train step takes, from its distinct pieces, each compiled once.

Compiled for speed, a whole network takes the compiler an hour, and its distinct blocks minutes. A
piece is a block of the network (a residual block, an attention, an inflation, a resizing): its
forward pass, and its backward pass under the network's remat policy, with the shardings that its
arguments have in the step. What lies between blocks is not in any piece: noise, the loss, and the
optimiser's update.

Pieces that differ in the width of their input alone are the residual blocks of one level, wider
where a skip connection joins them. They reach the same share of a chip's peak within a few percent,
and the widest take the compiler longest. So only the narrowest is compiled, and the others' time
follows from it by their operations.
"""

import concurrent.futures
import dataclasses
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout

from stunet import configs, files
from stunet.nn.layers import CLIP_AXES
from stunet.nn.remat import REMAT_POLICIES
from stunet.nn.sharding import partition_spec
from stunet.parallel import mesh as meshes
from stunet.plan import chips, hlo
from stunet.train import flops, pieces


@dataclasses.dataclass(frozen=True)
class Cost:
    """What all calls of a piece take on one chip, in one step.

    Attributes:
        name: of the piece.
        calls: how often it is called.
        seconds: of all calls, forward and backward, without collectives.
        scaled_from: the piece whose compiled time this follows from, by operations; None if this
            one was compiled itself.
    """

    name: str
    calls: int
    seconds: float
    scaled_from: str | None = None


class Costs:
    """Of all pieces, computed in processes of their own, one for each core, from now on.

    Each is stored in the user's cache under what was compiled, so that none is compiled twice. A
    context: at its end, pieces whose turn has not come are given up.

    Args:
        config: of the run.
        topology: of TPUs (`chips.devices`).
        slices: of that topology.
        scale: whether a piece may stand for others (`stand_ins`), or each is compiled.
    """

    def __init__(self, config: configs.Config, topology: str, slices: int = 1, scale: bool = True):
        batch = config.train.batch_size // config.train.accumulate
        self._pieces = pieces.find(config, batch)
        self._parts = config.train.accumulate
        self._stand_ins = stand_ins(self._pieces) if scale else list(range(len(self._pieces)))
        # The compiler's threads and a fork do not go together.
        self._pool = concurrent.futures.ProcessPoolExecutor(
            os.cpu_count(), multiprocessing.get_context("spawn")
        )
        arguments = (config, batch, topology, slices)
        self._seconds = {
            i: self._pool.submit(_seconds, *arguments, i) for i in sorted(set(self._stand_ins))
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def result(self) -> list[Cost]:
        """Waits for them. The costliest piece is first."""
        costs = []
        for i, (piece, stand_in) in enumerate(zip(self._pieces, self._stand_ins, strict=True)):
            calls = len(piece.calls) * self._parts
            seconds, compiled = calls * self._seconds[stand_in].result(), self._pieces[stand_in]
            if i == stand_in:
                costs.append(Cost(piece.name, calls, seconds))
            else:
                seconds *= flops.of_piece(piece) / flops.of_piece(compiled)
                costs.append(Cost(piece.name, calls, seconds, compiled.name))
        return sorted(costs, key=lambda cost: -cost.seconds)


def stand_ins(found: Sequence[pieces.Piece]) -> list[int]:
    """For each piece, the place of the one from whose time its own follows: the narrowest of those
    that differ from it in the width of their input alone, which may be itself."""
    narrowest: dict[tuple, int] = {}
    families = []
    for i, piece in enumerate(found):
        x, *others = piece.arguments
        family = (
            pieces.identity(piece.module),
            piece.trained,
            x.shape[:-1],
            repr((x.dtype, others)),
        )
        families.append(family)
        best = found[narrowest.setdefault(family, i)].arguments[0]
        if x.shape[-1] < best.shape[-1]:
            narrowest[family] = i
    return [narrowest[family] for family in families]


def _seconds(config: configs.Config, batch: int, topology: str, slices: int, index: int) -> float:
    """What one call of a piece takes on one chip of the topology, compiled or remembered."""
    chip, devices = chips.devices(topology, slices)
    mesh = meshes.make_mesh(config.mesh, devices)
    piece = pieces.find(config, batch)[index]
    with meshes.use(mesh, config.mesh.context_axis):
        lowered = lower(piece, config, mesh)
    version = importlib.metadata.version("libtpu"), jax.__version__
    asked = f"{version} {topology} {slices} {lowered.as_text()}"
    file = files.user_cache("plan") / f"{hashlib.sha256(asked.encode()).hexdigest()}.json"
    if file.is_file():
        return json.loads(file.read_text())["cycles"] / chip.hertz
    with chips.quiet():
        cycles = hlo.read(lowered.compile().as_text()).cycles
    with files.atomic(file) as temporary:
        temporary.write_text(json.dumps({"piece": piece.name, "cycles": cycles}))
    return cycles / chip.hertz


def lower(piece: pieces.Piece, config: configs.Config, mesh: jax.sharding.Mesh):
    """The piece's forward and backward pass, lowered for the mesh in use: `(params, inputs, others,
    dy) -> (y, gradients)`, those of frozen parameters left out."""
    apply, *shapes = differentiable(piece, config.model.remat)
    params = meshes.abstract(pieces.abstract_init(piece.module, piece.arguments), mesh)
    inputs, others = jax.tree.map(lambda a: _placed(a, mesh), tuple(shapes))

    def both(params, inputs, others, dy):
        y, backward = jax.vjp(lambda params, inputs: apply(params, inputs, others), params, inputs)
        dparams, dinputs = backward(dy)
        return y, (dparams if piece.trained else {}, dinputs)

    y = _placed(jax.eval_shape(apply, params, inputs, others), mesh)
    of = lambda tree: jax.tree.map(_format, tree)  # noqa: E731
    return jax.jit(
        both,
        in_shardings=of((params, inputs, others, y)),
        out_shardings=of((y, (params if piece.trained else {}, inputs))),
    ).lower(params, inputs, others, y)


def differentiable(piece: pieces.Piece, remat: str):
    """(`apply(params, inputs, others)`, inputs, others): the piece under a policy, and its
    arguments by position, those that it is differentiated by, and those that it is not."""

    def apply(params, inputs, others):
        given = inputs | others
        return piece.module.apply(params, *(given.get(i) for i in range(len(piece.arguments))))

    if remat != "none":
        apply = jax.checkpoint(apply, policy=REMAT_POLICIES[remat])
    inputs, others = {}, {}
    for i, argument in enumerate(piece.arguments):
        if argument is not None:
            (others if argument.dtype == jnp.bool_ else inputs)[i] = argument
    return apply, inputs, others


def _format(leaf: jax.ShapeDtypeStruct) -> Format:
    """As the leaf is sharded. A clip's activations are laid out as the compiler likes, as between
    blocks of the whole step; in a fixed layout each would be copied at both ends."""
    return Format(Layout.AUTO if leaf.ndim == len(CLIP_AXES) else None, leaf.sharding)


def _placed(leaf: jax.ShapeDtypeStruct, mesh: jax.sharding.Mesh) -> jax.ShapeDtypeStruct:
    """With the sharding that the network's activations have."""
    names = CLIP_AXES if leaf.ndim == len(CLIP_AXES) else ("batch", *[None] * (leaf.ndim - 1))
    spec = partition_spec(names, leaf.shape, mesh.shape)
    sharding = jax.sharding.NamedSharding(mesh, spec)
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
