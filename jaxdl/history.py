"""What is left of the epochs of a training: rows of figures."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl import report
from jaxdl.errors import InputError, nearest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOWER = {"loss", "error", "mae", "mse", "rmse"}  # a figure with one of these words in its name is better when lower


class History(list[dict[str, Any]]):
    """A row per epoch: epoch, phase, step, loss, accuracy, val_loss, …, learning_rate, seconds, data_seconds (of these,
    spent waiting for batches), val_seconds, examples_per_second, and of bad numbers skipped or rollbacks."""

    def column(self, name: str) -> np.ndarray:
        """A figure by epoch, float64 `[E]`; not a number where a row does not have it.

        Raises:
          InputError: no row has it; the nearest is named.
        """
        known = {key for row in self for key in row}
        if self and name not in known:
            raise InputError(f"the history has no {name!r}{nearest(name, known)}")
        return np.array([row.get(name, math.nan) for row in self], np.float64)

    def best(self, monitor: str = "val_loss") -> dict[str, Any] | None:
        """The row with the best figure of that name, the first of several; None where no row has a number."""
        found = None
        for row in self:
            if better(monitor, row, found):
                found = row
        return found

    def plot(self, metric: str | None = None) -> "Figure":
        """The loss and a metric by epoch, as `report.curves`; None for the first metric.

        Raises:
          InputError: see there.
        """
        return report.curves(self, metric or next(iter(self.metrics), "accuracy"))

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics' names, without the loss and without "val_"."""
        names = list(self[0]) if self else []
        return tuple(names[names.index("loss") + 1 : _first(names, "val_", "learning_rate")])

    def to_pandas(self) -> Any:
        """A pandas frame with the epoch as its index.

        Raises:
          InputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise InputError("a frame needs pandas; run: pip install pandas") from None
        return pandas.DataFrame(list(self), columns=list(self[0]) if self else ["epoch"]).set_index("epoch")


def better(monitor: str, row: Mapping[str, Any], than: Mapping[str, Any] | None, least: float = 0.0) -> bool:
    """Whether the figure of a row is a number, and better than that of another row by more than `least`."""
    value = row.get(monitor, math.nan)
    other = math.nan if than is None else than.get(monitor, math.nan)
    if not math.isfinite(value) or not math.isfinite(other):
        return math.isfinite(value)
    lower = LOWER & set(monitor.split("_"))
    return bool((other - value if lower else value - other) > least)


def stale(rows: Sequence[Mapping[str, Any]], monitor: str, least: float = 0.0) -> int:
    """How many epochs have passed since the one with the best figure, better than all before by more than `least`."""
    best, count = None, 0
    for row in rows:
        best, count = (row, 0) if better(monitor, row, best, least) else (best, count + 1)
    return count


def plain(value: Any) -> Any:
    """What JSON can hold of rows, figures and settings: arrays as lists, dataclasses as dicts."""
    return json.loads(json.dumps(value, default=_plain))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    return value.tolist() if hasattr(value, "tolist") else repr(value)


def _first(names: Sequence[str], *starts: str) -> int:
    return next(n for n, name in enumerate(names) if name.startswith(starts))
