"""A run that is stopped goes on, and a run that hangs is ended and goes on in its next life."""

import random
import signal
import time

import pytest
import training
from conftest import seeds

from stunet.train.watchdog import HUNG_STATUS

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", seeds("stop"))
def test_stopped_process_goes_on_or_is_killed(server, undisturbed, tmp_path, seed, count):
    generator, workdir = random.Random(seed), tmp_path / "run"
    process = server.start(*training.words(workdir))
    process.has_ended(generator.uniform(0, undisturbed[1]))
    process.signal(signal.SIGSTOP)
    time.sleep(generator.uniform(0, 3))
    process.signal(generator.choice((signal.SIGCONT, signal.SIGKILL)))
    ended = process.wait()
    count("SIGSTOP: continued" if ended.status == 0 else "SIGSTOP: killed")
    assert ended.status in (0, -signal.SIGKILL), ended.output
    ended = training.finish(server, workdir)
    assert ended.status == 0, ended.output
    assert not training.differences(training.result(workdir), undisturbed[0])


@pytest.mark.parametrize("seed", seeds("hang"))
def test_source_that_blocks_is_noticed(server, undisturbed, tmp_path, seed, count):
    generator, workdir = random.Random(seed), tmp_path / "run"
    batch = generator.randrange(2, training.STEPS + 1)
    watch = "--config.train.watchdog_seconds=2"
    process = server.start(*training.words(workdir, watch), hangs_at=batch)
    if generator.random() < 0.5:
        process.has_ended(generator.uniform(0, 2 * undisturbed[1]))
        process.signal(signal.SIGTERM)
    ended = process.wait(idle=120)
    count("blocked sources: ended" if ended.status == HUNG_STATUS else "blocked sources: stopped")
    count("hangs", ended.hung)
    # SIGTERM may come before the loop begins, or before the batch that blocks.
    assert ended.status in (HUNG_STATUS, 0, -signal.SIGTERM), ended.output
    if ended.status == HUNG_STATUS:
        assert "in hanging" in ended.output, ended.output
        assert "the same command continues from the last checkpoint" in ended.last_line
    ended = server.run(*training.words(workdir, watch))
    assert ended.status == 0, ended.output
    assert not training.differences(training.result(workdir), undisturbed[0])
