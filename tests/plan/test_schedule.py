"""Collectives are hidden as far as the schedule lets computation go on, and exposed otherwise."""

import pytest

from stunet.plan import schedule

# Kernels of 1024 and 3072 bytes: a quarter and three quarters of the computation.
TEXT = """HloModule step, is_scheduled=true

%started (p: f32[64]) -> f32[128] {
  %p = f32[64]{0} parameter(0)
  %g = f32[128]{0} all-gather(%p), channel_id=7, replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}
  ROOT %t = (f32[64]{0}, f32[128]{0}) custom-call(%p, %g)
}

%beside (q: f32[64]) -> f32[128] {
  %q = f32[64]{0} parameter(0)
  ROOT %h = f32[128]{0} all-gather(%q), channel_id=7, replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}
}

ENTRY %main (a: f32[128]) -> f32[128] {
  %a = f32[128]{0} parameter(0)
  %k = f32[128]{0} negate(%a)
  %s = (f32[128]{0}, f32[128]{0}, u32[]) collective-permute-start(%a), channel_id=1, source_target_pairs={{0,1}}
  %l = (f32[128]{0}, f32[128]{0}) sort(%k, %a, %k, %a)
  %d = f32[128]{0} collective-permute-done(%s)
  ROOT %r = f32[128]{0} bitcast(%d)
}
"""  # noqa: E501


def overlap(text: str, compute: float, speed: float, links: int = 4) -> tuple[float, float]:
    found = schedule.overlap(schedule.read(text), compute, speed, links)
    return found.hidden, found.exposed


def test_a_collective_is_hidden_by_the_kernels_between_its_start_and_its_end():
    # The permutation sends 512 bytes over one of four links. It runs beside 3/4 s of kernels.
    assert overlap(TEXT, 1.0, 4 * 512) == pytest.approx((0.75, 0.25))
    assert overlap(TEXT, 1.0, 4 * 1024) == pytest.approx((0.5, 0.0))
    assert overlap(TEXT, 1e-9, 4 * 512) == pytest.approx((0.0, 1.0), abs=1e-8)


def test_a_collective_of_one_instruction_is_waited_for():
    entry = TEXT.replace("collective-permute-start", "all-reduce").replace(
        "  %d = f32[128]{0} collective-permute-done(%s)\n", "  %d = f32[128]{0} bitcast(%s)\n"
    )
    entry = entry.replace("(f32[128]{0}, f32[128]{0}, u32[]) all", "f32[128]{0} all")
    for groups, devices in (("{{0,1,2,3}}", 4), ("[2,2]<=[4]", 2)):
        text = entry.replace("source_target_pairs={{0,1}}", f"replica_groups={groups}")
        # A ring of n devices sends each part of the result 2 (n - 1) times.
        sent = 512 * 2 * (devices - 1) / devices
        assert overlap(text, 1.0, 512) == pytest.approx((0.0, sent / 512))


def test_a_collective_in_fusions_lasts_from_the_first_to_the_last():
    """The compiler writes a collective that runs beside kernels into each of their fusions."""
    start = "  %s = (f32[64]{0}, f32[128]{0}) fusion(%a), kind=kCustom, calls=%started\n"
    end = "  %d = f32[128]{0} fusion(%s), kind=kCustom, calls=%beside\n"
    lines = TEXT.splitlines(keepends=True)
    text = "".join(
        start if "-start(" in line else end if "-done(" in line else line for line in lines
    )
    hidden, exposed = overlap(text, 1.0, 256)
    # An all-gather in a group of two sends half of its 512 bytes, which takes a second here.
    assert hidden + exposed == pytest.approx(1.0)
    assert hidden > 0.5
    alone = text.replace(end, "  %d = f32[128]{0} bitcast(%s)\n")
    # In a single fusion, it runs beside this fusion's own kernel alone.
    assert 0 < overlap(alone, 1.0, 256)[0] < hidden


def test_a_loop_is_played_as_often_as_it_runs():
    body = """%body (b: f32[128]) -> f32[128] {
  %b = f32[128]{0} parameter(0)
  ROOT %r = f32[128]{0} all-reduce(%b), channel_id=3, replica_groups={{0,1}}, to_apply=%sum
}

"""
    loop = '  %w = f32[128]{0} while(%d), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}\n'  # noqa: E501
    text = TEXT.replace("ENTRY", body + "ENTRY").replace("  ROOT %r = f32[128]{0} bitcast", loop + "  ROOT %r = f32[128]{0} bitcast")  # fmt: skip # noqa: E501
    assert overlap(text, 1.0, 1e12)[1] == pytest.approx(5 * 512 / 1e12, rel=1e-3)
