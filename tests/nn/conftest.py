"""What tests of the network share and do not import; the rest is in `tiny_network`."""

import pytest

import stunet.nn.conv as conv_module


@pytest.fixture(scope="module")
def quickly_compiled_convolutions():
    """XLA's own, which compile three times as fast; `test_conv` holds that the CPU's are equal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conv_module, "_by_platform", lambda cpu, default, *args: default(*args))
        yield
