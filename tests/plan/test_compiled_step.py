"""The dumps and the refusals of the TPU compiler are read correctly."""

import pytest

from stunet.errors import UserError
from stunet.plan import compiled_step

BUFFERS = """BufferAssignment:
allocation 0: size 512, thread-local:
allocation 1: size 4096, parameter 0, shape |f32[1024]| at ShapeIndex {}:
allocation 2: size 300, color 1, preallocated-temp:
allocation 3: size 1000, preallocated-temp:
 value: <5 fusion @0> (size=900,offset=0): f32[225]{0}
allocation 4: size 24, preallocated-temp:
"""


def test_temporaries_count_the_main_memory_alone(tmp_path):
    stem = "module_0003.jit_step.cl_1.after_optimizations"
    (tmp_path / f"{stem}-buffer-assignment.txt").write_text(BUFFERS)
    (tmp_path / f"{stem}.txt").write_text(
        "ENTRY %main (a: f32[8]) -> f32[8] {\n  %g = f32[16]{0} all-gather(%a), channel_id=1\n}\n"
    )
    found = compiled_step._read_dump(tmp_path)
    assert (found.temporaries, found.code) == (1024, None)
    assert found.program.collectives["all-gather"].bytes == 64


def test_a_program_that_is_too_large_says_by_how_much():
    message = (
        "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.\n"
        "Exceeded hbm capacity by 4.75G."
    )
    found = compiled_step._read_message({"error": message})
    assert (found.used, found.excess) == (20.5 * 2**30, 4.75 * 2**30)
    assert found.temporaries is None


def test_a_refusal_for_another_reason_is_an_error():
    with pytest.raises(UserError, match="refuses this program: INTERNAL: no such layout"):
        compiled_step._read_message({"error": "INTERNAL: no such\n  layout"})
