"""Experiments too large to run here: what their docstrings count, by shape alone."""

import pathlib
import runpy

import jax

from stunet import configs
from stunet.parallel import mesh as meshes
from stunet.train.state import abstract_state, count_parameters, input_shape

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


def test_super_resolution_has_as_many_parameters_as_it_says():
    file = EXPERIMENTS / "lumiere_ssr.py"
    config = configs.load(str(file))
    mesh = meshes.make_mesh(configs.Mesh(), jax.devices()[:1])
    count = count_parameters(abstract_state(config, mesh).params)
    assert f"{count:,} parameters" in runpy.run_path(str(file))["__doc__"]
    assert input_shape(config, 1) == (1, 16, 1024, 1024, 7)
