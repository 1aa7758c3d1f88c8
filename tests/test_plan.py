"""Programs whose collectives and traffic are known by hand, the times that follow, and what people are told."""

import importlib.util
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdl import cli, models, parallel, plan, trees
from jaxdl.errors import InputError
from jaxdl.plan import Collective, Program, Setup

MEGA = 1_000_000


def compiled(work, *specs, mesh, shape=(8, 64)):
    """A function of float32 arrays of this shape, mapped over the devices, as XLA's text."""
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32, sharding=NamedSharding(mesh, spec)) for spec in specs]
    mapped = jax.shard_map(work, mesh=mesh, in_specs=specs, out_specs=PartitionSpec(), check_vma=False)
    return jax.jit(mapped).lower(*inputs).compile().as_text()


@pytest.mark.parametrize(
    ("work", "expected"),
    [
        (lambda x: jax.lax.psum(x, ("a", "b")), Collective("all-reduce", 8, 1, 1 * 64 * 4)),
        (lambda x: jax.lax.psum(x, "b"), Collective("all-reduce", 4, 1, 1 * 64 * 4)),
        (lambda x: jax.lax.all_gather(x.astype(jnp.int8), "a"), Collective("all-gather", 2, 1, 2 * 64)),
        (lambda x: jax.lax.all_gather(x, "b"), Collective("all-gather", 4, 1, 4 * 64 * 4)),
        (
            lambda x: jax.lax.psum_scatter(x, "b", scatter_dimension=1, tiled=True),
            Collective("reduce-scatter", 4, 1, 64 * 4),
        ),
        (
            lambda x: jax.lax.ppermute(x, "b", [(n, (n + 1) % 4) for n in range(4)]),
            Collective("collective-permute", 2, 1, 64 * 4),
        ),
    ],
)
def test_collectives_are_those_that_were_written(work, expected):
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("a", "b"), axis_types=(AxisType.Auto,) * 2)
    assert plan.collectives(compiled(work, PartitionSpec(("a", "b")), mesh=mesh), 8) == (expected,)


# Lines as libtpu 0.0.42 prints them, shortened.
TPU = """
%fused_computation.1 (p: f32[8,128]) -> f32[8,128] {
  ROOT %inner = f32[8,128]{1,0:T(8,128)} add(%p, %p)
}

ENTRY %main (a: f32[8,128], b: bf16[16,128]) -> f32[8,128] {
  %a = f32[8,128]{1,0:T(8,128)} parameter(0)
  %b = bf16[16,128]{1,0:T(8,128)(2,1)} parameter(1)
  %copy-start.1 = (f32[8,128]{1,0:T(8,128)S(1)}, f32[8,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%a)
  %copy-done.1 = f32[8,128]{1,0:T(8,128)S(1)} copy-done(%copy-start.1)
  %slice-start.1 = ((bf16[16,128]{1,0}), bf16[4,128]{1,0:S(1)}, s32[]{:S(2)}) slice-start(%b), slice={[0:4], [0:128]}
  %slice-done.1 = bf16[4,128]{1,0:T(8,128)(2,1)S(1)} slice-done(%slice-start.1)
  %fusion.1 = f32[8,128]{1,0:T(8,128)} fusion(%copy-done.1, %slice-done.1, %b), kind=kLoop, calls=%fused_computation.1
  %all-reduce.1 = (f32[32]{0:T(128)S(1)}, /*index=1*/bf16[32,16]{0,1:T(8,128)(2,1)S(1)}) all-reduce(%x, %y), \
channel_id=2, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, use_global_device_ids=true, to_apply=%add
  %all-gather-start.1 = (f32[2,128]{1,0:T(8,128)}, f32[8,128]{1,0}) all-gather-start(%c), replica_groups=[2,4]<=[8]
  %all-gather-done.1 = f32[8,128]{1,0:T(8,128)S(1)} all-gather-done(%all-gather-start.1)
  ROOT %r = f32[8,128]{1,0:T(8,128)} add(%fusion.1, %all-gather-done.1)
}
"""


def test_a_tpus_program_is_read():
    assert plan.collectives(TPU, 8) == (
        Collective("all-reduce", 4, 2, 32 * 4 + 32 * 16 * 2),
        Collective("all-gather", 4, 1, 8 * 128 * 4),
    )
    copied, sliced, b, result = 4096, 1024, 4096, 4096
    fusion, add = b + result, result + result  # the other operands lie in vector memory
    assert plan.traffic(TPU) == copied + sliced + fusion + add


def test_a_tpus_memory_is_padded_to_tiles():
    """The inner axes, which the layout names first, to multiples of the tile's: 300 to 384, and 12 to 16."""
    padded = "bf16[2,300,12]{1,2,0:T(8,128)(2,1)}"
    assert plan._arrays(padded) == [2 * 300 * 12 * 2]
    assert plan._arrays(padded, main=True) == [2 * 384 * 16 * 2]
    assert plan._arrays("(f32[33]{0:T(128)}, pred[3,5]{1,0}, s4[8]{0:S(1)}, f32[])", main=True) == [128 * 4, 15, 4]


def test_traffic_is_what_is_read_and_written():
    x = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    text = jax.jit(lambda x, y: jnp.sin(x) + y).lower(x, x).compile().as_text()
    assert plan.traffic(text) == 3 * 512 * 512 * 4


def test_gradients_are_reduced_as_often_as_there_are_parameters_and_no_more():
    """Of a dense net: the bytes of its parameters, and a few numbers."""
    setup = Setup("dense", 2, size=4, classes=3, dtype="float32")
    found = plan.program(plan.compile_step(setup, jax.devices()), 8)
    parameters = trees.count(models.shapes(setup.network(8), (4, 4, 3))[0]["params"])
    assert {each.kind for each in found.collectives} == {"all-reduce"}
    assert 0 <= sum(each.bytes for each in found.collectives) - 4 * parameters <= 64
    assert all(each.chips == 8 for each in found.collectives)


def test_flops_are_those_of_the_products():
    setup = Setup("dense", 64, size=8, classes=3, dtype="float32")
    found = plan.program(plan.compile_step(setup, jax.devices()[:1]), 1)
    inputs, hidden, classes = 8 * 8 * 3, 100, 3
    products = 2 * 64 * (2 * inputs * hidden + 3 * hidden * classes)  # no gradient of the images
    assert products <= found.flops <= 1.5 * products
    assert found.memory > 4 * 3 * inputs * hidden  # parameters and AdamW's two moments
    assert found.collectives == ()


@pytest.mark.parametrize(
    ("topology", "collective", "seconds"),
    [
        # 2·V over two axes, both ways round.
        ("v5e:16x16", Collective("all-reduce", 256, 1, 1000 * MEGA), 2 * 1e9 / (2 * 2 * 50e9)),
        # To the other end of both axes and back, a microsecond each hop.
        ("v5e:16x16", Collective("all-reduce", 256, 1, 100), 2 * (8 + 8) * 1e-6),
        ("v5e:8x8", Collective("all-reduce", 64, 1, 100), 2 * (7 + 7) * 1e-6),
        ("v5e:2x2", Collective("all-gather", 4, 1, 1000 * MEGA), 1e9 / (2 * 50e9)),
        ("v5e:8x16", Collective("reduce-scatter", 128, 1, 100), (7 + 8) * 1e-6),
        ("v5e:16x16", Collective("all-reduce", 8, 1, 100), 2 * 7 * 1e-6),
        ("v5p:2x2x4", Collective("all-gather", 16, 1, 100), (1 + 1 + 3) * 1e-6),
        ("v5p:4x4x4", Collective("all-gather", 64, 1, 100), 3 * 2 * 1e-6),
        ("v6e:2x2", Collective("all-to-all", 4, 1, 1000 * MEGA), 0.25 * 1e9 / (2 * 100e9)),
        ("v6e:2x2", Collective("collective-permute", 2, 1, 1000 * MEGA), 1e9 / 100e9 + 1e-6),
    ],
)
def test_how_long_chips_send(topology, collective, seconds):
    assert plan.communication(collective, plan.topology(topology)) == pytest.approx(seconds)


def test_a_step_takes_the_longer_of_computing_and_moving_and_then_sends():
    small = Collective("all-reduce", 4, 1, 100)
    moving = Program(197e9, 8.19e9, 1.0, (small, small))  # 1 ms, 10 ms, 2 × 4 µs
    hardware = plan.topology("v5e:2x2")
    times = plan.roofline(moving, hardware)
    assert (times.compute, times.memory, times.communication) == pytest.approx((1e-3, 10e-3, 8e-6))
    assert times.step == pytest.approx(10e-3 + 8e-6)
    assert plan.roofline(replace(moving, flops=197e10, collectives=()), hardware).step == pytest.approx(10e-3)
    scaled = plan.weak_scaling(moving, hardware)
    assert list(scaled) == ["2x2", "4x4", "8x8", "16x16"]
    assert scaled["16x16"].step == pytest.approx(10e-3 + 2 * 32e-6)
    among_two = replace(moving, collectives=(replace(small, chips=2),))
    assert plan.weak_scaling(among_two, hardware)["16x16"].communication == pytest.approx(2e-6)
    seconds, hours = plan.epoch(1000, 128, 4, times)  # two steps
    assert (seconds, hours) == pytest.approx((2 * times.step, 8 * times.step / 3600))


@given(st.integers(8, 2000), st.floats(0.001, 0.1), st.booleans())
def test_the_largest_batch_is_found_on_a_line(start, gib_each, bent):
    """Whatever the slope, and where XLA saves memory once it gets short, which bends the line."""
    hardware, tried = plan.topology("v5e:2x2"), []
    limit = plan.CHIPS["v5e"].memory

    def needs(batch):
        line = 1e8 + batch * gib_each * plan.GIB
        return line if line < 0.8 * limit or not bent else 0.4 * limit + line / 2

    def memory(batch):
        tried.append(batch)
        if needs(batch) > limit:
            raise plan.DoesNotFit(needs(batch), limit)
        return needs(batch)

    fits = needs(start) <= limit
    best = plan._largest(Setup("neuron", start, size=8), hardware, memory, needs(start), fits)
    most = max(batch for batch in range(0, 40_000, 8) if needs(batch) <= limit)
    assert best <= max(most, start if fits else 0)
    assert best in (0, start, *tried)
    assert len(tried) <= 3
    if not bent:
        assert best >= most / 1.05 - 8


def test_operations_are_those_of_the_platform_that_is_compiled_for():
    model = models.create("efficientnet_lite0", 3)
    variables, _ = models.shapes(model, (32, 32, 3))
    x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    run = jax.jit(lambda variables, x: model.apply(variables, x))
    grouped = []
    for device in (jax.devices()[0], "tpu", None):  # JAX keeps what it has traced, for each by itself
        with jax.default_device(device):
            grouped.append("feature_group_count=32" in str(run.trace(variables, x).jaxpr))
    assert grouped == [False, True, False]


def test_statistics_of_groups_are_shared_by_their_chips_alone():
    """The convolution's output is normalised without a word between the devices; the averages are reduced later."""
    mesh, counts = parallel.make_mesh(), {}
    x = jax.ShapeDtypeStruct((16, 8, 8, 8), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(parallel.AXIS)))
    for share in ("global", 4, "chip"):
        setup = Setup("resnet9", 2, size=8, dtype="float32", batch_norm=share)
        model = setup.network(8)
        variables, _ = models.shapes(model, (8, 8, 8))
        run = jax.jit(
            lambda variables, x, model=model: model.apply(variables, x, train=True, mutable=["batch_stats"])[0]
        )
        found = plan.collectives(run.lower(variables, x).compile().as_text(), 8)
        counts[share] = {each.chips: sum(one.arrays for one in found if one.chips == each.chips) for each in found}
    norms = 8
    assert counts == {"global": {8: 2 * norms}, 4: {4: 2 * norms}, "chip": {}}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dense", "--topology", "v5x:2x2"], "no topology is called 'v5x:2x2'; the nearest: v5"),
        (["dense", "--topology", "v5e:3x3"], "v5e has no slice '3x3'; there are: 16x16, 1x1, 2x2"),
        (["dense", "--topology", "v5e"], "a slice is missing, as in v5e:2x2; there are: 16x16, 1x1"),
        (["denze", "--batch-size", "1"], "no model is called 'denze'; the nearest: dense"),
        (["dense", "--batch-size", "0"], "a batch has at least one example, got 0"),
        (["efficientnet_b0", "--batch-norm", "3"], "8 chips cannot be divided into groups of 3"),
        (["efficientnet_b0", "--batch-norm", "8"], "all 8 chips are not a group"),
        (["dense", "--batch-norm", "chip"], "dense has no option 'bn_groups'"),
        (["dense", "--remat"], "dense has no option 'remat'"),
        (["dense", "--largest"], "give a topology"),
        (["dense", "--accumulate", "0"], "accumulate is at least 1 batch"),
    ],
)
def test_mistakes_are_named(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(plan, "attached", lambda devices, dtype: plan.Hardware("cpu", (8,), 1e9, 1e9))
    with pytest.raises(SystemExit, match="2"):
        cli.main(["plan", *arguments])
    assert message in capsys.readouterr().err


def test_without_the_compiler_people_are_told_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'jaxdl\[tpu\]'"):
        plan.make(Setup("dense"), plan.topology("v5e:2x2"))


def test_what_does_not_fit_is_said_with_what_does(monkeypatch):
    limit = plan.CHIPS["v5e"].memory

    class Step:
        def __init__(self, batch):
            self.memory = 1e8 + batch * plan.GIB / 10

    def compile_step(setup, devices, full):
        step = Step(setup.batch_size)
        if step.memory > limit:
            # As libtpu says it.
            raise jax.errors.JaxRuntimeError(
                f"RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used {step.memory / plan.GIB:.2f}G of "
                "15.75G hbm. Exceeded hbm capacity by much."
            )
        return step

    def guarded(setup, devices, full):
        with plan._memory_errors():
            return compile_step(setup, devices, full)

    monkeypatch.setattr(plan, "absent_devices", lambda hardware: [None] * hardware.chips)
    monkeypatch.setattr(plan, "compile_step", guarded)
    monkeypatch.setattr(plan, "program", lambda step, chips: Program(1.0, 1.0, step.memory, ()))
    with pytest.raises(
        InputError, match=r"batch of 256 .* does not fit v5e:2x2: 25\.7 of 15\.75 GiB; the largest .* 152;"
    ):
        plan.make(Setup("efficientnet_lite0", 256), plan.topology("v5e:2x2"))
    assert plan.make(Setup("efficientnet_lite0", 64), plan.topology("v5e:2x2"), largest=True).largest_batch == 152


def test_the_devices_here_are_measured(capsys, monkeypatch):
    monkeypatch.setattr(plan, "attached", lambda devices, dtype: plan.Hardware("cpu", (8,), 1e11, 1e10))
    cli.main(["plan", "dense", "--batch-size", "2", "--size", "8", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["setup"] | {"model": "dense", "dtype": "float32", "size": 8, "batch_size": 2} == said["setup"]
    assert said["measured"] > 0
    assert said["program"]["collectives"][0]["kind"] == "all-reduce"
    assert said["roofline"]["memory"] == said["program"]["bytes_moved"] / 1e10
    cli.main(["plan", "dense", "--batch-size", "2", "--size", "8"])
    said = capsys.readouterr().out
    assert "measured" in said
    assert "batch 2 on each chip; cpu, 8 chips" in said


@pytest.mark.parametrize("error", [MemoryError(), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_what_does_not_fit_here_is_said_where_it_runs(error, monkeypatch):
    def fail(*_):
        raise error

    monkeypatch.setattr(plan, "attached", lambda devices, dtype: plan.Hardware("cpu", (8,), 1e11, 1e10))
    monkeypatch.setattr(plan, "measure", fail)
    with pytest.raises(InputError, match="a batch of 2 does not fit into the memory of this machine"):
        plan.make(Setup("dense", 2, size=8))


def test_before_nothing_fits_eight_is_tried():
    """Where memory grows as no line does, the guesses are all too large."""
    hardware, tried = plan.topology("v5e:2x2"), []

    def memory(batch):
        tried.append(batch)
        if batch > 8:
            raise plan.DoesNotFit((1 + batch / 1e6) * plan.CHIPS["v5e"].memory, plan.CHIPS["v5e"].memory)
        return 1e9

    assert plan._largest(Setup("neuron", 1000, size=8), hardware, memory, 1.1 * plan.CHIPS["v5e"].memory, False) == 8
    assert len(tried) <= 3


def test_a_machines_peaks_are_numbers():
    found = plan.attached(jax.devices()[:1], "float32")
    assert found.flops > 1e8
    assert found.bandwidth > 1e8


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_a_dense_net_is_compiled_for_a_tpu():
    report = plan.make(Setup("dense", 16, size=8, classes=3, batch_norm="global"), plan.topology("v5e:2x2"))
    parameters = trees.count(models.shapes(report.setup.network(4), (8, 8, 3))[0]["params"])
    sent = sum(each.bytes for each in report.program.collectives)
    assert 2 * parameters <= sent <= 4 * parameters + 64  # kernels' gradients in bfloat16
    assert report.program.memory < 10 * MEGA
    text = str(report)
    assert "nothing was run" in text
    assert "16x16" not in text.splitlines()[0]
    assert "256" in text
