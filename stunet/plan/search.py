"""Estimates a step's memory and time from traces, and searches for the best layout.

Nothing is compiled here. The memory and operations of a layout are added up from the traces of the
network's distinct blocks. So ranking hundreds of layouts takes little longer than these few traces.

The memory is an estimate. It was 6% to 40% above the memory of programs compiled for TPUs
(docs/how-to/plan.md), and was not compared with the memory of programs for GPUs. The time is a
lower bound. It assumes that every multiplication runs at the chip's peak, and that weights are
gathered and gradients are summed at the links' full speed.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax

from stunet import configs
from stunet.errors import UserError
from stunet.nn.platforms import assume_platform
from stunet.nn.remat import REMAT_POLICIES
from stunet.nn.stunet import STUNet
from stunet.parallel.mesh import AXES, BATCH_AXES
from stunet.plan import chips, costs
from stunet.train import pieces
from stunet.train.measured import flops
from stunet.train.objectives.denoiser import Denoiser
from stunet.train.optim.trainable import Trainable
from stunet.train.parts import Parts
from stunet.train.state import abstract_state

POLICIES = ("none", *REMAT_POLICIES)
MICROBATCHES = (1, 2, 4, 8)
# Two lower bounds of time that differ by less than this share count as equal.
TIE = 0.02


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way to run a config on a topology, and the estimates for it.

    Attributes:
        mesh: extent of each mesh axis.
        remat: value of `model.remat`.
        accumulate: value of `train.accumulate`, the number of microbatches in a step.
        state: bytes of parameters, moments and averages on one chip.
        temporaries: peak bytes of gradients and activations on one chip.
        seconds: lower bound of the time of a step.
    """

    mesh: Mapping[str, int]
    remat: str
    accumulate: int
    state: float
    temporaries: float
    seconds: float

    @property
    def bytes(self) -> float:
        """Returns the estimated peak memory of one chip, in bytes."""
        return self.state + self.temporaries

    def settings(self) -> dict[str, object]:
        """Returns the settings of this layout, as values by config key."""
        extents = {f"mesh.{axis}": n for axis, n in self.mesh.items()}
        return extents | {"model.remat": self.remat, "train.accumulate": self.accumulate}

    def apply_to(self, config: configs.Experiment) -> configs.Experiment:
        """Returns `config` with the settings of this layout."""
        return configs.replace(config, self.settings())

    def overrides(self, parts: Parts, mesh: Mapping[str, int]) -> list[str]:
        """Returns the command-line arguments that replace a run's layout by this layout.

        Args:
            parts: the run.
            mesh: extent of every mesh axis in the run's present layout.
        """
        remat, accumulate = parts.denoiser.network.remat, parts.accumulate
        now = dataclasses.replace(self, mesh=mesh, remat=remat, accumulate=accumulate).settings()
        new = self.settings()
        return [f"--config.{key}={value}" for key, value in new.items() if now[key] != value]


@dataclasses.dataclass(frozen=True)
class Block:
    """One distinct block of the network, traced for one clip on one device.

    Attributes:
        calls: number of times that the network calls the block in a forward pass.
        rows: number of rows in the block's input or output, whichever is less.
        frames: number of frames in the block's input or output, whichever is less.
        saved: bytes that one call keeps for the backward pass, by remat policy.
        flops: operations of one call, forward and backward, by remat policy.
    """

    calls: int
    rows: int
    frames: int
    saved: Mapping[str, int]
    flops: Mapping[str, int]


@dataclasses.dataclass(frozen=True)
class StateBytes:
    """Size of the training state, not divided by the number of chips.

    Attributes:
        trained: bytes of all trained parameters.
        frozen: bytes of all frozen parameters.
        whole: bytes of the whole state: trained and frozen parameters, the optimiser's state and
            averages.
    """

    trained: int
    frozen: int
    whole: int


def trace(denoiser: Denoiser, platform: str) -> tuple[Block, ...]:
    """Returns the network's distinct blocks, each traced under every remat policy.

    Args:
        denoiser: network of the run.
        platform: JAX's name of a platform, such as "tpu" or "cuda". The traces contain this
            platform's implementations of convolutions and attention.
    """
    # Neither key changes a trace: without them, one trace serves all layouts of a run.
    network = denoiser.network_of_clips.clone(remat="none", scan_layers=False)
    return _trace(network, denoiser.trainable, denoiser.abstract_arguments(1), platform)


@functools.cache
def _trace(
    network: STUNet, trainable: Trainable, arguments: tuple[Any, ...], platform: str
) -> tuple[Block, ...]:
    with assume_platform(platform):
        found = pieces.find_in(network, trainable, arguments)
        return tuple(_trace_piece(piece) for piece in found)


def _trace_piece(piece: pieces.Piece) -> Block:
    saved, operations = {}, {}
    params = pieces.abstract_init(piece.module, piece.arguments)
    for policy in POLICIES:
        apply, *arguments = costs.differentiable(piece, policy)
        y = jax.eval_shape(apply, params, *arguments)

        def forward(params, inputs, others, apply=apply):
            return jax.vjp(lambda *a: apply(*a, others), params, inputs)

        def both(params, inputs, others, dy, forward=forward):
            y, backward = forward(params, inputs, others)
            return y, backward(dy)

        kept = jax.eval_shape(lambda *a, f=forward: f(*a)[1], params, *arguments)
        saved[policy] = _bytes(kept) - _bytes_of_params(kept, params)
        operations[policy] = flops.count(both, params, *arguments, y)
        if not piece.trained:
            # The gradient of frozen weights is not computed. It would take as many operations as
            # the forward pass.
            operations[policy] -= flops.of_piece(piece)
    clips = [a.shape for a in (*piece.arguments, y) if a is not None and a.ndim == 5]
    frames, rows = (min((shape[axis] for shape in clips), default=1) for axis in (1, 2))
    return Block(len(piece.calls), rows, frames, saved, operations)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _bytes_of_params(kept: Any, params: Any) -> int:
    """Returns the bytes of the parameters among the arrays that a backward pass keeps.

    The training state holds the parameters already, so they must not count twice.
    """
    kind = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    both = Counter(map(kind, jax.tree.leaves(kept))) & Counter(map(kind, jax.tree.leaves(params)))
    return sum(math.prod(shape) * dtype.itemsize * n for (shape, dtype), n in both.items())


def rank(parts: Parts, topology: chips.Topology) -> list[Layout]:
    """Returns all layouts that are estimated to fit, the fastest first.

    Times within 2% of each other count as equal. Among layouts of equal time, those that split each
    clip into the fewest parts come first. If layouts are still equal, those with the fewest
    microbatches come first. The batch size, `mesh.tensor` and `mesh.context_axis` stay as in the
    config.

    Raises:
        UserError: no layout fits, or the chip's memory, peak or speed of links is unknown.
    """
    chip = topology.chip
    if None in (chip.hbm, chip.flops, chip.ici):
        raise UserError(
            f"--search needs a chip whose memory, peak and links are known; {chip.name} is not one "
            f"of {', '.join(chips.TPUS | chips.GPUS)}"
        )
    blocks, state = trace(parts.denoiser, topology.platform), state_bytes(parts)
    tried = [
        estimate(parts, blocks, state, chip, mesh, remat, accumulate)
        for mesh in _meshes(parts, topology)
        for remat, accumulate in itertools.product(POLICIES, MICROBATCHES)
        if parts.batch_size % (accumulate * _extent(mesh, BATCH_AXES)) == 0
    ]
    fits = [layout for layout in tried if layout.bytes <= chip.hbm]
    if not fits:
        least = min(tried, key=lambda layout: layout.bytes, default=None)
        raise UserError(
            f"no layout fits {topology.count} x {chip.name} at train.batch_size "
            f"{parts.batch_size}"
            + (f"; the smallest needs about {least.bytes / 2**30:.1f} GiB a chip" if least else "")
        )
    fastest = min(layout.seconds for layout in fits)

    def order(layout: Layout):
        # Lower bounds so near each other decide nothing. Then the layout that splits least comes
        # first: its kernels are larger, and its clips exchange no borders.
        slower = int(math.log(layout.seconds / fastest) / math.log(1 + TIE))
        return slower, layout.mesh["context"], layout.accumulate, layout.seconds

    return sorted(fits, key=order)


def suggest_overrides(
    parts: Parts, mesh: Mapping[str, int], topology: chips.Topology
) -> list[str] | None:
    """Returns the shortest list of command-line arguments with which a run is estimated to fit.

    If several layouts need equally few arguments, the fastest of these layouts is chosen. The
    result is None if no layout fits.

    Args:
        parts: the run that does not fit.
        mesh: extent of every mesh axis in the plan of this run.
        topology: topology of the plan.
    """
    try:
        found = rank(parts, topology)
    except UserError:
        return None
    overrides = [layout.overrides(parts, mesh) for layout in found]
    return min(filter(None, overrides), key=len, default=None)


def estimate(
    parts: Parts,
    blocks: Sequence[Block],
    state: StateBytes,
    chip: chips.Chip,
    mesh: Mapping[str, int],
    remat: str,
    accumulate: int,
) -> Layout:
    """Estimates memory and time of one layout.

    Args:
        parts: the run.
        blocks: the network's blocks (`trace`).
        state: bytes of the training state (`state_bytes`).
        chip: properties of each chip.
        mesh: extent of every mesh axis in the layout.
        remat: remat policy of the layout.
        accumulate: number of microbatches in a step of the layout.
    """
    clips = parts.batch_size / (_extent(mesh, BATCH_AXES) * accumulate)

    def clips_of(block: Block) -> float:
        """Returns for how many clips one device computes the block in a microbatch.

        The number can be a fraction, because several devices may share a clip.
        """
        splits = getattr(block, parts.layout.context_axis) % mesh["context"] == 0
        return clips / mesh["tensor"] / (mesh["context"] if splits else 1)

    activations = sum(b.calls * b.saved[remat] * clips_of(b) for b in blocks)
    # While one block goes backward, everything that it stores without remat is in memory.
    working = max(b.saved["none"] * clips_of(b) for b in blocks)
    compute = accumulate * sum(b.calls * b.flops[remat] * clips_of(b) for b in blocks)
    shards = mesh["fsdp"] * mesh["tensor"]
    # The gradient, and with several microbatches the sum of gradients beside it.
    gradients = (1 + (accumulate > 1)) * state.trained / shards
    # Weights are gathered for each forward and each backward pass, and gradients are summed.
    gathered = 2 * accumulate * (state.trained + state.frozen) + state.trained
    moved = gathered / mesh["tensor"] * (1 - 1 / mesh["fsdp"])
    replicas = mesh["data"] * mesh["context"]
    moved += 2 * state.trained / shards * (1 - 1 / replicas)
    return Layout(
        mesh,
        remat,
        accumulate,
        state=state.whole / shards,
        temporaries=gradients + activations + working,
        seconds=compute / chip.flops + moved / chip.ici,
    )


def state_bytes(parts: Parts) -> StateBytes:
    """Returns the size of the training state."""
    one_chip = jax.sharding.AbstractMesh((1,) * len(AXES), AXES)
    state = abstract_state(parts.denoiser, parts.optimizer, one_chip)
    return StateBytes(_bytes(state.params), _bytes(state.frozen), _bytes(state))


def _meshes(parts: Parts, topology: chips.Topology) -> list[dict[str, int]]:
    """Returns all meshes for the topology, as the extent of each axis.

    The extent of `tensor` is always as in the config. The extent of `slice` is always the number of
    TPU slices or of hosts with GPUs.
    """
    tensor = max(1, parts.layout.tensor)
    left = topology.count // (topology.slices * tensor)
    divisors = [n for n in range(1, left + 1) if left % n == 0]
    return [
        dict(
            zip(
                AXES,
                (topology.slices, left // (fsdp * context), fsdp, context, tensor),
                strict=True,
            )
        )
        for fsdp, context in itertools.product(divisors, divisors)
        if left % (fsdp * context) == 0
    ]


def _extent(mesh: Mapping[str, int], axes: Sequence[str]) -> int:
    return math.prod(mesh[axis] for axis in axes)
