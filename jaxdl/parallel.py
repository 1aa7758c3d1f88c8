"""Devices and processes: the settings they run best with, meshes, sharding, pmap, and what processes agree on.

The data-parallel path is `jit` over a mesh: the state is replicated, or divided too (`fsdp`), the batch is sharded, XLA
puts the sums between devices, and the same step runs on one device or on many. The devices may belong to several
processes, each of which runs the same program (`start`).
"""

import contextlib
import ctypes
import json
import os
import re
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxdl.errors import InputError

AXIS = "data"
LARGE = 1 << 12  # elements from which on `fsdp` divides an array; a smaller one is not worth gathering in every step

HEARTBEAT = 60  # seconds without a sign of life from a process after which the others end
GOODBYE = 20  # seconds that a process which ends waits for the others to end, too
GONE = 75  # exit status where another process is gone: EX_TEMPFAIL of sysexits.h, try again later
LOST = re.compile(r"\b(gloo|nccl|heartbeat|barrier)\b|coordination", re.IGNORECASE)  # in errors where another is gone
FAREWELL = (
    "jaxdl: another process of this training has ended or cannot be reached; start all of them again with --resume, "
    "or fit(…, resume=…), to go on from the last checkpoint\n"
)

# Parameters of glibc's `mallopt`, https://sourceware.org/git/?p=glibc.git;a=blob;f=malloc/malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8

Step = Callable[[Any, Any], tuple[Any, Any]]
"""`(state, batch) -> (state, sums)`"""


def configure() -> None:
    """Settings for this process that make training start and run faster; call it before anything is computed.

    The command line, the experiments and the benchmarks do. Whatever JAX's own variables set is left as it is.

    - Compiled programs are kept, in `~/.cache/jaxdl/xla`: compiling an EfficientNet takes longer than training it for
      an epoch on a few photographs.
    - On a Linux CPU, memory that a step frees is kept for the next step. The C library would hand it back to the
      kernel, and get it again page by page, cleared: up to a third of a training step's time. For this, JAX computes
      in the calling thread.
    """
    if not jax.config.values["jax_compilation_cache_dir"]:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "jaxdl" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    library: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(library, "mallopt"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)  # never; a step may free more than an int can say
        library.mallopt(M_ARENA_MAX, 1)  # the heaps of other threads are too small for a step's memory
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def start(coordinator: str | None = None, processes: int | None = None, index: int | None = None) -> None:
    """Join the other processes of a training; call it before anything is computed, in each of them.

    From here on `jax.devices()` are those of all, and what is computed over a mesh of them all processes have to
    compute. A process whose peers are gone ends with one line and the status 75, at once or after a minute.

    Args:
      coordinator: HOST:PORT where process 0 listens.
      processes: how many there are.
      index: which of them this is, from 0. None of the three where Slurm, Open MPI, Kubernetes or a TPU pod has started
        the processes: JAX finds out then.

    Raises:
      InputError: the three are not known, or the others do not come.
    """
    by_hand = {"coordinator": coordinator, "number of processes": processes, "number of this process": index}
    if missing := [name for name, value in by_hand.items() if value is None]:
        if len(missing) < len(by_hand):
            raise InputError(f"to find each other by hand, processes need the {' and the '.join(missing)} too")
    elif not re.fullmatch(r".+:\d+", coordinator or ""):
        raise InputError(f"the coordinator is HOST:PORT, where process 0 listens; got {coordinator!r}")
    elif not 0 <= (index or 0) < (processes or 0):
        raise InputError(f"of {processes} processes this is one from 0 to {(processes or 0) - 1}; got {index}")
    if not missing:
        print(f"process {index} waits for all {processes} at {coordinator}", file=sys.stderr, flush=True)
    # It would keep SIGTERM from `fit`, and from the process before and after that.
    jax.config.update("jax_enable_preemption_service", False)
    _on_abort()
    waits: Any = {"heartbeat_timeout_seconds": HEARTBEAT, "shutdown_timeout_seconds": GOODBYE}
    try:
        jax.distributed.initialize(coordinator, processes, index, **waits)
    except (ValueError, TypeError, LookupError, RuntimeError) as error:
        if missing:
            raise InputError(
                "no Slurm, Open MPI, Kubernetes or TPU pod seems to have started this process; one process uses all "
                "devices of its machine without --distributed, and by hand each of several is given the coordinator, "
                "their number and its own"
            ) from None
        raise InputError(f"the processes do not find each other ({str(error).splitlines()[0]:.200})") from None


_kept: list[Any] = []  # what C calls


def _on_abort() -> None:
    """JAX's runtime ends a process whose peers are gone by `abort()`, which Python cannot hear of: C calls this."""

    def leave(number: int) -> None:
        if not _statuses:
            os.write(2, FAREWELL.encode())
        os._exit(_statuses[0] if _statuses else GONE)

    if sys.platform != "win32":
        _kept.append(ctypes.CFUNCTYPE(None, ctypes.c_int)(leave))
        ctypes.CDLL(None).signal(signal.SIGABRT, _kept[-1])


_statuses: list[int] = []  # with which this process is about to end


def end(error: BaseException) -> None:
    """End a process because of an error, where it is one of several; else return. It does not wait for the others if
    they are gone, nor longer than `GOODBYE` if they do not end as well, and so they need not wait for it."""
    if not jax.distributed.is_initialized() or (isinstance(error, SystemExit) and not error.code):
        return
    sys.stdout.flush()
    if not isinstance(error, SystemExit) and LOST.search(str(error)):
        os.write(2, f"{type(error).__name__}: {str(error).strip():.300}\n{FAREWELL}".encode())
        os._exit(GONE)
    if not isinstance(error, SystemExit):
        traceback.print_exception(error)
    code = getattr(error, "code", None)
    _statuses.append(code if isinstance(code, int) else 1)
    sys.stderr.flush()
    with contextlib.suppress(RuntimeError):
        jax.distributed.shutdown()
    os._exit(_statuses[0])


def several() -> bool:
    """Whether this is one of several processes."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes files and speaks: the only one, or number 0."""
    return jax.process_index() == 0


def most(number: int) -> int:
    """The largest of the processes' numbers, in all of them."""
    return int(np.max(multihost_utils.process_allgather(np.int32(number)))) if several() else number


def first_says(ask: Callable[[], Any]) -> Any:
    """What `ask` returns in process 0, plain data, in all processes; an InputError of it is raised in all."""
    if not several():
        return ask()
    answer: Any = None
    if first():
        try:
            answer = [ask(), None]
        except InputError as error:
            answer = [None, str(error)]
    text = json.dumps(answer).encode()
    # Few lengths, as each is a program.
    length = int(multihost_utils.broadcast_one_to_all(np.int32(-(-len(text) // 1024) * 1024)))
    sent = multihost_utils.broadcast_one_to_all(np.frombuffer(text.ljust(length), np.uint8)[:length])
    said, problem = json.loads(sent.tobytes())
    if problem is not None:
        raise InputError(problem)
    return said


def in_turn(work: Callable[[], Any]) -> Any:
    """What `work` returns, in process 0 ahead of the others, who find the files that it made."""
    if not first():
        most(0)
    made = work()
    if first():
        most(0)
    return made


def divided(array: Any) -> bool:
    """Whether this process has only a part of an array."""
    return isinstance(array, jax.Array) and not array.is_fully_addressable and not array.is_fully_replicated


def fetch(array: Any) -> np.ndarray:
    """The whole array on the host, wherever its parts lie; all processes have to ask for it."""
    if divided(array):
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices (or these) in a row, under the axis name "data"; those of a process follow each other, as their rows
    of a batch do."""
    devices = sorted(jax.devices() if devices is None else devices, key=lambda device: device.process_index)
    # Linen's modules do not name the axes of their arrays, so XLA is left to find them.
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def shardings(mesh: Mesh, tree: Any, fsdp: bool = False) -> Any:
    """How the arrays of a tree lie on a mesh, as a tree: a copy of each on every device. With `fsdp`, those of `LARGE`
    and more elements are divided, along the longest of the axes that the number of devices divides."""

    def lies(leaf: Any) -> NamedSharding:
        axes = [n for n, size in enumerate(leaf.shape) if size % mesh.size == 0]
        if not fsdp or leaf.size < LARGE or not axes:
            return NamedSharding(mesh, PartitionSpec())
        longest = max(axes, key=lambda n: leaf.shape[n])
        return NamedSharding(mesh, PartitionSpec(*[None] * longest, AXIS))

    return jax.tree.map(lies, tree)


def place(mesh: Mesh, tree: Any, fsdp: bool = False) -> Any:
    """The arrays of a tree on a mesh, in their `shardings`; every process gives the whole arrays. They may share memory
    with the originals: do not donate both."""
    layout = shardings(mesh, tree, fsdp)
    return jax.tree.map(_put, tree, layout) if several() else jax.device_put(tree, layout)


def _put(array: Any, sharding: NamedSharding) -> jax.Array:
    """As `jax.device_put`, which would compare the processes' arrays first, over the network."""
    if jnp.issubdtype(array.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(array), sharding), impl=jax.random.key_impl(array))
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return jax.device_put(array, sharding)
    return jax.make_array_from_callback(array.shape, sharding, np.asarray(array).__getitem__)


def on(mesh: Mesh | None, variables: Any) -> Any:
    """Variables on the default device, or on every device of a mesh; those that are on it already stay as they lie."""
    if mesh is None:
        return jax.device_put(variables)
    lie = [leaf.sharding if isinstance(leaf, jax.Array) else None for leaf in jax.tree.leaves(variables)]
    there = all(isinstance(sharding, NamedSharding) and sharding.mesh == mesh for sharding in lie)
    return variables if there else place(mesh, variables)


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """The batch with its first axis divided over the mesh. Where several processes share the mesh, each gives its part
    of the batch; `data.batches(…, **division(mesh))` makes it."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    if not several():
        return jax.device_put(batch, sharding)  # in half the time
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def division(mesh: Mesh | None) -> dict[str, Any]:
    """The options of `data.batches` for a mesh: rows for every device, and this process's part of them."""
    if mesh is None:
        return {}
    return {"multiple": mesh.size, "shard": (jax.process_index(), jax.process_count())}


def undivided(mesh: Mesh | None, step: Callable[..., Any], rows: int) -> Callable[..., Any]:
    """The step on the first rows of its batch: those that it has on one device.

    Rows behind them only make the batch one that the mesh divides. A step cannot be given fewer, but inside of the
    program XLA divides any number, so that statistics of the batch do not see what was added.
    """
    if mesh is None or rows % mesh.size == 0:
        return step
    return lambda state, batch, *more: step(state, jax.tree.map(lambda leaf: leaf[:rows], batch), *more)


def whole(mesh: Mesh | None) -> NamedSharding | None:
    """Where a program leaves what the host reads: on every device of the mesh. For `jax.jit(…, out_shardings=…)`."""
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def columns(mesh: Mesh | None, array: np.ndarray) -> Any:
    """An array `[steps,B]`, which every process has whole, with B divided over the mesh."""
    return array if mesh is None else _put(array, NamedSharding(mesh, PartitionSpec(None, AXIS)))


def feed(mesh: Mesh | None, batches: Iterable[Any]) -> Iterator[Any]:
    """Batches on the device; each is on its way before the step on the one ahead of it starts. On a CPU there is no way
    to go: a compiled step takes NumPy's arrays faster than any function puts them."""
    waiting = deque[Any]()
    put = (lambda batch: batch) if jax.default_backend() == "cpu" else jax.device_put
    for batch in batches:
        waiting.append(put(batch) if mesh is None else shard_batch(mesh, batch))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def pmap_step(step: Step, devices: Sequence[jax.Device]) -> Step:
    """The step under `jax.pmap`, with whole batches in and whole sums out.

    JAX keeps pmap in maintenance mode since 0.8; `jit` over a mesh does the same and is the path that grows. This one
    is for code that is built on pmap.

    Args:
      step: from `make_train_step(…, axis_name=parallel.AXIS)`.
      devices: to map over.

    Returns:
      The mapped step; the state is stacked (`stack`), the batch is `[B,…]` with B divisible by the number of devices,
      the sums are those of the whole batch.
    """
    mapped = jax.pmap(step, axis_name=AXIS, devices=list(devices))

    def run(state: Any, batch: Any) -> tuple[Any, Any]:
        parts = jax.tree.map(lambda leaf: leaf.reshape(len(devices), -1, *leaf.shape[1:]), batch)  # [D,B/D,…]
        state, sums = mapped(state, parts)
        return state, unstack(sums)

    return run


def stack(tree: Any, count: int) -> Any:
    """The tree with a new first axis of that many equal entries, as pmap wants its state."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (count, *leaf.shape)), tree)


def unstack(tree: Any) -> Any:
    """The inverse of `stack`."""
    return jax.tree.map(lambda leaf: leaf[0], tree)
