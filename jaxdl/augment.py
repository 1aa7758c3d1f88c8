"""Image augmentation on the device: pure functions `(key, images) -> images`, part of the jitted step.

All geometry is one affine warp, so that each pixel is interpolated once, however many changes are asked for.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.errors import InputError

Augmentation = Callable[[Array, Array], Array]
"""`(key, images [B,H,W,C]) -> images [B,H,W,C]`, float32 on the scale of the input."""


@dataclass(frozen=True)
class Affine:
    """Random mirroring, rotation, zoom and shift, drawn for each image, as one bilinear warp.

    What comes in from beyond the border is the image's own reflection. With every strength at zero, the identity.
    """

    flip: bool = False
    """Mirror half of the images left to right."""
    rotate: float = 0.0
    """Largest rotation, in degrees either way."""
    zoom: float = 0.0
    """Largest zoom, in or out; 0.3 is up to 1.3 times. Height and width change alike."""
    shift: float = 0.0
    """Largest shift in each direction, as a share of height and width."""

    def __post_init__(self) -> None:
        for name in ("rotate", "zoom", "shift"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{name} is a strength and cannot be negative, got {getattr(self, name)}")
        if self.shift >= 1:
            raise InputError(f"shift is a share of the image and must be under 1, got {self.shift}")

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]` to float32 `[B,H,W,C]`."""
        b, h, w, _ = images.shape
        mirror_key, angle_key, size_key, move_key = jax.random.split(key, 4)
        mirror = jnp.where(self.flip & jax.random.bernoulli(mirror_key, 0.5, (b,)), -1.0, 1.0)
        angle = math.radians(self.rotate) * jax.random.uniform(angle_key, (b,), minval=-1.0)
        size = jnp.exp(math.log1p(self.zoom) * jax.random.uniform(size_key, (b,), minval=-1.0))
        move = jnp.array([[h, w]]) * self.shift * jax.random.uniform(move_key, (b, 2), minval=-1.0)
        # Rows take (row, column) of an output pixel, from the image's middle, to where it is read.
        matrix = jnp.stack(
            [
                jnp.stack([jnp.cos(angle), mirror * jnp.sin(angle)], -1),
                jnp.stack([-jnp.sin(angle), mirror * jnp.cos(angle)], -1),
            ],
            1,
        )  # [B,2,2]
        return warp(images, matrix / size[:, None, None], move)


PHOTOS = Affine(flip=True, rotate=15, zoom=0.3, shift=0.1)
"""For photographs of things that may be seen from the left and the right."""


def warp(images: Array, matrix: Array, move: Array) -> Array:
    """Read every image through its own affine map, bilinearly, reflecting at the borders.

    Args:
      images: `[B,H,W,C]`, uint8 or float.
      matrix, move: `[B,2,2]` and `[B,2]`; output pixel p, counted from the middle, reads input pixel
        `matrix @ p + move`, counted from the middle too, in pixels (row, column).

    Returns:
      float32 `[B,H,W,C]`.
    """
    b, h, w, c = images.shape
    rows = jnp.arange(h) - (h - 1) / 2
    columns = jnp.arange(w) - (w - 1) / 2
    middle = jnp.array([(h - 1) / 2, (w - 1) / 2])
    grid = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"))  # [2,H,W]
    source = jnp.einsum("bij,jhw->bihw", matrix, grid, precision="highest") + (move + middle[None])[:, :, None, None]
    low = jnp.floor(source)
    fraction = source - low  # [B,2,H,W]
    low = low.astype(jnp.int32)
    flat = images.reshape(b, h * w, c)

    def read(row: Array, column: Array) -> Array:
        index = _reflect(row, h) * w + _reflect(column, w)  # [B,H,W]
        pixels = jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(flat, index)
        return pixels.astype(jnp.float32)  # [B,H,W,C]

    down, right = fraction[:, 0, :, :, None], fraction[:, 1, :, :, None]
    row, column = low[:, 0], low[:, 1]
    top = read(row, column) * (1 - right) + read(row, column + 1) * right
    bottom = read(row + 1, column) * (1 - right) + read(row + 1, column + 1) * right
    return top * (1 - down) + bottom * down


def _reflect(index: Array, size: int) -> Array:
    """Fold any index into 0 to size-1, the border pixel counted twice: … 1 0 | 0 1 2 … n-1 | n-1 n-2 …"""
    folded = index % (2 * size)
    return jnp.minimum(folded, 2 * size - 1 - folded)
