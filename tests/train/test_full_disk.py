"""On a full disk, training ends with one sentence, loses nothing, and can continue later."""

import errno
import os

import pytest
import tiny

from stunet.train.measured.metrics import Metrics


@pytest.mark.slow
def test_disk_that_fills_during_a_checkpoint(small_disk, tmp_path):
    disk = small_disk(8_000)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(4_000_000))  # leaves room for a little more than three checkpoints
    workdir = disk / "run"
    command = (
        "train",
        f"--config={tiny.experiment(tmp_path)}",
        f"--workdir={workdir}",
        "--config.checkpoint.every=1",
        *tiny.ONE_LEVEL,
        "--config.model.channels=16",
    )
    full = tiny.run(*command)
    assert full.returncode == 1
    assert "Traceback" not in full.stderr
    sentence = full.stderr.splitlines()[-1]
    assert sentence.startswith(f"stunet train: the disk that holds {workdir} is full; ")
    assert "run the same command again" in sentence
    # No incomplete checkpoint is listed, and none blocks the next save.
    complete = sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())
    assert complete == [1, 2, 3]

    ballast.unlink()
    again = tiny.run(*command)
    assert again.returncode == 0, again.stderr
    assert "from update 3 on" in again.stderr
    assert [line["step"] for line in tiny.metrics(workdir)] == list(range(1, 9))


def test_disk_that_fills_with_metrics(small_disk):
    disk = small_disk(40)
    ballast = disk / "ballast"
    ballast.write_bytes(bytes(20_000))

    def write(first: int, last: int) -> None:
        with Metrics(disk, first - 1, write=True) as metrics:
            for step in range(first, last + 1):
                metrics.scalars(step, {"loss": 0.5})

    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        write(1, 1000)
    # The run that continues drops an incomplete last line.
    whole = (disk / "metrics.jsonl").read_text().count("\n")
    assert 0 < whole < 1000
    ballast.unlink()
    write(whole + 1, whole + 2)
    assert [line["step"] for line in tiny.metrics(disk)] == list(range(1, whole + 3))
