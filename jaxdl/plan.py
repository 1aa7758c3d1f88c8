"""What a training would cost on hardware that need not be there: its step is compiled ahead of time, and the compiled
program is read.

A compiled program tells what it computes, moves, keeps in memory and sends to other chips. From that and the published
peaks of a chip follows the least time that it can take: Williams et al., "Roofline" (2009),
doi:10.1145/1498765.1498785. It is a model and not a measurement; where the hardware is attached, the step is run
beside it.
"""

import dataclasses
import importlib.util
import math
import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxdl import data, models, optim, parallel, train, trees
from jaxdl.errors import InputError, nearest
from jaxdl.models import Dtype

GIB = 2**30

Norm = Literal["global", "chip"] | int
"""Whose examples share the statistics of batch normalisation: all, those of a chip, or of so many chips."""


@dataclass(frozen=True)
class Chip:
    """One kind of chip, and how it is joined to others."""

    flops: float
    """A second, bfloat16."""
    bandwidth: float
    """Of its main memory, bytes a second."""
    memory: float
    """Bytes that a program may use."""
    link: float
    """To a neighbour, bytes a second in one direction."""
    ring: int
    """Along an axis of a multiple of so many chips the last is a neighbour of the first."""
    slices: tuple[str, ...]
    """What can be had."""


_2D = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_3D = ("2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8", "8x8x16", "8x16x16", "16x16x24")

# FLOPs, bandwidths and slices from the pages named here. A link is the chip's bandwidth "between chips, bidirectional",
# over its ports (4, or 6 in three dimensions) and two directions. Memory is what libtpu 0.0.42 leaves to programs, of
# 16, 95 and 32 GB. Rings: https://jax-ml.github.io/scaling-book/tpus
CHIPS = {
    # https://cloud.google.com/tpu/docs/v5e: 197 TFLOPs, 819 GBps, 400 GBps
    "v5e": Chip(197e12, 819e9, 15.75 * GIB, 400e9 / 4 / 2, 16, _2D),
    # https://cloud.google.com/tpu/docs/v5p: 459 TFLOPs, 2765 GBps, 1200 GBps
    "v5p": Chip(459e12, 2765e9, 95.74 * GIB, 1200e9 / 6 / 2, 4, _3D),
    # https://cloud.google.com/tpu/docs/v6e: 918 TFLOPs, 1600 GBps, 3200 Gbps in one direction
    "v6e": Chip(918e12, 1600e9, 31.25 * GIB, 3200e9 / 8 / 4, 16, _2D),
}

# The least that a hop from chip to chip takes, seconds: https://jax-ml.github.io/scaling-book/sharding
HOP = 1e-6

# Examples to train on. Russakovsky et al. (2015), arXiv:1409.0575, table 2; Bossard et al. (2014),
# doi:10.1007/978-3-319-10599-4_29: 101 classes of 750.
EPOCHS = {"ImageNet": 1_281_167, "Food-101": 75_750}

# XLA's own scale is -1 to 1. At -1 it does not keep in a chip's fast memory what it could, nor try out tilings; it
# compiles several times faster.
QUICK: Any = {"exec_time_optimization_effort": -1.0}


class DoesNotFit(InputError):
    """A program needs more memory than there is."""

    def __init__(self, needed: float, available: float):
        super().__init__(f"{needed / GIB:.1f} of {available / GIB:.2f} GiB")
        self.needed = needed


@dataclass(frozen=True)
class Setup:
    """The training whose step is compiled: AdamW on uint8 images, as in `jaxdl.fit`, without augmentation."""

    model: str
    batch_size: int = 128
    """On each chip."""
    size: int | None = None
    """Height and width of the images; None for the network's own, or 64."""
    classes: int = 1000
    dtype: Dtype = "bfloat16"
    batch_norm: Norm = "global"
    remat: bool = False
    """See `models.EfficientNet`."""
    accumulate: int = 1
    """Batches to an update, see `optim.Phase`."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"a batch has at least one example, got {self.batch_size}")

    @property
    def pixels(self) -> int:
        return self.size if self.size is not None else models.input_size(self.model) or 64

    def network(self, chips: int) -> Any:
        """The model.

        Raises:
          InputError: it has no such option, or the chips cannot be divided into such groups, or are one.
        """
        options: dict[str, Any] = {"dtype": self.dtype}
        if self.remat:
            options["remat"] = True
        if self.batch_norm != "global":
            share = 1 if self.batch_norm == "chip" else self.batch_norm
            if share < 1 or chips % share:
                raise InputError(f"{chips} chips cannot be divided into groups of {share} for batch normalisation")
            if 1 < share == chips:
                raise InputError(f"all {chips} chips are not a group: batch normalisation is global then; or name more")
            options["bn_groups"] = chips // share
        return models.create(self.model, self.classes, **options)


@dataclass(frozen=True)
class Hardware:
    """Equal chips in a grid."""

    name: str
    shape: tuple[int, ...]
    flops: float
    bandwidth: float
    memory: float | None = None
    link: float | None = None
    """None: what joins them is not known."""
    ring: int = 0

    @property
    def chips(self) -> int:
        return math.prod(self.shape)


def topology(name: str) -> Hardware:
    """TPUs by the name of their slice, such as "v5e:2x2".

    Raises:
      InputError: there are none of that name; the nearest are named.
    """
    kind, _, shape = name.partition(":")
    if kind not in CHIPS:
        known = [f"{each}:{CHIPS[each].slices[1]}" for each in CHIPS]
        raise InputError(f"no topology is called {name!r}{nearest(name, known)}")
    if shape not in CHIPS[kind].slices:
        of = f"{kind} has no slice {shape!r}" if shape else f"a slice is missing, as in {kind}:{CHIPS[kind].slices[1]}"
        raise InputError(f"{of}{nearest(shape, CHIPS[kind].slices)}")
    chip = CHIPS[kind]
    axes = tuple(map(int, shape.split("x")))
    return Hardware(name, axes, chip.flops, chip.bandwidth, chip.memory, chip.link, chip.ring)


def absent_devices(hardware: Hardware) -> Sequence[jax.Device]:
    """Stand-ins for the chips of a topology, to compile for.

    Raises:
      InputError: libtpu, which holds the compiler, is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise InputError("the compiler for TPUs is not installed; pip install 'jaxdl[tpu]' (Linux, 700 MB)")
    from jax.experimental import topologies

    if jax.default_backend() != "tpu":
        # JAX and libtpu ask the machine what it is, and hold a lock, as if there were TPUs. For what is compiled, the
        # topology says.
        os.environ |= {"TPU_ACCELERATOR_TYPE": "v5litepod-4", "TPU_WORKER_HOSTNAMES": "localhost"}
        os.environ["ALLOW_MULTIPLE_LIBTPU_LOAD"] = "1"
    alone = {"chips_per_host_bounds": (1, 1, 1)} if hardware.chips == 1 else {}
    found = topologies.get_topology_desc(platform="tpu", topology_name=hardware.name, **alone)
    return found.devices


def attached(devices: Sequence[jax.Device], dtype: Dtype) -> Hardware:
    """Devices that are there, with the speed of a large matrix product and of a large copy as their peaks."""
    device = devices[0]

    def fastest(work: Callable[..., jax.Array], *operands: jax.Array) -> float:
        taken = []
        run = jax.jit(work)
        for _ in range(6):
            started = time.perf_counter()
            run(*operands).block_until_ready()
            taken.append(time.perf_counter() - started)
        return min(taken)

    n = 2048 if device.platform == "cpu" else 8192
    matrix = jax.device_put(jnp.ones((n, n), dtype), device)
    flops = 2 * n**3 / fastest(jnp.matmul, matrix, matrix)
    row = jax.device_put(jnp.ones(GIB // 16, jnp.float32), device)
    bandwidth = 2 * row.nbytes / fastest(lambda row: row + 1, row)
    limit = (device.memory_stats() or {}).get("bytes_limit")
    return Hardware(device.device_kind, (len(devices),), flops, bandwidth, limit)


def _training(setup: Setup, chips: int) -> tuple[Any, Any, train.TrainStep]:
    """The network, the optimizer and the step."""
    model = setup.network(chips)
    phase = optim.Phase(1, 1e-3, accumulate=setup.accumulate)
    optimizer = optim.make_optimizer(phase, optim.make_schedule(phase, 1000))
    normalize = data.Preprocessing(setup.pixels).normalize
    return model, optimizer, train.make_train_step(model, optimizer, normalize=normalize)


def _shapes(setup: Setup, chips: int, model: Any, optimizer: Any) -> tuple[train.TrainState, dict[str, Any]]:
    """The state and the batch as shapes."""
    size, rows = setup.pixels, setup.batch_size * chips
    variables, _ = models.shapes(model, (size, size, 3))
    state = jax.eval_shape(partial(train.init_state, optimizer=optimizer, key=jax.random.key(0)), variables)
    return state, {
        "image": jax.ShapeDtypeStruct((rows, size, size, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct((rows,), jnp.int32),
        "weight": jax.ShapeDtypeStruct((rows,), jnp.float32),
    }


def compile_step(setup: Setup, devices: Sequence[jax.Device], full: bool = True) -> jax.stages.Compiled:
    """The train step, compiled for these devices, which need not be there.

    Args:
      full: with all of the compiler's effort, as training does.

    Raises:
      DoesNotFit: the devices have too little memory.
      InputError: the network has no such option.
    """
    mesh = parallel.make_mesh(devices)
    model, optimizer, step = _training(setup, len(devices))
    state, batch = _shapes(setup, len(devices), model, optimizer)

    def placed(tree: Any, spec: PartitionSpec) -> Any:
        sharding = NamedSharding(mesh, spec)
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), tree)

    operands = placed(state, PartitionSpec()), placed(batch, PartitionSpec(parallel.AXIS))
    # The operations are those of the platform of these devices.
    with jax.default_device(devices[0]), _memory_errors(), _cached(devices[0] in jax.devices()):
        lowered = jax.jit(step, donate_argnums=0).lower(*operands)
        return lowered.compile(compiler_options=None if full else QUICK)


@contextmanager
def _cached(here: bool) -> Iterator[None]:
    """JAX keeps what it compiles for devices that are here; of others it could not read it again."""
    name = "jax_persistent_cache_min_compile_time_secs"
    least = jax.config.values[name]
    jax.config.update(name, least if here else math.inf)
    try:
        yield
    finally:
        jax.config.update(name, least)


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        sizes = [float(size) * GIB for size in re.findall(r"\b([\d.]+)G\b", str(error))]
        if "RESOURCE_EXHAUSTED" not in str(error) or len(sizes) < 2:
            raise
        raise DoesNotFit(*sizes[:2]) from None


# ---- reading a program


@dataclass(frozen=True)
class Collective:
    """One operation in which chips send to one another."""

    kind: str
    """all-reduce, all-gather, reduce-scatter, …"""
    chips: int
    """In a group."""
    arrays: int
    bytes: int
    """Of all of them, whole: what is gathered, or what is reduced before it is scattered."""


@dataclass(frozen=True)
class Program:
    """What each chip does in a step."""

    flops: float
    bytes_moved: float
    """To and from the chip's main memory."""
    memory: float
    """Bytes that are in use at once: state, batch, what is computed, and the program."""
    collectives: tuple[Collective, ...]


def program(compiled: jax.stages.Compiled, chips: int) -> Program:
    """What a compiled step says of itself.

    FLOPs are XLA's count, in which a loop counts once. On a TPU the step has none; on a CPU, gradients of depthwise
    convolutions are loops.
    """
    text = compiled.as_text() or ""
    cost: dict[str, float] = compiled.cost_analysis() or {}
    sizes: Any = compiled.memory_analysis()
    memory = sizes.argument_size_in_bytes + sizes.output_size_in_bytes - sizes.alias_size_in_bytes
    memory += sizes.temp_size_in_bytes + sizes.generated_code_size_in_bytes
    return Program(cost.get("flops", 0.0), traffic(text), memory, collectives(text, chips))


class _Instruction(NamedTuple):
    computation: str
    type: str
    op: str
    operands: tuple[str, ...]
    rest: str


def _instructions(text: str) -> dict[str, _Instruction]:
    """The instructions of a program in XLA's text form, by name."""
    found, computation = {}, ""
    for line in text.splitlines():
        if opened := re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line):
            computation = opened[1]
        elif parts := re.match(r"\s+(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\((.*)$", line):
            name, type_, op, rest = parts.groups()
            operands = re.findall(r"%([\w.\-]+)", rest.partition("), ")[0])
            found[name] = _Instruction(computation, type_, op, tuple(operands), rest)
    return found


def _arrays(type_: str, main: bool = False) -> list[int]:
    """The bytes of each array of a type in XLA's text form; or only of those in main memory, as they lie there.

    A layout `{0,1:T(8,128)(2,1)S(1)}` has the axes from the innermost, the tile that the inner axes are padded to, and
    the memory where it is another: 1 is a TPU's vector memory.
    """
    sizes = []
    for kind, axes, layout in re.findall(r"\b([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?", type_):
        number = re.match(r"[a-z]+(\d+)", kind)  # f32, bf16, f8e4m3fn
        bits = 8 if kind == "pred" else int(number[1]) if number else 0
        shape = [int(axis) for axis in axes.split(",") if axis]
        if main and re.search(r"S\([1-9]\d*\)", layout):
            continue
        if main and (tiled := re.match(r"\{([\d,]+):T\(([\d,]+)\)", layout)):
            order, tile = (list(map(int, numbers.split(","))) for numbers in tiled.groups())
            for axis, size in zip(order, reversed(tile), strict=False):
                shape[axis] = -(-shape[axis] // size) * size
        sizes.append(math.prod(shape) * bits // 8)
    return sizes


KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")


def collectives(text: str, chips: int) -> tuple[Collective, ...]:
    """The collective operations of a program in XLA's text form, one of several chips."""
    found, instructions = [], _instructions(text)
    for each in instructions.values():
        kind = each.op.removesuffix("-done")
        if kind not in KINDS:
            continue
        started = instructions[each.operands[0]] if each.op.endswith("-done") else each
        group, arrays = _group(started.rest, chips), _arrays(each.type)
        whole = sum(arrays) * (group if kind == "reduce-scatter" else 1)
        if group > 1:
            found.append(Collective(kind, group, len(arrays), whole))
    return tuple(found)


def _group(attributes: str, chips: int) -> int:
    """How many chips are in a group of a collective.

    >>> _group("replica_groups={{0,1},{2,3}}", 4), _group("replica_groups=[2,4]<=[8]", 8), _group("", 8)
    (2, 4, 8)
    >>> _group("replica_groups=mesh['a'=4,'b'=2] {'a'}", 8), _group("replica_groups=mesh['a'=8] {'a':(4)2}", 8)
    (4, 2)
    """
    if "source_target_pairs" in attributes:
        return 2
    if listed := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return len(listed[1].split(","))
    if counted := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(counted[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        parts = re.findall(r"'([^']+)'(?::\(\d+\)(\d+))?", named[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return chips


# For these nothing moves, or what does is that of the computations inside.
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "partition-id"}
FREE |= {"conditional", "while"}


def traffic(text: str) -> int:
    """Bytes that a program in XLA's text form reads from and writes to main memory, if what a fused operation takes is
    read whole and once. Of a conditional, all branches count; a loop counts once."""
    instructions = _instructions(text)
    inside = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", text))
    total = 0
    for each in instructions.values():
        if each.computation in inside or each.op in FREE or each.op.endswith("-start"):
            continue
        names = each.operands
        if each.op.endswith("-done"):
            names = instructions[names[0]].operands
        operands = [instructions[name].type for name in names if name in instructions]
        if each.op in ("copy-done", "slice-done"):  # as much is read as is written
            total += sum(bool(_arrays(type_, main=True)) for type_ in (each.type, *operands)) * sum(_arrays(each.type))
        else:
            total += sum(sum(_arrays(type_, main=True)) for type_ in (each.type, *operands))
    return total


# ---- how long it takes


@dataclass(frozen=True)
class Times:
    """Of a step, in seconds: the least that each of three things takes."""

    compute: float
    memory: float
    communication: float

    @property
    def step(self) -> float:
        """Computing and moving overlap; sending, here, overlaps with neither."""
        return max(self.compute, self.memory) + self.communication


def roofline(program: Program, hardware: Hardware) -> Times:
    """The least time that a program takes at the peaks of its hardware."""
    sent = sum(communication(each, hardware) for each in program.collectives) if hardware.link else 0.0
    return Times(program.flops / hardware.flops, program.bytes_moved / hardware.bandwidth, sent)


def communication(collective: Collective, hardware: Hardware) -> float:
    """Seconds that a collective takes: what its bytes take on the links of all axes, or what its hops take if that is
    more.

    https://jax-ml.github.io/scaling-book/sharding. Along a ring both directions are used and the farthest chip is half
    way round; along a line it is at the other end. A group of a part of the chips counts as a line.
    """
    link = hardware.link or math.inf
    if collective.kind == "collective-permute":
        return HOP + collective.bytes / link
    shape = hardware.shape if collective.chips == hardware.chips else (collective.chips,)
    rings = [hardware.ring > 0 and axis % hardware.ring == 0 for axis in shape]
    if len(shape) == 3 and not all(rings):  # only whole cubes are closed
        rings = [False] * 3
    axes = [(axis, ring) for axis, ring in zip(shape, rings, strict=True) if axis > 1]
    hops = sum(axis // 2 if ring else axis - 1 for axis, ring in axes)
    width = sum(2 * link if ring else link for _, ring in axes)
    once = max(hops * HOP, collective.bytes / width)
    return once * {"all-reduce": 2, "all-to-all": 0.25}.get(collective.kind, 1)


def weak_scaling(program: Program, hardware: Hardware) -> dict[str, Times]:
    """The same program on slices of other sizes, from four chips to 256: every chip does the same, and what all of
    them send has another way to go."""
    kind = hardware.name.partition(":")[0]
    times = {}
    for name in ("2x2", "4x4", "8x8", "16x16") if len(hardware.shape) == 2 else ("2x2x1", "2x2x4", "4x4x4", "4x8x8"):
        other = topology(f"{kind}:{name}")
        moved = tuple(
            replace(each, chips=other.chips) if each.chips == hardware.chips else each for each in program.collectives
        )
        times[name] = roofline(replace(program, collectives=moved), other)
    return times


def epoch(examples: int, batch_size: int, chips: int, times: Times) -> tuple[float, float]:
    """Seconds and chip-hours of a pass over so many examples."""
    seconds = math.ceil(examples / (batch_size * chips)) * times.step
    return seconds, seconds * chips / 3600


def _ms(seconds: float) -> str:
    return f"{1e3 * seconds:,.2f} ms"


# ---- the whole


@dataclass(frozen=True)
class Report:
    """What is known of a training before it runs."""

    setup: Setup
    hardware: Hardware
    program: Program
    compile_seconds: float
    full: bool
    """Whether it was compiled as a training is."""
    largest_batch: int | None = None
    """That fits on a chip, where it was asked for."""
    measured: float | None = None
    """Seconds of a step, where the hardware is attached."""

    @property
    def times(self) -> Times:
        return roofline(self.program, self.hardware)

    @property
    def images_per_second(self) -> float:
        return self.setup.batch_size * self.hardware.chips / self.times.step

    def __str__(self) -> str:
        setup, hardware, times = self.setup, self.hardware, self.times
        places = {"global": "over all chips", "chip": "on each chip"}
        shared = places.get(str(setup.batch_norm), f"over {setup.batch_norm} chips")
        more = [f"batch normalisation {shared}"] * hasattr(setup.network(hardware.chips), "bn_groups")
        more += ["blocks computed again"] * setup.remat
        more += [f"{setup.accumulate} batches to an update"] * (setup.accumulate > 1)
        more += [f"compiled {'in full' if self.full else 'quickly'} in {self.compile_seconds:.0f} s"]
        what = f"{setup.pixels} × {setup.pixels}, {setup.dtype}, batch {setup.batch_size} on each chip"
        counts = Counter(each.kind for each in self.program.collectives)
        sent = sum(each.bytes for each in self.program.collectives)
        which = ", ".join(f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items()) or "no collective"
        room = f" of {hardware.memory / GIB:.2f}" if hardware.memory else ""
        fits = f"; {self.largest_batch} examples fit" if self.largest_batch else ""
        rows = [
            ("each chip, in a step", "", "at least" if hardware.link else "about"),
            ("computes", f"{self.program.flops / 1e9:,.1f} GFLOP", _ms(times.compute)),
            ("moves", f"{self.program.bytes_moved / 1e9:,.2f} GB", _ms(times.memory)),
        ]
        if hardware.chips > 1:
            rows += [("sends", f"{sent / 1e6:,.1f} MB, {which}", _ms(times.communication) if hardware.link else "?")]
        rows += [
            ("a step", f"{self.images_per_second:,.0f} images/s", _ms(times.step)),
            ("memory", f"{self.program.memory / GIB:.2f}{room} GiB{fits}", ""),
        ]
        if self.measured:
            rate = setup.batch_size * hardware.chips / self.measured
            share = f"{times.step / self.measured:.0%} of that"
            rows.append(("measured", f"{rate:,.1f} images/s, {share}", _ms(self.measured)))
        lines = [
            f"{setup.model}, {what}; {hardware.name}, {hardware.chips} chip{'s' * (hardware.chips > 1)}",
            ", ".join(more),
            "",
            trees.columns(rows, right=(2,)),
        ]
        if hardware.link and hardware.chips > 1:
            table = [("chips", "images/s", "efficiency", *(f"{name}, an epoch" for name in EPOCHS))]
            scaled = weak_scaling(self.program, hardware)
            first = next(iter(scaled.values()))
            for name, other in scaled.items():
                chips = topology(f"{hardware.name.partition(':')[0]}:{name}").chips
                costs = (epoch(count, setup.batch_size, chips, other) for count in EPOCHS.values())
                rate = setup.batch_size * chips / other.step
                said = (f"{seconds:,.1f} s, {hours:.2f} chip-hours" for seconds, hours in costs)
                table.append((str(chips), f"{rate:,.0f}", f"{first.step / other.step:.1%}", *said))
            lines += ["", "the same program on more chips", trees.columns(table, right=range(5))]
        if hardware.link:
            last = f"Times are the least that the published peaks allow{'' if self.measured else '; nothing was run'}."
        else:
            last = "Times are by the speed of a large matrix product and copy, measured here; caches are faster."
        return "\n".join([*lines, "", last])

    def plain(self) -> dict[str, Any]:
        """What is known of this program, as plain data."""
        times, counts = self.times, Counter(self.program.collectives)
        program = dataclasses.asdict(self.program)
        program["collectives"] = [dataclasses.asdict(each) | {"count": counts[each]} for each in counts]
        return {
            "setup": dataclasses.asdict(replace(self.setup, size=self.setup.pixels)),
            "hardware": dataclasses.asdict(self.hardware) | {"chips": self.hardware.chips},
            "program": program,
            "full": self.full,
            "compile_seconds": self.compile_seconds,
            "roofline": dataclasses.asdict(times) | {"step": times.step, "images_per_second": self.images_per_second},
            "largest_batch": self.largest_batch,
            "measured": self.measured,
        }


def make(
    setup: Setup,
    hardware: Hardware | None = None,
    *,
    full: bool = False,
    largest: bool = False,
    tell: Callable[[str], None] = lambda text: None,
) -> Report:
    """Compile a training for hardware that is not there, or for the devices that are, and run it on these.

    Args:
      hardware: of `topology`; None for the attached devices, for which it is always compiled in full.
      full: as a training compiles, which takes minutes.
      largest: find the largest batch that fits; it takes one compilation more, or a few.
      tell: hears what takes time.

    Raises:
      InputError: the batch does not fit, and then the largest is named, unless it is this machine that it is too large
        for; the largest batch is asked for of this machine; or see `topology`, `absent_devices`, `compile_step`.
    """
    if largest and hardware is None:
        raise InputError("the largest batch that fits is found for TPUs by their name; give a topology")
    _training(setup, jax.device_count() if hardware is None else hardware.chips)  # what is wrong is said at once
    if hardware is None:
        devices: Sequence[jax.Device] = jax.devices()
        hardware, full = attached(devices, setup.dtype), True
        measured = True
    else:
        devices, measured = absent_devices(hardware), False

    def compiled(batch_size: int) -> tuple[jax.stages.Compiled, Program]:
        tell(f"compiling {setup.model} for {hardware.name}, batch {batch_size} on each chip …")
        step = compile_step(replace(setup, batch_size=batch_size), devices, full)
        return step, program(step, hardware.chips)

    started = time.perf_counter()
    try:
        step, found = compiled(setup.batch_size)
    except DoesNotFit as error:
        best = _largest(setup, hardware, lambda size: compiled(size)[1].memory, error.needed, fits=False)
        room = f"the largest batch that does is {best}" if best else "not even a batch of 8 does"
        remedy = "; --remat takes less memory" if setup.model in models.ARCHITECTURES and not setup.remat else ""
        what = f"{setup.model} with a batch of {setup.batch_size} on each chip"
        raise InputError(f"{what} does not fit {hardware.name}: {error}; {room}{remedy}") from None
    seconds = time.perf_counter() - started
    report = Report(setup, hardware, found, seconds, full)
    if largest:
        best = _largest(setup, hardware, lambda size: compiled(size)[1].memory, found.memory, fits=True)
        report = replace(report, largest_batch=best)
    if measured:
        tell("running …")
        try:
            report = replace(report, measured=measure(setup, step, devices))
        except (MemoryError, jax.errors.JaxRuntimeError) as error:  # of the host; of a device
            if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise InputError(f"a batch of {setup.batch_size} does not fit into the memory of this machine") from None
    return report


def _largest(
    setup: Setup, hardware: Hardware, memory: Callable[[int], float], needed: float, fits: bool, tries: int = 3
) -> int:
    """The largest batch that was seen to fit, a multiple of 8; 0 where none was. What is needed is taken to grow in a
    line with the batch: from the state alone to this batch at first, then through the last two that were compiled."""
    model, optimizer, _ = _training(setup, hardware.chips)
    state = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(_shapes(setup, 0, model, optimizer)))
    points = [(0.0, 1.3 * state), (float(setup.batch_size), needed)]  # with AdamW, gradients are a third of it
    best = setup.batch_size if fits else 0
    for n in range(tries):
        (b0, m0), (b1, m1) = points[-2:]
        if m0 == m1:
            break  # no line
        limit = b0 + ((hardware.memory or 0) - m0) * (b1 - b0) / (m1 - m0)
        guess = int(limit) // 8 * 8
        if not best:  # before it is said that nothing fits, 8 is tried
            guess = max(guess, 8) if n + 1 < tries else 8
        if guess <= 1.05 * best or guess in (size for size, _ in points):
            break  # not worth a compilation
        try:
            points.append((float(guess), memory(guess)))
            best = guess
        except DoesNotFit as error:
            points.append((float(guess), error.needed))
    return best


def measure(setup: Setup, step: jax.stages.Compiled, devices: Sequence[jax.Device], repeats: int = 5) -> float:
    """Seconds of a compiled step on attached devices, the median of several after one that does not count."""
    mesh = parallel.make_mesh(devices)
    model, optimizer, _ = _training(setup, len(devices))
    draw, values = np.random.default_rng(0), {"image": 256, "label": setup.classes, "weight": 2}
    _, like = _shapes(setup, len(devices), model, optimizer)
    batch = {name: draw.integers(0, values[name], leaf.shape).astype(leaf.dtype) for name, leaf in like.items()}
    variables = models.init(model, jax.random.key(0), batch["image"].shape[1:])
    state = parallel.place(mesh, train.init_state(variables, optimizer, jax.random.key(0)))
    batch = parallel.shard_batch(mesh, batch)
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        state, sums = step(state, batch)
        jax.block_until_ready(sums)
        taken.append(time.perf_counter() - started)
    return float(np.median(taken[1:]))
