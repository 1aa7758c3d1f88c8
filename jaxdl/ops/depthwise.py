"""Depthwise convolution.

XLA's CPU backend has no fast path for ``feature_group_count == channels``; there, a depthwise convolution is written
as a sum of k*k shifted multiplies, which XLA fuses into one vectorised loop over the channels, with its gradients
written out in the same form. GPU and TPU backends have native kernels and use them.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

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
    pads = _pads(x.shape, kernel.shape, stride, padding)
    if jax.default_backend() == "cpu":
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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def shifted(x: Array, kernel: Array, stride: int, pads: Pads) -> Array:
    """The sum of k*k shifted multiplies; same result as `reference`."""
    k = kernel.shape[0]
    out_h, out_w = _outputs(x.shape, k, stride, pads)
    padded = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    taps = kernel[:, :, None, None]  # [k,k,1,1,1,C]
    y = jnp.zeros((), x.dtype)
    for i in range(k):
        for j in range(k):
            y = y + _window(padded, i, j, out_h, out_w, stride) * taps[i, j]
    return y


def _shifted_fwd(x: Array, kernel: Array, stride: int, pads: Pads) -> tuple[Array, tuple[Array, Array]]:
    return shifted(x, kernel, stride, pads), (x, kernel)


def _shifted_bwd(stride: int, pads: Pads, residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    return _input_gradient(x.shape, kernel, stride, pads, dy), _kernel_gradient(x, kernel, stride, pads, dy)


def _input_gradient(shape: tuple[int, ...], kernel: Array, stride: int, pads: Pads, dy: Array) -> Array:
    """Scatter dy through the filter. Pixels with the same remainder modulo the stride see the same taps, so each such
    phase is a stride-1 sum of shifted multiplies over dy; the phases are interleaved at the end."""
    b, h, w, c = shape
    k = kernel.shape[0]
    out_h, out_w = _outputs(shape, k, stride, pads)
    top, left = pads[0][0], pads[1][0]
    rows, cols = -(-(h + top) // stride), -(-(w + left) // stride)  # per phase, over the padded image
    reach = (k - 1) // stride
    dy = jnp.pad(dy, ((0, 0), (reach, max(rows - out_h, 0)), (reach, max(cols - out_w, 0)), (0, 0)))
    taps = kernel[:, :, None, None]  # [k,k,1,1,1,C]
    phases = []
    for p in range(stride):
        for q in range(stride):
            total = jnp.zeros((b, rows, cols, c), dy.dtype)
            for i in range(p, k, stride):
                for j in range(q, k, stride):
                    # Padded pixel p + stride*r gets dy[r - i//stride] through tap i.
                    total = total + _window(dy, reach - i // stride, reach - j // stride, rows, cols, 1) * taps[i, j]
            phases.append(total)
    dx = jnp.stack(phases, axis=-2).reshape(b, rows, cols, stride, stride, c)
    dx = dx.transpose(0, 1, 3, 2, 4, 5).reshape(b, rows * stride, cols * stride, c)
    return lax.slice(dx, (0, top, left, 0), (b, top + h, left + w, c))


def _kernel_gradient(x: Array, kernel: Array, stride: int, pads: Pads, dy: Array) -> Array:
    """Correlate x with dy. Bands of rows are added with written-out additions, which stay vectorised over the channels,
    and a product with a row of ones adds up what is left: a `sum` there would be fused with the products above it into
    one scalar loop, ten times slower on CPU."""
    k, c = kernel.shape[0], x.shape[3]
    out_h, out_w = _outputs(x.shape, k, stride, pads)
    band = -(-out_h // MAX_BANDS)  # rows in a band
    bands = -(-out_h // band)
    extra = bands * band - out_h  # rows of zeros that fill the last band
    (top, bottom), sides = pads
    padded = jnp.pad(x, ((0, 0), (top, bottom + extra * stride), sides, (0, 0)))
    dy = jnp.pad(dy, ((0, 0), (0, extra), (0, 0), (0, 0)))
    sums = []
    for i in range(k):
        for j in range(k):
            window = _window(padded, i, j, bands * band, out_w, stride)
            total = jnp.zeros((), jnp.float32)
            for r in range(0, bands * band, band):
                total = total + (window[:, r : r + band] * dy[:, r : r + band]).astype(jnp.float32)  # [B,band,W,C]
            total = total.reshape(-1, c)
            sums.append(jnp.ones(len(total)) @ total)  # [C]
    return jnp.stack(sums).reshape(k, k, 1, c).astype(kernel.dtype)


shifted.defvjp(_shifted_fwd, _shifted_bwd)
