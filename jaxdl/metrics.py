"""Metrics as sums that merge: batches, devices and epochs add up to the figure of the whole, whatever their sizes.

Labels are those of the losses: integers `[B]` or shares `[B,K]`; of a single output, `[B]` or `[B,1]` from 0 to 1;
numbers `[B,K]` for the errors. Outputs are logits, of any float type. All sums are float32 on the device, where counts
are exact up to 2^24, and float64 once they are merged.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl import losses
from jaxdl.errors import InputError, nearest

Average = Literal["macro", "micro", "weighted"]
"""Of the classes' figures: their mean; the figure of all classes' counts together; the mean by the labels' counts."""

AVERAGES: tuple[Average, ...] = get_args(Average)
LOGITS = 16.0  # scores are told apart from -16 to 16; beyond, a float32 softmax is 0 or 1 to its last bits
LOST = 2.0**-14  # a variance below this share of the mean square has less than ten of float32's 24 bits left


class Metric(NamedTuple):
    """Two pure functions, with a tree of sums between them that adds up over batches."""

    update: Callable[[Any, Any, Array], Any]
    """`(outputs [B,K], labels, weights [B]) -> sums`"""
    compute: Callable[[Any], Any]
    """`sums -> the figure`: a float, or where the metric's docstring says so an array or an object."""


def mean(values: Callable[[Array, Array], Array]) -> Metric:
    """The weighted mean of a per-example function `(outputs [B,K], labels) -> [B]`, a loss for instance.

    Raises:
      InputError: when the metric is taken, the values have another shape.
    """

    def update(outputs: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
        each = values(outputs, labels)
        if jnp.shape(each) != weights.shape:  # [B,1] times [B] would be [B,B]
            raise InputError(
                f"a loss gives one number for each example, {list(weights.shape)}, and this one gives "
                f"{list(jnp.shape(each))}: drop the last axis (y[:, 0]), or take the mean over it"
            )
        return (each * weights).sum(), weights.sum()

    def compute(sums: tuple[Any, Any]) -> float:
        total, weight = sums
        return float(total) / float(weight) if weight else float("nan")

    return Metric(update, compute)


def of(head: str, metric: Metric) -> Metric:
    """A metric of one of several heads, whose outputs and labels are dicts.

    Raises:
      InputError: when the metric is taken, the network has no such head.
    """

    def update(outputs: Mapping[str, Array], labels: Mapping[str, Array], weights: Array) -> Any:
        if head not in outputs:
            raise InputError(f"metrics.of: the network has no head {head!r}{nearest(head, outputs)}")
        return metric.update(outputs[head], labels[head], weights)

    return Metric(update, metric.compute)


def from_probabilities(metric: Metric) -> Metric:
    """A metric for a network that ends in a softmax or sigmoid; beside `losses.from_probabilities`."""
    return Metric(
        lambda outputs, labels, weights: metric.update(losses.to_logits(outputs), labels, weights), metric.compute
    )


def top_k(k: int) -> Metric:
    """The share of examples whose label is among the k largest outputs; of equal outputs the first is the larger, as in
    `accuracy`.

    Raises:
      InputError: k is below 1; when the metric is taken, there is a single output.
    """
    if k < 1:
        raise InputError(f"top_k: k is at least 1; got {k}")

    def hit(outputs: Array, labels: Array) -> Array:
        if outputs.shape[-1] == 1:
            raise InputError("top_k needs an output for each class, and there is one: use accuracy")
        _, first = jax.lax.top_k(outputs, min(k, outputs.shape[-1]))  # [B,k]
        return (first == _truth(outputs, labels)[:, None]).any(-1).astype(jnp.float32)

    return mean(hit)


accuracy = mean(lambda outputs, labels: (_guess(outputs, 0.5) == _truth(outputs, labels)).astype(jnp.float32))
"""The share of examples whose largest output is the label's; of a single output, whose probability of label 1 is at
least one half where the label is 1 and below where it is 0."""


def confusion(threshold: float = 0.5) -> Metric:
    """How many examples of which class, in the rows, are taken for which, in the columns: float64 `[K,K]`.

    Args:
      threshold: the least probability of label 1 that is taken for it; for a single output, whose matrix is `[2,2]`.

    Raises:
      InputError: the threshold is not a probability; when the metric is taken, there are several outputs for it.
    """
    _check_threshold(threshold)

    def update(outputs: Array, labels: Array, weights: Array) -> Array:
        classes = max(2, outputs.shape[-1])
        return jnp.zeros((classes, classes)).at[_truth(outputs, labels), _guess(outputs, threshold)].add(weights)

    return Metric(update, lambda sums: np.asarray(sums, np.float64))


def precision(average: Average | int | None = "macro", threshold: float = 0.5) -> Metric:
    """The share of right ones among the guesses of a class; 0 where there are none.

    Args:
      average: over the classes; or the number of the one that counts; or None for all of them, float64 `[K]`. A single
        output has one class to tell of, label 1. "macro" is over all K, where scikit-learn's leaves out those that
        are neither guessed nor there unless it is given `labels`.
      threshold: as `confusion` takes it.

    Raises:
      InputError: there is no such average; the threshold is not a probability; when the metric is taken, there is no
        such class, or there are several outputs for a threshold.
    """
    return _of_counts(0, average, threshold)


def recall(average: Average | int | None = "macro", threshold: float = 0.5) -> Metric:
    """The share of a class's examples that are guessed right; 0 where there are none. The rest as `precision`."""
    return _of_counts(1, average, threshold)


def f1(average: Average | int | None = "macro", threshold: float = 0.5) -> Metric:
    """The harmonic mean of precision and recall, twice the right ones among guesses and examples together. The rest as
    `precision`."""
    return _of_counts(2, average, threshold)


def roc_auc(average: Average | int | None = "macro", bins: int = 2048) -> Metric:
    """The area under the ROC curve of each class against the rest: how often an example of the class has the higher
    score of two, where equal ones are one half.

    Scores are the logits of the class's probability, put in bins that are equally wide from -16 to 16, so that sums
    merge: `[K,2,bins]`. Scores in one bin are equal, so the area is off by at most half the share of pairs that are in
    the same bin, and exact where scores are multiples of 32 / bins.

    Args:
      average: as `precision` takes it; classes without examples, or without others, are left out.
      bins: even. The default tells probabilities apart that differ by 0.004 near 1/2 and by 1.6% near 0 and 1.

    Raises:
      InputError: there is no such average or class; the bins are not even.
    """

    def areas(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        negative, positive = counts[:, 0], counts[:, 1]  # [C,bins]
        below = np.cumsum(negative, -1) - negative / 2
        pairs = positive.sum(-1) * negative.sum(-1)
        return _ratio((positive * below).sum(-1), pairs, math.nan), positive.sum(-1)

    return _averaged(_histograms(bins), areas, average)


def average_precision(average: Average | int | None = "macro", bins: int = 2048) -> Metric:
    """The mean over a class's examples of the precision at their score, each class against the rest.

    Scores are in bins as those of `roc_auc`. With a of the positives and f of the negatives in the bins above, p and n
    in a bin, a positive's precision is off by at most (a + p) / (a + p + f) - a / (a + f + n).

    Args:
      average: as `precision` takes it; classes without examples are left out.
      bins: as in `roc_auc`.

    Raises:
      InputError: there is no such average or class; the bins are not even.
    """

    def precisions(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        positive = counts[:, 1]  # [C,bins]
        guessed = _from_above(counts.sum(1))
        at_score = _ratio(_from_above(positive), guessed)
        return _ratio((positive * at_score).sum(-1), positive.sum(-1), math.nan), positive.sum(-1)

    return _averaged(_histograms(bins), precisions, average)


class Point(NamedTuple):
    """A threshold, and what it gives."""

    threshold: float
    """A score of at least this probability is taken for the class."""
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class Curve:
    """Precision and recall of a class against the rest at each threshold that some score reaches, rising; float64
    `[T]`."""

    thresholds: np.ndarray
    """Probabilities; the lowest is that of the bin with the lowest score, where recall is 1."""
    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray

    def best_f1(self) -> Point:
        """The threshold with the highest F1, the lowest of several.

        Raises:
          InputError: the curve is of no examples.
        """
        if not len(self.thresholds):
            raise InputError("the curve is of no examples, so there is no threshold to choose")
        return self._point(int(np.argmax(self.f1)))

    def at_precision(self, least: float) -> Point:
        """The lowest threshold, and so the highest recall, with at least that precision.

        Raises:
          InputError: there is none.
        """
        enough = np.flatnonzero(self.precision >= least)
        if not len(enough):
            highest = self.precision.max(initial=0)
            raise InputError(f"no threshold gives a precision of {least}; the highest is {highest:.4g}")
        return self._point(int(enough[0]))

    def _point(self, n: int) -> Point:
        return Point(*(float(array[n]) for array in (self.thresholds, self.precision, self.recall, self.f1)))


def precision_recall_curve(bins: int = 2048) -> Metric:
    """The trade-off between precision and recall: a tuple with the `Curve` of each class against the rest; of a single
    output, with that of label 1.

    Scores are in bins as those of `roc_auc`, and thresholds are the lower edges of bins, so the figures are exact for
    the thresholds that are given.

    Raises:
      InputError: the bins are not even.
    """
    update = _histograms(bins)
    edges = (np.arange(bins) - bins // 2) * (2 * LOGITS / bins)
    edges[:1] = -math.inf  # the first bin holds all that is below

    def curve(negative: np.ndarray, positive: np.ndarray) -> Curve:
        reached = negative + positive > 0  # [bins]
        right, guessed = _from_above(positive)[reached], _from_above(negative + positive)[reached]
        true = np.full_like(right, positive.sum())
        return Curve(1 / (1 + np.exp(-edges[reached])), *_scores(np.stack([right, guessed, true], -1)))

    return Metric(update, lambda sums: tuple(curve(*counts) for counts in np.asarray(sums, np.float64)))


def calibration_error(bins: int = 15) -> Metric:
    """The expected calibration error: how far the probability of the guess is from the share of right ones, on average
    over bins of that probability.

    Guo et al., "On Calibration of Modern Neural Networks" (2017), arXiv:1706.04599, equation 3; they take 15 bins.

    Raises:
      InputError: there is no bin.
    """
    if bins < 1:
        raise InputError(f"calibration_error: there is at least 1 bin; got {bins}")

    def update(outputs: Array, labels: Array, weights: Array) -> Array:
        logits = outputs.astype(jnp.float32)
        single = logits.shape[-1] == 1
        sure = jax.nn.sigmoid(jnp.abs(logits[:, 0])) if single else jax.nn.softmax(logits).max(-1)  # [B]
        right = _guess(outputs, 0.5) == _truth(outputs, labels)
        bin_ = jnp.clip(jnp.ceil(sure * bins) - 1, 0, bins - 1).astype(jnp.int32)  # of (n / bins, (n + 1) / bins]
        return jnp.zeros((3, bins)).at[:, bin_].add(jnp.stack([weights * sure, weights * right, weights]))

    def compute(sums: Any) -> float:
        sure, right, count = np.asarray(sums, np.float64)
        return float(np.abs(sure - right).sum() / count.sum()) if count.any() else math.nan

    return Metric(update, compute)


mae = mean(losses.absolute_error)
"""Mean absolute error, in the units of the labels; over several targets, the mean of theirs."""

mse = mean(losses.squared_error)
"""Mean squared error; over several targets, the mean of theirs."""


def _squares(outputs: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
    squares = jnp.square(outputs.astype(jnp.float32) - losses.targets(outputs, labels))  # [B,K]
    return weights @ squares, weights.sum()


def _root(sums: tuple[Any, Any]) -> float:
    squares, weight = (np.asarray(leaf, np.float64) for leaf in sums)
    return float(np.sqrt(squares / weight).mean()) if weight else math.nan


rmse = Metric(_squares, _root)
"""Root of the mean squared error, in the units of the labels; over several targets, the mean of theirs."""


def r2(center: float | Sequence[float] | np.ndarray = 0.0) -> Metric:
    """The coefficient of determination, R²: 1 less the share of the labels' variance that the squared error is; over
    several targets, the mean of theirs.

    It is taken from sums of the labels and of their squares, which in float32 is only as good as the labels' mean is
    near to 0, or to `center`. Not a number where the variance is below 2^-14 of the mean square: where all labels are
    equal, or lie too far from the center.

    Args:
      center: taken from the labels before they are summed, one number or one for each target `[K]`; the mean of the
        training labels, say. Labels of mean 0 need none.

    Raises:
      InputError: when the metric is taken, there are not as many centers as targets, or labels of another shape.
    """
    middle = np.asarray(center, np.float32)

    def update(outputs: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
        numbers = losses.targets(outputs, labels)  # [B,K]
        if middle.shape not in ((), outputs.shape[-1:]):
            raise InputError(f"r2: there are {outputs.shape[-1]} targets, and centers {list(middle.shape)} for them")
        y = numbers - jnp.broadcast_to(middle, numbers.shape)
        squares = jnp.square(outputs.astype(jnp.float32) - numbers)
        return jnp.stack([weights @ squares, weights @ y, weights @ jnp.square(y)]), weights.sum()  # [3,K], []

    def compute(sums: tuple[Any, Any]) -> float:
        (errors, first, second), weight = (np.asarray(leaf, np.float64) for leaf in sums)
        spread = second - _ratio(first**2, weight)
        return float((1 - _ratio(errors, np.where(spread > LOST * second, spread, 0), math.nan)).mean())

    return Metric(update, compute)


class Scores(NamedTuple):
    """A row of a report."""

    precision: float
    recall: float
    f1: float
    support: float
    """How many examples, or their weight."""


@dataclass(frozen=True)
class Report:
    """The scores of each class and their averages; `str(report)` is a table."""

    classes: dict[str, Scores]
    averages: dict[Average, Scores]
    """All of "micro" are the accuracy."""

    def __str__(self) -> str:
        rows = {**self.classes, **{f"({name})": row for name, row in self.averages.items()}}
        width = max(map(len, rows))
        lines = [f"{'':{width}}  precision  recall      f1  support"]
        for name, row in rows.items():
            lines.append(f"{name:{width}}  {row[0]:9.4f}  {row[1]:6.4f}  {row[2]:6.4f}  {row[3]:7g}")
        return "\n".join(lines)


def classification_report(matrix: np.ndarray, classes: Sequence[str]) -> Report:
    """Precision, recall, F1 and count of each class and on average.

    Args:
      matrix: `[K,K]`, from `confusion`.
      classes: their names; two for a single output.

    Raises:
      InputError: there are not as many names, all different, as classes.
    """
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (len(classes),) * 2 or len(set(classes)) < len(classes):
        raise InputError(
            f"classification_report takes a different name for each class: the matrix is {list(matrix.shape)}, "
            f"the names are {len(set(classes))}"
        )
    counts = np.stack([matrix.diagonal(), matrix.sum(0), matrix.sum(1)], -1)  # [K,3]
    each = np.stack([*_scores(counts), counts[:, 2]], -1)  # [K,4]
    averages = {name: [*(_average(_score(n), counts, name) for n in range(3)), matrix.sum()] for name in AVERAGES}
    return Report(
        {name: Scores(*row) for name, row in zip(classes, each.tolist(), strict=True)},
        {name: Scores(*map(float, row)) for name, row in averages.items()},
    )


def merge(parts: list[Any]) -> Any:
    """The sum of many trees of sums, in float64 on the host. Waits for them to be computed."""
    return jax.tree.map(lambda *leaves: np.sum(leaves, 0, dtype=np.float64), *jax.device_get(parts))


def compute(metrics: Mapping[str, Metric], sums: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a mapping of metrics from their sums."""
    return {name: metric.compute(sums[name]) for name, metric in metrics.items()}


Figure = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`sums [K,…] -> (figures [K], support [K])`; a figure that is not defined is not a number."""


def _averaged(update: Callable[[Array, Array, Array], Array], figure: Figure, average: Average | int | None) -> Metric:
    """A metric of sums that have a row for each class; of a single output, the only row is of label 1."""
    if isinstance(average, str) and average not in AVERAGES:
        raise InputError(f"there is no average {average!r}{nearest(average, AVERAGES)}")

    def checked(outputs: Array, labels: Array, weights: Array) -> Array:
        classes = range(max(2, outputs.shape[-1]))[-outputs.shape[-1] :]
        if not isinstance(average, str | None) and average not in classes:
            raise InputError(f"there is no class {average} to average; there are {', '.join(map(str, classes))}")
        return update(outputs, labels, weights)

    return Metric(checked, lambda sums: _average(figure, np.asarray(sums, np.float64), average))


def _average(figure: Figure, sums: np.ndarray, average: Average | int | None) -> Any:
    figures, support = figure(sums.sum(0, keepdims=True) if average == "micro" else sums)
    if average is None:
        return figures
    if not isinstance(average, str):
        return float(figures[average - max(2, len(figures))])  # from the end, as label 1 of a single output is there
    known = ~np.isnan(figures)
    shares = support[known] if average == "weighted" else np.ones(known.sum())
    return float(_ratio(figures[known] @ shares, shares.sum(), math.nan))


def _of_counts(n: int, average: Average | int | None, threshold: float) -> Metric:
    _check_threshold(threshold)

    def update(outputs: Array, labels: Array, weights: Array) -> Array:
        guess, truth = _guess(outputs, threshold), _truth(outputs, labels)
        none = jnp.zeros(max(2, outputs.shape[-1]))
        right = none.at[truth].add(weights * (guess == truth))
        counts = jnp.stack([right, none.at[guess].add(weights), none.at[truth].add(weights)], -1)  # [2 or K,3]
        return counts[-outputs.shape[-1] :]  # [K,3]

    return _averaged(update, _score(n), average)


def _score(n: int) -> Figure:
    return lambda counts: (_scores(counts)[n], counts[:, 2])


def _scores(counts: np.ndarray) -> np.ndarray:
    """Precision, recall and F1, `[3,K]`, from how many of a class are right, guessed and there, `[K,3]`."""
    right, guessed, true = counts.T
    return np.stack([_ratio(right, guessed), _ratio(right, true), _ratio(2 * right, guessed + true)])


def _histograms(bins: int) -> Callable[[Array, Array, Array], Array]:
    """The weights of the others and of the examples of each class, by the bin of their score: `[K,2,bins]`."""
    if bins < 2 or bins % 2:
        raise InputError(f"the bins of scores are an even number, so that 0 is an edge; got {bins}")

    def update(outputs: Array, labels: Array, weights: Array) -> Array:
        scores, truth, classes = outputs.astype(jnp.float32), _truth(outputs, labels), outputs.shape[-1]
        positive = truth[:, None]  # [B,1]
        if classes > 1:
            log_p = jax.nn.log_softmax(scores)
            scores = log_p - jnp.log1p(-jnp.exp(log_p))  # [B,K]
            positive = jax.nn.one_hot(truth, classes, dtype=jnp.int32)  # [B,K]
        # Added to half the bins only then, as an addition to the score would round it.
        bin_ = jnp.clip(jnp.floor(scores * (bins / (2 * LOGITS))) + bins // 2, 0, bins - 1).astype(jnp.int32)
        row = jnp.broadcast_to(jnp.arange(classes), scores.shape)
        return jnp.zeros((classes, 2, bins)).at[row, positive, bin_].add(jnp.broadcast_to(weights[:, None], row.shape))

    return update


def _from_above(counts: np.ndarray) -> np.ndarray:
    """How many have at least the score of each bin, along the last axis."""
    return np.cumsum(counts[..., ::-1], -1)[..., ::-1]


def _ratio(a: Any, b: Any, otherwise: float = 0.0) -> Any:
    """a / b, and the last where b is 0."""
    return np.where(b, a / np.where(b, b, 1), otherwise)


def _guess(outputs: Array, threshold: float) -> Array:
    """The classes that the outputs stand for, integers `[B]`."""
    if outputs.shape[-1] == 1:
        # In logits, which tell more probabilities apart, and exactly the bins of `precision_recall_curve`.
        with np.errstate(divide="ignore"):
            least = np.float32(np.log(threshold) - np.log1p(-threshold))
        return (outputs[:, 0].astype(jnp.float32) >= least).astype(jnp.int32)
    if threshold != 0.5:
        raise InputError(f"a threshold, {threshold}, is for a single output, and there are {outputs.shape[-1]}")
    return outputs.argmax(-1)


def _truth(outputs: Array, labels: Array) -> Array:
    """The classes of the labels, integers `[B]`."""
    if outputs.shape[-1] == 1 and labels.shape in (outputs.shape, outputs.shape[:1]):
        return (labels.reshape(-1) >= 0.5).astype(jnp.int32)
    if labels.shape == outputs.shape:
        return labels.argmax(-1)
    if labels.shape == outputs.shape[:1] and jnp.issubdtype(labels.dtype, jnp.integer):
        return labels
    raise InputError(
        f"metrics of classes take integer labels [B] or one-hot ones [B,K], not {labels.dtype} {list(labels.shape)} "
        f"for outputs {list(outputs.shape)}; for numbers there are mae, mse, rmse and r2"
    )


def _check_threshold(threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise InputError(f"a threshold is a probability, 0 to 1; got {threshold}")


NAMED: dict[str, Metric] = {
    "accuracy": accuracy,
    **{f"top{k}": top_k(k) for k in (3, 5)},
    **{
        name if average == "macro" else f"{name}_{average}": make(average)
        for name, make in (
            ("precision", precision),
            ("recall", recall),
            ("f1", f1),
            ("roc_auc", roc_auc),
            ("average_precision", average_precision),
        )
        for average in AVERAGES
    },
    "calibration_error": calibration_error(),
    "mae": mae,
    "mse": mse,
    "rmse": rmse,
    "r2": r2(),
}
"""Metrics by name, each a single number: "f1" is the macro average, beside "f1_micro" and "f1_weighted"."""


def by_name(names: Sequence[str]) -> dict[str, Metric]:
    """The metrics of these names in `NAMED`, as `fit` and `evaluate` take them.

    Raises:
      InputError: there is none of a name; the nearest is named.
    """
    for name in names:
        if name not in NAMED:
            raise InputError(f"there is no metric {name!r}{nearest(name, NAMED)}")
    return {name: NAMED[name] for name in names}
