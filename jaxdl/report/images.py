"""Sheets of images."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxdl.errors import InputError
from jaxdl.report import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 6
DIMMED = 0.6  # of an image below a heat map
HOTTEST = 99.5  # percentile of a heat map that has the last colour, so that a few pixels do not darken all others


def sheet(images: Sequence[np.ndarray], titles: Sequence[str], colours: Sequence[str] | None = None) -> "Figure":
    """Images in rows of six, each under its title.

    Args:
      images: `[H,W]`, `[H,W,1]` or `[H,W,3]`, of any sizes, on the scale 0 to 255.
      colours: of the titles; None for black.

    Raises:
      InputError: there are none, not as many titles or colours, or one is no image.
    """
    colours = ["black"] * len(images) if colours is None else colours
    if not len(images) or not len(images) == len(titles) == len(colours):
        raise InputError(f"{len(images)} images need as many titles and colours; got {len(titles)} and {len(colours)}")
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = canvas.new(1.9 * columns, 2.3 * rows)
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, image, title, colour in zip(axes, images, titles, colours, strict=False):
        canvas.show(axis, image, title, colour)
    for axis in axes[len(images) :]:
        axis.axis("off")
    return figure


def heatmaps(images: np.ndarray, heat: np.ndarray | jax.Array, titles: Sequence[str] | None = None) -> "Figure":
    """Images in rows of six, and below each the same in grey with a heat map over it, from clear to yellow.

    Args:
      images: `[B,H,W,C]`, one or three channels, on the scale 0 to 255.
      heat: `[B,H,W]` from 0, from `explain.grad_cam` or `explain.saliency`; each is scaled by its own highest values.
      titles: of the images; None for none.

    Raises:
      InputError: there are none, or the shapes or the number of titles do not fit.
    """
    images, hot = np.asarray(images), np.asarray(heat)
    titles = [""] * len(images) if titles is None else titles
    if hot.ndim != 3 or not hot.size or images.shape[:3] != hot.shape:
        raise InputError(f"images are [B,H,W,C] and heat [B,H,W]; got {list(images.shape)}, {list(hot.shape)}")
    if len(titles) != len(images):
        raise InputError(f"each image has a title; got {len(images)} images and {len(titles)} titles")
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    figure = canvas.new(1.9 * columns, 4.1 * rows)
    axes = figure.subplots(2 * rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for n, (image, each, title) in enumerate(zip(images, hot, titles, strict=True)):
        above, below = axes[n // columns * 2 :, n % columns][:2]
        canvas.show(above, image, title)
        canvas.show(below, overlay(image, each))
    return figure


def overlay(image: np.ndarray, heat: np.ndarray | jax.Array) -> np.ndarray:
    """An image in grey with a heat map over it, from clear to yellow: uint8 `[H,W,3]`.

    Args:
      image: `[H,W,C]`, one or three channels, on the scale 0 to 255.
      heat: `[H,W]` from 0; it is scaled by its own highest values.

    Raises:
      InputError: the shapes do not fit.
    """
    from matplotlib import colormaps

    pixels, hot = np.asarray(image), np.asarray(heat)
    if hot.ndim != 2 or not hot.size or pixels.shape[:-1] != hot.shape:
        raise InputError(f"an image is [H,W,C] and its heat [H,W]; got {list(pixels.shape)}, {list(hot.shape)}")
    share = np.clip(hot / (np.percentile(hot, HOTTEST) or hot.max() or 1.0), 0, 1)[..., None]
    grey = DIMMED * pixels.mean(-1, keepdims=True)  # [H,W,1]
    return canvas.pixels((1 - share) * grey + share * 255 * colormaps["inferno"](share[..., 0])[..., :3])


def augmentations(
    images: np.ndarray, augment: Callable[[Any, Any], Any], key: Any, count: int = 5, title: str = ""
) -> "Figure":
    """Images, each at the beginning of a row, and what an augmentation makes of them.

    Args:
      images: `[N,H,W,C]`, one or three channels, on the scale 0 to 255.
      augment: `(key, images) -> images`, from `jaxdl.augment`.
      key: typed PRNG key; column n is drawn from `fold_in(key, n)`.
      count: how many versions of each image.

    Raises:
      InputError: there are no images, or not of this shape, or no versions.
    """
    if np.ndim(images) != 4 or not len(images) or count < 1:
        raise InputError(f"images are [N,H,W,C] and have versions; got {list(np.shape(images))} and count={count}")
    changed = [augment(jax.random.fold_in(key, n), images) for n in range(count)]
    versions = [images, *(getattr(each, "images", each) for each in changed)]  # a mix has more than images
    figure = canvas.new(1.9 * (1 + count), 1.9 * len(images) + (0.6 if title else 0.3))
    axes = figure.subplots(len(images), 1 + count, squeeze=False)
    for column, version in zip(axes.T, versions, strict=True):
        for axis, image in zip(column, np.asarray(version), strict=True):
            canvas.show(axis, image)
    axes[0, 0].set_title("original", fontsize=9)
    figure.suptitle(title)
    return figure
