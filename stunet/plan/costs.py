"""Predicts the time of a train step on TPUs from its distinct pieces, each compiled once.

The compiler needs an hour for a whole network, and minutes for its distinct blocks. A piece is one
block of the network: a residual block, an attention, an inflation or a resizing. It includes the
forward pass, and the backward pass under the network's remat policy, with the shardings that its
arguments have in the step. Noise, loss and the optimiser's update are in no piece. They are
compiled as two separate programs (`stunet.plan.outside`).

Some pieces differ only in the width of their input. These are residual blocks of one level: the
input of a block is wider if a skip connection joins it. Such pieces reach the same share of a
chip's peak within a few percent, and the widest take longest to compile. So only the narrowest of
them is compiled. Its time is scaled by the number of operations to give the times of the other
pieces.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import multiprocessing
import os
from collections.abc import Callable, Sequence
from typing import TypedDict

import jax
import jax.numpy as jnp
from jax.experimental.layout import Format, Layout

from stunet import configs, files, jsonfiles
from stunet.errors import UserError
from stunet.nn.layers import CLIP_AXES
from stunet.nn.remat import REMAT_POLICIES
from stunet.parallel import compiler
from stunet.parallel import mesh as meshes
from stunet.plan import chips, hlo, outside
from stunet.signals import end_with_parent
from stunet.train import pieces
from stunet.train.measured import flops
from stunet.train.parts import make_parts


@dataclasses.dataclass(frozen=True)
class Cost:
    """The time of all calls of a piece (a block of the network) on one chip, in one step.

    Attributes:
        name: name of the piece.
        calls: number of calls in a step.
        seconds: time of all calls, forward and backward, without collectives.
        scaled_from: name of the compiled piece whose time was scaled to give this time; None if
            this piece was compiled itself.
    """

    name: str
    calls: int
    seconds: float
    scaled_from: str | None = None


class Costs:
    """Computes the time of each piece (distinct block of the network) in separate processes.

    The processes start immediately, one for each core. Each time is stored in the user's cache
    under a hash of the lowered program, so that nothing is compiled twice. When this context
    manager ends, pieces that no process has started are dropped.

    Args:
        config: config of the run.
        topology: name of a topology of TPUs (`chips.find`).
        slices: number of TPU slices.
        scale: if pieces differ only in the width of their input, compile only the narrowest of
            them, and scale its time (`representatives`). False compiles every piece.
    """

    def __init__(
        self, config: configs.Experiment, topology: str, slices: int = 1, scale: bool = True
    ):
        parts = make_parts(config)
        batch = parts.batch_size // parts.accumulate
        self._pieces = pieces.find(parts.denoiser, batch)
        self._microbatches = parts.accumulate
        everyone = list(range(len(self._pieces)))
        self._representatives = representatives(self._pieces) if scale else everyone
        # The compiler's threads do not survive a fork.
        self._pool = concurrent.futures.ProcessPoolExecutor(
            os.cpu_count(), multiprocessing.get_context("spawn"), end_with_parent
        )
        arguments = (config, batch, topology, slices)
        self._seconds = {
            i: self._pool.submit(_seconds, *arguments, i)
            for i in (*outside.PROGRAMS, *sorted(set(self._representatives)))
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._pool.shutdown(cancel_futures=True)

    def result(self) -> list[Cost]:
        """Waits for all pieces and returns their costs, the costliest first."""
        costs = []
        for i, (piece, at) in enumerate(zip(self._pieces, self._representatives, strict=True)):
            calls = len(piece.calls) * self._microbatches
            seconds, compiled = calls * self._seconds[at].result(), self._pieces[at]
            if i == at:
                costs.append(Cost(piece.name, calls, seconds))
            else:
                seconds *= flops.of_piece(piece) / flops.of_piece(compiled)
                costs.append(Cost(piece.name, calls, seconds, compiled.name))
        return sorted(costs, key=lambda cost: -cost.seconds)

    def outside(self) -> dict[str, float]:
        """Waits for the programs outside the network and returns the seconds of each in a step."""
        return {name: self._seconds[name].result() for name in outside.PROGRAMS}


def representatives(found: Sequence[pieces.Piece]) -> list[int]:
    """Returns, for each piece, the index of the piece that is compiled in its place.

    The compiled piece is the narrowest among all pieces that differ from the given piece only in
    the width of their input. This may be the given piece itself.
    """
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


class _Compiled(TypedDict):
    """The content of a file in the cache: what the compiler says of a piece."""

    piece: str
    cycles: jsonfiles.Finite


def _seconds(
    config: configs.Experiment, batch: int, topology: str, slices: int, which: int | str
) -> float:
    """Returns the time of one call of a program on one chip, from the cache or by compiling it.

    Args:
        config: config of the run.
        batch: clips in a microbatch.
        topology: name of a topology of TPUs.
        slices: number of TPU slices.
        which: index of a piece of the network, or name of a program outside it.
    """
    found = chips.find(topology, slices)
    parts = make_parts(config)
    mesh = meshes.make_mesh(parts.layout, found.devices)
    with meshes.use(mesh, parts.layout.context_axis):
        if isinstance(which, str):
            name, lowered = which, outside.PROGRAMS[which](parts, mesh)
        else:
            piece = pieces.find(parts.denoiser, batch)[which]
            name, lowered = piece.name, lower(piece, parts.denoiser.network.remat, mesh)
    version = importlib.metadata.version("libtpu"), jax.__version__
    options = compiler.options(mesh.devices.flat)
    key = f"{version} {topology} {slices} {sorted(options.items())} {lowered.as_text()}"
    file = files.user_cache("plan") / f"{hashlib.sha256(key.encode()).hexdigest()}.json"
    # A damaged file is made again.
    with contextlib.suppress(UserError):
        return jsonfiles.read(file, _Compiled)["cycles"] / found.chip.hertz
    with chips.silence_stderr():
        cycles = hlo.read(lowered.compile().as_text()).cycles
    with files.atomic(file) as temporary:
        temporary.write_text(json.dumps({"piece": name, "cycles": cycles}))
    return cycles / found.chip.hertz


def lower(piece: pieces.Piece, remat: str, mesh: jax.sharding.Mesh) -> jax.stages.Lowered:
    """Lowers the piece's forward and backward pass for the mesh.

    Call this function within `parallel.mesh.use`.

    Returns:
        The lowered function `(params, inputs, others, dy) -> (y, gradients)`, with `inputs` and
        `others` as in `differentiable`. The gradients leave out frozen parameters.
    """
    apply, *shapes = differentiable(piece, remat)
    params = meshes.abstract(pieces.abstract_init(piece.module, piece.arguments), mesh)
    inputs, others = jax.tree.map(lambda a: outside.placed(a, mesh), tuple(shapes))

    def both(params, inputs, others, dy):
        y, backward = jax.vjp(lambda params, inputs: apply(params, inputs, others), params, inputs)
        dparams, dinputs = backward(dy)
        return y, (dparams if piece.trained else {}, dinputs)

    y = outside.placed(jax.eval_shape(apply, params, inputs, others), mesh)
    formats = lambda tree: jax.tree.map(_format, tree)  # noqa: E731
    return jax.jit(
        both,
        in_shardings=formats((params, inputs, others, y)),
        out_shardings=formats((y, (params if piece.trained else {}, inputs))),
        compiler_options=compiler.options(y.sharding.device_set),
    ).lower(params, inputs, others, y)


def differentiable(piece: pieces.Piece, remat: str) -> tuple[Callable, dict, dict]:
    """Returns a piece as a function to differentiate, and the shapes of its arguments.

    Args:
        piece: one of the network's pieces.
        remat: the remat policy to apply to the piece.

    Returns:
        (apply, inputs, others), where `apply(params, inputs, others)` calls the piece. Both dicts
        hold arguments of the piece by position. `others` holds the boolean masks, and `inputs` all
        arguments that have a gradient.
    """

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
    """Returns the sharding of a leaf, and lets the compiler choose the memory layout of clips.

    In the whole step, too, the compiler chooses the layout of clips between blocks. With a fixed
    layout, a piece would have to copy each clip before and after its computation.
    """
    return Format(Layout.AUTO if leaf.ndim == len(CLIP_AXES) else None, leaf.sharding)
