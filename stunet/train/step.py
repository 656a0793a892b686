"""One update, and one validation: pure functions of (state, batch), for `jax.jit`.

Randomness is folded from the seed and the step number, so a resumed run draws what an uninterrupted
one draws, on any mesh.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, UInt8

from stunet import configs
from stunet.diffusion import augmentation
from stunet.diffusion.loss import clip_loss, stratified_times
from stunet.diffusion.schedules import NoiseSchedule
from stunet.nn.sharding import constrain
from stunet.train.conditioning import conditioning
from stunet.train.state import (
    TrainState,
    learning_rate,
    make_network,
    make_optimizer,
)

Batch = dict[str, Array]
Metrics = dict[str, Array]


def to_float(video: UInt8[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    """Pixels 0..255 -> -1..1."""
    return video.astype(jnp.float32) / 127.5 - 1.0


def noise_schedule(diffusion: configs.Diffusion) -> NoiseSchedule:
    return NoiseSchedule(
        diffusion.schedule, diffusion.shift, diffusion.log_snr_min, diffusion.log_snr_max
    )


def make_predict(config: configs.Config) -> Callable[..., Array]:
    """Returns `predict(params, x_t, time, text, text_mask, *given) -> [b, t, h, w, c]`: the
    network's prediction for noisy clips.

    `given` is what the network sees beside them (`stunet.train.conditioning`).
    """
    network, network_input = make_network(config), conditioning(config).network_input
    schedule, channels = noise_schedule(config.diffusion), config.data.channels

    def predict(params, x_t, time, text, text_mask, *given):
        inputs, low_res_time = network_input(x_t, *given), ()
        if config.model.level_embedding:
            # Told as the time at which the clip itself would be as noisy, and not by a plane.
            inputs = inputs[..., :-1]
            low_res_time = (schedule.time(augmentation.log_snr(given[-1])),)
        output = network.apply({"params": params}, inputs, time, text, text_mask, *low_res_time)
        # A learned variance comes after the prediction.
        return output[..., :channels]

    return predict


def make_loss(config: configs.Config) -> Callable[..., Array]:
    """Returns `loss(params, x0, given, t, noise, text, text_mask) -> [b]`, over whole clips.

    `given` is as in `make_predict`.
    """
    predict, diffusion = make_predict(config), config.diffusion

    def loss(params, x0, given, t, noise, text, text_mask):
        return clip_loss(
            lambda x_t, time: predict(params, x_t, time, text, text_mask, *given),
            x0,
            t,
            noise,
            schedule=noise_schedule(diffusion),
            prediction=diffusion.prediction,
            weighting=diffusion.weighting,
            min_snr_gamma=diffusion.min_snr_gamma,
        )

    return loss


def make_train_step(
    config: configs.Config, shardings: Any = None
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """Returns `step(state, batch) -> (state, metrics)`: exactly one update.

    `shardings` are the trained parameters', and become their gradients' too; None leaves those to
    the compiler.

    The batch holds `video` uint8 `[b, t, h, w, c]`, `text` `[b, l, d]` and `text_mask` `[b, l]`.
    With `train.accumulate` n the gradient is the mean over n parts of the batch, one after the
    other: the same update, in less memory.
    """
    train = config.train
    loss_of_clips, optimizer, rate = make_loss(config), make_optimizer(train), learning_rate(train)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.key(config.seed), state.step)
        inputs = _draw(key, batch, config)

        def mean_loss(params, part):
            return loss_of_clips(state.whole(params), *part).mean()

        loss, grads = _accumulate(
            jax.value_and_grad(mean_loss), state.params, inputs, train.accumulate
        )
        if shardings is not None:
            # Else a gradient that lies otherwise is moved once for each of its uses.
            grads = jax.lax.with_sharding_constraint(grads, shardings)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        # Early weights are far from where they go: average over the recent tenth of the run at
        # first.
        decay = jnp.minimum(train.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda e, p: decay * e + (1 - decay) * p, state.ema, params)
        metrics = {
            "loss": loss,
            "grad_norm": optax.tree.norm(grads),
            "learning_rate": rate(state.step),
        }
        state = state.replace(step=state.step + 1, params=params, ema=ema, opt_state=opt_state)
        return state, metrics

    return step


def jit_train_step(config: configs.Config, state: TrainState) -> Callable:
    """`make_train_step`, compiled for the mesh on which `state` (arrays, or shapes of them) lies.

    The state given to it is donated.
    """
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    step = make_train_step(config, shardings.params)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def make_validation_step(config: configs.Config) -> Callable[[Any, Batch], Metrics]:
    """Returns `validate(params, batch) -> {"loss_t=0.1": ..., ...}`: the loss at each of
    `log.validate_times`.

    The noise of a batch's rows is the same in every call, so that values compare between steps and
    between runs.
    """
    loss_of_clips = make_loss(config)
    times = config.log.validate_times

    def validate(params: Any, batch: Batch) -> Metrics:
        noise_key, given_key = jax.random.split(jax.random.key(config.seed))
        x0, given = conditioning(config).draw(given_key, to_float(batch["video"]), config)
        noise = jax.random.normal(noise_key, x0.shape)
        text = batch["text"], batch["text_mask"]

        def at(time):
            t = jnp.full(x0.shape[:1], time)
            return loss_of_clips(params, x0, given, t, noise, *text).mean()

        # One after the other: compiled once, and in the memory of one.
        losses = jax.lax.map(at, jnp.asarray(times, jnp.float32))
        return {f"loss_t={time:g}": loss for time, loss in zip(times, losses, strict=True)}

    return validate


def _draw(key: Array, batch: Batch, config: configs.Config) -> tuple[Any, ...]:
    """The clips, and all that is random about an update: what is given, times, noise, captions
    dropped."""
    time_key, noise_key, caption_key = jax.random.split(key, 3)
    x0, given = conditioning(config).draw(
        jax.random.fold_in(key, 3), to_float(batch["video"]), config
    )
    t = stratified_times(time_key, len(x0))
    noise = jax.random.normal(noise_key, x0.shape)
    keep = jax.random.bernoulli(caption_key, 1.0 - config.diffusion.caption_dropout, (len(x0),))
    text, text_mask = drop_text(batch["text"], batch["text_mask"], keep)
    return x0, given, t, noise, text, text_mask


def drop_text(text: Array, text_mask: Array, keep: Array) -> tuple[Array, Array]:
    """Text states `[b, l, d]` and their mask, emptied where `keep` `[b]` is False."""
    return text * keep[:, None, None], text_mask & keep[:, None]


def _accumulate(value_and_grad: Callable, params: Any, inputs: tuple, parts: int):
    """Means of value and gradient over `parts` equal parts of the inputs' leading axis."""
    if parts == 1:
        return value_and_grad(params, inputs)

    def split(x):
        # Every `parts`-th row: a part takes rows from all of the batch's shards, and none has to
        # move.
        x = jnp.moveaxis(x.reshape(-1, parts, *x.shape[1:]), 1, 0)
        return constrain(x, None, "batch", *[None] * (x.ndim - 2))

    def add(total, part):
        return jax.tree.map(jnp.add, total, value_and_grad(params, part)), None

    zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
    total, _ = jax.lax.scan(add, zero, jax.tree.map(split, inputs))
    return jax.tree.map(lambda x: x / parts, total)
