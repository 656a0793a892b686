"""Rematerialisation (gradient checkpointing): chooses what is stored for the backward pass.

Each block of the network is rematerialised by itself. Its input is always stored, and a policy
chooses other results to store. The backward pass computes the remaining results again, which takes
less memory but more time.
"""

from collections.abc import Callable

import flax.linen as nn
import jax

from stunet.nn.layers import PROJECTION, STATISTICS

# Saves what matrices and convolutions give. Their bias is added before: without it, the backward
# pass would add it again. Also saves the statistics of group norms.
_NAMED = jax.checkpoint_policies.save_only_these_names(PROJECTION, STATISTICS)


def _save_attention(primitive, *_, **params) -> bool:
    """Policy that stores products of activations, which have batch dimensions."""
    return primitive is jax.lax.dot_general_p and bool(params["dimension_numbers"][1][0])


# Policies of `jax.checkpoint` by name; "none", for no rematerialisation, is not among them.
REMAT_POLICIES: dict[str, Callable] = {
    # Stores nothing.
    "full": jax.checkpoint_policies.nothing_saveable,
    # Stores the result of every multiplication with a weight, but not the scores of attention.
    "projections": _NAMED,
    # Stores the scores of attention, too.
    "dots": jax.checkpoint_policies.save_from_both_policies(_NAMED, _save_attention),
}


def rematerialised(block: Callable, policy: str, prevent_cse: bool = True) -> Callable:
    """Returns `block` with a backward pass that follows `policy`.

    Args:
        block: a module's class, or a function whose first argument is a module.
        policy: a key of `REMAT_POLICIES`, or "none".
        prevent_cse: keep the compiler from merging the repeated computation with the first one,
            which would undo the saving of memory. Inside `nn.scan` False is safe, because the
            compiler cannot merge computations of different loops.
    """
    if policy == "none":
        return block
    return nn.remat(block, policy=REMAT_POLICIES[policy], prevent_cse=prevent_cse)
