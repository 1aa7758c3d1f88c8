import html
import io
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from sklearn import calibration
from sklearn import metrics as theirs

import jaxdl
from experiments import pictures
from jaxdl import metrics, optim, report
from jaxdl.errors import InputError
from jaxdl.report import canvas, images, networks

ROWS = [
    {"epoch": n, "loss": 1 / n, "accuracy": 1 - 1 / n, "val_loss": 1.1 / n, "val_accuracy": 0.9 - 1 / n}
    for n in (1, 2, 3)
]
PHASES = [{**row, "phase": "head" if row["epoch"] < 3 else "fine-tune"} for row in ROWS]
NAMES = tuple(f"class number {n}" for n in range(101))


def drawn(figure):
    """The picture is made, without a warning, of a collapsed layout for instance."""
    figure.savefig(io.BytesIO(), dpi=40)
    return figure


def texts(axis):
    return [text.get_text() for text in axis.texts]


def names(ticks):
    return [label.get_text() for label in ticks.get_ticklabels()]


def confusion(classes, seed=0):
    draw = np.random.default_rng(seed)
    return draw.poisson(1.0, (classes, classes)) + 20.0 * np.eye(classes)


def curves(classes, examples=300):
    draw = np.random.default_rng(0)
    labels = np.arange(examples) % max(2, classes)
    logits = draw.normal(size=(examples, classes)).astype(np.float32)
    logits += 2 * np.eye(classes)[labels] if classes > 1 else 2 * labels[:, None]
    metric = metrics.precision_recall_curve()
    return metric.compute(metric.update(logits, labels, np.ones(examples, np.float32)))


@pytest.mark.parametrize("name", ["$5_and_$10", "$0-$50", r"a\$b$c$"])
def test_dollars_in_names_are_no_formulas(name):
    classes, history = [name, "other"], [{**row, "phase": f"{row['epoch']} {name}"} for row in ROWS]
    logits = np.array([[1.0, 0.0], [1.0, 0.0]])
    for figure in (
        report.confusion_matrix(confusion(2), classes),
        report.class_scores(confusion(2), classes),
        report.predictions(np.zeros((2, 8, 8, 1), np.uint8), logits, np.array([0, 1]), classes),
        report.precision_recall(curves(2), classes),
        report.compare({name: ROWS, "other": ROWS}),
        report.curves(history),
        report.gradient_flow({name: {"a": 1.0, "b": 10.0}, "other": {"a": 2.0}}),
        report.scatter(np.arange(3.0), np.arange(3.0), name),
    ):
        picture = io.StringIO()
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # as text
            figure.savefig(picture, format="svg")
        shown = html.unescape(re.sub("<!--.*?-->", "", picture.getvalue()))  # there formulas are as they were written
        assert name in shown
        assert "mathdefault" not in shown  # of a logarithmic axis, which is to be a formula


# --- training


def test_one_history_has_a_line_where_a_phase_begins():
    figure = drawn(report.curves(PHASES))
    loss, accuracy = figure.axes
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1.1, 1.1 / 2, 1.1 / 3])
    np.testing.assert_allclose(accuracy.lines[1].get_ydata(), [0, 1 / 2, 2 / 3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["validation data", "training data"]
    for axis in figure.axes:
        assert [line.get_xdata()[0] for line in axis.lines[2:]] == [2.5]
        assert texts(axis) == ["fine-tune"]
    assert [len(axis.lines) for axis in drawn(report.curves(ROWS)).axes] == [2, 2]
    assert [len(axis.lines) for axis in drawn(report.curves(PHASES[:1], "loss")).axes] == [2]


def test_histories_are_compared():
    without = [{name: value for name, value in row.items() if "val" not in name} for row in ROWS]
    late = [{**row, "phase": "head" if row["epoch"] < 2 else "all"} for row in ROWS]
    figure = drawn(report.compare({"one": PHASES, "two": without, "three": PHASES, "four": late}))
    loss, accuracy = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two", "three", "four"]
    assert [len(axis.lines) for axis in (loss, accuracy)] == [7 + 2] * 2
    shared, own = loss.lines[-2:]
    assert (shared.get_xdata()[0], own.get_xdata()[0]) == (2.5, 1.5)
    assert own.get_color() == loss.lines[5].get_color()  # the fourth history's
    assert texts(loss) == ["fine-tune", "all"]
    drawn(report.compare({f"run {n}": ROWS for n in range(25)}))


def test_a_column_that_comes_later_leaves_a_gap():
    rows = [{"epoch": 1, "loss": 2.0, "accuracy": 0.5}, {**ROWS[1], "loss": None}]
    loss, _ = drawn(report.curves(rows)).axes
    np.testing.assert_array_equal(loss.lines[0].get_ydata(), [np.nan, 1.1 / 2])
    np.testing.assert_array_equal(loss.lines[1].get_ydata(), [2.0, np.nan])


def test_the_suggested_rate_is_marked():
    found = np.array([2.0, 1.0, np.nan])
    figure = report.learning_rates(np.array([1e-4, 1e-3, 1e-2]), found, 3e-4)
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), found)
    assert axis.get_xscale() == "log"
    assert axis.lines[1].get_xdata()[0] == 3e-4
    assert axis.get_legend().get_texts()[0].get_text() == "suggested: 3.0e-04"


def test_a_schedule_is_the_one_that_training_follows():
    phases = [
        jaxdl.Phase(2, 1e-3, name="head", schedule="constant", warmup=0.0),
        jaxdl.Phase(3, 4e-4, name="all", schedule=optim.Step(0.5, every="1ep"), warmup="5st"),
    ]
    (axis,) = drawn(report.schedule(phases, steps=10)).axes
    first, second = (line for line in axis.lines if len(line.get_xdata()) > 2)
    np.testing.assert_allclose(first.get_ydata(), [1e-3] * 20)
    rate = optim.make_schedule(phases[1], 30)
    np.testing.assert_allclose(second.get_xdata(), 2 + np.arange(30) / 10)
    np.testing.assert_allclose(second.get_ydata(), [float(rate(n)) for n in range(30)], rtol=1e-5)
    assert texts(axis) == ["head", "all"]
    (axis,) = drawn(report.schedule(phases[1], steps=10**6)).axes
    assert len(axis.lines) == 1
    assert len(axis.lines[0].get_xdata()) == 2000


# --- classes


@pytest.mark.parametrize("classes", [1, 2, 10, 101])
@pytest.mark.parametrize("normalize", [True, False])
def test_a_confusion_matrix_shows_its_numbers_where_they_fit(classes, normalize):
    matrix = 10 * confusion(classes)
    figure = drawn(report.confusion_matrix(matrix, NAMES[:classes], normalize))
    axis, _ = figure.axes
    shown = 100 * matrix / matrix.sum(1, keepdims=True) if normalize else matrix
    np.testing.assert_allclose(axis.images[0].get_array(), shown)
    assert names(axis.yaxis) == names(axis.xaxis) == list(NAMES[:classes])
    assert min(label.get_fontsize() for label in axis.get_yticklabels()) >= canvas.SMALLEST
    assert texts(axis) == [f"{number:.0f}" if number else "" for number in shown.ravel() if classes < 100]
    assert all(text.get_fontsize() >= canvas.SMALLEST for text in axis.texts)


def test_a_class_without_examples_is_an_empty_row():
    axis, _ = drawn(report.confusion_matrix(np.array([[0, 0], [1, 3]]), ("a", "b"))).axes
    np.testing.assert_array_equal(axis.images[0].get_array(), [[0, 0], [25, 75]])


@pytest.mark.parametrize("classes", [2, 101])
def test_class_scores_are_scikit_learns_and_sorted(classes):
    matrix = confusion(classes).astype(int)
    truth, guess = (np.repeat(rows.ravel(), matrix.ravel()) for rows in np.indices(matrix.shape))
    f1 = theirs.f1_score(truth, guess, average=None)
    (axis,) = drawn(report.class_scores(matrix, NAMES[:classes])).axes
    np.testing.assert_allclose([bar.get_width() for bar in axis.patches], np.sort(f1)[::-1])
    assert names(axis.yaxis) == [NAMES[n] for n in np.argsort(-f1, kind="stable")]
    assert axis.get_legend().get_texts()[0].get_text() == f"mean {f1.mean():.3f}"
    assert axis.get_ylim()[0] > axis.get_ylim()[1]  # the first is at the top


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 40))
def test_confused_pairs_are_the_largest_numbers_off_the_diagonal(seed, classes, count):
    matrix = np.random.default_rng(seed).poisson(0.7, (classes, classes))
    (axis,) = report.confused_pairs(matrix, NAMES[:classes], count).axes
    pairs = sorted(
        (matrix[a, b] for a in range(classes) for b in range(classes) if a != b and matrix[a, b]), reverse=True
    )
    assert [bar.get_width() for bar in axis.patches] == pairs[:count]
    if not pairs:
        assert texts(axis) == [f"none of {matrix.sum()} examples is taken for another class"]
    for bar, name in zip(axis.patches, names(axis.yaxis) if pairs else (), strict=True):
        a, b = (NAMES.index(part) for part in name.split(" → "))
        assert matrix[a, b] == bar.get_width()


def test_predictions_say_what_is_wrong():
    images = np.zeros((7, 8, 8, 1), np.uint8)
    logits = np.eye(3)[[0, 1, 2, 0, 1, 2, 0]] * 9
    figure = drawn(report.predictions(images, logits, np.array([0, 1, 2, 0, 1, 2, 1]), ("a", "b", "c")))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "a 100%"
    assert titles[6] == "a 100%\nis b"
    assert titles[7:] == [""] * 5
    one = report.predictions(images[:2], np.array([[0.0], [-2.0]]), np.array([1, 1]), ("cat", "dog"))
    assert [axis.get_title() for axis in one.axes] == ["cat 50%\nis dog", "cat 88%\nis dog"]


def test_the_most_wrong_come_first():
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 3), np.uint8)
    logits = np.array([[3.0, 0.0], [1.0, 0.0], [2.0, 0.0], [9.0, 0.0], [0.0, 1.0]])
    labels = np.array([1, 1, 1, 0, 1])
    figure = report.most_wrong(images, logits, labels, ("a", "b"), count=2)
    assert [axis.images[0].get_array()[0, 0, 0] for axis in figure.axes] == [0, 2]
    assert figure.axes[0].get_title() == "a 95%\nis b"
    right = report.most_wrong(images[3:], logits[3:], labels[3:], ("a", "b"))
    assert texts(right.axes[0]) == ["none of 2 images is taken for something else"]


@pytest.mark.parametrize("classes", [1, 3, 101])
def test_precision_and_recall_with_their_thresholds(classes):
    each = curves(classes, 600)
    (axis,) = drawn(report.precision_recall(each, NAMES[:classes])).axes
    coloured = [line for line in axis.lines if not line.get_label().startswith("_")]
    assert len(coloured) == min(10, classes)
    lowest = sorted(curve.f1.max() for curve in each)[:10]
    np.testing.assert_allclose(sorted(float(line.get_label().split()[-4]) for line in coloured), lowest, atol=0.006)
    if classes == 3:
        np.testing.assert_array_equal(coloured[1].get_xydata(), np.stack([each[1].recall, each[1].precision], -1))
        best, half = each[1].best_f1(), next(n for n, least in enumerate(each[1].thresholds) if least >= 0.5)
        marks = [tuple(line.get_xydata()[0]) for line in axis.lines[4:6]]
        assert marks == [(best.recall, best.precision), (each[1].recall[half], each[1].precision[half])]


def test_thresholds_show_the_best_one():
    (curve,) = curves(1)
    (axis,) = drawn(report.thresholds(curve)).axes
    for line, numbers in zip(axis.lines, (curve.precision, curve.recall, curve.f1), strict=False):
        np.testing.assert_array_equal(line.get_ydata(), numbers)
    assert axis.lines[3].get_xdata()[0] == curve.best_f1().threshold


def test_reliability_is_scikit_learns():
    draw = np.random.default_rng(0)
    p = np.append(draw.uniform(0.3, 1, 400), 1.0)
    right = draw.uniform(size=401) < p**2
    (axis,) = drawn(report.reliability(p, right)).axes
    rights, said = calibration.calibration_curve(right, p, n_bins=15)
    bars = [(bar.get_height(), bar.get_y()) for bar in axis.patches]
    np.testing.assert_allclose([height for height, _ in bars[: len(rights)]], rights)
    np.testing.assert_allclose([height + y for height, y in bars[len(rights) :]], said)
    # The library's metric says the same of a single output that says 1 every time.
    sure = p > 0.5
    logits = np.log(p[sure] / np.maximum(1 - p[sure], 1e-9))[:, None].astype(np.float32)
    metric = metrics.calibration_error()
    error = metric.compute(metric.update(logits, right[sure].astype(np.int32), np.ones(len(logits), np.float32)))
    title = report.reliability(p[sure], right[sure]).axes[0].get_legend().get_title().get_text()
    assert title == f"expected calibration error {error:.3f}"


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_a_decision_boundary_lies_where_the_guess_changes(classes):
    draw = np.random.default_rng(0)
    features = draw.uniform(-1, 1, (60, 2))
    kernel = {1: [[4.0], [0.0]], 2: [[0.0, 4.0], [0.0, 0.0]], 3: [[-4.0, 4.0, 0.0], [0.0, 0.0, 0.0]]}[classes]
    shift = [-1.2] if classes == 1 else [0.0, -1.2, -1e9][:classes]  # a third class is never guessed

    def predict(points):
        return points @ jnp.asarray(kernel) + jnp.asarray([shift])

    labels = (features[:, 0] > 0.3).astype(int)
    (axis,) = drawn(report.decision_boundary(predict, features, labels)).axes
    (lines,) = [each for each in axis.collections if "Contour" in type(each).__name__]
    border = np.concatenate([path.vertices for path in lines.get_paths()])
    expected = 0.15 if classes == 3 else 0.3
    np.testing.assert_allclose(border[:, 0], expected, atol=2.4 / 200)
    image = axis.images[0].get_array()
    assert image.shape == (200, 200, 3)
    colours = np.array(canvas.palette(2))[:, :3]
    for side, colour in ((0, colours[0]), (-1, colours[1])):  # nearest to the colour of its class
        assert np.argmin(np.abs(colours - image[100, side]).sum(-1)) == np.argmin(np.abs(colours - colour).sum(-1))
    report.decision_boundary(predict, features, labels[:, None])


# --- images


def test_a_sheet_takes_images_of_all_sizes():
    images = [np.full(shape, n * 40, np.uint8) for n, shape in enumerate([(4, 4), (3, 5, 1), (6, 2, 3), (1, 1)])]
    figure = drawn(report.sheet(images, list("abcd"), ["red"] * 4))
    for axis, image, title in zip(figure.axes, images, "abcd", strict=True):
        np.testing.assert_array_equal(
            axis.images[0].get_array(), image.squeeze(-1) if image.shape[-1:] == (1,) and image.ndim == 3 else image
        )
        assert axis.get_title() == title
    assert len(drawn(report.sheet(images * 4, ["x"] * 16)).axes) == 18


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_stand_beside_their_originals(channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, channels), dtype=np.uint8)

    def brighter(key, images):
        return images + 300.0 * jax.random.uniform(key)

    figure = report.augmentations(images, brighter, jax.random.key(0), count=3, title="light")
    assert figure.get_suptitle() == "light"
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert len(shown) == 2 * 4
    for row, image in enumerate(images):
        np.testing.assert_array_equal(shown[4 * row], image.squeeze())
        for n in range(3):
            light = float(jax.random.uniform(jax.random.fold_in(jax.random.key(0), n)))
            expected = np.clip(np.round(image + 300 * light), 0, 255).squeeze()
            np.testing.assert_allclose(shown[4 * row + 1 + n].astype(float), expected, atol=1)


@pytest.mark.parametrize(("count", "channels"), [(1, 1), (8, 3)])
def test_heat_lies_over_the_image_below(count, channels):
    draw = np.random.default_rng(0)
    images, heat = draw.integers(0, 256, (count, 6, 5, channels), dtype=np.uint8), draw.uniform(size=(count, 6, 5))
    heat[0] = 0
    figure = drawn(report.heatmaps(images, jnp.asarray(heat), NAMES[:count]))
    columns = min(6, count)
    axes = np.array(figure.axes).reshape(-1, columns)
    for n in range(count):
        above, below = axes[n // columns * 2 :, n % columns][:2]
        np.testing.assert_array_equal(above.images[0].get_array(), images[n].squeeze())
        assert above.get_title() == NAMES[n]
        share = np.minimum(heat[n] / np.percentile(heat[n], 99.5), 1)[..., None] if n else 0 * heat[0][..., None]
        yellow = 255 * matplotlib.colormaps["inferno"](share[..., 0])[..., :3]
        mixed = (1 - share) * 0.6 * images[n].mean(-1, keepdims=True) + share * yellow  # clear where it is cold
        np.testing.assert_allclose(below.images[0].get_array(), mixed, atol=0.51)


def test_predictions_of_numbers_stand_over_the_true_ones():
    truth, predicted = np.array([3.0, 1.0, 2.0]), np.array([2.5, 1.5, 2.0])
    figure = drawn(report.scatter(truth, predicted, "price"))
    equal, points = figure.axes[0].lines
    np.testing.assert_array_equal(points.get_xydata(), np.stack([truth, predicted], -1))
    np.testing.assert_array_equal(equal.get_xydata(), [[1, 1], [3, 3]])
    assert (figure.axes[0].get_xlabel(), figure.axes[0].get_ylabel()) == ("price, true", "price, predicted")


# --- networks


@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 4), st.sampled_from([None, 1, 3, 5]), st.booleans())
def test_a_mosaic_has_each_tile_at_its_place(count, height, width, columns, colour):
    tiles = np.random.default_rng(0).normal(size=(count, height, width, *(3,) * colour)) + 5
    picture = networks.mosaic(tiles, columns)
    columns = (picture.shape[1] + 1) // (width + 1)
    for n, tile in enumerate(tiles):
        top, left = n // columns * (height + 1), n % columns * (width + 1)
        np.testing.assert_array_equal(picture[top : top + height, left : left + width], tile)
    blank = picture == 1 if colour else np.isnan(picture)
    assert (~blank).sum() == tiles.size


def test_filters_in_colour_and_by_input():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 5))
    (axis,) = drawn(report.filters(kernel)).axes
    shown = axis.images[0].get_array()
    np.testing.assert_allclose(shown[:3, :3], 0.5 + kernel[..., 0] / np.abs(kernel[..., 0]).max() / 2, rtol=1e-6)
    many = np.random.default_rng(0).normal(size=(2, 2, 4, 6))
    shown = np.asarray(drawn(report.filters(jnp.asarray(many))).axes[0].images[0].get_array())
    assert shown.shape == (4 * 3 - 1, 6 * 3 - 1)
    np.testing.assert_allclose(shown[6:8, 3:5], many[:, :, 2, 1], rtol=1e-6)  # a row for each input
    drawn(report.filters(np.zeros((1, 1, 1, 1))))
    drawn(report.filters(np.ones((3, 3, 64, 64))))


def test_feature_maps_are_the_channels_of_layers():
    draw = np.random.default_rng(0)
    outputs = {
        "first": draw.normal(size=(6, 5, 2)),
        "a/second": draw.normal(size=(3, 3, 40)),
        "dead": np.zeros((1, 1, 1)),
    }
    figure = drawn(report.feature_maps(outputs, count=4))
    axes = np.array(figure.axes).reshape(3, 4)
    for row, (path, maps) in zip(axes, outputs.items(), strict=True):
        assert row[0].get_ylabel().startswith(f"{path}\n")
        for n, axis in enumerate(row):
            assert len(axis.images) == (n < maps.shape[-1])
            if n < maps.shape[-1]:
                np.testing.assert_allclose(axis.images[0].get_array(), maps[..., n], rtol=1e-6)
                assert axis.images[0].get_clim()[1] == pytest.approx(np.abs(maps).max() or 1)


def test_weights_of_a_layer_on_pixels_are_images():
    draw = np.random.default_rng(0)
    params = {"head": {"bias": draw.normal(size=10), "kernel": draw.normal(size=(28 * 28, 10))}}
    bias, kernel = drawn(report.weights(params, shape=(28, 28))).axes
    np.testing.assert_allclose(bias.images[0].get_array(), params["head"]["bias"][None], rtol=1e-6)
    shown = np.asarray(kernel.images[0].get_array())  # two rows of five
    np.testing.assert_allclose(shown[29:57, 58:86], params["head"]["kernel"][:, 7].reshape(28, 28), rtol=1e-6)
    colour = {"kernel": draw.normal(size=(4 * 5 * 3, 2))}
    (axis,) = drawn(report.weights(colour, shape=(4, 5, 3))).axes
    second = colour["kernel"][:, 1].reshape(4, 5, 3)[..., 2]
    np.testing.assert_allclose(axis.images[0].get_array()[5:9, 12:17], second, rtol=1e-6)  # a row for each output


def test_weights_of_every_kind_have_a_picture():
    params = {
        "conv": {"kernel": np.ones((3, 3, 3, 8))},
        "b": np.float32(2),
        "c": np.ones((2, 3, 4)),
        "none": np.ones((0, 2)),
    }
    figure = drawn(report.weights(params))
    assert [axis.get_title().split("\n")[0] for axis in figure.axes] == ["conv/kernel", "b", "c"]
    assert len(report.weights({f"layer_{n}": np.eye(3) for n in range(100)}).axes) == 100


def test_gradients_that_are_zero_are_seen():
    norms = {"deep": {"a": 1e-6, "b": 0.0, "c": 1.0}, "flat": {"a": 1.0, "c": np.nan, "d": 2.0}}
    (axis,) = drawn(report.gradient_flow(norms)).axes
    assert axis.get_yscale() == "log"
    assert names(axis.xaxis) == ["a", "b", "c", "d"]
    deep, cross, flat, nan = axis.lines
    np.testing.assert_array_equal(deep.get_ydata(), [1e-6, np.nan, 1.0])
    np.testing.assert_array_equal(flat.get_xdata(), [0, 2, 3])
    assert (cross.get_xdata()[0], nan.get_xdata()[0]) == (1, 2)
    np.testing.assert_allclose([cross.get_ydata()[0], nan.get_ydata()[0]], 1e-7)
    (axis,) = drawn(report.gradient_flow({f"blocks_{n}_0/depthwise_bn": 0.1**n for n in range(120)})).axes
    assert len(axis.lines[0].get_xdata()) == 120
    drawn(report.gradient_flow({"only": 0.0}))


def test_activations_are_drawn_with_their_slopes():
    chosen = ["relu", "elu", "gelu", "hard_tanh", "tanh"]
    figure = drawn(report.activations(chosen))
    assert [axis.get_title() for axis in figure.axes] == [*chosen, "", "", ""]
    for axis in figure.axes[:5]:
        function, slope = axis.lines
        x, y = function.get_data()
        np.testing.assert_array_equal(slope.get_xdata(), x)
        middle = (y[2:] - y[:-2]) / (x[2:] - x[:-2])
        smooth = np.abs(np.diff(slope.get_ydata(), 2)) < 1e-3  # away from kinks
        np.testing.assert_allclose(middle[smooth], slope.get_ydata()[1:-1][smooth], atol=2e-3)


# --- all of them

ONE_AXIS = {
    "learning_rates": partial(report.learning_rates, np.array([1e-3, 1e-2]), np.ones(2), 1e-3),
    "schedule": partial(report.schedule, jaxdl.Phase(2, 1e-3), 5),
    "confusion_matrix": partial(report.confusion_matrix, confusion(101), NAMES, True),
    "class_scores": partial(report.class_scores, confusion(101), NAMES),
    "confused_pairs": partial(report.confused_pairs, confusion(5), NAMES[:5], 10),
    "precision_recall": partial(report.precision_recall, curves(2), NAMES[:2]),
    "thresholds": partial(report.thresholds, curves(1)[0]),
    "reliability": partial(report.reliability, np.array([0.7, 0.9]), np.array([True, False])),
    "decision_boundary": partial(report.decision_boundary, lambda x: x, np.eye(2), np.arange(2)),
    "filters": partial(report.filters, np.ones((3, 3, 1, 4))),
    "gradient_flow": partial(report.gradient_flow, {"a": 1.0, "b": 2.0}),
    "activations": partial(report.activations, ["relu", "mish"]),
}


@pytest.mark.parametrize("name", ONE_AXIS)
def test_a_picture_is_drawn_on_the_axis_that_is_given(name):
    figure = Figure(layout="constrained", figsize=(7, 3.5))
    left, right = figure.subplots(1, 2)
    assert ONE_AXIS[name](axis=right) is figure
    assert right.has_data()
    assert not left.has_data()
    assert [axis for axis in figure.axes if axis not in (left, right)] == [
        each.colorbar.ax for each in right.images if each.colorbar
    ]
    drawn(figure)


def test_every_picture_is_in_the_gallery():
    assert all(f"figure = report.{name}(" in pictures.page() for name in report.__all__)
    assert (pictures.DOCS / "pictures.md").read_text() == pictures.page(), "make pictures"
    for chapter in pictures.CHAPTERS.values():
        for each in chapter:
            assert (pictures.DOCS / "images" / pictures.file(each)).exists()


@pytest.mark.parametrize("picture", [pictures.schedule, pictures.filters])
def test_the_gallery_is_made_of_small_files(picture, tmp_path):
    made = {"variables": {"params": {"stem": {"kernel": np.random.default_rng(0).normal(size=(3, 3, 3, 32))}}}}
    pictures.save(pictures.draw(picture, made), tmp_path / "picture.png")
    assert 500 < (tmp_path / "picture.png").stat().st_size <= pictures.LARGEST


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: report.curves(ROWS, "acuracy"), "the history has no 'acuracy'; the nearest: accuracy"),
        (lambda: report.curves([]), "the history is empty"),
        (lambda: report.compare({"one": ROWS}, "f1"), "'one' has no 'f1'"),
        (lambda: report.compare({"one": ROWS, "two": []}), "'two' is empty"),
        (lambda: report.compare({}), "no history to compare"),
        (lambda: report.learning_rates(np.ones(3), np.ones(2), 1.0), "rates and losses"),
        (lambda: report.learning_rates(np.ones(0), np.ones(0), 1.0), "rates and losses"),
        (lambda: report.schedule([], 5), "at least one phase"),
        (lambda: report.schedule(jaxdl.Phase(1, 1e-3), 0), "one step"),
        (lambda: report.schedule(jaxdl.Phase(1, 1e-3, warmup="9st"), 5), "longer than the phase"),
        (lambda: report.confusion_matrix(np.ones((2, 3)), ("a", "b")), r"\[K,K\] with K names; got \[2, 3\] and 2"),
        (lambda: report.confusion_matrix(np.ones((2, 2)), ("a",)), "and 1 names"),
        (lambda: report.confusion_matrix(np.ones((0, 0)), ()), "and 0 names"),
        (lambda: report.confusion_matrix(-np.eye(2), ("a", "b")), "numbers from 0"),
        (lambda: report.class_scores(np.eye(2), ("a", "a")), "a different name"),
        (lambda: report.confused_pairs(np.eye(2), ("a", "b"), 0), "count=0"),
        (
            lambda: report.predictions(np.zeros((2, 4, 4, 1)), np.ones((3, 2)), np.arange(2), "ab"),
            "2 images and logits",
        ),
        (lambda: report.predictions(np.zeros((2, 4, 4, 1)), np.ones((2, 3)), np.arange(2), "ab"), "3 names .* got 2"),
        (lambda: report.predictions(np.zeros((2, 4, 4, 1)), np.ones((2, 2)), np.arange(3), "ab"), r"integers \[2\]"),
        (lambda: report.predictions(np.zeros((2, 4, 4, 1)), np.ones((2, 2)), np.array([0, 2]), "ab"), "label 2"),
        (lambda: report.predictions(np.zeros((0, 4, 4, 1)), np.ones((0, 2)), np.arange(0), "ab"), "0 images"),
        (lambda: report.most_wrong(np.zeros((2, 4, 4, 1)), np.ones((2, 2)), np.arange(2), "ab", 0), "count=0"),
        (lambda: report.precision_recall(curves(2), ("a",)), "2 curves, 1 names"),
        (lambda: report.precision_recall((), ()), "0 curves"),
        (lambda: report.thresholds(metrics.Curve(*(np.zeros(0),) * 4)), "no examples"),
        (lambda: report.reliability(np.ones(3), np.ones(2)), r"\[3\], \[2\]"),
        (lambda: report.reliability(np.ones(0), np.ones(0)), r"\[0\], \[0\]"),
        (lambda: report.reliability(np.array([1.5]), np.ones(1)), "from 0 to 1"),
        (lambda: report.decision_boundary(lambda x: x, np.ones((4, 3)), np.arange(4)), r"features \[N,2\]"),
        (lambda: report.decision_boundary(lambda x: x[:3], np.eye(2), np.arange(2)), r"it gives \[3, 2\]"),
        (lambda: report.decision_boundary(lambda x: x, np.eye(2), np.array([0, 2])), "label 2"),
        (lambda: report.decision_boundary(lambda x: x, np.eye(2), np.array([0.5, 1])), "float64"),
        (lambda: report.sheet([], []), "0 images"),
        (lambda: report.sheet([np.ones((3, 3))], []), "1 images need"),
        (lambda: report.sheet([np.ones((3, 3, 2))], ["x"]), r"got \[3, 3, 2\]"),
        (lambda: report.heatmaps(np.ones((1, 4, 4, 1)), np.ones((1, 4, 5))), r"\[1, 4, 4, 1\], \[1, 4, 5\]"),
        (lambda: report.heatmaps(np.ones((0, 4, 4, 1)), np.ones((0, 4, 4))), r"\[0, 4, 4\]"),
        (lambda: report.heatmaps(np.ones((1, 4, 4, 1)), np.ones((1, 4, 4)), ["a", "b"]), "2 titles"),
        (lambda: images.overlay(np.ones((4, 4, 1)), np.ones((4, 5))), r"\[4, 4, 1\], \[4, 5\]"),
        (lambda: report.scatter(np.ones(3), np.ones(2)), r"\[3\], \[2\]"),
        (lambda: report.scatter(np.ones(0), np.ones(0)), r"\[0\], \[0\]"),
        (lambda: report.augmentations(np.ones((4, 4, 3)), lambda key, x: x, jax.random.key(0)), r"\[N,H,W,C\]"),
        (lambda: report.augmentations(np.ones((1, 4, 4, 3)), lambda key, x: x, jax.random.key(0), 0), "count=0"),
        (lambda: report.filters(np.ones((3, 4))), r"\[h,w,I,O\]; got \[3, 4\]"),
        (lambda: report.filters(np.ones((3, 3, 1, 0))), r"got \[3, 3, 1, 0\]"),
        (lambda: report.feature_maps({"head": np.ones((1, 10))}), "'head' is .1, 10."),
        (lambda: report.feature_maps({}), "got 0"),
        (lambda: report.weights({}), "these are 0"),
        (lambda: report.weights({f"{n}": np.ones(1) for n in range(101)}), "these are 101"),
        (lambda: report.weights({"kernel": np.ones((5, 2))}, (2, 2)), r"no matrix .* \[2, 2\]"),
        (lambda: report.weights({"kernel": np.ones((4, 2))}, (4,)), r"no matrix .* \[4\]"),
        (lambda: report.gradient_flow({}), "no gradient"),
        (lambda: report.gradient_flow({"a": {}}), "no gradient"),
        (lambda: report.activations(["rely"]), "no activation 'rely'; the nearest: relu"),
        (lambda: report.activations([]), "no activation to show"),
    ],
)
def test_errors_say_what_does_not_fit(wrong, message):
    with pytest.raises(InputError, match=message):
        wrong()


def test_a_notebook_shows_a_picture_without_pyplot():
    width, height = canvas.new(3, 2).get_size_inches() * matplotlib.rcParams["figure.dpi"]
    shown = Image.open(io.BytesIO(canvas.new(3, 2)._repr_png_()))
    assert (shown.format, *shown.size) == ("PNG", width, height)


def test_matplotlib_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.layout_engine", None)
    with pytest.raises(InputError, match=r"jaxdl\[plots\]"):
        report.curves(ROWS)
