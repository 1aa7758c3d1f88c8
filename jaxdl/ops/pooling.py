"""Max pooling."""

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.ops.convolution import narrow, phases
from jaxdl.ops.platform import platform


def max_pool_2x2(x: Array) -> Array:
    """The largest of every 2x2 square, `[B,H,W,C]` to `[B,H//2,W//2,C]`; an odd last row or column is dropped.

    A maximum of four arrays: about seven times faster than `lax.reduce_window` on CPU, forward and backward. Where
    values tie, the gradient is shared between them.
    """
    h, w = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    if platform() == "cpu" and narrow(x.shape[3]):
        return largest(phases(x[:, :h, :w])).transpose(3, 1, 2, 0)  # [B,H/2,W/2,C]
    rows = jnp.maximum(x[:, 0:h:2], x[:, 1:h:2])  # [B,H/2,W,C]
    return jnp.maximum(rows[:, :, 0:w:2], rows[:, :, 1:w:2])  # [B,H/2,W/2,C]


@jax.custom_vjp
def largest(x: Array) -> Array:
    """The maximum over the phases, `[2,2,…]` to `[…]`. JAX would make its gradient in four arrays and add them up."""
    return jnp.maximum(jnp.maximum(x[0, 0], x[0, 1]), jnp.maximum(x[1, 0], x[1, 1]))


def _backward(x: Array, dy: Array) -> tuple[Array]:
    is_largest = x == largest(x)[None, None]
    n = is_largest.astype(x.dtype)
    share = dy / (n[0, 0] + n[0, 1] + n[1, 0] + n[1, 1])
    return (jnp.where(is_largest, share[None, None], 0),)


largest.defvjp(lambda x: (largest(x), x), _backward)
