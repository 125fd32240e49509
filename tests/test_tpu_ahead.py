"""What a compiled step sends: read from texts, and from programs of eight simulated devices."""

import doctest
import functools
import json

import jax
import jax.numpy as jnp
import pytest

from benchmarks.shared import harness, hlo, tpu
from contrastive_jax import losses, parallel, training
from contrastive_jax.objectives import image_model
from experiments import clip
from experiments.run import command_line

HEAD = "HloModule m, num_partitions=8\n\n"


def found(*lines, before=""):
    """(kind, bytes, devices, times) of the instructions of a program."""
    body = "\n".join(f"  {line}" for line in lines)
    read = hlo.collectives(f"{HEAD}{before}\nENTRY %main (p: f32[2]) -> f32[2] {{\n{body}\n}}\n")
    return [(each.kind, each.bytes, each.group, n) for each, n in read.items()]


@pytest.mark.parametrize("module", [hlo, tpu])
def test_examples_of_the_docs_run(module):
    assert doctest.testmod(module).failed == 0


def test_start_and_done_are_one_and_only_the_result_counts():
    assert found(
        "%s = (f32[4]{0:T(8,128)}, f32[32]{0}) all-gather-start(%p), replica_groups=[1,8]<=[8]",
        "%d = f32[32]{0} all-gather-done(%s)",
        "%t = ((f32[2], bf16[2]), (f32[8], bf16[8])) all-gather-start(%p, %q),"
        " replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}",
        "%u = f32[16]{0} all-reduce-start(%p), replica_groups={}, to_apply=%add",
        "%v = (s32[5], s32[5], u32[], u32[]) collective-permute-start(%p),"
        " source_target_pairs={{0,1},{1,0}}",
    ) == [
        ("all-gather", 128, 8, 1),
        ("all-gather", 48, 4, 1),
        ("all-reduce", 64, 8, 1),
        ("collective-permute", 20, 2, 1),
    ]


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1},{2,3},{4,5},{6,7}}", 2),
        ("{}", 8),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[2,4]T(1,0)", 2),
        ("mesh['a'=4,'b'=2] {'a'}", 4),
        ("mesh['a'=4,'b'=2] {'a','b'}", 8),
        ("mesh['a'=8] {'a':(2)4}", 4),
        ("mesh['a'=1,'b'=4,'c'=2], device_ids=([2,4]T(1,0)) {'b'}", 4),
    ],
)
def test_groups_are_read_in_every_form(groups, devices):
    line = f"%r = f32[2]{{0}} reduce-scatter(%p), replica_groups={groups}, dimensions={{0}}"
    assert found(line) == [("reduce-scatter", 8 * devices, devices, 1)]


def test_an_exchange_of_a_device_with_itself_is_none():
    alone = "%r = f32[2]{0} all-reduce(%p), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}"
    assert found(alone, "%c = f32[2] collective-permute(%p), source_target_pairs={{3,3}}") == []


LOOP = """%b (q: f32[2]) -> f32[2] {
  %g = f32[8] all-gather(%q), replica_groups=[2,4]<=[8]
}

%c (q: f32[2]) -> pred[] {
  %n = s32[]{:T(128)} constant(63), metadata={op_name="n"}
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}
"""


@pytest.mark.parametrize(
    ("beside", "times"), [(', backend_config={"known_trip_count":{"n":"12"}}', 12), ("", 63)]
)
def test_a_loop_counts_as_often_as_it_runs(beside, times):
    loop = f"%w = f32[2] while(%p), condition=%c, body=%b{beside}"
    assert found(loop, before=LOOP) == [("all-gather", 32, 4, times)]


def test_a_ring_on_simulated_devices_passes_its_block_on_seven_times():
    mesh = parallel.make_mesh()
    loss = functools.partial(losses.symmetric_info_nce, temperature=0.5, block_size=4)
    x_BD = jax.ShapeDtypeStruct((32, 24), jnp.float32, sharding=parallel.batched(mesh))
    compiled = jax.jit(parallel.shard_loss(loss, mesh)).lower(x_BD, x_BD).compile()
    read = hlo.collectives(compiled.as_text())
    passed = [n for each, n in read.items() if each.bytes == 4 * 24 * 4]
    assert passed == [7]


def test_what_a_wrapper_starts_counts_once():
    wrapped = "%w (q: f32[8]) -> f32[8] {\n  %a = f32[8] all-to-all(%q), replica_groups={}\n}\n"
    start = "%s = ((f32[8]), f32[8], u32[]) async-start(%p), calls=%w"
    done = "%d = f32[8] async-done(%s), calls=%w"
    assert found(start, done, before=wrapped) == [("all-to-all", 32, 8, 1)]


def test_the_parts_that_a_tpu_spreads_over_fusions_are_one():
    gather = (
        "  %g{0} = f32[8] all-gather(%q), channel_id=7, replica_groups=[2,4]<=[8],"
        ' backend_config={{"async_collective_fusion_config":{{}}}}\n'
    )
    of_fusion = "%f{0} (q: f32[2]) -> f32[8] {{\n" + gather + "  {1}\n}}\n"
    start = '%c = f32[8] custom-call(%g1), custom_call_target="AsyncCollectiveStart"'
    before = of_fusion.format(1, start) + of_fusion.format(2, "%x = f32[2] negate(%q)")
    calls = [f"%r{i} = f32[8] fusion(%p), kind=kCustom, calls=%f{i}" for i in (1, 2)]
    assert found(*calls, before=before) == [("all-gather", 32, 4, 1)]


def test_a_slice_into_fast_memory_reads_itself_alone():
    lines = [
        "%p = f32[64]{0} parameter(0)",
        "%s = ((f32[64]{0}), f32[4]{0:S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:4]}",
        "%d = f32[4]{0:S(1)} slice-done(%s)",
        "%c = (f32[4]{0}, f32[4]{0:S(1)}, u32[]{:S(2)}) copy-start(%d)",
    ]
    program = "\n".join(f"  {line}" for line in lines)
    assert hlo.traffic(f"{HEAD}ENTRY %main (p: f32[64]) -> f32[4] {{\n{program}\n}}") == 16 + 16


def flop_of(function, *shapes):
    """Ours and XLA's count of a program."""
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    compiled = jax.jit(function).lower(*given).compile()
    return hlo.flop(compiled.as_text()), compiled.cost_analysis()["flops"]


def test_flop_are_those_of_xla_and_a_loop_has_them_as_often_as_it_runs():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gradients(x, kernel):
        return jax.grad(lambda *both: convolve(*both).sum(), (0, 1))(x, kernel)

    shapes = (4, 16, 16, 8), (3, 3, 8, 16)
    for function in (convolve, gradients):
        ours, of_xla = flop_of(function, *shapes)
        assert ours == pytest.approx(of_xla, rel=0.05)

    def repeated(x):
        return jax.lax.fori_loop(0, 5, lambda _, y: y @ y, x)

    ours, _ = flop_of(repeated, (32, 32))
    assert ours == 5 * 2 * 32**3


def test_a_sum_that_a_tpu_slices_in_a_fusion_is_a_reduce_scatter_of_the_fusions_place():
    scatter = """%all-reduce-scatter.1 (q: bf16[64]) -> bf16[8] {
  %q = bf16[64] parameter(0)
  %r = bf16[64] all-reduce(%q), replica_groups={}, to_apply=%add
  ROOT %s = bf16[8] dynamic-slice(%r, %i), dynamic_slice_sizes={8}
}
"""
    fusion = '%f = bf16[8] fusion(%p), calls=%all-reduce-scatter.1, metadata={op_name="x"}'
    assert found(fusion, before=scatter) == [("reduce-scatter", 128, 8, 1)]
    body = f"ENTRY %main (p: f32[2]) -> f32[2] {{\n  {fusion}\n}}"
    (each,) = hlo.collectives(f"{HEAD}{scatter}\n{body}")
    assert (each.op_name, each.sent) == ("x", 112)


def test_groups_of_another_form_are_an_error():
    with pytest.raises(ValueError, match="a form that is not known"):
        found("%r = f32[2]{0} all-reduce(%p), replica_groups=torus[8]")


def test_the_place_in_the_program_is_read_beside_it_and_from_tables():
    tables = 'FileNames\n1 "a.py"\n\nFileLocations\n1 {file_name_id=1 line=7 end_line=9}\n\n'
    tables += "StackFrames\n4 {file_location_id=1 parent_frame_id=3}\n\n"
    lines = [
        f"  %r = f32[2] all-reduce(%p), replica_groups={{}}, metadata={{{metadata}}}\n"
        for metadata in ('op_name="x" stack_frame_id=4', 'source_file="b.py" source_line=3')
    ]
    read = hlo.collectives(
        f"{HEAD}{tables}ENTRY %main (p: f32[2]) -> f32[2] {{\n{''.join(lines)}}}"
    )
    assert [(each.source, each.op_name) for each in read] == [("a.py:7", "x"), ("b.py:3", "")]


def test_a_known_loss_gathers_the_embeddings_and_scatters_their_gradient():
    pairs, views, dim = 32, 2, 24
    mesh = parallel.make_mesh()
    loss = parallel.shard_loss(functools.partial(losses.nt_xent, temperature=0.5), mesh)
    z_BVD = jax.ShapeDtypeStruct((pairs, views, dim), jnp.float32, sharding=parallel.batched(mesh))
    gradient = jax.jit(jax.grad(lambda z: loss(z).mean()))
    read = hlo.collectives(gradient.lower(z_BVD).compile().as_text())
    embeddings = pairs * views * dim * 4
    of_kind = {
        kind: [each for each in read if each.kind == kind and each.bytes >= embeddings]
        for kind in ("all-gather", "reduce-scatter")
    }
    for kind, (each,) in of_kind.items():
        assert (each.bytes, each.group, read[each]) == (embeddings, 8, 1), kind
        assert each.sent == embeddings * 7 / 8
    assert "contrastive_jax/" in of_kind["all-gather"][0].source


@pytest.mark.parametrize(("streaming", "views"), [("True", (1,)), ("False", ())])
def test_a_stand_in_has_the_batches_of_the_set_that_it_stands_for(streaming, views):
    path, sections = "configs/captions.py:smoke", clip.EXPERIMENT.all_sections()
    given = command_line.read(path)
    config = command_line.override(given, {"data.streaming": streaming}, sections)
    identity = {"name": "x", "train": 8, "test": 1, "image_shape": (32, 32, 3)}
    identity |= {"class_names": [], "vocabulary": ["", "?"]}
    dataset = clip.EXPERIMENT.kind.stand_in(config, identity)
    batch = training.batch_spec(clip.EXPERIMENT.kind.feed(config, dataset, 0))
    assert batch["image"].shape == (4, *views, 32, 32, 3)
    assert batch["tokens"].shape == (4, 16)
    assert batch["id"].shape == (4,)


def test_the_examples_that_are_diagnosed_are_taken_where_they_are():
    mesh = parallel.make_mesh()
    z_BVD = jax.ShapeDtypeStruct((4096, 2, 8), jnp.float32, sharding=parallel.batched(mesh))
    for take, sends in ((image_model.diagnosed, False), (lambda z: z[:1024], True)):
        taken = jax.jit(lambda z, take=take: take(z) * 2, out_shardings=parallel.batched(mesh))
        read = hlo.collectives(taken.lower(z_BVD).compile().as_text())
        assert bool(read) == sends


@pytest.mark.slow
@pytest.mark.skipif(tpu.installed_libtpu() is None, reason="libtpu is not installed")
def test_a_step_is_compiled_for_tpus_without_one(tmp_path):
    out = tmp_path / "out.json"
    harness.in_own_process("benchmarks.tpu_ahead", "--smoke", "--out", out)
    (row,) = json.loads(out.read_text())["rows"]
    assert row["devices"] == 4
    assert row["temporaries"] > 0
    assert {"all-gather", "all-reduce"} <= {each["kind"] for each in row["collectives"]}
