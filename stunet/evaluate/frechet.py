"""The Fréchet distance between two sets of features, each taken for a Gaussian."""

import numpy as np
from jaxtyping import Float

from stunet.errors import UserError

# A choice. Below this, halves of one set lie about as far apart as different sets do.
FEWEST = 16

Samples = Float[np.ndarray, "n d"]


def frechet_distance(one: Samples, other: Float[np.ndarray, "m d"]) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) of means m and covariances C, in float64.

    It is the square of a distance (Dowson and Landau, 1982), and called a distance in this field
    (Heusel et al., arXiv 1706.08500; of videos, Unterthiner et al., arXiv 1812.01717). It grows as
    samples get fewer: compare distances between as many alone.

    No square root of a matrix is taken, which fails where features outnumber samples: with centred
    samples X, C is X'X, and the trace of (C1 C2)^(1/2) is the sum of the singular values of X1 X2'.

    Raises:
      UserError: fewer than 16 samples in a set, or a value that is not finite.
    """
    (mean_1, root_1), (mean_2, root_2) = (_moments(samples) for samples in (one, other))
    spread = (root_1**2).sum() + (root_2**2).sum()
    common = np.linalg.svd(root_1 @ root_2.T, compute_uv=False).sum()
    return float(max(0.0, ((mean_1 - mean_2) ** 2).sum() + spread - 2 * common))


def _moments(samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """The mean [d], and R of at most d rows, such that R'R is the covariance."""
    if len(samples) < FEWEST:
        raise UserError(
            f"a Fréchet distance needs {FEWEST} samples of each set, and one has {len(samples)}"
        )
    samples = samples.astype(np.float64)
    if not np.isfinite(samples).all():
        raise UserError("a Fréchet distance needs finite features, and some are not")
    mean = samples.mean(axis=0)
    centred = (samples - mean) / np.sqrt(len(samples) - 1)
    return mean, np.linalg.qr(centred, mode="r")
