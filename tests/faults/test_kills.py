"""A run that is killed at any moments, and started again, ends as if nothing had been."""

import random
import shutil
import signal
import time

import pytest
import training
from conftest import seeds

pytestmark = pytest.mark.slow

# Files whose appearance a kill may follow within milliseconds: moments that a random one would
# seldom hit. The first save is that of checkpoint 2.
FILES = (
    "config.json",
    "clock.json",
    "metrics.jsonl",
    "checkpoints/*2.orbax-checkpoint-tmp*",
    "checkpoints/2",
    "checkpoints/*4.orbax-checkpoint-tmp*",
    "checkpoints/8",
)


@pytest.mark.parametrize("seed", seeds("kill"))
def test_killed_run_ends_as_the_undisturbed_one(server, undisturbed, tmp_path, seed, count):
    expected, seconds = undisturbed
    generator, workdir = random.Random(seed), tmp_path / "run"

    def check_end() -> None:
        ended = training.finish(server, workdir)
        count("hangs", ended.hung)
        assert ended.status == 0, ended.output
        assert not ended.unseemly, ended.output
        found = training.differences(training.result(workdir), expected)
        count("differences", bool(found))
        assert not found

    kills = 0
    # After a kill, the next life of the run restores a checkpoint.
    while kills < 1 + seed % 3:
        process = server.start(*training.words(workdir))
        if generator.random() < 0.5:
            process.has_ended(generator.uniform(0, seconds))
        else:
            training.wait_for_change(process, workdir, generator.choice(FILES))
            time.sleep(generator.expovariate(1 / 0.02))
        process.signal(signal.SIGKILL)
        ended = process.wait()
        assert not ended.unseemly, ended.output
        if ended.status == -9:
            kills += 1
            count("SIGKILL: processes killed")
        else:  # The run ended before the signal came. A new run is started and killed.
            count("SIGKILL: came too late")
            check_end()
            shutil.rmtree(workdir)
    check_end()
