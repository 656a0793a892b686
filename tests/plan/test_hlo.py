"""Cycles and collectives are read correctly from the text of a compiled program."""

from stunet.plan import hlo

TEXT = """HloModule step

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %r = f32[8]{0} add(%p, %p), backend_config={"window_config":{"estimated_cycles":"7"}}
}

%region_0.sunk (b: (s32[], f32[8])) -> (s32[], f32[8]) {
  %f = f32[8]{0} fusion(%x), kind=kLoop, calls=%fused, metadata={op_name="heavy"}, backend_config={"window_config":{"estimated_cycles":"100"}}
  %g = f32[16]{0} all-gather(%f), channel_id=1
  ROOT %t = (s32[]{:T(128)}, f32[8]{0}) tuple(%i, %f)
}

%region_1.clone (c: (s32[], f32[8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(5)
  ROOT %lt = pred[]{:T(512)} compare(%i, %limit), direction=LT
}

ENTRY %main (a: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%t0), condition=%region_1.clone, body=%region_0.sunk, metadata={op_name="loop"}
  %s = (bf16[4,2]{1,0}, bf16[4,2]{1,0}, u32[]) collective-permute-start(%y), source_target_pairs={{0,1}}
  %d = bf16[4,2]{1,0} collective-permute-done(%s)
  %r = (f32[4]{0}, f32[6]{0}) all-reduce(%a, %b), to_apply=%sum
  ROOT %c = f32[8]{0} copy(%z), metadata={op_name="light"}, backend_config={"window_config":{"estimated_cycles":"30"}}
}
"""  # noqa: E501


def test_a_loop_counts_as_often_as_it_runs_and_a_fusion_once():
    program = hlo.read(TEXT)
    assert program.cycles == 5 * 100 + 30


def test_collectives_are_counted_once_each_with_the_bytes_they_move():
    assert hlo.read(TEXT).collectives == {
        "all-gather": hlo.Collective(5, 5 * 16 * 4),
        "all-reduce": hlo.Collective(1, (4 + 6) * 4),
        "collective-permute": hlo.Collective(1, 4 * 2 * 2),
    }


def test_a_collective_that_runs_beside_kernels_counts_once():
    beside = """%kernel (q: f32[8]) -> f32[16] {
  %h = f32[16]{0} all-gather(%q), channel_id=1
}

"""
    entry = "  %u = f32[8]{0} fusion(%x), kind=kLoop, calls=%kernel\n  %w = "
    text = TEXT.replace("%region_0.sunk (b", beside + "%region_0.sunk (b").replace("  %w = ", entry)
    assert hlo.read(text).collectives == hlo.read(TEXT).collectives


def test_transfers_between_slices_are_counted_apart():
    send = """  %q = (f32[4,8]{1,0:T(8,128)}, u32[], token[]) recv(%t), channel_id=3, is_host_transfer=true, frontend_attributes={_xla_host_transfer_handler_name="xla_megascale_runtime",_xla_megascale_transfer_type="ALL_REDUCE"}
"""  # noqa: E501
    program = hlo.read(TEXT.replace("  %s = (bf16", send + "  %s = (bf16"))
    assert program.between_slices == {"all-reduce": hlo.Collective(1, 4 * 8 * 4)}
    assert program.collectives == hlo.read(TEXT).collectives
    assert hlo.read(TEXT).between_slices == {}


def test_the_compilers_own_trip_count_comes_first():
    known = TEXT.replace('"loop"}', '"loop"}, backend_config={"known_trip_count":{"n":"3"}}')
    assert hlo.read(known).cycles == 3 * 100 + 30
