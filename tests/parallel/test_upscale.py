"""Super-resolution gives the same clip if its segments are split over devices."""

import pathlib
import subprocess
import sys

import pytest
import tiny


@pytest.mark.slow
def test_segments_split_over_devices_make_the_same_clip():
    """There are five segments, in batches of three, which are rounded up to four devices."""
    script = pathlib.Path(__file__).with_name("split_upscale.py")
    done = subprocess.run(
        [sys.executable, script], env=tiny.environment(devices=4), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    error, devices = done.stdout.split()
    assert float(error) < 1e-5
    assert devices == "4"
