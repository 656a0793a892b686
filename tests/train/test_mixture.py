"""A run on several sources trains on the share of each, and tells the loss of each."""

import pytest
import tiny
from from_config import train

from stunet import configs
from stunet.data.mixtures import open_streams
from stunet.data.turns import Turns
from stunet.errors import UserError
from stunet.train.parts import make_parts, with_fingerprint

KEYS = {f"model.{key}": value for key, value in tiny.ONE_LEVEL_KEYS.items()}
MIX = {"motions": {"source": "motions", "weight": 0.5}, "two": {"num_digits": 2, "weight": 0.25}}


def config(**keys):
    changes = {key.replace("__", "."): value for key, value in keys.items()}
    return configs.replace(tiny.config(), KEYS | {"data.mix": MIX} | changes)


@pytest.fixture(scope="module")
def lines(tmp_path_factory):
    """Metrics by `train.accumulate`, of six updates of four clips, three in a line."""
    found = {}
    for parts in (1, 2):
        workdir = tmp_path_factory.mktemp("mixture")
        train(config(train__steps=6, train__accumulate=parts, log__every=3), workdir)
        found[parts] = tiny.metrics(workdir)
    return found


def test_the_losses_of_sources_make_up_the_loss(lines):
    names, turns = ("main", "motions", "two"), Turns([1.0, 0.5, 0.25])
    for begin, line in zip((0, 12), lines[1], strict=True):
        clips = [b - a for a, b in zip(turns.counts(begin), turns.counts(begin + 12), strict=True)]
        whole = sum(n * line[f"loss/{name}"] for n, name in zip(clips, names, strict=True)) / 12
        assert whole == pytest.approx(line["loss"], rel=1e-5)


def test_accumulation_changes_no_loss(lines):
    for one, two in zip(lines[1], lines[2], strict=True):
        losses = [name for name in one if name.startswith("loss")]
        assert len(losses) == 4
        for name in losses:
            assert two[name] == pytest.approx(one[name], rel=1e-3)


def test_a_source_without_weight_is_not_opened():
    parts = make_parts(config(data__weight=0, data__mix={"motions": MIX["motions"]}))
    assert [of.name for of in parts.sources] == ["motions"]
    # A single source, as if it were the main one, except for what is held out.
    ((stream,),) = open_streams(parts.buckets, seed=0)
    assert stream.number is None
    assert parts.dataset.source == "moving_digits"


def test_errors_name_the_source(tmp_path):
    videos = {"source": "clips", "path": str(tmp_path / "nothing")}
    parts = make_parts(config(data__mix={"videos": videos}))
    with pytest.raises(UserError, match=r"^data.mix.videos: .*nothing"):
        open_streams(parts.buckets, seed=0)
    del videos["path"]
    with pytest.raises(UserError, match=r"^data.mix.videos: .*data.path is empty"):
        with_fingerprint(config(data__mix={"videos": videos}))
