"""Experiments too large to run here: what their docstrings count, by shape alone."""

import functools
import json
import pathlib
import runpy

import jax
import pytest
from from_config import abstract_state, input_shape, model_flops

from stunet import configs
from stunet.generate import cascade
from stunet.parallel import mesh as meshes
from stunet.sweep import members
from stunet.train.parts import make_parts
from stunet.train.state import count_parameters
from stunet.weights.diffusers_config import to_stunet

pytestmark = pytest.mark.slow

EXPERIMENTS = pathlib.Path(__file__).parents[1] / "experiments"


def test_super_resolution_has_as_many_parameters_as_it_says():
    file = EXPERIMENTS / "lumiere_ssr.py"
    config = configs.load(str(file))
    mesh = meshes.make_mesh(meshes.Layout(), jax.devices()[:1])
    count = count_parameters(abstract_state(config, mesh).params)
    assert f"{count:,} parameters" in runpy.run_path(str(file))["__doc__"]
    assert input_shape(config, 1) == (1, 16, 1024, 1024, 7)


@pytest.mark.parametrize("name", ["if_xl", "sd15", "sdxl"])
def test_the_inflated_network_is_what_inflation_derives(name):
    pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    import tiny_unet

    flags = tiny_unet.full_size("XL") if name == "if_xl" else tiny_unet.STABLE_DIFFUSION[name]
    root = {"sdxl": "stable-diffusion-xl-base-1.0"}.get(name, "stable-diffusion-v1-5")
    place = f"{root}/unet/config.json"
    derived = configs.flatten(to_stunet(json.loads(json.dumps(flags)), place, frames=80))
    ours = configs.flatten(configs.load(str(EXPERIMENTS / f"inflated_{name}.py")))
    # How it is computed, the data, the training and the text encoder are not in the U-Net.
    free = {f"data.{key}" for key in ("source", "path", "fps")}
    free |= {"text.encoder", "model.empty_text_tokens"}
    free |= {f"model.{key}" for key in ("dtype", "remat", "scan_layers", "flash_attention")}
    differing = {key for key in ours if ours[key] != derived[key]} - free
    assert {key.split(".")[0] for key in differing} <= {"train", "mesh", "log"}


@functools.cache
def operations(name):
    """Of a whole run."""
    config = configs.load(str(EXPERIMENTS / f"{name}.py"))
    return model_flops(config) * config.train.steps


def test_the_arms_of_the_inflation_recipe_train_with_equal_operations():
    entries = members.load("inflation_recipe").entries
    found = {e.name: e.config for e in entries if isinstance(e, members.Member)}
    first = {name: config for name, config in found.items() if config.seed == 0}
    spent = {name: config.train.steps * model_flops(config) for name, config in first.items()}
    for trail in ("0.6", "0"):
        of = {arm: spent[f"{arm},trail={trail},seed=0"] for arm in ("pictures", "scratch")}
        for name in ("frozen", "unfrozen"):
            total = of["pictures"] + spent[f"{name},trail={trail},seed=0"]
            assert total == pytest.approx(of["scratch"], rel=1e-3)


@pytest.mark.parametrize("second", ["cascade_tsr_windowed", "cascade_tsr_global"])
def test_a_cascade_trains_with_as_many_operations_as_the_single_pass(second):
    names = ("memorised_digits", "cascade_keyframes", second)
    single, *both = (configs.load(str(EXPERIMENTS / f"{name}.py")) for name in names)
    cascade.check_pair(*map(make_parts, both))
    first, *rest = map(operations, names)
    assert sum(rest) == pytest.approx(first, rel=0.05)
    # The same clips, all of their frames.
    assert configs.clip_span(both[0].data) == single.data.frames
    assert (both[1].data.cut_from or both[1].data.frames) == single.data.frames
