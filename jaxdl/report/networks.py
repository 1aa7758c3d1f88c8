"""Pictures of networks: their weights, what their layers give, their gradients and their activation functions."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import trees
from jaxdl.errors import InputError
from jaxdl.models import activations as functions
from jaxdl.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST = 100  # arrays in one picture


def filters(kernel: np.ndarray | jax.Array, axis: "Axes | None" = None) -> "Figure":
    """The filters of a convolution: of three channels in colour, grey standing for 0, each by its own largest weight;
    of one in rows; of more a row for each input and a column for each output, white standing for 0.

    Args:
      kernel: `[h,w,I,O]`.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: the kernel has another shape, or is empty.
    """
    if np.ndim(kernel) != 4 or not kernel.size:
        raise InputError(f"the kernel of a convolution is [h,w,I,O]; got {list(np.shape(kernel))}")
    picture = _kernel(np.asarray(kernel, np.float32))
    height, width = picture.shape[:2]
    scale = min(8 / width, 8 / height, 0.15)  # inches for a weight
    figure, axis = canvas.single(axis, max(2, scale * width + 0.8), max(1.5, scale * height + 0.3))
    axis.axis("off")
    image = _draw(axis, picture)
    if picture.ndim == 2:
        figure.colorbar(image, ax=axis, fraction=0.046, pad=0.02)
    return figure


def feature_maps(outputs: Mapping[str, np.ndarray | jax.Array], count: int = 8) -> "Figure":
    """What the first channels of layers give for one image: a row for each layer, red above 0, white at 0, blue below,
    each layer by its own largest value.

    Args:
      outputs: `{path: [H,W,C]}`, of one image of `explain.layer_outputs`.
      count: channels of each layer, at most.

    Raises:
      InputError: there is no layer or channel, or one has another shape.
    """
    maps = {path: np.asarray(output, np.float32) for path, output in outputs.items()}
    for path, output in maps.items():
        if output.ndim != 3 or not output.size:
            raise InputError(f"feature maps are [H,W,C], of one image; {path!r} is {list(output.shape)}")
    if not maps or count < 1:
        raise InputError(f"there is at least one layer and one channel to show; got {len(maps)} and count={count}")
    columns = min(count, max(output.shape[-1] for output in maps.values()))
    figure = canvas.new(1.6 + 1.1 * columns, 1.2 * len(maps))
    axes = figure.subplots(len(maps), columns, squeeze=False)
    for row, (path, output) in zip(axes, maps.items(), strict=True):
        limit = _limit(output)
        for n, axis in enumerate(row):
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(n < output.shape[-1])
            axis.spines[:].set_color("lightgray")
            if n < output.shape[-1]:
                axis.imshow(output[..., n], cmap=canvas.SIGNED, vmin=-limit, vmax=limit)
        said = f"{path}\n{'×'.join(map(str, output.shape))}\n±{limit:.3g}"
        row[0].set_ylabel(said, rotation=0, ha="right", va="center", fontsize=8)
    return figure


def weights(params: trees.Tree, shape: tuple[int, ...] | None = None) -> "Figure":
    """Weights and biases as images, red above 0, white at 0, blue below, each array by its own largest value.

    A vector is a strip, a matrix `[I,O]` has a row for each input, and the kernel of a convolution is drawn as by
    `filters`.

    Args:
      params: a tree of arrays, or a part of one.
      shape: of an image, `(H,W)` or `(H,W,C)`: a matrix with as many inputs is drawn as an image for each output, from
        left to right and from top to bottom, which is what a layer on pixels looks for; of several channels, as a row
        of images for each output.

    Raises:
      InputError: there are no arrays, more than a hundred, or none has an input for each of the pixels.
    """
    flat = {path: np.asarray(leaf, np.float32) for path, leaf in trees.paths(params).items() if np.size(leaf)}
    if not 0 < len(flat) <= MOST:
        raise InputError(f"a picture has 1 to {MOST} arrays, and these are {len(flat)}: give a part of them")
    image = (*(shape or ()), 1)[:3]  # [H,W,C]
    fits = [path for path, leaf in flat.items() if shape and leaf.ndim == 2 and len(leaf) == math.prod(image)]
    if shape is not None and (len(shape) not in (2, 3) or not fits):
        raise InputError(f"no matrix has an input for each number of an image {list(shape)}")
    columns = min(4, len(flat))
    rows = math.ceil(len(flat) / columns)
    figure = canvas.new(3.6 * columns, 2.4 * rows)
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (path, leaf) in zip(axes.flat, flat.items(), strict=False):
        if path in fits:
            tiles = np.moveaxis(leaf.T.reshape(-1, *image), -1, 1)  # [O,C,H,W]
            _draw(axis, mosaic(tiles.reshape(-1, *image[:2]), image[2] if image[2] > 1 else None))
        elif leaf.ndim == 4:
            _draw(axis, _kernel(leaf))
        else:
            matrix = leaf.reshape(-1, leaf.shape[-1] if leaf.ndim else 1)
            _draw(axis, matrix, matrix.shape[1] / 10 if len(matrix) == 1 else "auto")
        axis.set_title(f"{path}\n{'×'.join(map(str, leaf.shape)) or 1}, ±{np.abs(leaf).max():.2g}", fontsize=8)
    return figure


def gradient_flow(
    norms: Mapping[str, float] | Mapping[str, Mapping[str, float]], axis: "Axes | None" = None
) -> "Figure":
    """The norm of the gradient by layer on a logarithmic scale, of one network or of several. Where it is 0 or no
    number there is a cross at the bottom.

    Args:
      norms: `{path: norm}`, from `explain.gradient_norms`, or several of these by the networks' names.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there is no network or no layer.
    """
    several = all(isinstance(each, Mapping) for each in norms.values())
    networks: Mapping[str, Any] = norms if several else {"": norms}
    if not networks or not all(networks.values()):
        raise InputError("there is no gradient to show: give {path: norm}, or several of these by name")
    layers = list(dict.fromkeys(path for each in networks.values() for path in each))
    figure, axis = canvas.single(axis, min(16, max(5, 0.3 * len(layers) + 1.5)), 4)
    known = [norm for each in networks.values() for norm in each.values() if 0 < norm < math.inf]
    bottom = min(known, default=1.0) / 10
    for (name, each), colour in zip(networks.items(), canvas.palette(len(networks)), strict=True):
        at, heights = [layers.index(path) for path in each], np.array(list(each.values()), np.float64)
        drawn = (heights > 0) & np.isfinite(heights)
        axis.plot(at, np.where(drawn, heights, np.nan), "o-", markersize=4, color=colour, label=canvas.plain(name))
        if not drawn.all():
            axis.plot(np.array(at)[~drawn], [bottom] * int((~drawn).sum()), "x", color=colour)
    canvas.tidy(axis, yscale="log", ylabel="norm of the gradient", xlim=(-0.5, len(layers) - 0.5))
    canvas.name_ticks(axis.xaxis, layers, canvas.points(axis)[0] / len(layers), rotation=90)
    if several:
        axis.legend(frameon=False)
    return figure


def activations(names: Sequence[str] | None = None, axis: "Axes | None" = None) -> "Figure":
    """Activation functions (solid) and their derivatives (dashed): a picture of each, or all of them on a given axis.

    Args:
      names: of `models.activations.NAMED`; None for all.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there is no activation, or none of a name; the nearest is named.
    """
    names = list(functions.NAMED) if names is None else list(names)
    if not names:
        raise InputError("there is no activation to show")
    chosen = [functions.by_name(name) for name in names]
    columns = min(4, len(names))
    rows = math.ceil(len(names) / columns)
    if axis is None:
        figure = canvas.new(2.6 * columns, 2.2 * rows)
        axes = list(figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat)
        colours = canvas.palette(1) * len(names)
    else:
        figure, axis = canvas.single(axis, 0, 0)
        axes, colours = [axis] * len(names), canvas.palette(len(names))
    x = jnp.linspace(-4, 4, 401)
    for each, name, function, colour in zip(axes, names, chosen, colours, strict=False):
        each.plot(x, function(x), color=colour, label=name)
        each.plot(x, jax.vmap(jax.grad(function))(x), "--", color=colour, alpha=0.7)
        canvas.tidy(each, ylim=(-1.6, 4))
        each.set_title(name if axis is None else "", fontsize=9)
    if axis is None:
        for each in axes[len(names) :]:
            each.axis("off")
        figure.supxlabel("solid: the function, dashed: its derivative", fontsize="small")
    else:
        axis.legend(frameon=False, fontsize="small")
    return figure


def mosaic(tiles: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Tiles `[N,h,w]` or `[N,h,w,3]` in rows, as one picture with a white line of one pixel between them.

    Args:
      columns: tiles in a row; None for about twice as many as there are rows.
    """
    count, height, width = tiles.shape[:3]
    columns = min(count, math.ceil(math.sqrt(2 * count * height / width))) if columns is None else columns
    rows = math.ceil(count / columns)
    white = 1.0 if tiles.ndim == 4 else np.nan
    tiles = np.pad(
        tiles, ((0, rows * columns - count), (0, 1), (0, 1), *((0, 0),) * (tiles.ndim - 3)), constant_values=white
    )
    rest = tiles.shape[3:]
    picture = tiles.reshape(rows, columns, height + 1, width + 1, *rest).swapaxes(1, 2)
    return picture.reshape(rows * (height + 1), columns * (width + 1), *rest)[:-1, :-1]


def _kernel(kernel: np.ndarray) -> np.ndarray:
    """The filters of a convolution `[h,w,I,O]` as one picture."""
    inputs, outputs = kernel.shape[2:]
    if inputs == 3:
        tiles = kernel.transpose(3, 0, 1, 2)  # [O,h,w,3]
        return mosaic(0.5 + 0.5 * tiles / np.maximum(np.abs(tiles).max((1, 2, 3), keepdims=True), 1e-12))
    tiles = kernel.transpose(2, 3, 0, 1).reshape(-1, *kernel.shape[:2])  # [I*O,h,w]
    return mosaic(tiles, None if inputs == 1 else outputs)


def _draw(axis: "Axes", picture: np.ndarray, aspect: Any = "equal") -> Any:
    """A picture in colour `[H,W,3]`, or of numbers on both sides of 0 `[H,W]`."""
    limit = _limit(picture)
    options: Any = {} if picture.ndim == 3 else {"cmap": canvas.SIGNED, "vmin": -limit, "vmax": limit}
    return axis.imshow(picture, aspect=aspect, interpolation="nearest", **options)


def _limit(numbers: np.ndarray) -> float:
    """The largest size of a number; of zeros 1."""
    return float(np.nanmax(np.abs(numbers))) or 1.0
