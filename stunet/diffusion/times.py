"""Draws the noise times to train at.

Every density of times is written as a quantile function, which turns a uniform number u into a
time. Evenly spread numbers u then give times that cover their density evenly.
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, PRNGKeyArray

from stunet import extensions


def stratified_times(rng: PRNGKeyArray, batch: int) -> Float32[Array, "{batch}"]:
    """Draws times t_i = (u + i / batch) mod 1 with a single u ~ U[0, 1).

    These are the low-discrepancy times of Kingma et al. (VDM, arXiv 2107.00630, appendix). Each t_i
    alone is uniform, so the loss stays unbiased. Together they cover [0, 1] evenly, which lowers
    the variance of the loss. The times come in a fixed order, so the clips of a batch must come in
    a random order.

    Args:
        rng: random key.
        batch: number of clips.
    """
    u = jax.random.uniform(rng, dtype=jnp.float32)
    return jnp.mod(u + jnp.arange(batch, dtype=jnp.float32) / batch, 1.0)


def _logit_normal(u: Array, mean: float, std: float) -> Array:
    return jax.nn.sigmoid(mean + std * jax.scipy.special.ndtri(u))


def _cosmap(u: Array, mean: float, std: float) -> Array:
    # 1 - 1 / (tan(pi u / 2) + 1), without the infinite tangent at u = 1.
    sine, cosine = jnp.sin(math.pi / 2 * u), jnp.cos(math.pi / 2 * u)
    return sine / (sine + cosine)


# Name -> quantile function (u, mean, std) -> t, where u in (0, 1) is the share of times below t.
QUANTILES: dict[str, Callable[[Array, float, float], Array]] = {
    "uniform": lambda u, mean, std: u,
    # Esser et al., Stable Diffusion 3 (arXiv 2403.03206), eq. 19.
    "logit_normal": _logit_normal,
    # The same paper, eq. 21: on the path of flow matching, the noise levels that the cosine
    # schedule has if its times are uniform.
    "cosmap": _cosmap,
}


def shift_times(t: Float[Array, "*n"], m: float) -> Float[Array, "*n"]:
    """Returns m t / (1 + (m - 1) t), Stable Diffusion 3's times for larger clips (its eq. 23).

    On the schedule "flow", the ratio of noise to signal is then m times that of t. Averaging n
    pixels of one value divides the noise by sqrt(n). So a clip of n times the pixels looks as noisy
    as the smaller clip if m = sqrt(n).

    Args:
        t: times in [0, 1].
        m: factor of the ratio of noise to signal, above 0.
    """
    return m * t / (1 + (m - 1) * t)


@dataclasses.dataclass(frozen=True)
class Times:
    """The density of the noise times that a network is trained at.

    Attributes:
        sampling: a key of `QUANTILES`.
        mean: mean of log(t / (1 - t)), for "logit_normal".
        std: standard deviation of log(t / (1 - t)), for "logit_normal".
        reference: number of pixels, over all frames, of the clips that `sampling` suits. Times of
            clips with n pixels are shifted with m = sqrt(n / reference) (`shift_times`). 0: no
            shift.
        corrected: True if each clip's loss is to be divided by the density of its time. The
            expected loss is then that of uniform times, and only its variance differs.

    Raises:
        UserError: `sampling` is unknown.
    """

    sampling: str = "uniform"
    mean: float = 0.0
    std: float = 1.0
    reference: int = 0
    corrected: bool = False

    def __post_init__(self):
        self._find()

    def draw(
        self, rng: PRNGKeyArray, shape: tuple[int, ...]
    ) -> tuple[Float32[Array, "b"], Float32[Array, "b"] | None]:
        """Draws a time for each clip, spread evenly over the density.

        Args:
            rng: random key.
            shape: shape of the clips, `(b, t, h, w, c)`.

        Returns:
            The times, and for each of them 1 / density if `corrected`, otherwise None.
        """
        u = stratified_times(rng, shape[0])
        if self.sampling == "uniform" and not self.reference:
            return u, jnp.ones_like(u) if self.corrected else None
        if not self.corrected:
            return self._quantile(u, shape), None
        # The slope of the quantile function is 1 / density.
        return jax.jvp(lambda u: self._quantile(u, shape), (u,), (jnp.ones_like(u),))

    def _find(self) -> Callable:
        return extensions.find(QUANTILES, self.sampling, extensions.TimeSampling)

    def _quantile(self, u: Array, shape: tuple[int, ...]) -> Array:
        # u = 0 would give a logit-normal time of infinite weight.
        t = self._find()(jnp.clip(u, 2**-24, 1 - 2**-24), self.mean, self.std)
        if not self.reference:
            return t
        return shift_times(t, math.sqrt(math.prod(shape[1:4]) / self.reference))
