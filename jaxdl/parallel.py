"""Devices: the settings they run best with, meshes, sharding, and pmap.

The data-parallel path is `jit` over a mesh: the state is replicated, the batch is sharded, XLA puts the sums between
devices, and the same step runs on one device or on many.
"""

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"

# Parameters of glibc's `mallopt`, https://sourceware.org/git/?p=glibc.git;a=blob;f=malloc/malloc.h
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


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
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
        library.mallopt(M_ARENA_MAX, 1)  # the heaps of other threads are too small for a step's memory
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices (or these) in a row, under the axis name "data"."""
    devices = jax.devices() if devices is None else devices
    # Linen's modules do not name the axes of their arrays, so XLA is left to find them.
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """A copy of every array on every device of the mesh. It may share memory with the original: do not donate both."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """The batch with its first axis divided over the mesh. Where several processes share the mesh, each gives its part
    of the batch; `data.batches(…, **division(mesh))` makes it."""
    sharding = NamedSharding(mesh, PartitionSpec(AXIS))
    if jax.process_count() == 1:
        return jax.device_put(batch, sharding)  # in half the time
    return jax.tree.map(lambda array: jax.make_array_from_process_local_data(sharding, array), batch)


def division(mesh: Mesh | None) -> dict[str, Any]:
    """The options of `data.batches` for a mesh: rows for every device, and this process's part of them."""
    if mesh is None:
        return {}
    return {"multiple": mesh.size, "shard": (jax.process_index(), jax.process_count())}


def feed(mesh: Mesh | None, batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    """Batches on the host and on the device; each is on its way before the step on the one ahead of it starts. On a CPU
    there is no way to go: a compiled step takes NumPy's arrays faster than any function puts them."""
    waiting = deque[tuple[Any, Any]]()
    put = (lambda batch: batch) if jax.default_backend() == "cpu" else jax.device_put
    for batch in batches:
        waiting.append((batch, put(batch) if mesh is None else shard_batch(mesh, batch)))
        if len(waiting) > 1:
            yield waiting.popleft()
    yield from waiting


def pmap_step(
    step: Callable[[Any, Any], tuple[Any, Any]], devices: Sequence[jax.Device]
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """The step under `jax.pmap`, with whole batches in and whole sums out.

    JAX keeps pmap in maintenance mode since 0.8; `jit` over a mesh does the same and is the path that grows. This one
    is for code that is built on pmap.

    Args:
      step: from `make_train_step(…, axis_name=parallel.AXIS)`.
      devices: to map over.

    Returns:
      `(state, batch) -> (state, sums)`; the state is stacked (`stack`), the batch is `[B,…]` with B divisible by the
      number of devices, the sums are those of the whole batch.
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
