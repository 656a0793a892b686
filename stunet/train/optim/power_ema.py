"""Power-function averages of the weights, of which any length can be had after training.

The method is Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion Models"
(arXiv 2312.02696), section 3 and appendix C. After t updates, the average of exponent g weighs the
weights after update s in proportion to the integral of tau**g from s - 1 to s. So its span grows
with t, and its length is the standard deviation of that weighting as a share of t. A run keeps two
such averages, and stores snapshots of both. A sum of snapshots with suitable coefficients is then
close to the average of any other length.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Lengths of the two averages that a run keeps, by name, as in the paper.
LENGTHS = {"short": 0.05, "long": 0.1}

# Lengths that can be reconstructed. At 1 / sqrt(12) = 0.289, all updates have the same weight.
SHORTEST, LONGEST = 0.01, 0.28


def exponent(length: float) -> float:
    """Returns the exponent g of the average of a length.

    The length is sqrt((g + 1) / ((g + 2)**2 (g + 3))).
    """
    inverse = length**-2
    return float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())


def init(params: Any) -> dict[str, Any]:
    """Returns the averages before the first update, by the names in `LENGTHS`."""
    return {name: jax.tree.map(jnp.copy, params) for name in LENGTHS}


def update(averages: dict[str, Any], params: Any, updates: Int[Array, ""]) -> dict[str, Any]:
    """Returns the averages after an update.

    Args:
        averages: the averages before the update.
        params: the parameters after the update.
        updates: number of updates done, including this one.
    """

    def one(length: float, average: Any) -> Any:
        # Of the average after t updates, the first t - 1 have the share (1 - 1 / t)**(g + 1).
        decay = (1 - 1 / updates) ** (exponent(length) + 1)
        return jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, average, params)

    return {name: one(length, averages[name]) for name, length in LENGTHS.items()}


def coefficients(
    times: Sequence[float], lengths: Sequence[float], length: float
) -> tuple[Float[np.ndarray, " n"], float]:
    """Returns the sum of stored averages that comes closest to an average of another length.

    The average ends at the last of `times`. The coefficients minimise the squared difference of the
    two weightings, as in the paper. Unlike there, they sum to 1, so that weights which
    do not change are reconstructed exactly.

    Args:
        times: number of updates after which each average was stored.
        lengths: length of each stored average.
        length: length of the average to reconstruct.

    Returns:
        The coefficients, and how far the two weightings differ: the root of the integral of their
        squared difference, as a share of that of the wanted weighting.
    """
    t = np.asarray(times, float) / max(times)
    g = np.array([exponent(each) for each in lengths])
    wanted = exponent(length)
    products = _product(t[:, None], g[:, None], t, g)
    target, whole = _product(t, g, 1.0, wanted), _product(1.0, wanted, 1.0, wanted)
    # Least squares under the constraint that the sum is 1, by a Lagrange multiplier. Scaling each
    # weighting to unit norm keeps the matrix well conditioned.
    scale = 1 / np.sqrt(np.diag(products))
    matrix = np.zeros((len(t) + 1, len(t) + 1))
    matrix[:-1, :-1] = scale[:, None] * products * scale
    matrix[-1, :-1] = matrix[:-1, -1] = scale
    solution, *_ = np.linalg.lstsq(matrix, np.append(target * scale, 1.0), rcond=None)
    found = solution[:-1] * scale
    squared = (found @ products @ found - 2 * found @ target + whole) / whole
    return found, float(np.sqrt(max(squared, 0.0)))


def _product(t: Any, g: Any, other_t: Any, other_g: Any) -> Any:
    """Returns the integral of the product of two weightings (g + 1) tau**g / t**(g + 1)."""
    end = np.minimum(t, other_t)
    powers = (end / t) ** g * (end / other_t) ** other_g
    return (g + 1) * (other_g + 1) / (g + other_g + 1) * powers * end / (t * other_t)
