"""Many devices: meshes, sharding, and pmap.

The data-parallel path is `jit` over a mesh: the state is replicated, the batch is sharded, XLA puts the sums between
devices, and the same step runs on one device or on many.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices (or these) in a row, under the axis name "data"."""
    devices = jax.devices() if devices is None else devices
    # Linen's modules do not name the axes of their arrays, so XLA is left to find them.
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicate(mesh: Mesh, tree: Any) -> Any:
    """A copy of every array on every device of the mesh. It may share memory with the original: do not donate both."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """The batch with its first axis divided over the mesh; `data.batches(multiple=mesh.size)` makes it divisible."""
    return jax.device_put(batch, NamedSharding(mesh, PartitionSpec(AXIS)))


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
