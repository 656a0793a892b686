"""Gaussian data, for which diffusion is solved in closed form."""

import dataclasses

import jax.numpy as jnp
import pytest

from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Data whose elements are independent draws from N(mean, std^2)."""

    mean: float
    std: float
    schedule: NoiseSchedule

    def denoise(self, x_t, t):
        """Returns E[x0 | x_t], by conditioning the joint Gaussian of (x0, x_t)."""
        alpha, sigma = alpha_sigma(self.schedule(t))
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def flow(self, x_t, t):
        """Returns the end of the probability-flow ODE from x_t, which conserves its quantile."""
        alpha, sigma = alpha_sigma(self.schedule(t))
        marginal_std = jnp.sqrt(alpha**2 * self.std**2 + sigma**2)
        return self.mean + self.std * (x_t - alpha * self.mean) / marginal_std


@pytest.fixture
def gaussian():
    return Gaussian
