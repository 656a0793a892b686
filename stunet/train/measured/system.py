"""Measures what a process uses of its machine."""

import os
import resource
import sys
import time

import jax


class System:
    """Measures the memory and the processor time of this process, and the memory of its devices."""

    def __init__(self):
        self._before = time.monotonic(), _processor_seconds()

    def measure(self) -> dict[str, float]:
        """Returns values by name, in GiB and in cores.

        The memory of the host is the largest so far, and that of the devices is what the fullest
        one holds now, if the devices tell. The cores are the mean number that were busy since the
        last call.
        """
        now = time.monotonic(), _processor_seconds()
        wall, busy = (after - before for after, before in zip(now, self._before, strict=True))
        self._before = now
        # In KiB on Linux, in bytes on macOS.
        unit = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        values = {"system/host_memory_gib": memory / 2**30, "system/busy_cores": busy / wall}
        stats = [device.memory_stats() for device in jax.local_devices()]
        if used := [one["bytes_in_use"] for one in stats if one and "bytes_in_use" in one]:
            values["system/device_memory_gib"] = max(used) / 2**30
        return values


def _processor_seconds() -> float:
    times = os.times()
    return times.user + times.system
