"""The student's targets lead where the teacher's steps lead, in closed form for Gaussian data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from stunet.diffusion import samplers
from stunet.diffusion.distillation import Distillation, level, targets, teacher_share
from stunet.diffusion.loss import clip_loss
from stunet.diffusion.prediction import PREDICTIONS, add_noise, target
from stunet.diffusion.schedules import NoiseSchedule, alpha_sigma
from stunet.errors import UserError

SCHEDULE = NoiseSchedule(shift=0.5)
STEPS, TEACHER_STEPS = 4, 16
PLAN = Distillation(STEPS, TEACHER_STEPS)
MEAN, STD = 0.2, 0.3
# Each time of the grid once.
T = jnp.arange(1, TEACHER_STEPS + 1) / TEACHER_STEPS
X_T = jax.random.normal(jax.random.key(0), (TEACHER_STEPS, 2, 2, 2, 1))


def per_clip(values):
    return values.reshape(-1, 1, 1, 1, 1)


def step(x0, x_t, t, s):
    """Takes a step of DDIM by its formula."""
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (
        map(per_clip, alpha_sigma(level(SCHEDULE, time))) for time in (t, s)
    )
    return alpha_s * x0 + sigma_s * (x_t - alpha_t * x0) / sigma_t


@pytest.fixture
def teacher(gaussian):
    return lambda x_t, t: gaussian(MEAN, STD, SCHEDULE).denoise(x_t, per_clip(t))


def many_steps(teacher, x, times):
    """Takes all of the teacher's steps from each clip's time to the end of its segment."""
    t = times.t
    for _ in range(TEACHER_STEPS // STEPS):
        moves = per_clip(t > times.end)
        after = jnp.maximum(t - 1 / TEACHER_STEPS, times.end)
        # Time 0 has no noise to remove, and is not asked for.
        x = jnp.where(moves, step(teacher(x, t), x, t, after), x)
        t = after
    return x


def exact_student(teacher):
    """Returns the student that takes all of the teacher's steps of a segment in one.

    Its estimate of x0 is the one whose step of DDIM ends there.
    """

    def denoise(x_t, t):
        times = PLAN.times(t)
        end = many_steps(teacher, x_t, times)
        (alpha, sigma), (alpha_end, sigma_end) = (
            map(per_clip, alpha_sigma(level(SCHEDULE, time))) for time in (times.t, times.end)
        )
        ratio = sigma_end / sigma
        return (end - ratio * x_t) / (alpha_end - alpha * ratio)

    return denoise


def test_times_are_those_of_both_grids():
    times = PLAN.times(T)
    np.testing.assert_allclose(times.t, T)
    np.testing.assert_allclose(times.s, T - 1 / TEACHER_STEPS, atol=1e-7)
    np.testing.assert_allclose(times.end, np.repeat(np.arange(STEPS) / STEPS, 4))
    between = PLAN.times(jnp.array([0.0, 0.01, 0.26, 0.9999]))
    np.testing.assert_allclose(between.t * TEACHER_STEPS, [1, 1, 5, 16])


def test_the_teacher_alone_counts_where_its_step_reaches_the_end_of_the_segment():
    times = PLAN.times(T)
    share = teacher_share(SCHEDULE(times.t), *(level(SCHEDULE, time) for time in times[1:]))
    assert np.all((share >= 0) & (share <= 1))
    np.testing.assert_array_equal(share[::4], 1)
    # With no noise left at the end, the last step alone decides.
    np.testing.assert_array_equal(share[1:4], 0)


def test_one_step_with_the_target_leads_where_the_two_steps_lead(teacher):
    times = PLAN.times(T)

    def student(x_t, t):
        return jnp.sin(3 * x_t + per_clip(t))

    x0, noise = targets(teacher, student, X_T, times, SCHEDULE)
    x_s = step(teacher(X_T, times.t), X_T, times.t, times.s)
    at_end = per_clip(times.s == times.end)
    two = jnp.where(at_end, x_s, step(student(x_s, times.s), x_s, times.s, times.end))
    np.testing.assert_allclose(step(x0, X_T, times.t, times.end), two, atol=2e-5)
    np.testing.assert_allclose(add_noise(x0, noise, SCHEDULE(times.t)), X_T, atol=1e-5)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_student_that_takes_all_steps_at_once_has_no_loss(teacher, prediction):
    times, student = PLAN.times(T), exact_student(teacher)
    x0, noise = targets(teacher, student, X_T, times, SCHEDULE)
    log_snr = SCHEDULE(times.t)

    def output(denoise):
        def predict(x_t, t):
            clean = denoise(x_t, t)
            alpha, sigma = map(per_clip, alpha_sigma(log_snr))
            return target(prediction, clean, (x_t - alpha * clean) / sigma, log_snr)

        return predict

    options = dict(schedule=SCHEDULE, prediction=prediction, weighting="uniform")
    none, some = (
        clip_loss(output(denoise), x0, times.t, noise, **options) for denoise in (student, teacher)
    )
    np.testing.assert_allclose(none, 0, atol=1e-6)
    # The teacher's own step over a whole segment is another one.
    assert np.all(some[3::4] > 100 * none[3::4])


def test_steps_of_the_exact_student_are_all_steps_of_the_teacher_and_near_the_flow(
    gaussian, teacher
):
    x = X_T[:1]

    def sampled(denoise, steps):
        return samplers.sample(
            lambda x_t, t: denoise(x_t, t[None]),
            *(x, jax.random.key(0)),
            schedule=SCHEDULE,
            sampler="ddim",
            steps=steps,
        )

    few = sampled(exact_student(teacher), STEPS)
    np.testing.assert_allclose(few, sampled(teacher, TEACHER_STEPS), atol=2e-5)
    exact = gaussian(MEAN, STD, SCHEDULE).flow(x, jnp.float32(1.0))
    error, untaught = (np.abs(y - exact).max() for y in (few, sampled(teacher, STEPS)))
    assert error < untaught / 2


def test_training_learns_the_closed_form(teacher):
    """Gradient descent on the loss finds the affine maps of the exact student at every time."""
    times = PLAN.times(T)
    noise = jax.random.normal(jax.random.key(1), (256, TEACHER_STEPS, 1, 1, 1, 1))
    data = MEAN + STD * jax.random.normal(jax.random.key(2), noise.shape)
    x_t = jax.vmap(lambda x0, eps: add_noise(x0, eps, SCHEDULE(T)))(data, noise)

    def predict(params, x_t, t):
        place = jnp.round(t * TEACHER_STEPS).astype(int)
        gain, shift = (per_clip(values[place]) for values in params)
        return gain * x_t + shift

    def loss(params):
        def one(x_t):
            student = lambda x, t: predict(params, x, t)  # noqa: E731
            x0, eps = targets(teacher, student, x_t, times, SCHEDULE)
            options = dict(schedule=SCHEDULE, prediction="x0", weighting="uniform")
            return clip_loss(student, x0, times.t, eps, **options)

        return jax.vmap(one)(x_t).sum(axis=1).mean()

    params = (jnp.zeros(TEACHER_STEPS + 1),) * 2

    @jax.jit
    def update(params, rate):
        return jax.tree.map(lambda p, g: p - rate * g, params, jax.grad(loss)(params))

    for i in range(400):
        params = update(params, 0.4 if i < 350 else 0.1)
    for x in (x_t[0], X_T[:, :1, :1, :1]):
        np.testing.assert_allclose(predict(params, x, T), exact_student(teacher)(x, T), atol=5e-3)


def test_no_gradient_flows_through_the_targets(teacher):
    def total(scale):
        x0, noise = targets(teacher, lambda x, t: scale * x, X_T, PLAN.times(T), SCHEDULE)
        return jnp.sum(x0) + jnp.sum(noise)

    assert jax.grad(total)(1.0) == 0


def test_steps_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="the teacher takes 16 steps and the student 3"):
        Distillation(3, 16)
