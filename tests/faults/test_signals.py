"""A run that gets signals at any moments ends by itself, and ends as if nothing had been."""

import random
import re
import signal
import time

import pytest
import training
from conftest import seeds

pytestmark = pytest.mark.slow

STOPPED = 75
KINDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


def disturb(process, generator: random.Random) -> list[str]:
    """Sends one or two signals of any kinds. Returns their names."""
    first, second = generator.choices(KINDS, (3, 3, 3, 1), k=2)
    second = first if generator.random() < 0.5 else second
    pause = generator.choice((0, 1e-5, 5e-5, 1e-3, 0.1, 1))
    process.signal(first)
    if generator.random() < 0.4:
        return [first.name]
    until = time.perf_counter() + pause
    while time.perf_counter() < until:  # `sleep` takes 60 us at least.
        pass
    process.signal(second)
    return [first.name, second.name]


@pytest.mark.parametrize("seed", seeds("signal"))
def test_signalled_run_ends_as_the_undisturbed_one(server, undisturbed, tmp_path, seed, count):
    expected, seconds = undisturbed
    generator, workdir = random.Random(seed), tmp_path / "run"
    stopped = None
    for _ in range(1 + seed % 3):
        process = server.start(*training.words(workdir, f"--stop-status={STOPPED}"))
        process.has_ended(generator.uniform(0, seconds))
        if generator.random() < 0.7:
            # In the loop, where most of a real run's time goes.
            training.wait_for_change(process, workdir, "metrics.jsonl")
        late = process.has_ended()
        names = disturb(process, generator)
        ended = process.wait()
        count("signals that came too late" if late else f"signals: {' and '.join(names)}")
        count("hangs", ended.hung)
        assert not ended.hung, ended.output
        assert not ended.unseemly, ended.output
        # A signal that comes before training begins, or a second one, may end the process at once.
        assert ended.status in (0, STOPPED, *(-kind for kind in KINDS)), ended.output
        if stopped is not None and "from update" in ended.output:
            assert f"from update {stopped} on" in ended.output
        stopped = re.search(r"stopped after update (\d+)", ended.output)
        stopped = int(stopped[1]) if stopped and ended.status == STOPPED else None
        assert (stopped is None) == (ended.status != STOPPED), ended.output
    ended = training.finish(server, workdir)
    count("hangs", ended.hung)
    assert ended.status == 0, ended.output
    found = training.differences(training.result(workdir), expected)
    count("differences", bool(found))
    assert not found
