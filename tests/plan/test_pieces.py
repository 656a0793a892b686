"""The pieces of a network are all of it."""

import pytest
import tiny

from stunet.plan import pieces
from stunet.plan.plan import model_flops


@pytest.mark.parametrize("model", [{}, dict(layers_per_level=3, remat="full", scan_layers=True)])
def test_pieces_ask_for_the_operations_of_the_network(model):
    config = tiny.config(model=model)
    batch = config.train.batch_size

    found = pieces.find(config, batch)
    assert 3 * sum(map(pieces.forward_flops, found)) == model_flops(config)
    # Equal layers are one piece, and none is called twice.
    calls = [call for piece in found for call in piece.calls]
    assert len(found) < len(calls) == len(set(calls))


def test_a_piece_differs_by_what_it_does_and_not_by_its_place():
    found = pieces.find(tiny.config(model=dict(layers_per_level=3)), 2)
    names = [piece.name for piece in found]
    assert len(names) == len(set(names)), names
    (again,) = [piece for piece in found if "down_0_layer_1/resnet" in piece.calls]
    assert "down_0_layer_2/resnet" in again.calls
