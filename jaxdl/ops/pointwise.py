"""1x1 convolution."""

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.ops.platform import platform


def pointwise(x: Array, kernel: Array) -> Array:
    """A 1x1 convolution: a matrix product over the channels, `[B,H,W,I]` and `[I,O]` to `[B,H,W,O]`, of `x`'s dtype."""
    kernel = kernel.astype(x.dtype)
    return _product(x, kernel) if platform() == "cpu" else x @ kernel


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    return x @ kernel


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return x @ kernel, (x, kernel)


def _backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    rows, d_rows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, dy.shape[-1])  # [N,I], [N,O]
    # Written as JAX would derive it, XLA's CPU backend turns dy around in memory first, which takes longer than the
    # product. The barrier keeps it from doing the same here.
    d_kernel = lax.dot_general(
        rows, lax.optimization_barrier(d_rows), (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
    )
    return dy @ kernel.T, d_kernel.astype(kernel.dtype)


_product.defvjp(_forward, _backward)
