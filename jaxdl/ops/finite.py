"""Whether arrays are numbers all through. XLA's reduction on a CPU takes one element at a time. A product of a matrix
and a vector takes as many as the processor does, and is no number wherever an element is none."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from jaxdl.ops.platform import platform


def all_finite(arrays: Sequence[Array]) -> Array:
    """Of each of some arrays of any shapes, whether all of it are finite numbers: bool `[P]`."""
    return reference(list(map(_means, arrays)) if platform() == "cpu" else arrays)


def reference(arrays: Sequence[Array]) -> Array:
    """The same as XLA does it."""
    return jnp.stack([jnp.isfinite(array).all() for array in arrays])


def _means(array: Array) -> Array:
    """Over all axes but the last, `[…,C]` to `[C]`, less than the means, so that large numbers do not add up to more
    than there are; a vector as it is."""
    if array.ndim < 2:
        return array
    rows = array.reshape(-1, array.shape[-1])  # [N,C]
    share = 0.5 ** (len(rows).bit_length() + 1)  # a power of two below 1 / 2N
    return jnp.full(len(rows), share, array.dtype) @ rows
