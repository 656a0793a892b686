"""Computes the Fréchet distance between two sets of features, each modelled as a Gaussian."""

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError

# Our choice. With fewer samples, two halves of one set are about as far apart as different sets.
MIN_SAMPLES = 16

Samples = Float[np.ndarray, "n d"]


def frechet_distance(one: Samples, other: Float[np.ndarray, "m d"]) -> float:
    """Returns |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of means m and covariances C, in float64.

    The value is the square of a distance (Dowson and Landau, 1982), which this field calls a
    distance (Heusel et al., arXiv 1706.08500; for videos, Unterthiner et al., arXiv 1812.01717). It
    is larger for fewer samples, so compare only distances between sets of equal sizes.

    The computation needs no square root of a matrix, which would fail if there were more features
    than samples. Let X be the n samples minus their mean, divided by (n - 1)^(1/2), so that C is
    X'X. Then the trace of (C1 C2)^(1/2) is the sum of the singular values of X1 X2'.

    Raises:
        UserError: a set has fewer than 16 samples, or a value is not finite.
    """
    (mean_1, root_1), (mean_2, root_2) = (_moments(samples) for samples in (one, other))
    spread = (root_1**2).sum() + (root_2**2).sum()
    common = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    return float(max(0.0, ((mean_1 - mean_2) ** 2).sum() + spread - 2 * common))


def _moments(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Returns the mean [d], and a matrix R of at most d rows for which R'R is the covariance."""
    if len(samples) < MIN_SAMPLES:
        raise UserError(
            f"a Fréchet distance needs {MIN_SAMPLES} samples of each set, and one has"
            f" {len(samples)}; sample more clips"
        )
    samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise UserError("a Fréchet distance needs finite features, but some are NaN or infinite")
    mean = samples.mean(axis=0)
    centred = (samples - mean) / np.sqrt(len(samples) - 1)
    return mean, np.linalg.qr(centred, mode="r")
