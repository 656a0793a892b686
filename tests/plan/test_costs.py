"""The pieces of a network add up to the whole network, and their times to the step's."""

import concurrent.futures

import pytest
import tiny
from from_config import find_pieces, model_flops

from stunet.plan import costs
from stunet.plan.outside import PROGRAMS
from stunet.train.measured import flops


@pytest.mark.parametrize("model", [{}, dict(layers_per_level=3, remat="full", scan_layers=True)])
def test_pieces_have_the_operations_of_the_network(model):
    config = tiny.config(model=model)
    batch = config.train.batch_size

    found = find_pieces(config, batch)
    operations = sum(len(piece.calls) * flops.of_piece(piece) for piece in found)
    assert 3 * operations == model_flops(config)
    # Equal layers are one piece, and none is called twice.
    calls = [call for piece in found for call in piece.calls]
    assert len(found) < len(calls) == len(set(calls))


def test_pieces_differ_by_what_they_compute_and_not_by_their_place():
    found = find_pieces(tiny.config(model=dict(layers_per_level=3)), 2)
    names = [piece.name for piece in found]
    assert len(names) == len(set(names)), names
    (again,) = [piece for piece in found if "down_0_layer_1/resnet" in piece.calls]
    assert "down_0_layer_2/resnet" in again.calls


@pytest.mark.slow
def test_the_narrowest_represents_pieces_that_differ_in_the_width_of_their_input():
    config = tiny.config(model=dict(layers_per_level=3))
    found = find_pieces(config, 2)
    places = costs.representatives(found)
    scaled = [(a, found[i]) for a, i in zip(found, places, strict=True) if a is not found[i]]
    assert scaled
    for piece, narrower in scaled:
        (x, *others), (y, *same) = piece.arguments, narrower.arguments
        assert x.shape[-1] > y.shape[-1]
        assert (x.shape[:-1], others) == (y.shape[:-1], same)
        assert piece.module == narrower.module
    # Each piece that is compiled represents itself.
    assert all(places[i] == i for i in places)


@pytest.mark.slow
def test_time_scales_with_operations(monkeypatch):
    config = tiny.config(model=dict(layers_per_level=3), train=dict(accumulate=2))
    batch = config.train.batch_size // 2
    found = find_pieces(config, batch)

    class RunsAtOnce:
        def __init__(self, *_):
            pass

        def submit(self, _, *arguments):
            future = concurrent.futures.Future()
            # This chip computes every piece at the same rate. Other programs take no time.
            which = arguments[-1]
            future.set_result(0.0 if which in PROGRAMS else flops.of_piece(found[which]) / 1e9)
            return future

    monkeypatch.setattr(costs.concurrent.futures, "ProcessPoolExecutor", RunsAtOnce)
    totals = {
        scale: sum(c.seconds for c in costs.Costs(config, "v5e:2x2", scale=scale).result())
        for scale in (True, False)
    }
    assert totals[True] == pytest.approx(totals[False])
    assert totals[False] * 1e9 == pytest.approx(
        2 * sum(len(piece.calls) * flops.of_piece(piece) for piece in found)
    )
