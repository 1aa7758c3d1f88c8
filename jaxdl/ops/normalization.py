"""Batch normalisation and the activation behind it, on a CPU as one operation with its own gradient.

Differentiated as it stands, the pair leaves the normalised input and the activation's inner values in memory for the
backward pass, each as large as the input; on a CPU, moving them costs more than computing them again.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.errors import InputError
from jaxdl.ops.platform import platform

Activation = Callable[[Array], Array]
Residuals = tuple[Array, Array, Array, Array, Array]


@jax.custom_jvp
def silu(x: Array) -> Array:
    """x times its sigmoid, as one division: `jax.nn.silu` writes the sigmoid to memory first."""
    return x / (1 + jnp.exp(-x))


@silu.defjvp
def _silu_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (t,) = primals, tangents
    s = jax.nn.sigmoid(x)
    return silu(x), t * (s + x * s * (1 - s))


def batch_norm(
    x: Array, scale: Array, bias: Array, epsilon: float, activation: Activation, groups: int = 1
) -> tuple[Array, Array, Array]:
    """`activation(scale * (x - mean) / sqrt(var + epsilon) + bias)` with the statistics of this batch, or of each of
    several equal parts of it.

    Args:
      x: `[B,...,C]`.
      scale, bias: `[C]`.
      activation: elementwise.
      groups: into how many parts of consecutive examples the batch is divided.

    Returns:
      The result, like `x`; the mean and the (biased) variance over all axes but the last, float32 `[C]`, which carry
      no gradient; of several groups, their averages.

    Raises:
      InputError: the batch cannot be divided so.
    """
    normalize = fused if platform() == "cpu" else reference
    if groups == 1:
        return normalize(x, scale, bias, epsilon, activation)
    if x.shape[0] % groups:
        raise InputError(f"a batch of {x.shape[0]} cannot be divided into {groups} groups for batch normalisation")
    parts = x.reshape(groups, -1, *x.shape[1:])  # [G,B/G,...,C]
    y, mean, var = jax.vmap(lambda part: normalize(part, scale, bias, epsilon, activation))(parts)
    return y.reshape(x.shape), mean.mean(0), var.mean(0)


def reference(
    x: Array, scale: Array, bias: Array, epsilon: float, activation: Activation
) -> tuple[Array, Array, Array]:
    """The pair as it stands: GPU and TPU backends do it well, and `fused` is tested against it."""
    mean, var = _statistics(x)
    axes = (None,) * (x.ndim - 1)
    y = (x - mean[axes]) * (jax.lax.rsqrt(var + epsilon) * scale)[axes] + bias[axes]
    return activation(y.astype(x.dtype)), *jax.lax.stop_gradient((mean, var))


def _statistics(x: Array) -> tuple[Array, Array]:
    """The mean and the variance over all axes but the last, float32 `[C]`."""
    rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    mean = rows.mean(0)
    return mean, jnp.maximum((rows * rows).mean(0) - mean * mean, 0)


@partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def fused(x: Array, scale: Array, bias: Array, epsilon: float, activation: Activation) -> tuple[Array, Array, Array]:
    """The same, leaving nothing but its operands and statistics for the backward pass."""
    return _forward(x, scale, bias, epsilon, activation)[0]


def _forward(
    x: Array, scale: Array, bias: Array, epsilon: float, activation: Activation
) -> tuple[tuple[Array, Array, Array], Residuals]:
    mean, var = _statistics(x)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = activation(_affine(x, scale * inverse, bias - mean * scale * inverse))
    return (y, mean, var), (x, scale, bias, mean, var)


def _affine(x: Array, scale: Array, bias: Array) -> Array:
    axes = (None,) * (x.ndim - 1)
    return (x.astype(jnp.float32) * scale[axes] + bias[axes]).astype(x.dtype)


def _backward(
    epsilon: float, activation: Activation, residuals: Residuals, gradients: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    # Without the barrier XLA finds the forward pass's activation in here and keeps its inner values for it.
    (x, scale, bias, mean, var), dy = jax.lax.optimization_barrier((residuals, gradients[0]))
    inverse = jax.lax.rsqrt(var + epsilon)
    n = x.size // x.shape[-1]
    _, pull = jax.vjp(activation, _affine(x, scale * inverse, bias - mean * scale * inverse))
    (du,) = pull(dy)
    rows, du_rows = x.reshape(-1, x.shape[-1]).astype(jnp.float32), du.reshape(-1, x.shape[-1]).astype(jnp.float32)
    d_bias = du_rows.sum(0)
    d_scale = ((du_rows * rows).sum(0) - mean * d_bias) * inverse  # [C]
    # dx = scale/σ (du - mean(du) - x̂ mean(du x̂)), as one product and one sum of x.
    a = scale * inverse
    b = -a * inverse * d_scale / n
    c = -a * d_bias / n - b * mean
    axes = (None,) * (x.ndim - 1)
    dx = (du.astype(jnp.float32) * a[axes] + x.astype(jnp.float32) * b[axes] + c[axes]).astype(x.dtype)
    return dx, d_scale.astype(scale.dtype), d_bias.astype(bias.dtype)


fused.defvjp(_forward, _backward)
