"""Decides which updates are skipped.

`Guard` can skip updates whose loss or gradient is not finite, and spikes: updates whose gradient is
much larger than usual. A skipped update counts as an update: its batch is used up, and the schedule
of the learning rate moves on. Weights, their running average and the optimiser's moments stay as
they were.

The decision depends only on the training state, on the loss of the whole batch, and on the norm of
the batch's gradient. So a run that is continued, on any mesh and any number of hosts, skips the
same updates.
"""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Decay of the running mean of the gradient's norm, and the number of updates that must be in the
# mean before any is called a spike: the norm falls fast at first.
_DECAY = 0.99
_FIRST = 100

# What a guard has counted: `skipped`, updates skipped in the whole run; `in_a_row`, updates skipped
# since the last one that was not; `taken`, updates not skipped; and `norm`, the sum of the norms of
# updates that were taken, each weighted by (1 - d) d**age with the decay d.
Counts = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Guard:
    """Says which updates to skip.

    Attributes:
        skip_nonfinite: True skips updates whose loss or gradient is not finite.
        spikes: an update is skipped if its gradient's norm is more than this many times the running
            mean of the norm. With 0, no update is skipped as a spike.
    """

    skip_nonfinite: bool = False
    spikes: float = 0.0

    @property
    def is_on(self) -> bool:
        """Tells whether any update can be skipped."""
        return self.skip_nonfinite or self.spikes > 0

    def init(self) -> Counts:
        """Returns the guard's counts before the first update.

        The dict is empty if no update can be skipped.
        """
        if not self.is_on:
            return {}
        zero = jnp.zeros((), jnp.int32)
        return {"skipped": zero, "in_a_row": zero, "taken": zero, "norm": jnp.zeros(())}

    def takes(
        self, counts: Counts, loss: Float[Array, ""], norm: Float[Array, ""]
    ) -> Bool[Array, ""]:
        """Returns True if an update is done, and False if it is skipped.

        Args:
            counts: numbers of skipped and done updates, and the running mean of the gradient's
                norm, before the update.
            loss: loss of the update's batch.
            norm: global norm of the batch's gradient, before clipping.
        """
        taken = jnp.bool_(True)
        if self.skip_nonfinite:
            taken &= jnp.isfinite(loss) & jnp.isfinite(norm)
        if self.spikes:
            mean = counts["norm"] / (1 - _DECAY ** counts["taken"].astype(jnp.float32))
            taken &= (counts["taken"] < _FIRST) | (norm <= self.spikes * mean)
        return taken

    def count(self, counts: Counts, taken: Bool[Array, ""], norm: Float[Array, ""]) -> Counts:
        """Returns the guard's counts after an update.

        Args:
            counts: numbers of skipped and done updates, and the running mean of the gradient's
                norm, before the update.
            taken: False if the update was skipped.
            norm: global norm of the batch's gradient, before clipping.
        """
        mean = _DECAY * counts["norm"] + (1 - _DECAY) * norm
        return {
            "skipped": counts["skipped"] + ~taken,
            "in_a_row": jnp.where(taken, 0, counts["in_a_row"] + 1),
            "taken": counts["taken"] + taken,
            "norm": jnp.where(taken, mean, counts["norm"]),
        }
