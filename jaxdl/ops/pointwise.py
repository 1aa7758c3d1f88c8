"""1x1 convolution."""

import jax
import jax.numpy as jnp
from jax import Array, lax


@jax.custom_vjp
def pointwise(x: Array, kernel: Array) -> Array:
    """A matrix product over the channels, `[B,H,W,I]` and `[I,O]` to `[B,H,W,O]`."""
    return lax.dot_general(x, kernel, (((x.ndim - 1,), (0,)), ((), ())))


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return pointwise(x, kernel), (x, kernel)


def _backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    dx = lax.dot_general(dy, kernel, (((dy.ndim - 1,), (1,)), ((), ())))
    rows, dy_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])
    dw = lax.dot_general(
        rows, lax.optimization_barrier(dy_rows), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return dx, dw.astype(kernel.dtype)


pointwise.defvjp(_forward, _backward)
