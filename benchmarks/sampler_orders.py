"""Measures how fast each sampler converges on a Gaussian mixture.

    python benchmarks/sampler_orders.py
    python benchmarks/sampler_orders.py --plot sampler_orders.png

For this data, the best denoiser is known exactly, so the error is that of the sampler alone. The
command prints two tables, with values of -1..1:

* deterministic samplers: the root mean square distance of a sample from the exact end of the flow
  from its noise;
* samplers with fresh noise: the distance of the distribution of a million samples from the data,
  as the mean distance of equal quantiles (Wasserstein-1). The last row is that of a million exact
  draws, below which nothing can be seen.

The last column of a row is its order: the slope of log(error) over log(1 / steps) between the last
two columns, or in the second table between those of 32 and 128 calls.
"""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import plot
import scipy.stats

from stunet.diffusion.samplers import sample
from stunet.diffusion.schedules import SCHEDULES, NoiseSchedule, alpha_sigma

STEPS = (8, 16, 32, 64, 128, 256)
# Noise to start from: evenly spaced, and as far out as 1 in 20 draws.
NOISE = jnp.linspace(-2.0, 2.0, 41)

DETERMINISTIC = ("ddim", "dpmpp_2m", "heun", "unipc")

# Samplers with fresh noise, and `sample.churn` of each.
STOCHASTIC = {"ancestral": 0.0, "ddim": 10.0, "heun": 10.0}
DRAWS = 2**20


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

        noisy = _cdf(weights, alpha * means, np.hypot(alpha * stds, sigma))
        return self.quantiles(noisy(np.asarray(x_T, np.float64)))

    def quantiles(self, ranks):
        """Returns the values below which shares `ranks` of the data lie, by bisection."""
        cdf = _cdf(*map(np.asarray, (self.weights, self.means, self.stds)))
        low, high = np.full(len(ranks), -5.0), np.full(len(ranks), 5.0)
        for _ in range(60):
            middle = (low + high) / 2
            below = cdf(middle) < ranks
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low


def _cdf(weights, means, stds):
    return lambda x: scipy.stats.norm.cdf(x[:, None], means, stds) @ weights


def error(data: Mixture, sampler: str, steps: int) -> float:
    """Returns the root mean square distance of samples from the end of the exact flow."""
    settings = dict(schedule=data.schedule, sampler=sampler, steps=steps)
    found = sample(data.denoise, NOISE, jax.random.key(0), **settings)
    return float(np.sqrt(np.mean((found - data.flow(NOISE)) ** 2)))


def distance(data: Mixture, samples: np.ndarray) -> float:
    """Returns the mean distance of the quantiles of samples from those of the data."""
    ranks = (np.arange(len(samples)) + 0.5) / len(samples)
    # Between 4,000 exact quantiles, interpolation errs by less than 1e-5.
    knots = np.concatenate([[ranks[0]], np.linspace(0, 1, 4001)[1:-1], [ranks[-1]]])
    exact = np.interp(ranks, knots, data.quantiles(knots))
    return float(np.mean(np.abs(np.sort(samples) - exact)))


def stochastic_error(data: Mixture, sampler: str, steps: int) -> float:
    """Returns the distance of the distribution of samples, made with fresh noise, from the data."""
    start, end = jax.random.split(jax.random.key(0))
    settings = dict(schedule=data.schedule, sampler=sampler, steps=steps)
    noise = jax.random.normal(start, (DRAWS,))
    found = sample(data.denoise, noise, end, churn=STOCHASTIC[sampler], **settings)
    return distance(data, np.asarray(found, np.float64))


def exact_draws(data: Mixture) -> np.ndarray:
    """Returns draws from the data."""
    rng = np.random.default_rng(0)
    component = rng.choice(len(data.weights), DRAWS, p=data.weights)
    return rng.normal(np.asarray(data.means)[component], np.asarray(data.stds)[component])


def table(
    measure: Callable[[str, int], float], samplers: Mapping[str, str], columns: slice
) -> dict[str, list[float]]:
    """Prints the errors of each sampler, and its order.

    Args:
        measure: (sampler, steps) -> error.
        samplers: what to call each sampler.
        columns: two columns between which the order is measured.

    Returns:
        The errors of each sampler, in the order of `STEPS`.
    """
    print("| sampler | " + " | ".join(map(str, STEPS)) + " | order |")
    print("|---" * (len(STEPS) + 2) + "|")
    errors = {}
    for sampler, name in samplers.items():
        errors[name] = [measure(sampler, steps) for steps in STEPS]
        ends = [np.log(values[columns]) for values in (errors[name], STEPS)]
        order = -(ends[0][-1] - ends[0][0]) / (ends[1][-1] - ends[1][0])
        cells = [f"{e:.1e}" for e in errors[name]]
        print(f"| {name} | " + " | ".join(cells) + f" | {order:.1f} |", flush=True)
    return errors


def draw(file: pathlib.Path, tables: Mapping[str, Mapping[str, list[float]]], floor: float) -> None:
    """Draws the errors over the number of calls, on logarithmic axes."""
    x = np.log2(STEPS)
    y = {float(e): f"1e{e}" for e in range(-6, 0)}
    sheet = plot.Sheet(920, 470)
    sheet.title(
        "Error of each sampler on a mixture of three Gaussians",
        "the denoiser is exact; both axes are logarithmic, so an order is a slope",
    )
    for column, (title, errors) in enumerate(tables.items()):
        left = 70 + 440 * column
        colours = dict(zip(errors, plot.COLOURS, strict=False))
        curves = [
            plot.Curve(colours[name], x, row, row, row)
            for name, row in zip(errors, map(np.log10, errors.values()), strict=True)
        ]
        levels = [plot.Level(plot.SOFT, float(np.log10(floor)))] if column else []
        marks = {float(place): str(steps) for place, steps in zip(x, STEPS, strict=True)}
        panel = plot.Panel(title, "calls of the network", marks, y, curves, levels)
        sheet.panel(left, 130, 380, 270, panel)
        sheet.legend(left, 90, {name.replace("`", ""): colours[name] for name in errors})
    sheet.save(file)


def main() -> None:
    """Prints the tables, and draws them if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schedule", choices=SCHEDULES, default="cosine", help="noise schedule")
    parser.add_argument(
        "--plot", type=pathlib.Path, metavar="FILE", help="draw the errors as a PNG"
    )
    arguments = parser.parse_args()
    data = Mixture(NoiseSchedule(arguments.schedule))
    exact = table(
        functools.partial(error, data),
        {name: f"`{name}`" for name in DETERMINISTIC},
        slice(-2, None),
    )
    print()
    churned = {
        name: f"`{name}`" + (f", churn {churn:g}" if churn else "")
        for name, churn in STOCHASTIC.items()
    }
    random = table(functools.partial(stochastic_error, data), churned, slice(2, 5))
    floor = distance(data, exact_draws(data))
    print("| exact draws | " + " | ".join([f"{floor:.1e}"] * len(STEPS)) + " | |")
    if arguments.plot:
        titles = "Distance from the exact flow", "With fresh noise: distance of distributions"
        draw(arguments.plot, dict(zip(titles, (exact, random), strict=True)), floor)


if __name__ == "__main__":
    main()
