"""Calls functions of the library with the parts of a config, as the commands do."""

import dataclasses

import jax

from stunet.data import sources
from stunet.evaluate.in_training import make_evaluation
from stunet.parallel import mesh as meshes
from stunet.train import loop, pieces, program, sampling, state, step
from stunet.train.measured import flops, preview, validation
from stunet.train.parts import Parts, make_parts, with_fingerprint
from stunet.train.saved import initial


def make_mesh(config, devices=None):
    return meshes.make_mesh(make_parts(config).layout, devices)


def make_source(config, split):
    return sources.make_source(make_parts(config).dataset, split)


def make_network(config):
    return make_parts(config).denoiser.network


def noise_schedule(config):
    return make_parts(config).denoiser.schedule


def optimizer(config):
    return make_parts(config).optimizer.transformation


def learning_rate(config):
    return make_parts(config).optimizer.learning_rate


def input_shape(config, batch):
    return make_parts(config).denoiser.input_shape(batch)


def is_trained(config, path):
    return make_parts(config).denoiser.trainable.includes(path)


def split(config, params):
    return make_parts(config).denoiser.trainable.split(params)


def init_state(config, params):
    parts = make_parts(config)
    return state.init_state(parts.denoiser, parts.optimizer, params, jax.random.key(parts.seed))


def abstract_state(config, mesh):
    parts = make_parts(config)
    return state.abstract_state(parts.denoiser, parts.optimizer, mesh)


def create_state(config, mesh):
    parts = make_parts(config)
    return state.create_state(parts.denoiser, parts.optimizer, parts.seed, mesh)


def first_state(config, mesh):
    return initial.first_state(make_parts(config), abstract_state(config, mesh), mesh)


def make_train_step(config, shardings=None):
    parts = make_parts(config)
    return step.make_train_step(
        parts.objective,
        parts.optimizer,
        seed=parts.seed,
        accumulate=parts.accumulate,
        sources=len(parts.sources),
        shardings=shardings,
    )


def jit_train_step(config, of):
    parts = make_parts(config)
    return program.jit_step(parts, of)


def make_validation_step(config):
    parts = make_parts(config)
    return validation.make_validation_step(parts.objective, parts.seed)


def make_validation(config, mesh):
    parts = make_parts(config)
    return validation.make_validation(
        parts.objective,
        parts.dataset,
        mesh,
        clips=parts.validation_clips,
        batch_size=parts.batch_size,
        seed=parts.seed,
        num_threads=parts.num_threads,
    )


def make_preview(config, workdir, mesh):
    parts = make_parts(config)
    return preview.make_preview(parts.preview, parts.dataset, workdir, mesh, parts.preview_clips)


def make_sampler(config, t_start=1.0):
    parts = make_parts(config)
    return sampling.make_sampler(parts.denoiser, parts.sampling, t_start)


def model_flops(config):
    parts = make_parts(config)
    return flops.model_flops(parts.denoiser, parts.batch_size, parts.objective.more_passes)


def sampling_flops(config, clips=1):
    parts = make_parts(config)
    return flops.sampling_flops(parts.denoiser, parts.sampling, clips)


def find_pieces(config, batch):
    return pieces.find(make_parts(config).denoiser, batch)


def train(config, workdir):
    parts = make_parts(with_fingerprint(config))
    return loop.train(parts, workdir, make_evaluation=make_evaluation)


class StandIn:
    """A network that is a formula: `apply` replaces that of a real network."""

    def __init__(self, network, apply):
        self._network, self.apply = network, apply

    def __getattr__(self, name):
        return getattr(self._network, name)


def parts_with_network(config, apply) -> Parts:
    """The parts of a config, whose network computes `apply(params, inputs, time, text, mask)`."""
    parts = make_parts(config)
    network = StandIn(parts.denoiser.network, apply)
    denoiser = dataclasses.replace(parts.denoiser, network=network)
    objective = dataclasses.replace(parts.objective, denoiser=denoiser)
    return dataclasses.replace(parts, objective=objective)
