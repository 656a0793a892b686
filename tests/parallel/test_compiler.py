"""Only devices that have an option of the compiler get it, and the plan's TPUs have it."""

import unittest.mock

import jax
import pytest

from stunet.parallel import compiler
from stunet.plan.tpus import GENERATIONS


@pytest.mark.parametrize(("name", "kibibytes"), [("v5e", 98304), ("v5p", 50000), ("v6e", 98304)])
def test_kernels_of_a_tpu_may_use_more_of_the_memory_near_the_core(name, kibibytes):
    tpu = unittest.mock.Mock(spec=jax.Device, device_kind=GENERATIONS[name].kind)
    assert compiler.options([tpu] * 4) == {"xla_tpu_scoped_vmem_limit_kib": str(kibibytes)}


@pytest.mark.parametrize(("name", "count"), [("v5p", 5), ("v5e", 0), ("v6e", 5)])
def test_a_step_overlaps_its_collectives_where_that_was_planned(name, count):
    tpu = unittest.mock.Mock(spec=jax.Device, device_kind=GENERATIONS[name].kind)
    kernels, step = compiler.options([tpu]), compiler.step_options([tpu] * 4)
    added = {key: step[key] for key in step.keys() - kernels.keys()}
    assert {key: step[key] for key in kernels} == kernels
    assert set(added.values()) <= {"true"}
    assert len(added) == count


def test_other_devices_get_no_options():
    assert compiler.options(jax.devices()) == compiler.step_options(jax.devices()) == {}
