"""Measures how fast each deterministic sampler converges to the exact flow of a Gaussian mixture.

    python benchmarks/sampler_orders.py

For this data, the best denoiser and the end of the flow are known exactly, so the error is that of
the sampler alone. The command prints the root mean square error for each number of steps, in values
of -1..1, and the order: the slope of log(error) over log(1 / steps) between the last two columns.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from stunet.diffusion.samplers import SAMPLERS, sample
from stunet.diffusion.schedules import SCHEDULES, NoiseSchedule, alpha_sigma

STEPS = (8, 16, 32, 64, 128, 256)
# Noise to start from: evenly spaced, and as far out as 1 in 20 draws.
NOISE = jnp.linspace(-2.0, 2.0, 41)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Data whose elements are independent draws from a mixture of three normal distributions.

    Attributes:
        schedule: noise schedule.
        weights: share of each component.
        means: mean of each component.
        stds: standard deviation of each component.
    """

    schedule: NoiseSchedule
    weights: tuple[float, ...] = (0.3, 0.5, 0.2)
    means: tuple[float, ...] = (-0.6, 0.1, 0.7)
    stds: tuple[float, ...] = (0.2, 0.3, 0.15)

    def denoise(self, x_t, t):
        """Returns E[x0 | x_t], by Bayes' rule over the components."""
        weights, means, stds = map(jnp.asarray, (self.weights, self.means, self.stds))
        alpha, sigma = alpha_sigma(self.schedule(t))
        variance = (alpha * stds) ** 2 + sigma**2
        distance = x_t[..., None] - alpha * means
        log_weights = jnp.log(weights) - jnp.log(variance) / 2 - distance**2 / (2 * variance)
        x0 = means + alpha * stds**2 / variance * distance
        return jnp.sum(jax.nn.softmax(log_weights, axis=-1) * x0, axis=-1)

    def flow(self, x_T):
        """Returns the end of the flow, which keeps quantiles, by bisection in float64."""
        alpha, sigma = (np.float64(a) for a in alpha_sigma(self.schedule(jnp.float32(1.0))))
        weights, means, stds = map(np.asarray, (self.weights, self.means, self.stds))

        def cdf(x, means, stds):
            return scipy.stats.norm.cdf(x[:, None], means, stds) @ weights

        ranks = cdf(np.asarray(x_T, np.float64), alpha * means, np.hypot(alpha * stds, sigma))
        low, high = np.full(len(ranks), -5.0), np.full(len(ranks), 5.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = cdf(middle, means, stds) < ranks
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low


def error(data: Mixture, sampler: str, steps: int) -> float:
    """Returns the root mean square distance of samples from the end of the exact flow."""
    settings = dict(schedule=data.schedule, sampler=sampler, steps=steps)
    found = sample(data.denoise, NOISE, jax.random.key(0), **settings)
    return float(np.sqrt(np.mean((found - data.flow(NOISE)) ** 2)))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="noise schedule")
    data = Mixture(NoiseSchedule(parser.parse_args().schedule))
    print("| sampler | " + " | ".join(map(str, STEPS)) + " | order |")
    print("|---" * (len(STEPS) + 2) + "|")
    for sampler in SAMPLERS:
        if sampler == "ancestral":
            continue
        errors = [error(data, sampler, steps) for steps in STEPS]
        order = np.log2(errors[-2] / errors[-1])
        cells = [f"{e:.1e}" for e in errors]
        print(f"| `{sampler}` | " + " | ".join(cells) + f" | {order:.1f} |", flush=True)


if __name__ == "__main__":
    main()
