"""The search's estimates change with the layout as they should."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
import tiny
from from_config import model_flops

from stunet.errors import UserError
from stunet.nn import layers
from stunet.nn.platforms import assume_platform
from stunet.parallel.mesh import AXES
from stunet.plan import chips, report, search
from stunet.train import pieces
from stunet.train.parts import make_parts

CHIP = chips.Chip("some", hbm=2**30, flops=1e12, hertz=1e9, ici=1e9)


def topology(count, chip=CHIP):
    return chips.Topology("some:1", "tpu", chip, count)


@pytest.fixture(scope="module")
def traced():
    config = tiny.config()
    return config, search.trace(make_parts(config).denoiser, "tpu")


def estimated(traced, remat="none", accumulate=1, context_axis="rows", **mesh):
    config, blocks = traced
    config = dataclasses.replace(
        config, mesh=dataclasses.replace(config.mesh, context_axis=context_axis)
    )
    extents = dict.fromkeys(AXES, 1) | mesh
    state = search.StateBytes(4_000_000, 0, 16_000_000)
    parts = make_parts(config)
    return search.estimate(parts, blocks, state, CHIP, extents, remat, accumulate)


def test_a_step_takes_at_least_its_operations_at_the_peak(traced):
    config, _ = traced
    least = model_flops(config) / CHIP.flops
    got = estimated(traced).seconds
    # Gradients of the clip and of the text, which a step does not need, are in the pieces.
    assert least <= got < 1.5 * least
    # Each of two devices has half of the clips; gradients are summed as well.
    assert estimated(traced, data=2).seconds == pytest.approx(got / 2 + 4e6 / CHIP.ici)
    # A policy that stores less computes more twice.
    policies = [estimated(traced, remat).seconds for remat in ("none", "dots", "projections")]
    assert policies == sorted(policies)
    assert estimated(traced, "full").seconds > 1.1 * policies[0]


def test_policies_and_microbatches_save_memory(traced):
    held = [estimated(traced, remat).bytes for remat in ("none", "dots", "projections", "full")]
    assert held == sorted(held, reverse=True)
    state = 5 * 4e6
    activations = held[0] - state
    assert activations > 1.5 * (held[-1] - state)
    # There is a sum of gradients beside the gradient, and half of the clips at a time.
    halved = estimated(traced, accumulate=2).bytes
    assert halved == pytest.approx(state * 6 / 5 + activations / 2)
    # `fsdp` splits the state and the clips, `data` only the clips.
    assert estimated(traced, fsdp=2).bytes == pytest.approx(held[0] / 2)
    assert estimated(traced, data=2).bytes == pytest.approx(state + activations / 2)


def test_an_axis_that_does_not_divide_saves_nothing_there(traced):
    all_split = estimated(traced, context=2).bytes
    state = 5 * 4e6
    assert all_split == pytest.approx(state + (estimated(traced).bytes - state) / 2, rel=0.02)
    # Three divides no level's frames.
    unsplit = estimated(traced, context=3, context_axis="frames")
    assert unsplit.bytes == pytest.approx(estimated(traced).bytes)


def test_ranked_layouts_fit_and_the_fastest_is_first(traced):
    config, _ = traced
    found = search.rank(make_parts(config), topology(4))
    fastest = min(c.seconds for c in found)
    assert found[0].seconds <= 1.02 * fastest
    near = [c for c in found if c.seconds < 1.019 * fastest]
    assert [c.mesh["context"] for c in near] == sorted(c.mesh["context"] for c in near)
    slowest = max(c.seconds for c in found)
    assert found[-1].seconds > slowest / 1.02
    assert all(c.bytes <= CHIP.hbm for c in found)
    assert len({(tuple(c.mesh.values()), c.remat, c.accumulate) for c in found}) == len(found)
    first = found[0]
    applied = first.apply_to(config)
    assert applied.model.remat == first.remat
    assert applied.mesh.fsdp == first.mesh["fsdp"]
    assert first.overrides(make_parts(applied), first.mesh) == []
    assert f"{len(found)} layouts" in report.ranking(found, topology(4))


def test_a_config_that_does_not_fit_gets_the_fewest_changes_that_help(traced):
    config, _ = traced
    ranked = search.rank(make_parts(config), topology(1))
    held = {(c.remat, c.accumulate): c.bytes for c in ranked}
    # The step in one part, with everything kept, is a little too large for this chip.
    small = dataclasses.replace(CHIP, hbm=0.99 * held["none", 1])
    (change,) = search.suggest_overrides(
        make_parts(config), dict.fromkeys(AXES, 1), topology(1, small)
    )
    assert change.startswith(("--config.model.remat=", "--config.train.accumulate="))
    tiniest = dataclasses.replace(CHIP, hbm=1000)
    assert (
        search.suggest_overrides(make_parts(config), dict.fromkeys(AXES, 1), topology(1, tiniest))
        is None
    )
    with pytest.raises(UserError, match=r"no layout fits 1 x some .* the smallest needs about"):
        search.rank(make_parts(config), topology(1, tiniest))


def test_a_chip_must_be_known():
    with pytest.raises(UserError, match="memory, peak and links"):
        search.rank(make_parts(tiny.config()), topology(1, chips.Chip("other")))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
def test_a_trace_keeps_the_output_of_a_convolution_once(platform):
    # Without a platform, a trace keeps the output of each platform's form of the convolution.
    module = nn.Sequential([layers.Conv(features=32, kernel_size=(1, 3, 3)), jnp.tanh])
    x = jax.ShapeDtypeStruct((1, 8, 16, 16, 4), jnp.float32)
    with assume_platform(platform):
        block = search._trace_piece(pieces.Piece("conv and tanh", module, (x,), ("conv",), True))
    taken, output = 4 * x.size, 4 * x.size * 32 // 4
    assert block.saved["full"] == taken
    assert block.saved["projections"] == taken + output
