"""What all pictures share: figures, the given axis or a new one, names along it, colours."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from jaxdl.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

GOOD, BAD = "#2a7d4f", "#b3261e"
SMALLEST = 5.0  # points; letters that are smaller are not read
SIGNED = "RdBu_r"  # colours of numbers on both sides of 0, which is white


def new(width: float, height: float) -> "Figure":
    """A figure of this size in inches, without a window: nothing of pyplot's global state is touched."""
    try:
        from matplotlib.layout_engine import ConstrainedLayoutEngine

        from jaxdl.report.picture import Picture
    except ImportError:
        raise InputError("pictures need matplotlib; run: pip install 'jaxdl[plots]'") from None
    return Picture(layout=ConstrainedLayoutEngine(h_pad=0.06, w_pad=0.06), figsize=(width, height))


def single(axis: "Axes | None", width: float, height: float) -> tuple["Figure", "Axes"]:
    """The given axis and its figure, or a new figure of this size in inches and its axis."""
    if axis is not None:
        return cast("Figure", axis.figure), axis
    figure = new(width, height)
    return figure, figure.subplots()


def tidy(axis: "Axes", **labels: Any) -> None:
    """A light grid, no box, and what `axis.set` takes."""
    axis.set(**labels)
    axis.grid(alpha=0.25)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def plain(name: str) -> str:
    """A name for matplotlib to show as it is: two dollars would be a formula."""
    return name.replace("$", r"\$")


def points(axis: "Axes") -> tuple[float, float]:
    """About how wide and high an axis is, in points, of which an inch has 72."""
    box = axis.get_window_extent()
    return box.width * 72 / axis.figure.dpi, box.height * 72 / axis.figure.dpi


def name_ticks(axis: Any, names: Sequence[str], room: float, **options: Any) -> None:
    """Names at 0, 1, … of an x or y axis that are this many points apart: as small as that needs, and where they would
    be too small to read, every second one or every third."""
    size = min(10.0, 0.8 * room)
    every = max(1, math.ceil(SMALLEST / size)) if size > 0 else 1
    shown = list(map(plain, names[::every]))
    axis.set_ticks(range(0, len(names), every), shown, fontsize=max(SMALLEST, size), **options)
    axis.set_tick_params(length=0)


def palette(count: int) -> list[tuple[float, ...]]:
    """That many colours, as different as they can be: red, green, blue and opacity, from 0 to 1."""
    from matplotlib import colormaps

    if count > 20:
        colours = colormaps["gist_rainbow"](np.linspace(0, 1, count))
    else:
        colours = colormaps["tab10" if count <= 10 else "tab20"](np.arange(count))
    return [tuple(colour) for colour in colours.tolist()]


def nothing(axis: "Axes", text: str) -> None:
    """An axis that says why it is empty."""
    axis.axis("off")
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes)


def pixels(image: Any) -> np.ndarray:
    """An image `[H,W]`, `[H,W,1]` or `[H,W,3]`, on the scale 0 to 255, as uint8 `[H,W]` or `[H,W,3]`.

    Raises:
      InputError: it has another shape.
    """
    image = np.asarray(image)
    image = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if image.size == 0 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[-1] == 3)):
        raise InputError(f"an image is [H,W], [H,W,1] or [H,W,3]; got {list(image.shape)}")
    return np.clip(np.round(image), 0, 255).astype(np.uint8)


def show(axis: "Axes", image: Any, title: str = "", colour: str = "black") -> None:
    """An image without ticks, under its title."""
    axis.axis("off")
    axis.imshow(pixels(image), cmap="gray", vmin=0, vmax=255)
    axis.set_title(plain(title), fontsize=9, color=colour)
