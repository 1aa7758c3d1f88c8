"""Curves and sheets of predicted images."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from jaxdl.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

GOOD, BAD = "#2a7d4f", "#b3261e"


def curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], metric: str = "accuracy") -> "Figure":
    """The loss and a metric by epoch, a colour for each history; dashed: training data, solid: validation data.

    Args:
      histories: rows as `fit` returns them, by the name they get in the legend.
      metric: the name of a column.

    Raises:
      InputError: a history is empty or has no such column, or matplotlib is not installed.
    """
    for name, rows in histories.items():
        if not rows or metric not in rows[0]:
            raise InputError(f"the history {name!r} has no {metric!r}" if rows else f"the history {name!r} is empty")
    figure = _figure(figsize=(10, 4.5))
    for axis, column in zip(figure.subplots(1, 2), ("loss", metric), strict=True):
        for n, (name, rows) in enumerate(histories.items()):
            epochs = [row["epoch"] for row in rows]
            colour, both = f"C{n}", f"val_{column}" in rows[0]
            axis.plot(
                epochs, [row[column] for row in rows], "--", color=colour, alpha=0.6, label=None if both else name
            )
            if both:
                axis.plot(epochs, [row[f"val_{column}"] for row in rows], "o-", markersize=3, color=colour, label=name)
        axis.set(xlabel="epoch", ylabel=column)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylim(bottom=0)
    lines, names = figure.axes[1].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=3, frameon=False)
    figure.supxlabel("solid: validation data, dashed: training data", fontsize="small")
    return figure


def learning_rates(rates: np.ndarray, losses: np.ndarray, suggestion: float) -> "Figure":
    """The loss by the learning rate, from `rates.sweep` or `rates.grid`, with the rate that is suggested.

    Args:
      rates, losses: `[K]`; losses that are not numbers leave a gap.
    """
    figure = _figure(figsize=(6.5, 4))
    axis = figure.subplots()
    axis.plot(rates, losses, "o-" if len(rates) < 40 else "-", markersize=4, color="C0")
    axis.axvline(suggestion, color=GOOD, linestyle="--", label=f"suggested: {suggestion:.1e}")
    axis.set(xscale="log", xlabel="learning rate", ylabel="loss")
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False)
    return figure


def predictions(images: np.ndarray, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> "Figure":
    """A sheet of images with what was predicted: green where it is right, red with the true class where it is wrong.

    Args:
      images: uint8 `[N,H,W,C]`, one or three channels.
      logits: `[N,K]`.
      labels: integers `[N]`.
      classes: K names.
    """
    p = np.exp(logits - logits.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)
    guesses = p.argmax(-1)
    titles = [
        f"{classes[guess]} {p[n, guess]:.0%}" + ("" if guess == label else f"\nis {classes[label]}")
        for n, (guess, label) in enumerate(zip(guesses, labels, strict=True))
    ]
    return sheet(list(images), titles, [GOOD if right else BAD for right in guesses == labels])


def sheet(images: Sequence[np.ndarray], titles: Sequence[str], colours: Sequence[str] | None = None) -> "Figure":
    """Images in rows of six, each under its title.

    Args:
      images: uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`, of any sizes.
      colours: of the titles; None for black.
    """
    columns = min(6, len(images))
    rows = math.ceil(len(images) / columns)
    figure = _figure(figsize=(1.9 * columns, 2.3 * rows))
    for n, axis in enumerate(figure.subplots(rows, columns, squeeze=False).flat):
        axis.axis("off")
        if n < len(images):
            axis.imshow(images[n].squeeze(), cmap="gray", vmin=0, vmax=255)
            axis.set_title(titles[n], fontsize=9, color=colours[n] if colours else "black")
    return figure


def augmentations(
    images: np.ndarray, augment: Callable[[Any, Any], Any], key: Any, count: int = 5, title: str = ""
) -> "Figure":
    """Images, each at the beginning of a row, and what an augmentation makes of them.

    Args:
      images: `[N,H,W,C]`, one or three channels, on the scale 0 to 255.
      augment: `(key, images) -> images`, from `jaxdl.augment`.
      key: typed PRNG key; column n is drawn from `fold_in(key, n)`.
      count: how many versions of each image.
    """
    changed = [augment(jax.random.fold_in(key, n), images) for n in range(count)]
    versions = [images, *(getattr(each, "images", each) for each in changed)]  # a mix has more than images
    figure = _figure(figsize=(1.9 * (1 + count), 1.9 * len(images) + (0.6 if title else 0.3)))
    axes = figure.subplots(len(images), 1 + count, squeeze=False)
    for column, version in zip(axes.T, versions, strict=True):
        for axis, image in zip(column, np.asarray(version), strict=True):
            axis.axis("off")
            axis.imshow(np.clip(np.round(image), 0, 255).astype(np.uint8).squeeze(), cmap="gray", vmin=0, vmax=255)
    axes[0, 0].set_title("original", fontsize=9)
    figure.suptitle(title)
    return figure


def _figure(**options: Any) -> "Figure":
    """A figure without a window: nothing of pyplot's global state is touched."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError("pictures need matplotlib; run: pip install 'jaxdl[plots]'") from None
    return Figure(layout="constrained", **options)
