"""3x3 convolution.

XLA's CPU backend does a convolution as a matrix product over the patches, and does it badly where the channels are
few: a product with ten columns keeps a fifth of the processor busy. So narrow convolutions are done here on blocks of
2x2 pixels, with four times as many columns, whose patches are 4x4 and not four times 3x3. Blocks are kept as phases:
one array for each of the four places in a block, channels first and the batch last, so that every copy moves whole
vectors, and pooling is a maximum of four arrays.

Gradients of convolutions, as JAX derives them, XLA's CPU backend only does well outside of loops: inside a scan it
takes five times as long for them. All convolutions here have gradients of their own, made of the operations that it
does well everywhere. GPU and TPU backends have native kernels and use them.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.ops.platform import platform


def conv_3x3(x: Array, kernel: Array, bias: Array) -> Array:
    """Convolve with zeros around the images ("SAME" padding), and add the bias.

    Args:
      x: images, `[B,H,W,I]`, floating point.
      kernel: `[3,3,I,O]`.
      bias: `[O]`.

    Returns:
      `[B,H,W,O]`, the dtype of `x`.
    """
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    if platform() != "cpu":
        return reference(x, kernel) + bias[None, None, None, :]
    if narrow(kernel.shape[3]):
        return joined(blocked(phases(x), kernel, bias), x.shape[1], x.shape[2])
    return direct(x, kernel) + bias[None, None, None, :]


def reference(x: Array, kernel: Array) -> Array:
    """XLA's convolution: fast on GPU and TPU, and what the others are tested against."""
    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def narrow(channels: int) -> bool:
    """Whether images of so many channels are best kept as phases on a CPU. Measured up to 32: a multiple of 16 fills
    the vectors as it is."""
    return channels < 32 and channels % 16 != 0


def phases(x: Array) -> Array:
    """Images `[B,H,W,C]` with their blocks of 2x2 pixels taken apart, `[2,2,C,⌈H/2⌉,⌈W/2⌉,B]`; an odd last row or
    column is completed with zeros.

    XLA drops this after `joined`, and what is elementwise in between it does on the phases.
    """
    b, h, w, c = x.shape
    x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)))
    return x.reshape(b, (h + 1) // 2, 2, (w + 1) // 2, 2, c).transpose(2, 4, 5, 1, 3, 0)


def joined(x: Array, h: int, w: int) -> Array:
    """The images of `phases`, `[B,h,w,C]`."""
    _, _, c, rows, columns, b = x.shape
    return x.transpose(5, 3, 0, 4, 1, 2).reshape(b, 2 * rows, 2 * columns, c)[:, :h, :w]


@jax.custom_vjp
def blocked(x: Array, kernel: Array, bias: Array) -> Array:
    """`reference` and the bias, from phases `[2,2,I,H,W,B]` to phases `[2,2,O,H,W,B]`."""
    return _blocked(x, kernel, bias)[0]


def _blocked(x: Array, kernel: Array, bias: Array) -> tuple[Array, tuple[Array, Array]]:
    y = _matrix(kernel) @ _patches(x)  # [4O,HWB]
    return y.reshape(2, 2, -1, *x.shape[3:]) + bias[None, None, :, None, None, None], (x, kernel)


def _blocked_backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array, Array]:
    x, kernel = residuals
    channels, filters = kernel.shape[2:]
    patches = _patches(dy)  # [16O,HWB]
    dx = (_transposed(kernel) @ patches).reshape(x.shape)
    # Each pixel is in one of the four middle places of some patch. A product with ones adds up; a `sum` would be
    # fused with what makes the patches, and make them again.
    sums = patches @ jnp.ones(patches.shape[1], dy.dtype)
    d_bias = sums.reshape(4, 4, filters)[1:3, 1:3].sum((0, 1))
    # The patches of either operand tell how it lies to the other; those with fewer rows make less work.
    if channels < filters:
        matrix, operands = _matrix, (_patches(x), dy.reshape(4 * filters, -1))  # [16I,HWB], [4O,HWB]
    else:
        matrix, operands = _transposed, (patches, x.reshape(4 * channels, -1))  # [16O,HWB], [4I,HWB]
    product = lax.dot_general(*operands, (((1,), (1,)), ((), ())))
    # Without the barrier XLA transposes the operands instead of the small result.
    _, pull = jax.vjp(matrix, kernel)
    (d_kernel,) = pull(lax.optimization_barrier(product).T)
    return dx, d_kernel, d_bias


blocked.defvjp(_blocked, _blocked_backward)


def _patches(x: Array) -> Array:
    """What each block sees, the 4x4 pixels with it in the middle: phases `[2,2,C,H,W,B]` to `[16C,HWB]`."""
    channels, h, w = x.shape[2:5]
    x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    # Pixel n of a patch, -1 to 2, is in phase n % 2 of block n // 2 from here. Columns, then rows: copied in one go,
    # the slices go to memory first.
    x = jnp.stack([x[:, n % 2, :, :, 1 + n // 2 : 1 + n // 2 + w] for n in range(-1, 3)])  # [4,2,C,H+2,W,B]
    x = jnp.stack([x[:, n % 2, :, 1 + n // 2 : 1 + n // 2 + h] for n in range(-1, 3)])  # [4,4,C,H,W,B]
    return x.reshape(16 * channels, -1)


def _matrix(kernel: Array) -> Array:
    """What takes the patches to the blocks, `[4O,16I]`: the filters `[3,3,I,O]` at each of the four places."""
    places = [jnp.pad(kernel, ((p, 1 - p), (q, 1 - q), (0, 0), (0, 0))) for p in range(2) for q in range(2)]
    return jnp.stack(places).transpose(0, 4, 1, 2, 3).reshape(4 * kernel.shape[3], -1)


def _transposed(kernel: Array) -> Array:
    """What takes the patches of the output's gradient to the input's, `[4I,16O]`."""
    return _matrix(turned(kernel))


def turned(kernel: Array) -> Array:
    """The filters of the transposed convolution: `[3,3,I,O]` to `[3,3,O,I]`."""
    return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)


@jax.custom_vjp
def direct(x: Array, kernel: Array) -> Array:
    """`reference`, with gradients that are ordinary convolutions."""
    return reference(x, kernel)


def _direct_backward(residuals: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = residuals
    # The channels are the batch, the batch the channels, and the filters as large as the images. Told so in dimension
    # numbers and not by transposes, XLA's CPU backend would not do well in a loop.
    images, filters = x.transpose(3, 1, 2, 0), dy.transpose(1, 2, 0, 3)  # [I,H,W,B], [H,W,B,O]
    dimensions = ("NHWC", "HWIO", "NHWC")
    d_kernel = lax.conv_general_dilated(images, filters, (1, 1), ((1, 1), (1, 1)), dimension_numbers=dimensions)
    return reference(dy, turned(kernel)), d_kernel.transpose(1, 2, 0, 3)  # [I,3,3,O] to [3,3,I,O]


direct.defvjp(lambda x, kernel: (reference(x, kernel), (x, kernel)), _direct_backward)
