"""Pictures of how well classes are told apart."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxdl import metrics
from jaxdl.data import check_labels
from jaxdl.errors import InputError
from jaxdl.metrics import Curve
from jaxdl.report import canvas
from jaxdl.report.images import sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DISTINCT = 10  # curves in one picture that can be told apart; of more, the worst are in colour
CELL = 12.0  # points; in a cell of a matrix that is smaller a number is a blot
GRID = 200  # points in each direction, at which a decision boundary is looked for
BINS = 15  # of `metrics.calibration_error`


def confusion_matrix(
    matrix: np.ndarray, classes: Sequence[str], normalize: bool = True, axis: "Axes | None" = None
) -> "Figure":
    """Which classes, in the rows, are taken for which, in the columns; with the numbers where they fit.

    Args:
      matrix: `[K,K]`, from `metrics.confusion`.
      classes: K names; two for a single output.
      normalize: show the share of the row, in percent; or else the counts.
      axis: to draw on; None for a new figure, as large as the names need.

    Raises:
      InputError: the matrix is not square or empty, has numbers below 0, or there are not as many names.
    """
    matrix = _matrix(matrix, classes)
    count = len(classes)
    cell = min(max(8 / count, 0.18), 0.6)  # inches
    margin = 1.2 + 0.07 * max(map(len, classes))
    figure, axis = canvas.single(axis, cell * count + margin + 1.4, cell * count + margin)
    truth = matrix.sum(1, keepdims=True)
    shares = matrix / np.where(truth, truth, 1)
    shown, most = (100 * shares, 100.0) if normalize else (matrix, max(1.0, matrix.max()))
    image = axis.imshow(shown, cmap="Blues", vmin=0, vmax=most, interpolation="nearest")
    bar = figure.colorbar(image, ax=axis, fraction=0.046, pad=0.02, aspect=40)
    bar.set_label("% of the class" if normalize else "examples", fontsize="small")
    room = min(canvas.points(axis)) / count
    canvas.name_ticks(axis.yaxis, classes, room)
    canvas.name_ticks(axis.xaxis, classes, room, rotation=90 if max(map(len, classes)) > 3 else 0)
    axis.set(xlabel="taken for", ylabel="class")
    texts = [[f"{number:.0f}" if number else "" for number in row] for row in shown]
    size = min(11.0, 1.4 * room / max(2, max(len(text) for row in texts for text in row)))
    for row, column in np.ndindex(matrix.shape) if room > CELL and size > canvas.SMALLEST else ():
        colour = "white" if shown[row, column] > most / 2 else "black"
        axis.text(column, row, texts[row][column], ha="center", va="center", fontsize=size, color=colour)
    return figure


def class_scores(matrix: np.ndarray, classes: Sequence[str], axis: "Axes | None" = None) -> "Figure":
    """The F1 of each class, the best at the top, and their mean.

    Args:
      matrix: `[K,K]`, from `metrics.confusion`.
      classes: K different names.
      axis: to draw on; None for a new figure, as high as the names need.

    Raises:
      InputError: as `confusion_matrix`, or two classes have the same name.
    """
    report = metrics.classification_report(_matrix(matrix, classes), classes)
    ordered = sorted(report.classes.items(), key=lambda item: -item[1].f1)
    figure, axis = _bars(axis, [name for name, _ in ordered], [row.f1 for _, row in ordered], ".2f")
    mean = report.averages["macro"].f1
    axis.axvline(mean, color="gray", linestyle="--", linewidth=1, label=f"mean {mean:.3f}")
    canvas.tidy(axis, xlabel="F1", xlim=(0, 1.08))
    axis.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0)
    return figure


def confused_pairs(matrix: np.ndarray, classes: Sequence[str], count: int = 10, axis: "Axes | None" = None) -> "Figure":
    """The most frequent confusions, "class → what it is taken for", by the number of examples.

    Args:
      matrix: `[K,K]`, from `metrics.confusion`.
      classes: K names.
      count: how many pairs at most.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: as `confusion_matrix`, or the count is below 1.
    """
    matrix = _matrix(matrix, classes)
    if count < 1:
        raise InputError(f"there is at least one pair to show; got count={count}")
    wrong = matrix - np.diag(matrix.diagonal())
    pairs = [divmod(int(n), len(classes)) for n in np.argsort(-wrong, axis=None, kind="stable")[:count]]
    pairs = [(a, b) for a, b in pairs if wrong[a, b]]
    if not pairs:
        figure, axis = canvas.single(axis, 4, 1.5)
        canvas.nothing(axis, f"none of {matrix.sum():g} examples is taken for another class")
        return figure
    figure, axis = _bars(axis, [f"{classes[a]} → {classes[b]}" for a, b in pairs], [wrong[pair] for pair in pairs], "g")
    canvas.tidy(axis, xlabel="examples")
    axis.margins(x=0.1)
    return figure


def predictions(images: np.ndarray, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> "Figure":
    """A sheet of images with what was predicted: green where it is right, red with the true class where it is wrong.

    Args:
      images: uint8 `[N,H,W,C]`, one or three channels.
      logits: `[N,K]`, or of a single output `[N,1]`.
      labels: integers `[N]`.
      classes: K names; two for a single output.

    Raises:
      InputError: there are none, not as many of all, or a label is none of the classes.
    """
    p, labels = _told(images, logits, labels, classes)
    guesses = p.argmax(-1)
    titles = [
        f"{classes[guess]} {p[n, guess]:.0%}" + ("" if guess == label else f"\nis {classes[label]}")
        for n, (guess, label) in enumerate(zip(guesses, labels, strict=True))
    ]
    return sheet(list(images), titles, [canvas.GOOD if right else canvas.BAD for right in guesses == labels])


def most_wrong(
    images: np.ndarray, logits: np.ndarray, labels: np.ndarray, classes: Sequence[str], count: int = 12
) -> "Figure":
    """The images that are taken for something else with the highest probabilities, as `predictions` shows them.

    Args:
      images, logits, labels, classes: as `predictions` takes them.
      count: how many at most.

    Raises:
      InputError: as `predictions`, or the count is below 1.
    """
    if count < 1:
        raise InputError(f"there is at least one image to show; got count={count}")
    p, labels = _told(images, logits, labels, classes)
    wrong = np.flatnonzero(p.argmax(-1) != labels)
    if not len(wrong):
        figure, axis = canvas.single(None, 4, 1.5)
        canvas.nothing(axis, f"none of {len(labels)} images is taken for something else")
        return figure
    shown = wrong[np.argsort(-p[wrong].max(-1), kind="stable")[:count]]
    return predictions(np.asarray(images)[shown], np.asarray(logits)[shown], labels[shown], classes)


def precision_recall(curves: Sequence[Curve], names: Sequence[str], axis: "Axes | None" = None) -> "Figure":
    """The trade-off between precision and recall of each class against the rest, with the thresholds of the highest F1
    (star) and of one half (circle). Of more than ten classes, the ten with the lowest F1 are in colour.

    Args:
      curves: from `metrics.precision_recall_curve`; of a single output there is one.
      names: of their classes.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there are not as many names as curves, or none, or a curve is of no examples.
    """
    if not len(curves) or len(curves) != len(names):
        raise InputError(f"precision_recall takes a name for each curve; got {len(curves)} curves, {len(names)} names")
    figure, axis = canvas.single(axis, 7.5, 4.5)
    best = [curve.best_f1() for curve in curves]
    worst = sorted(range(len(curves)), key=lambda n: best[n].f1)[:DISTINCT]
    colours = dict(zip(sorted(worst), canvas.palette(len(worst)), strict=True))
    for n, (curve, name, point) in enumerate(zip(curves, names, best, strict=True)):
        if n not in colours:
            axis.plot(curve.recall, curve.precision, color="lightgray", linewidth=0.7, zorder=1)
            continue
        label = f"{canvas.plain(name)}: F1 {point.f1:.2f} from {point.threshold:.2f} on"
        axis.plot(curve.recall, curve.precision, color=colours[n], linewidth=1.5, label=label)
        axis.plot(point.recall, point.precision, "*", color=colours[n], markersize=11, markeredgecolor="white")
        if (half := np.searchsorted(curve.thresholds, 0.5)) < len(curve.thresholds):
            axis.plot(curve.recall[half], curve.precision[half], "o", color=colours[n], markerfacecolor="white")
    canvas.tidy(axis, xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize="small", loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def thresholds(curve: Curve, axis: "Axes | None" = None) -> "Figure":
    """Precision, recall and F1 of a class by the probability from which on it is taken for right, and the threshold of
    the highest F1.

    Args:
      curve: one of `metrics.precision_recall_curve`.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: the curve is of no examples.
    """
    best = curve.best_f1()
    figure, axis = canvas.single(axis, 5.5, 4)
    for name, numbers in (("precision", curve.precision), ("recall", curve.recall), ("F1", curve.f1)):
        axis.plot(curve.thresholds, numbers, label=name, drawstyle="steps-pre")
    axis.axvline(best.threshold, color="gray", linestyle="--", linewidth=1, label=f"best: {best.threshold:.2f}")
    canvas.tidy(axis, xlabel="threshold", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(frameon=False, fontsize="small")
    return figure


def reliability(probabilities: np.ndarray, right: np.ndarray, axis: "Axes | None" = None) -> "Figure":
    """How often the network is right, by how sure it is, in 15 bins; on the diagonal it is right as often as it says.
    Above a bin stands the share of the guesses that are in it.

    The expected calibration error is that of `metrics.calibration_error`. Guo et al., "On Calibration of Modern Neural
    Networks" (2017), arXiv:1706.04599, figure 1.

    Args:
      probabilities: of the guesses, `[N]`.
      right: whether they are right, booleans `[N]`.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: there are none, not as many of both, or numbers that are no probabilities.
    """
    probabilities, right = np.asarray(probabilities, np.float64), np.asarray(right, bool)
    if probabilities.shape != right.shape or right.ndim != 1 or not len(right):
        raise InputError(
            f"probabilities, and whether they are right, are [N]; got {list(probabilities.shape)}, {list(right.shape)}"
        )
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise InputError("probabilities are numbers from 0 to 1")
    bin_ = np.clip(np.ceil(probabilities * BINS) - 1, 0, BINS - 1).astype(int)
    counts, sure, rights = (np.bincount(bin_, each, BINS) for each in (np.ones(len(right)), probabilities, right))
    error = np.abs(sure - rights).sum() / len(right)
    used = np.flatnonzero(counts)
    figure, axis = canvas.single(axis, 5, 4.5)
    middle, accuracy, said = (used + 0.5) / BINS, rights[used] / counts[used], sure[used] / counts[used]
    axis.bar(middle, accuracy, 1 / BINS, color="C0", edgecolor="white", label="right guesses")
    gap: Any = {"color": "none", "edgecolor": canvas.BAD, "hatch": "///", "alpha": 0.5}
    axis.bar(middle, said - accuracy, 1 / BINS, bottom=accuracy, label="gap", **gap)
    axis.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    for x, y, share in zip(middle, np.maximum(accuracy, said), counts[used] / len(right), strict=True):
        axis.text(x, y + 0.01, f"{share:.0%}", ha="center", va="bottom", fontsize=6, color="gray")
    title = f"expected calibration error {error:.3f}"
    canvas.tidy(axis, xlabel="probability of the guess", ylabel="share of right guesses", xlim=(0, 1), ylim=(0, 1.05))
    axis.legend(frameon=False, fontsize="small", loc="upper left", title=title, title_fontsize="small")
    return figure


def decision_boundary(
    predict: Callable[[Any], Any], features: np.ndarray, labels: np.ndarray, axis: "Axes | None" = None
) -> "Figure":
    """What a network says everywhere between examples of two features: the colours of the classes, mixed by their
    probabilities, and a line where the guess changes.

    Args:
      predict: `[M,2]` to logits `[M,K]`, or `[M,1]` for a single output.
      features: `[N,2]`.
      labels: integers `[N]` or `[N,1]`.
      axis: to draw on; None for a new figure.

    Raises:
      InputError: the features are not `[N,2]`, the labels are not classes of them, or the function gives something
        else.
    """
    features, labels = np.asarray(features, np.float32), np.asarray(labels)
    if features.ndim != 2 or features.shape[1] != 2 or not len(features):
        raise InputError(f"a decision boundary is drawn between features [N,2]; got {list(features.shape)}")
    low, high = features.min(0), features.max(0)
    edge = np.maximum(0.1 * (high - low), 1e-3)
    sides = [np.linspace(low[n] - edge[n], high[n] + edge[n], GRID, dtype=np.float32) for n in (0, 1)]
    grid = np.stack(np.meshgrid(*sides), -1).reshape(-1, 2)  # [M,2]
    logits = np.asarray(predict(grid))
    if logits.ndim != 2 or len(logits) != len(grid):
        raise InputError(f"predict takes [M,2] to logits [M,K]; for M = {len(grid)} it gives {list(logits.shape)}")
    p = probabilities(logits)
    labels = _labels(labels.reshape(-1) if labels.shape == (len(features), 1) else labels, features, p.shape[1])
    colours = np.array([colour[:3] for colour in canvas.palette(p.shape[1])])  # [K,3]
    figure, axis = canvas.single(axis, 5.5, 4.5)
    extent = (sides[0][0], sides[0][-1], sides[1][0], sides[1][-1])
    mixed = 1 - 0.45 * (1 - p @ colours)  # paler than the examples
    axis.imshow(mixed.reshape(GRID, GRID, 3), extent=extent, origin="lower", aspect="auto", interpolation="bilinear")
    guesses = p.argmax(-1).reshape(GRID, GRID)
    for label in np.unique(guesses)[:-1]:
        axis.contour(*sides, guesses == label, levels=[0.5], colors="black", linewidths=0.8)
    axis.scatter(features[:, 0], features[:, 1], c=colours[labels], s=14, edgecolors="white", linewidths=0.5)
    axis.set(xlim=extent[:2], ylim=extent[2:])
    return figure


def probabilities(logits: Any) -> np.ndarray:
    """The softmax of logits `[N,K]`; of a single output `[N,1]`, the probabilities of 0 and 1, `[N,2]`; float64."""
    logits = np.asarray(logits, np.float64)
    if logits.shape[-1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], -1)
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def _bars(axis: "Axes | None", names: Sequence[str], numbers: Sequence[float], form: str) -> tuple["Figure", "Axes"]:
    """A bar for each name from the top, with its number where there is room."""
    figure, axis = canvas.single(axis, 6.5, 1 + len(names) * (0.28 if len(names) <= 20 else 0.18))
    axis.barh(range(len(names)), numbers, color="C0")
    axis.set_ylim(len(names) - 0.5, -0.5)
    room = canvas.points(axis)[1] / len(names)
    canvas.name_ticks(axis.yaxis, names, room)
    for n, number in enumerate(numbers) if 0.7 * room >= canvas.SMALLEST else ():
        beside: Any = {"xytext": (3, 0), "textcoords": "offset points", "va": "center", "fontsize": min(9, 0.7 * room)}
        axis.annotate(f"{number:{form}}", (number, n), bbox={"color": "white", "pad": 0.5}, **beside)
    return figure, axis


def _told(images: Any, logits: Any, labels: Any, classes: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities `[N,K]` and labels of images, which must fit each other and the names."""
    if np.ndim(logits) != 2 or not len(logits) or len(images) != len(logits):
        raise InputError(f"images have logits [N,K]; got {len(images)} images and logits {list(np.shape(logits))}")
    p = probabilities(logits)
    if p.shape[1] != len(classes):
        raise InputError(f"logits {list(np.shape(logits))} need {p.shape[1]} names of classes; got {len(classes)}")
    return p, _labels(np.asarray(labels), images, len(classes))


def _labels(labels: np.ndarray, examples: Any, classes: int) -> np.ndarray:
    """The labels, which must be one of the classes for each example."""
    labels = np.asarray(labels)
    if labels.shape != (len(examples),) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"labels are integers [{len(examples)}]; got {labels.dtype} {list(labels.shape)}")
    check_labels(labels, classes)
    return labels


def _matrix(matrix: Any, classes: Sequence[str]) -> np.ndarray:
    """A confusion matrix with a name for each of its classes."""
    matrix = np.asarray(matrix, np.float64)
    if matrix.shape != (len(classes),) * 2 or not len(classes):
        raise InputError(f"a confusion matrix is [K,K] with K names; got {list(matrix.shape)} and {len(classes)} names")
    if not (np.isfinite(matrix) & (matrix >= 0)).all():
        raise InputError("a confusion matrix has numbers from 0")
    return matrix
