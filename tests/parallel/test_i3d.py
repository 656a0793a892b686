"""I3D gives the features of all clips, in order, on any number of devices."""

import pathlib
import subprocess
import sys

import tiny


def test_clips_are_split_over_devices_and_come_back_in_order():
    script = pathlib.Path(__file__).with_name("split_i3d.py")
    done = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        env=tiny.environment(3),
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    shard, last = done.stdout.splitlines()
    # Each device has one clip: two calls of three clips, and a third that is filled up.
    assert shard == "(1, 9, 4, 4, 1)"
    difference, *seen = last.split()
    assert float(difference) < 1e-6
    assert seen == ["3", "6", "7"]
