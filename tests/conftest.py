"""Checks the jaxtyping shapes on public array functions wherever the tests call them.

The tests take as long as XLA compiles: LLVM does not optimise here, XLA leaves fusions to the
emitter that gives LLVM less to do (a training step compiles in two thirds of the time), and
programs compiled by one test, or by one worker, are kept for the others until the session ends.
"""

import atexit
import os
import pathlib
import shutil
import subprocess
import tempfile

import hypothesis
import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="stunet_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)

from jaxtyping import install_import_hook

# On a busy machine, an example may take any time.
hypothesis.settings.register_profile("stunet", deadline=None)
hypothesis.settings.load_profile("stunet")

install_import_hook(
    [f"stunet.{room}" for room in ("nn", "diffusion", "data", "parallel", "evaluate")],
    "beartype.beartype",
)


def pytest_runtest_setup(item):
    if item.get_closest_marker("long") and os.environ.get("FAULTS") != "long":
        pytest.skip("make faults runs it")


@pytest.fixture
def small_disk(tmp_path):
    """`small_disk(kilobytes)` is the directory of an empty disk that small, a real one."""
    disk = tmp_path / "disk"

    def mount(kilobytes: int) -> pathlib.Path:
        disk.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no small disk can be mounted here: {error}")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.fixture(scope="module")
def quickly_compiled_convolutions():
    """XLA's own, which compile three times as fast; `test_conv` holds that the CPU's are equal."""
    import stunet.nn.conv as conv_module  # not before the import hook

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_module, "_by_platform", lambda cpu, gpu, tpu, *args: gpu(*args))
        yield
