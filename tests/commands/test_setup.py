"""Tests that a command keeps the memory that it frees, for its next step."""

import platform
import subprocess
import sys

import pytest

# Allocates blocks larger than the arena of a thread can hold, in a thread as XLA does, and prints
# how many pages the system mapped for the last of them.
_ALLOCATE_AGAIN = """
import resource, sys, threading
from stunet.commands.setup import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def allocate():
    bytearray(b"x") * 2**28  # 256 MiB, written to. NumPy would ask for huge pages.

if "keep" in sys.argv:
    keep_freed_memory()
for _ in range(3):
    before = faults()
    thread = threading.Thread(target=allocate)
    thread.start()
    thread.join()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")
def test_freed_memory_is_used_again_without_the_system():
    mapped = {
        how: int(subprocess.check_output([sys.executable, "-c", _ALLOCATE_AGAIN, how], text=True))
        for how in ("keep", "default")
    }
    assert mapped["keep"] < 1000 < mapped["default"]
