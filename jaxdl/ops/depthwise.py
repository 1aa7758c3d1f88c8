"""Depthwise convolution.

XLA's CPU backend has no fast path for ``feature_group_count == channels``; there, a depthwise convolution is written
as a sum of k*k shifted multiplies, which XLA fuses into one vectorised loop over the channels, with its gradients
written out in the same form. GPU and TPU backends have native kernels and use them.
"""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.ops.platform import platform

MAX_BANDS = 8  # measured on CPU: 4 to 8 are alike, 16 and more are up to ten times slower when the stride is 2


Padding = str | Sequence[tuple[int, int]]
Pads = tuple[tuple[int, int], ...]


def depthwise_conv(x: Array, kernel: Array, stride: int = 1, padding: Padding = "SAME") -> Array:
    """Convolve every channel with its own filter.

    Args:
      x: images, `[B,H,W,C]`, floating point.
      kernel: one filter per channel, `[k,k,1,C]` (Flax's layout for grouped convolutions).
      stride: step between outputs, in both directions.
      padding: "SAME" (TensorFlow's), "VALID", or the rows above and below and the columns left and right,
        `((1, 1), (1, 1))`.

    Returns:
      `[B,H',W',C]`, the dtype of `x`; with "SAME" padding H' is ceil(H/stride).
    """
    pads, kernel = _pads(x.shape, kernel.shape, stride, padding), kernel.astype(x.dtype)
    if platform() == "cpu":
        return shifted(x, kernel, stride, pads)
    return reference(x, kernel, stride, pads)


def reference(x: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """XLA's grouped convolution: fast on GPU and TPU, and what `shifted` is tested against."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _pads(shape: Sequence[int], kernel: Sequence[int], stride: int, padding: Padding) -> Pads:
    """The padding as numbers."""
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(shape[1:3], kernel[:2], (stride, stride), padding)
    return tuple((int(before), int(after)) for before, after in padding)


def _outputs(shape: Sequence[int], k: int, stride: int, pads: Pads) -> tuple[int, int]:
    """Height and width of the result."""
    h, w = ((size + sum(pad) - k) // stride + 1 for size, pad in zip(shape[1:3], pads, strict=True))
    return h, w


def _window(x: Array, i: int, j: int, out_h: int, out_w: int, stride: int) -> Array:
    """The pixels that tap (i, j) of the filter sees, one per output: `[B,out_h,out_w,C]`."""
    return lax.slice(
        x,
        (0, i, j, 0),
        (x.shape[0], i + (out_h - 1) * stride + 1, j + (out_w - 1) * stride + 1, x.shape[3]),
        (1, stride, stride, 1),
    )


def _times(window: Array, kernel: Array, i: int, j: int) -> Array:
    """The window times tap (i, j). Thousands of these make up a network: `lax` traces them faster than operators."""
    tap = lax.slice(kernel, (i, j, 0, 0), (i + 1, j + 1, 1, kernel.shape[3]))  # [1,1,1,C]
    return lax.mul(window, lax.broadcast_in_dim(tap, window.shape, (0, 1, 2, 3)))


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """The sum of k*k shifted multiplies; same result as `reference`."""
    return _forward(x, kernel, stride, pads)[0]


def _forward(x: Array, kernel: Array, stride: int, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    k = kernel.shape[0]
    out_h, out_w = _outputs(x.shape, k, stride, pads)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    y = jnp.zeros((x.shape[0], out_h, out_w, x.shape[3]), x.dtype)
    for i in range(k):
        for j in range(k):
            y = lax.add(y, _times(_window(padded, i, j, out_h, out_w, stride), kernel, i, j))
    return y, (padded, kernel)


def _backward(stride: int, pads: Pads, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    padded, kernel = residuals
    h, w = (n - sum(pad) for n, pad in zip(padded.shape[1:3], pads, strict=True))
    dx = _apart(lambda dy, kernel: _input_gradient((h, w), kernel, stride, pads, dy), dy, kernel)
    return dx, _kernel_gradient(padded, kernel, stride, dy)


def _apart(compute: Callable[[Array, Array], Array], dy: Array, kernel: Array) -> Array:
    """`compute(dy, kernel)`, with dy read from memory.

    XLA would fuse whatever makes dy into each of its k*k readers, and compute it as many times. Its CPU backend drops
    `lax.optimization_barrier` ahead of fusion, but does not fuse across a branch. This one is always taken, which XLA
    cannot know.
    """
    bits = lax.bitcast_convert_type(kernel[0, 0, 0, 0].astype(jnp.float32), jnp.int32)
    result = jax.eval_shape(compute, dy, kernel)
    return lax.cond((bits | 1) != 0, compute, lambda *_: jnp.zeros(result.shape, result.dtype), dy, kernel)


def _input_gradient(size: tuple[int, int], kernel: Array, stride: int, pads: Pads, dy: Array) -> Array:
    """Scatter dy through the filter. Pixels with the same remainder modulo the stride see the same taps, so each such
    phase is a stride-1 sum of shifted multiplies over dy; the phases are interleaved at the end."""
    k = kernel.shape[0]
    (rows, top, first_row, last_row), (cols, left, first_col, last_col) = (
        # Pixel p + stride*r gets dy[r + (p + before - i)/stride] through tap i, where that is a whole number.
        (-(-n // stride), before, -((k - 1 - before) // stride), (stride - 1 + before) // stride)
        for n, (before, _) in zip(size, pads, strict=True)
    )
    above, beside = max(0, -first_row), max(0, -first_col)
    below, behind = max(0, rows + last_row - dy.shape[1]), max(0, cols + last_col - dy.shape[2])
    dy = jnp.pad(dy, ((0, 0), (above, below), (beside, behind), (0, 0)))
    phases = []
    for p in range(stride):
        row = []
        for q in range(stride):
            total = jnp.zeros((dy.shape[0], rows, cols, dy.shape[3]), dy.dtype)
            for i in range((p + top) % stride, k, stride):
                for j in range((q + left) % stride, k, stride):
                    r, c = above + (p + top - i) // stride, beside + (q + left - j) // stride
                    total = lax.add(total, _times(_window(dy, r, c, rows, cols, 1), kernel, i, j))
            row.append(total)
        phases.append(jnp.concatenate(row, -1))  # [B,rows,cols,stride*C]
    dx = jnp.stack(phases, 2)  # [B,rows,stride,cols,stride*C]: already in the order of the pixels
    dx = dx.reshape(dy.shape[0], rows * stride, cols * stride, dy.shape[3])
    return dx[:, : size[0], : size[1]]


def _kernel_gradient(padded: Array, kernel: Array, stride: int, dy: Array) -> Array:
    """Correlate x with dy, tap by tap in a loop, which is compiled once.

    Bands of rows are added with written-out additions, which stay vectorised over the channels, and a product with a
    row of ones adds up what is left: a `sum` there would be fused with the products above it into one scalar loop, ten
    times slower on CPU.
    """
    k, (b, out_h, out_w, c) = kernel.shape[0], dy.shape
    band = -(-out_h // MAX_BANDS)  # rows in a band

    def tap(n: Array) -> Array:
        total = jnp.zeros((b, band, out_w, c), jnp.float32)
        for start in range(0, out_h, band):
            rows = min(band, out_h - start)  # the last band may be shorter
            seen = (b, (rows - 1) * stride + 1, (out_w - 1) * stride + 1, c)
            window = lax.dynamic_slice(padded, (0, n // k + start * stride, n % k, 0), seen)
            window = _window(window, 0, 0, rows, out_w, stride)  # [B,rows,W,C]
            product = lax.mul(window, lax.slice_in_dim(dy, start, start + rows, axis=1)).astype(jnp.float32)
            total = lax.add(total, jnp.pad(product, ((0, 0), (0, band - rows), (0, 0), (0, 0))))
        total = total.reshape(-1, c)
        return jnp.ones(len(total)) @ total  # [C]

    return lax.map(tap, jnp.arange(k * k)).reshape(k, k, 1, c).astype(kernel.dtype)


shifted.defvjp(_forward, _backward)
