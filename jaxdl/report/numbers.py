"""Pictures of how well numbers are predicted."""

from typing import TYPE_CHECKING

import numpy as np

from jaxdl.errors import InputError
from jaxdl.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def scatter(truth: np.ndarray, predicted: np.ndarray, name: str = "", axis: "Axes | None" = None) -> "Figure":
    """What was predicted by what it is, with the line where both are equal.

    Args:
      truth, predicted: `[N]`, in the same units.
      name: of what is predicted.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there are not as many of both, or none.
    """
    truth, predicted = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if truth.shape != predicted.shape or truth.ndim != 1 or not len(truth):
        raise InputError(f"truth and predicted are [N]; got {list(truth.shape)}, {list(predicted.shape)}")
    figure, axis = canvas.single(axis, 5.5, 5)
    ends = [min(truth.min(), predicted.min()), max(truth.max(), predicted.max())]
    axis.plot(ends, ends, "--", color="gray", linewidth=1)
    axis.plot(truth, predicted, "o", color="C0", markersize=4, alpha=0.5, markeredgewidth=0)
    name = canvas.plain(name)
    canvas.tidy(axis, xlabel=f"{name}, true".lstrip(", "), ylabel=f"{name}, predicted".lstrip(", "))
    axis.set_aspect("equal", adjustable="datalim")
    return figure
