"""The search's estimates, by how they change with what is asked for."""

import dataclasses

import pytest
import tiny
from from_config import model_flops

from stunet.errors import UserError
from stunet.parallel.mesh import AXES
from stunet.plan import chips, report, search
from stunet.train.parts import make_parts

CHIP = chips.Chip("some", hbm=2**30, flops=1e12, hertz=1e9, ici=1e9)


@pytest.fixture(scope="module")
def traced():
    config = tiny.config()
    return config, search.trace(make_parts(config).denoiser)


def estimated(traced, remat="none", accumulate=1, context_axis="rows", **mesh):
    config, blocks = traced
    config = dataclasses.replace(
        config, mesh=dataclasses.replace(config.mesh, context_axis=context_axis)
    )
    extents = dict.fromkeys(AXES, 1) | mesh
    return search.estimate(
        make_parts(config),
        blocks,
        search.StateBytes(4_000_000, 0),
        CHIP,
        extents,
        remat,
        accumulate,
    )


def test_a_step_takes_at_least_its_operations_at_the_peak(traced):
    config, _ = traced
    least = model_flops(config) / CHIP.flops
    got = estimated(traced).seconds
    # Gradients of the clip and of the text, which a step does not need, are in the pieces.
    assert least <= got < 1.5 * least
    # Half of the clips, on each of two devices; gradients are summed besides.
    assert estimated(traced, data=2).seconds == pytest.approx(got / 2 + 4e6 / CHIP.ici)
    # All is computed once more but what is kept.
    policies = [estimated(traced, remat).seconds for remat in ("none", "dots", "projections")]
    assert policies == sorted(policies)
    assert estimated(traced, "full").seconds > 1.1 * policies[0]


def test_policies_and_microbatches_save_memory(traced):
    held = [estimated(traced, remat).bytes for remat in ("none", "dots", "projections", "full")]
    assert held == sorted(held, reverse=True)
    state = 5 * 4e6
    activations = held[0] - state
    assert activations > 1.5 * (held[-1] - state)
    # A sum of gradients beside the gradient, and half of the clips.
    halved = estimated(traced, accumulate=2).bytes
    assert halved == pytest.approx(state * 6 / 5 + activations / 2)
    # The optimiser's state is split, the activations are not more than by clips.
    assert estimated(traced, fsdp=2).bytes == pytest.approx(held[0] / 2)
    assert estimated(traced, data=2).bytes == pytest.approx(state + activations / 2)


def test_an_axis_that_does_not_divide_saves_nothing_there(traced):
    all_split = estimated(traced, context=2).bytes
    state = 5 * 4e6
    assert all_split == pytest.approx(state + (estimated(traced).bytes - state) / 2, rel=0.02)
    # Three divides no level's frames.
    whole = estimated(traced, context=3, context_axis="frames")
    assert whole.bytes == pytest.approx(estimated(traced).bytes)


def test_what_is_ranked_fits_and_the_fastest_is_first(traced):
    config, _ = traced
    found = search.rank(make_parts(config), CHIP, 4, 1)
    fastest = min(c.seconds for c in found)
    assert found[0].seconds <= 1.02 * fastest
    near = [c for c in found if c.seconds < 1.019 * fastest]
    assert [c.mesh["context"] for c in near] == sorted(c.mesh["context"] for c in near)
    slowest = max(c.seconds for c in found)
    assert found[-1].seconds > slowest / 1.02
    assert all(c.bytes <= CHIP.hbm for c in found)
    assert len({(tuple(c.mesh.values()), c.remat, c.accumulate) for c in found}) == len(found)
    first = found[0]
    applied = first.applied(config)
    assert applied.model.remat == first.remat
    assert applied.mesh.fsdp == first.mesh["fsdp"]
    assert first.changes(make_parts(applied), first.mesh) == []
    assert f"{len(found)} layouts" in report.ranking(found, CHIP)


def test_what_does_not_fit_gets_the_fewest_changes_that_would_help(traced):
    config, _ = traced
    ranked = search.rank(make_parts(config), CHIP, 1, 1)
    held = {(c.remat, c.accumulate): c.bytes for c in ranked}
    # As much as the step holds in one part, with everything kept, is too much by a little.
    small = dataclasses.replace(CHIP, hbm=0.99 * held["none", 1])
    (change,) = search.remedy(make_parts(config), dict.fromkeys(AXES, 1), small, 1)
    assert change.startswith(("--config.model.remat=", "--config.train.accumulate="))
    tiniest = dataclasses.replace(CHIP, hbm=1000)
    assert search.remedy(make_parts(config), dict.fromkeys(AXES, 1), tiniest, 1) is None
    with pytest.raises(UserError, match=r"nothing fits 1 x some .* the least is about"):
        search.rank(make_parts(config), tiniest, 1, 1)


def test_a_chip_must_be_known():
    with pytest.raises(UserError, match="memory, peak and links"):
        search.rank(make_parts(tiny.config()), chips.Chip("other"), 1, 1)
