"""Which meshes, remat policies and microbatches fit a topology, and in which order to try them.

Nothing is compiled here. What a candidate holds and computes is added up from the traces of the
network's distinct pieces, so that hundreds are ranked in the time of those few traces. The memory
is an estimate, 19% to 40% above what compiled programs held (docs/how-to/plan.md); the time is a
bound from below: every multiplication at the chip's peak, and weights gathered and gradients summed
at its links'.
"""

import dataclasses
import functools
import itertools
import math
from collections import Counter
from typing import Any

import jax

from stunet import configs
from stunet.errors import UserError
from stunet.nn.remat import REMAT_POLICIES
from stunet.parallel.mesh import AXES, BATCH_AXES
from stunet.plan import chips, costs
from stunet.train import flops, pieces
from stunet.train.state import abstract_state

POLICIES = ("none", *REMAT_POLICIES)
MICROBATCHES = (1, 2, 4, 8)
# Of a time, by which another is no longer than it.
TIE = 0.02


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One way to lay a run on a topology.

    Attributes:
        mesh: extent of each axis.
        remat: the policy.
        accumulate: microbatches of a step.
        bytes: that a chip is estimated to hold at most.
        seconds: that a step takes at least.
    """

    mesh: dict[str, int]
    remat: str
    accumulate: int
    bytes: float
    seconds: float

    def applied(self, config: configs.Config) -> configs.Config:
        """The config, with this layout."""
        return dataclasses.replace(
            config,
            mesh=dataclasses.replace(config.mesh, **self.mesh),
            model=dataclasses.replace(config.model, remat=self.remat),
            train=dataclasses.replace(config.train, accumulate=self.accumulate),
        )

    def changes(self, config: configs.Config, mesh: dict[str, int]) -> list[str]:
        """What differs from a config that lies on `mesh`, as command-line arguments."""
        now = {f"mesh.{axis}": n for axis, n in mesh.items()}
        now |= {"model.remat": config.model.remat, "train.accumulate": config.train.accumulate}
        new = {f"mesh.{axis}": n for axis, n in self.mesh.items()}
        new |= {"model.remat": self.remat, "train.accumulate": self.accumulate}
        return [f"--config.{key}={value}" for key, value in new.items() if now[key] != value]


@dataclasses.dataclass(frozen=True)
class Block:
    """All calls of a piece, for one clip on one device.

    Attributes:
        calls: how many.
        rows, frames: the least of its input's and output's.
        saved: policy -> bytes that one call keeps for the backward pass.
        flops: policy -> operations of one call, forward and backward.
    """

    calls: int
    rows: int
    frames: int
    saved: dict[str, int]
    flops: dict[str, int]


@dataclasses.dataclass(frozen=True)
class StateBytes:
    """Bytes of all trained, and of all frozen, parameters."""

    trained: int
    frozen: int


@functools.cache
def trace(config: configs.Config) -> list[Block]:
    """The network's distinct pieces, under every policy."""
    return [_block(piece) for piece in pieces.find(config, 1)]


def _block(piece: pieces.Piece) -> Block:
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
        saved[policy] = _bytes(kept) - _shared_bytes(kept, params)
        operations[policy] = flops.count(both, params, *arguments, y)
        if not piece.trained:
            # A gradient of weights, which is not asked for then, takes as many as the forward pass.
            operations[policy] -= flops.of_piece(piece)
    clips = [a.shape for a in (*piece.arguments, y) if a is not None and a.ndim == 5]
    frames, rows = (min((shape[axis] for shape in clips), default=1) for axis in (1, 2))
    return Block(len(piece.calls), rows, frames, saved, operations)


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _shared_bytes(kept: Any, params: Any) -> int:
    """Of the parameters themselves among what is kept, which the state holds already."""
    kind = lambda leaf: (leaf.shape, leaf.dtype)  # noqa: E731
    both = Counter(map(kind, jax.tree.leaves(kept))) & Counter(map(kind, jax.tree.leaves(params)))
    return sum(math.prod(shape) * dtype.itemsize * n for (shape, dtype), n in both.items())


def rank(config: configs.Config, chip: chips.Chip, devices: int, slices: int) -> list[Candidate]:
    """All candidates that are estimated to fit, the fastest first; those within 2% of each other,
    that which splits clips and batch the least.

    The batch, `mesh.tensor` and `mesh.context_axis` are the config's.

    Raises:
        UserError: none fits, or the chip's memory, peak or links are not known.
    """
    if None in (chip.hbm, chip.flops, chip.ici):
        raise UserError(
            f"--search needs a chip whose memory, peak and links are known: {chip.name}"
        )
    blocks, held = trace(config), _state_bytes(config)
    tried = [
        estimate(config, blocks, held, chip, mesh, remat, accumulate)
        for mesh in _meshes(config, devices, slices)
        for remat, accumulate in itertools.product(POLICIES, MICROBATCHES)
        if config.train.batch_size % (accumulate * _ways(mesh, BATCH_AXES)) == 0
    ]
    fits = [candidate for candidate in tried if candidate.bytes <= chip.hbm]
    if not fits:
        least = min(tried, key=lambda c: c.bytes, default=None)
        raise UserError(
            f"nothing fits {devices} x {chip.name} at a batch of {config.train.batch_size}"
            + (f"; the least is about {least.bytes / 2**30:.1f} GiB a chip" if least else "")
        )
    fastest = min(candidate.seconds for candidate in fits)

    def order(candidate: Candidate):
        # Bounds so near each other decide nothing: then that which splits least, whose kernels are
        # larger and whose clips exchange no borders.
        slower = int(math.log(candidate.seconds / fastest) / math.log(1 + TIE))
        return slower, candidate.mesh["context"], candidate.accumulate, candidate.seconds

    return sorted(fits, key=order)


def remedy(
    config: configs.Config, mesh: dict[str, int], chip: chips.Chip, slices: int
) -> list[str] | None:
    """The fewest changes with which a config that does not fit is estimated to, as command-line
    arguments; of equals, the fastest. None: there are none.

    Args:
        config: the run that does not fit.
        mesh: extent of every axis, as it was planned.
        chip: one device.
        slices: how many the devices are in.
    """
    try:
        found = rank(config, chip, math.prod(mesh.values()), slices)
    except UserError:
        return None
    changes = [c.changes(config, mesh) for c in found]
    return min(filter(None, changes), key=len, default=None)


def estimate(
    config: configs.Config,
    blocks: list[Block],
    held: StateBytes,
    chip: chips.Chip,
    mesh: dict[str, int],
    remat: str,
    accumulate: int,
) -> Candidate:
    """What one candidate holds and takes.

    Args:
        config: of the run.
        blocks: its `trace`.
        held: bytes of its parameters.
        chip: one device.
        mesh: extent of every axis.
        remat: the policy.
        accumulate: microbatches.
    """
    clips = config.train.batch_size / (_ways(mesh, BATCH_AXES) * accumulate)

    def share(block: Block) -> float:
        """Of the microbatch's work in a block, what one device does, in clips."""
        divides = getattr(block, config.mesh.context_axis) % mesh["context"] == 0
        return clips / mesh["tensor"] / (mesh["context"] if divides else 1)

    activations = sum(b.calls * b.saved[remat] * share(b) for b in blocks)
    # While one block goes backward, all that it stores without a policy is there.
    working = max(b.saved["none"] * share(b) for b in blocks)
    compute = accumulate * sum(b.calls * b.flops[remat] * share(b) for b in blocks)
    # Parameters, two moments, the average and the gradient; a sum of gradients beside it.
    copies = 5 + (accumulate > 1)
    shards = mesh["fsdp"] * mesh["tensor"]
    state = (copies * held.trained + held.frozen) / shards
    # Weights are gathered for each forward and each backward pass, and gradients summed.
    gathered = 2 * accumulate * (held.trained + held.frozen) + held.trained
    moved = gathered / mesh["tensor"] * (1 - 1 / mesh["fsdp"])
    replicas = mesh["data"] * mesh["context"]
    moved += 2 * held.trained / shards * (1 - 1 / replicas)
    return Candidate(
        mesh,
        remat,
        accumulate,
        state + activations + working,
        compute / chip.flops + moved / chip.ici,
    )


def _meshes(config: configs.Config, devices: int, slices: int) -> list[dict[str, int]]:
    tensor = max(1, config.mesh.tensor)
    left = devices // (slices * tensor)
    divisors = [n for n in range(1, left + 1) if left % n == 0]
    return [
        dict(zip(AXES, (slices, left // (fsdp * context), fsdp, context, tensor), strict=True))
        for fsdp, context in itertools.product(divisors, divisors)
        if left % (fsdp * context) == 0
    ]


def _ways(mesh: dict[str, int], axes: tuple[str, ...]) -> int:
    return math.prod(mesh[axis] for axis in axes)


def _state_bytes(config: configs.Config) -> StateBytes:
    state = abstract_state(config, jax.sharding.AbstractMesh((1,) * len(AXES), AXES))
    return StateBytes(_bytes(state.params), _bytes(state.frozen))
