import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics as theirs
from hypothesis import assume, given
from hypothesis import strategies as st
from jax import lax
from scipy.special import expit, logsumexp, softmax

from jaxdl import metrics
from jaxdl.errors import InputError

N = 24  # examples: a new shape is compiled anew, so there are few; weights of 0 take some of them away
SEEDS, CLASSES = st.integers(0, 9999), st.sampled_from([2, 3, 5])
AVERAGES = st.sampled_from(metrics.AVERAGES)
SCORES = {"precision": metrics.precision, "recall": metrics.recall, "f1": metrics.f1}


def example(k, seed):
    draw = np.random.default_rng(seed)
    weights = draw.uniform(0.1, 1, N) * (draw.uniform(size=N) < 0.8)
    weights[0] = 1
    return draw.normal(size=(N, k)).astype("f4"), draw.integers(0, max(2, k), N), weights.astype("f4")


def numbers(k, seed, offset=0.0):
    draw = np.random.default_rng(seed)
    labels = (offset + draw.normal(size=(N, k))).astype("f4")
    return (labels + draw.normal(size=(N, k))).astype("f4"), labels, example(1, seed)[2]


def taken(metric, outputs, labels, weights):
    return metric.compute(metric.update(outputs, labels, weights))


@given(CLASSES, SEEDS)
def test_accuracy_is_scikit_learns_with_weights(k, seed):
    outputs, labels, weights = example(k, seed)
    expected = theirs.accuracy_score(labels, outputs.argmax(-1), sample_weight=weights)
    np.testing.assert_allclose(taken(metrics.accuracy, outputs, labels, weights), expected, rtol=1e-5)
    one_hot = np.eye(k, dtype="f4")[labels]
    np.testing.assert_allclose(taken(metrics.accuracy, outputs, one_hot, weights), expected, rtol=1e-5)


@given(SEEDS)
def test_a_single_output_tells_two_classes_apart(seed):
    outputs, labels, weights = example(1, seed)
    expected = theirs.accuracy_score(labels, outputs[:, 0] > 0, sample_weight=weights)
    for shape in ((N,), (N, 1)):
        ours = taken(metrics.accuracy, outputs, labels.reshape(shape).astype("f4"), weights)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)


@given(st.sampled_from([3, 5]), st.sampled_from([1, 2]), SEEDS)
def test_top_k_is_scikit_learns(k, top, seed):
    outputs, labels, weights = example(k, seed)
    expected = theirs.top_k_accuracy_score(labels, outputs, k=top, labels=range(k), sample_weight=weights)
    np.testing.assert_allclose(taken(metrics.top_k(top), outputs, labels, weights), expected, rtol=1e-5)


@given(CLASSES, SEEDS)
def test_the_first_of_equal_outputs_is_the_largest(k, seed):
    outputs, labels, weights = example(k, seed)
    outputs = np.round(outputs) + 0.0  # no -0, which `top_k` sorts below 0
    expected = taken(metrics.accuracy, outputs, labels, weights)
    np.testing.assert_allclose(taken(metrics.top_k(1), outputs, labels, weights), expected, rtol=1e-6)
    np.testing.assert_allclose(taken(metrics.top_k(k + 1), outputs, labels, weights), 1, rtol=1e-6)


@given(CLASSES, SEEDS)
def test_confusion_is_scikit_learns(k, seed):
    outputs, labels, weights = example(k, seed)
    expected = theirs.confusion_matrix(labels, outputs.argmax(-1), labels=range(k), sample_weight=weights)
    np.testing.assert_allclose(taken(metrics.confusion(), outputs, labels, weights), expected, rtol=1e-5)


@given(st.sampled_from(list(SCORES)), CLASSES, AVERAGES, SEEDS)
def test_scores_are_scikit_learns(name, k, average, seed):
    outputs, labels, weights = example(k, seed)
    labels[labels == 1] = 0  # a class that is not there
    known = {"labels": range(k), "sample_weight": weights, "zero_division": 0}
    score, guess = getattr(theirs, f"{name}_score"), outputs.argmax(-1)
    ours = taken(SCORES[name](average), outputs, labels, weights)
    assert isinstance(ours, float)
    np.testing.assert_allclose(ours, score(labels, guess, average=average, **known), rtol=1e-5)
    each = score(labels, guess, average=None, **known)
    np.testing.assert_allclose(taken(SCORES[name](None), outputs, labels, weights), each, rtol=1e-5)
    last = taken(SCORES[name](np.int64(k - 1)), outputs, labels, weights)
    np.testing.assert_allclose(last, each[-1], rtol=1e-5)


@given(st.sampled_from(list(SCORES)), AVERAGES, st.floats(0.01, 0.99), SEEDS)
def test_scores_of_a_single_output_are_those_of_label_1(name, average, threshold, seed):
    outputs, labels, weights = example(1, seed)
    p = expit(outputs[:, 0].astype(float))
    assume(np.abs(p - threshold).min() > 1e-6)
    expected = getattr(theirs, f"{name}_score")(labels, p >= threshold, sample_weight=weights, zero_division=0)
    for which in (average, 1):
        ours = taken(SCORES[name](which, threshold=threshold), outputs, labels, weights)
        np.testing.assert_allclose(ours, expected, rtol=1e-5)
    expected = theirs.confusion_matrix(labels, p >= threshold, sample_weight=weights)
    np.testing.assert_allclose(taken(metrics.confusion(threshold), outputs, labels, weights), expected, rtol=1e-5)


def test_thresholds_of_0_and_1_take_all_and_nothing():
    outputs, labels, weights = example(1, 0)
    count = weights[labels == 0].sum(), weights[labels == 1].sum()
    np.testing.assert_allclose(taken(metrics.confusion(0), outputs * 100, labels, weights)[:, 1], count, rtol=1e-5)
    np.testing.assert_allclose(taken(metrics.confusion(1), outputs * 100, labels, weights)[:, 0], count, rtol=1e-5)


def test_the_worked_example():
    """A dog is found 4 times, missed 2 times, and seen 3 times where there is a cat."""
    labels, guess = np.repeat([1, 1, 0, 0], [4, 2, 3, 5]), np.repeat([1, 0, 1, 0], [4, 2, 3, 5])
    matrix = taken(metrics.confusion(), np.eye(2, dtype="f4")[guess], labels, np.ones(14, "f4"))
    np.testing.assert_array_equal(matrix, [[5, 3], [2, 4]])
    dog = metrics.classification_report(matrix, ("cat", "dog")).classes["dog"]
    assert (round(dog.precision, 2), round(dog.recall, 2), dog.support) == (0.57, 0.67, 6)


@given(CLASSES, SEEDS)
def test_the_report_is_scikit_learns(k, seed):
    outputs, labels, weights = example(k, seed)
    names, guess = [f"class {n}" for n in range(k)], outputs.argmax(-1)
    expected = theirs.classification_report(
        labels, guess, labels=range(k), target_names=names, sample_weight=weights, output_dict=True, zero_division=0
    )
    accuracy = theirs.accuracy_score(labels, guess, sample_weight=weights)
    expected["micro avg"] = {**dict.fromkeys(("precision", "recall", "f1-score"), accuracy), "support": weights.sum()}
    report = metrics.classification_report(taken(metrics.confusion(), outputs, labels, weights), names)
    rows = {**report.classes, **{f"{name} avg": row for name, row in report.averages.items()}}
    for name, row in rows.items():
        np.testing.assert_allclose(row, list(expected[name].values()), rtol=1e-5)
    printed = [[float(word) for word in line.split()[-4:]] for line in str(report).splitlines()[1:]]
    np.testing.assert_allclose(printed, list(rows.values()), rtol=1e-5, atol=6e-5)


def binned(outputs, bins):
    """The logit of each class against the rest, rounded down to the bins."""
    outputs = outputs.astype(float)
    rest = [logsumexp(np.delete(outputs, n, 1), axis=1) for n in range(outputs.shape[1])]
    step = 2 * metrics.LOGITS / bins
    scores = (outputs - np.stack(rest, -1)) / step
    assume((np.abs(scores - np.round(scores)) > 1e-4).all())
    return np.floor(scores) * step


AREAS = {
    "auc": (metrics.roc_auc, theirs.roc_auc_score),
    "precision": (metrics.average_precision, theirs.average_precision_score),
}


@given(st.sampled_from(list(AREAS)), SEEDS, st.integers(1, 64))
def test_areas_are_scikit_learns_for_scores_on_the_bins(name, seed, spread):
    outputs, labels, weights = example(1, seed)
    labels[:2], weights[:2] = (0, 1), 1
    outputs = np.round(outputs * spread) / 64  # the default's bins; a small spread makes many equal scores
    ours, expected = AREAS[name]
    expected = expected(labels, outputs[:, 0], sample_weight=weights)
    np.testing.assert_allclose(taken(ours(), outputs, labels, weights), expected, rtol=1e-5)


@given(st.sampled_from(list(AREAS)), st.sampled_from([2, 3]), AVERAGES, SEEDS)
def test_areas_of_classes_are_scikit_learns_for_binned_scores(name, k, average, seed):
    outputs, labels, weights = example(k, seed)
    labels[:k], weights[:k] = np.arange(k), 1
    scores, truth = binned(outputs, 64), np.eye(k)[labels]
    ours, expected = AREAS[name]
    np.testing.assert_allclose(
        taken(ours(average, bins=64), outputs, labels, weights),
        expected(truth, scores, average=average, sample_weight=weights),
        rtol=1e-5,
    )
    one = expected(truth[:, 1], scores[:, 1], sample_weight=weights)
    np.testing.assert_allclose(taken(ours(1, bins=64), outputs, labels, weights), one, rtol=1e-5)


@given(SEEDS, st.sampled_from([16, 64, 2048]))
def test_areas_of_any_scores_are_within_their_bounds(seed, bins):
    outputs, labels, weights = example(1, seed)
    labels[:2], weights[:2] = (0, 1), 1
    area, precision = metrics.roc_auc(bins=bins), metrics.average_precision(bins=bins)
    sums = area.update(outputs, labels, weights)
    negative, positive = np.asarray(sums, float)[0]
    rounding = 1e-5
    bound = (negative * positive).sum() / (negative.sum() * positive.sum()) / 2
    exact = theirs.roc_auc_score(labels, outputs[:, 0], sample_weight=weights)
    assert abs(area.compute(sums) - exact) <= bound + rounding
    bound = 0.0
    for n in np.flatnonzero(positive):
        a, f = positive[n + 1 :].sum(), negative[n + 1 :].sum()
        lowest = a / (a + f + negative[n]) if f + negative[n] else 1
        bound += positive[n] / positive.sum() * ((a + positive[n]) / (a + positive[n] + f) - lowest)
    exact = theirs.average_precision_score(labels, outputs[:, 0], sample_weight=weights)
    assert abs(precision.compute(sums) - exact) <= bound + rounding


def test_classes_that_are_not_there_are_left_out_of_areas():
    outputs, labels, weights = example(3, 0)
    labels = labels % 2
    for make, _ in AREAS.values():
        each = taken(make(None), outputs, labels, weights)
        assert np.isnan(each).tolist() == [False, False, True]
        np.testing.assert_allclose(taken(make("macro"), outputs, labels, weights), each[:2].mean())


@given(SEEDS)
def test_the_curve_is_scikit_learns(seed):
    outputs, labels, weights = example(1, seed)
    labels[:2], weights[:2] = (0, 1), 1
    outputs, real = np.round(outputs * 64) / 64, weights > 0
    (curve,) = taken(metrics.precision_recall_curve(), outputs, labels, weights)
    precision, recall, scores = theirs.precision_recall_curve(
        labels[real], outputs[real, 0], sample_weight=weights[real]
    )
    np.testing.assert_allclose(curve.thresholds, expit(scores.astype(float)), rtol=1e-6)
    np.testing.assert_allclose(curve.precision, precision[:-1], rtol=1e-5)
    np.testing.assert_allclose(curve.recall, recall[:-1], rtol=1e-5, atol=1e-7)


@given(SEEDS, st.floats(0, 1))
def test_thresholds_give_what_the_curve_says(seed, least):
    outputs, labels, weights = example(1, seed)
    labels[0] = 1
    outputs = np.round(outputs * 64) / 64  # the hardest: every score lies on a threshold
    (curve,) = taken(metrics.precision_recall_curve(), outputs, labels, weights)
    least *= curve.precision.max()
    best, sure = curve.best_f1(), curve.at_precision(least)
    for point in (best, sure):
        for name, make in SCORES.items():
            ours = taken(make(threshold=point.threshold), outputs, labels, weights)
            np.testing.assert_allclose(ours, getattr(point, name), rtol=1e-5)
    f1 = [
        theirs.f1_score(labels, outputs[:, 0] >= score, sample_weight=weights, zero_division=0)
        for score in outputs[:, 0]
    ]
    np.testing.assert_allclose(best.f1, max(f1), rtol=1e-5)
    assert sure.precision >= least
    assert (curve.precision[curve.thresholds < sure.threshold] < least).all()


def test_the_curves_of_two_outputs_hold_that_of_their_difference():
    outputs, labels, weights = example(1, 0)
    (alone,) = taken(metrics.precision_recall_curve(bins=64), outputs, labels, weights)
    both = np.concatenate([np.zeros_like(outputs), outputs], -1)
    _, of_1 = taken(metrics.precision_recall_curve(bins=64), both, labels, weights)
    np.testing.assert_allclose(of_1.precision, alone.precision)
    np.testing.assert_allclose(of_1.thresholds, alone.thresholds)


def test_a_curve_without_the_precision_that_is_asked_for():
    outputs, labels, weights = np.array([[2.0], [1.0]], "f4"), np.array([0, 1]), np.ones(2, "f4")
    metric = metrics.precision_recall_curve()
    (curve,) = taken(metric, outputs, labels, weights)
    with pytest.raises(InputError, match="precision of 0.9; the highest is 0.5"):
        curve.at_precision(0.9)
    (empty,) = taken(metric, outputs, labels, weights * 0)
    with pytest.raises(InputError, match="no examples"):
        empty.best_f1()


@given(st.sampled_from([1, 2, 3]), st.sampled_from([1, 7, 15]), SEEDS)
def test_calibration_error_is_its_definition(k, bins, seed):
    outputs, labels, weights = example(k, seed)
    p = softmax(np.concatenate([np.zeros_like(outputs), outputs], -1) if k == 1 else outputs, -1).astype(float)
    sure, right = p.max(-1), p.argmax(-1) == labels
    assume((np.abs(sure * bins - np.round(sure * bins))[sure < 1] > 1e-5).all())
    expected = 0.0
    for n in range(bins):
        inside = (sure > n / bins) & (sure <= (n + 1) / bins)
        expected += abs((weights * (right - sure))[inside].sum()) / weights.sum()
    ours = taken(metrics.calibration_error(bins), outputs, labels, weights)
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@given(st.sampled_from([1, 3]), SEEDS)
def test_errors_of_numbers_are_scikit_learns(k, seed):
    outputs, labels, weights = numbers(k, seed)
    expected = {
        "mae": theirs.mean_absolute_error,
        "mse": theirs.mean_squared_error,
        "rmse": theirs.root_mean_squared_error,
        "r2": theirs.r2_score,
    }
    for name, score in expected.items():
        ours = taken(metrics.NAMED[name], outputs, labels, weights)
        np.testing.assert_allclose(ours, score(labels, outputs, sample_weight=weights), rtol=1e-4, atol=1e-5)


@given(SEEDS, st.floats(0, 6))
def test_r2_of_labels_far_from_0_is_right_or_not_a_number(seed, digits):
    outputs, labels, weights = numbers(2, seed, offset=10**digits)
    each = theirs.r2_score(labels.astype(float), outputs.astype(float), sample_weight=weights, multioutput="raw_values")
    # Sums of N positive float32 are off by N + 2 roundings at most; LOST says how many times larger than the variance.
    bound = (1 - each).mean() * 2 * (N + 2) * 2.0**-24 / metrics.LOST
    ours = taken(metrics.r2(), outputs, labels, weights)
    assert np.isnan(ours) if digits > 3 else np.isnan(ours) or abs(ours - each.mean()) <= bound
    centered = taken(metrics.r2(center=labels.mean(0)), outputs, labels, weights)
    np.testing.assert_allclose(centered, each.mean(), rtol=1e-4, atol=1e-4)


def test_r2_of_equal_labels_is_not_a_number():
    outputs, _, weights = numbers(1, 0)
    assert np.isnan(taken(metrics.r2(), outputs, np.full((N, 1), 0.1, "f4"), weights))


NUMBERS = ("mae", "mse", "rmse", "r2")
UPDATES = {name: metric for name, metric in metrics.NAMED.items() if not name.endswith(("_micro", "_weighted"))}
UPDATES |= {"confusion": metrics.confusion(), "curve": metrics.precision_recall_curve(64)}
CASES = [(name, metric, k) for name, metric in UPDATES.items() for k in (1, 3) if k > 1 or name not in ("top3", "top5")]


@pytest.mark.parametrize(("name", "metric", "k"), CASES, ids=[f"{name}-{k}" for name, _, k in CASES])
def test_every_metric_is_a_sum_over_batches(name, metric, k):
    outputs, labels, weights = numbers(k, 0) if name in NUMBERS else example(k, 0)
    outputs = jnp.asarray(outputs, jnp.bfloat16)
    update = jax.jit(metric.update)
    whole = update(outputs, labels, weights)
    assert {leaf.dtype for leaf in jax.tree.leaves(whole)} == {np.dtype("f4")}
    batches = jax.tree.map(lambda array: array.reshape(4, N // 4, *array.shape[1:]), (outputs, labels, weights))
    _, scanned = lax.scan(lambda _, batch: (None, metric.update(*batch)), None, batches)
    parts = [jax.tree.map(lambda leaf, n=n: leaf[n], scanned) for n in range(4)]
    in_float32 = metric.update(outputs.astype("f4"), labels, weights)
    padded = update(jnp.where(weights[:, None] > 0, outputs, 3), labels, weights)
    for other in (metrics.merge(parts), in_float32, padded):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), other, whole)


@pytest.mark.parametrize("name", metrics.NAMED)
def test_every_named_metric_is_a_number_even_of_nothing(name):
    metric = metrics.NAMED[name]
    outputs, labels, weights = numbers(3, 0) if name in NUMBERS else example(3, 0)
    sums = metric.update(outputs, labels, weights)
    assert isinstance(metric.compute(sums), float)
    assert np.isfinite(metric.compute(sums))
    assert isinstance(metric.compute(jax.tree.map(np.zeros_like, jax.device_get(sums))), float)


def test_metrics_by_name():
    chosen = metrics.by_name(("accuracy", "f1"))
    assert chosen == {"accuracy": metrics.accuracy, "f1": metrics.NAMED["f1"]}
    outputs, labels, weights = example(3, 0)
    figures = metrics.compute(chosen, {name: m.update(outputs, labels, weights) for name, m in chosen.items()})
    assert figures["accuracy"] == taken(metrics.accuracy, outputs, labels, weights)
    assert figures["f1"] == taken(metrics.f1("macro"), outputs, labels, weights)


def test_nothing_counted_is_not_a_number():
    assert np.isnan(metrics.accuracy.compute((np.zeros(()), np.zeros(()))))


def test_a_metric_of_one_of_several_heads():
    outputs, labels, weights = example(3, 0)
    of = metrics.of("kind", metrics.accuracy)
    heads, targets = {"kind": outputs, "size": outputs[:, :1]}, {"kind": labels, "size": weights}
    assert taken(of, heads, targets, weights) == taken(metrics.accuracy, outputs, labels, weights)
    with pytest.raises(InputError, match="'kinds'; the nearest: kind"):
        taken(metrics.of("kinds", metrics.accuracy), heads, targets, weights)


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("name", ["accuracy", "f1", "roc_auc", "calibration_error"])
def test_metrics_of_probabilities_are_those_of_their_logits(k, name):
    outputs, labels, weights = example(k, 0)
    p = expit(outputs) if k == 1 else softmax(outputs, -1)
    ours = taken(metrics.from_probabilities(metrics.NAMED[name]), p, labels, weights)
    np.testing.assert_allclose(ours, taken(metrics.NAMED[name], outputs, labels, weights), rtol=1e-4)


outputs, labels, weights = example(3, 0)


@pytest.mark.parametrize(
    ("metric", "outputs", "labels", "said"),
    [
        (metrics.accuracy, outputs, weights, "integer labels .B. or one-hot ones"),
        (metrics.confusion(0.3), outputs, labels, "a threshold, 0.3, is for a single output"),
        (metrics.top_k(2), outputs[:, :1], labels, "use accuracy"),
        (metrics.precision(3), outputs, labels, "no class 3 to average; there are 0, 1, 2"),
        (metrics.precision(0), outputs[:, :1], labels, "no class 0 to average; there are 1"),
        (metrics.mae, outputs, weights, "the outputs' shape"),
        (metrics.r2((1.0, 2.0)), outputs, outputs, "3 targets, and centers .2."),
    ],
)
def test_what_does_not_fit_is_found_when_the_step_is_traced(metric, outputs, labels, said):
    with pytest.raises(InputError, match=said):
        jax.eval_shape(metric.update, outputs, labels, weights)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: metrics.by_name(("acuracy",)), "no metric 'acuracy'; the nearest: accuracy"),
        (lambda: metrics.f1("makro"), "no average 'makro'; the nearest: macro"),
        (lambda: metrics.recall(threshold=50), "0 to 1; got 50"),
        (lambda: metrics.top_k(0), "at least 1"),
        (lambda: metrics.roc_auc(bins=15), "even"),
        (lambda: metrics.precision_recall_curve(bins=0), "even"),
        (lambda: metrics.calibration_error(0), "at least 1 bin"),
        (lambda: metrics.classification_report(np.eye(3), ("cat", "dog")), "matrix is .3, 3., the names are 2"),
        (lambda: metrics.classification_report(np.eye(2), ("cat", "cat")), "a different name"),
    ],
)
def test_impossible_metrics(make, said):
    with pytest.raises(InputError, match=said):
        make()


def test_the_code_of_the_page_runs():
    page = Path(__file__).parent.parent / "docs" / "metrics.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(block, names)
    assert round(names["dog"].precision, 2) == 0.57
    assert round(names["dog"].recall, 2) == 0.67
