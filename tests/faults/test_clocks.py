"""A run whose clock is set back or forward between its lives goes on as if nothing had been."""

import json
import math
import random
import signal

import pytest
import training
from conftest import seeds

pytestmark = pytest.mark.slow

SKEWS = (-1e10, -1e9, -86_400.0, -1.0, 86_400.0, 1e9)


@pytest.mark.parametrize("seed", seeds("clock"))
def test_clock_that_is_set_between_lives(server, undisturbed, tmp_path, seed, count):
    generator, workdir = random.Random(seed), tmp_path / "run"
    process = server.start(*training.words(workdir), skew=generator.choice(SKEWS))
    training.wait_for_change(process, workdir, generator.choice(("clock.json", "metrics.jsonl")))
    process.has_ended(generator.uniform(0, 1))
    process.signal(signal.SIGKILL)
    process.wait()
    ended = training.finish(server, workdir, skew=generator.choice(SKEWS))
    count("clocks set")
    assert ended.status == 0, ended.output
    assert not ended.unseemly, ended.output
    found = training.differences(training.result(workdir), undisturbed[0])
    count("differences", bool(found))
    assert not found
    for line in map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()):
        assert all(map(math.isfinite, line.values()))
        assert 0 <= line["goodput"] <= 1
