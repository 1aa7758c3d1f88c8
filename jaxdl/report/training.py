"""Pictures of a training: its curves, its learning rates."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import optim
from jaxdl.errors import InputError, nearest
from jaxdl.optim import Phase
from jaxdl.report import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

History = Sequence[Mapping[str, Any]]
"""Rows as `fit` returns them."""

MARKED = 30  # epochs; of so few each is marked
SCHEDULED = 2000  # points of a schedule's curve


def curves(history: History, metric: str = "accuracy") -> "Figure":
    """The loss and a metric by epoch; dashed: training data, solid: validation data. A thin line stands where a new
    phase begins.

    Args:
      history: rows as `fit` returns them.
      metric: the name of a column.

    Raises:
      InputError: the history is empty or has no such column, or matplotlib is not installed.
    """
    return _curves({"": history}, metric)


def compare(histories: Mapping[str, History], metric: str = "accuracy") -> "Figure":
    """As `curves`, of several trainings, with a colour for each.

    Args:
      histories: rows as `fit` returns them, by the name they get in the legend.
      metric: the name of a column.

    Raises:
      InputError: a history is empty or has no such column, or matplotlib is not installed.
    """
    if not histories:
        raise InputError("there is no history to compare")
    return _curves(histories, metric)


def learning_rates(rates: np.ndarray, losses: np.ndarray, suggestion: float, axis: "Axes | None" = None) -> "Figure":
    """The loss by the learning rate, from `rates.sweep` or `rates.grid`, with the rate that is suggested.

    Args:
      rates, losses: `[K]`; losses that are not numbers leave a gap.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there are not as many losses as rates, or none.
    """
    if np.shape(rates) != np.shape(losses) or np.ndim(rates) != 1 or not len(rates):
        raise InputError(f"rates and losses are [K]; got {list(np.shape(rates))} and {list(np.shape(losses))}")
    figure, axis = canvas.single(axis, 6.5, 4)
    axis.plot(rates, losses, "o-" if len(rates) < 40 else "-", markersize=4, color="C0")
    axis.axvline(suggestion, color=canvas.GOOD, linestyle="--", label=f"suggested: {suggestion:.1e}")
    canvas.tidy(axis, xscale="log", xlabel="learning rate", ylabel="loss")
    axis.legend(frameon=False)
    return figure


def schedule(phases: Phase | Sequence[Phase], steps: int, axis: "Axes | None" = None) -> "Figure":
    """The learning rate over the epochs of one phase, or of several.

    Args:
      steps: in an epoch: batches.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there is no phase, no step, or a phase's schedule is longer than it.
    """
    phases = (phases,) if isinstance(phases, Phase) else tuple(phases)
    if not phases or steps < 1:
        raise InputError(f"a schedule has at least one phase and one step in an epoch; got {len(phases)} and {steps}")
    figure, axis = canvas.single(axis, 6.5, 3.5)
    start = 0
    for phase in phases:
        total = phase.epochs * steps
        at = np.unique(np.linspace(0, total - 1, SCHEDULED).round().astype(np.int32))
        rates = jax.vmap(optim.make_schedule(phase, total))(jnp.asarray(at))
        axis.plot(start + at / steps, np.broadcast_to(rates, at.shape), color="C0")
        if len(phases) > 1:
            _boundary(axis, start, phase.name, "gray", high=True)
        start += phase.epochs
    canvas.tidy(axis, xlabel="epoch", ylabel="learning rate", ylim=(0, None), xlim=(0, start))
    axis.ticklabel_format(axis="y", scilimits=(-2, 3))
    return figure


def _curves(histories: Mapping[str, History], metric: str) -> "Figure":
    """One history without a name, or several."""
    for name, rows in histories.items():
        which = f"the history {name!r}" if name else "the history"
        if not rows:
            raise InputError(f"{which} is empty")
        if metric not in rows[0]:
            raise InputError(f"{which} has no {metric!r}{nearest(metric, rows[0])}")
    columns, colours = list(dict.fromkeys(("loss", metric))), canvas.palette(len(histories))
    figure = canvas.new(5 * len(columns), 4.5)
    for axis, column in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
        boundaries = defaultdict[float, list[tuple[str, Any]]](list)
        for (name, rows), colour in zip(histories.items(), colours, strict=True):
            epochs = [row.get("epoch", n) for n, row in enumerate(rows, 1)]
            both, mark = any(f"val_{column}" in row for row in rows), "o" if len(rows) <= MARKED else ""
            shown = canvas.plain(name)
            labels = (shown, None if both else shown) if name else ("validation data", "training data")
            style: Any = {"color": colour, "markersize": 3}
            if both:
                axis.plot(epochs, _column(rows, f"val_{column}"), f"{mark}-", label=labels[0], **style)
            axis.plot(epochs, _column(rows, column), f"{mark}--", label=labels[1], alpha=0.6, **style)
            for n in range(1, len(rows)):
                if (phase := rows[n].get("phase")) != rows[n - 1].get("phase"):
                    boundaries[epochs[n] - 0.5].append((str(phase), colour if name else "gray"))
        for epoch, phases in boundaries.items():
            names = ", ".join(dict.fromkeys(phase for phase, _ in phases))
            _boundary(axis, epoch, names, phases[0][1] if len(phases) == 1 else "gray", high=column == "loss")
        canvas.tidy(axis, xlabel="epoch", ylabel=column)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.axes[0].set_ylim(bottom=0)
    figure.legend(*figure.axes[-1].get_legend_handles_labels(), loc="outside upper center", ncols=3, frameon=False)
    if "" not in histories:
        figure.supxlabel("solid: validation data, dashed: training data", fontsize="small")
    return figure


def _column(rows: History, column: str) -> np.ndarray:
    return np.array([row.get(column) for row in rows], np.float64)  # None is not a number


def _boundary(axis: "Axes", x: float, name: str, colour: Any, high: bool) -> None:
    """A thin line where a phase begins, with its name where there is likely to be room."""
    axis.axvline(x, color=colour, linewidth=0.8)
    upright: Any = {"rotation": 90, "ha": "left", "va": "top" if high else "bottom", "fontsize": "small"}
    y, transform = 0.98 if high else 0.02, axis.get_xaxis_transform()
    axis.text(x, y, canvas.plain(name), transform=transform, color=colour, **upright)
