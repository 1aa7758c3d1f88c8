import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from jaxdl import metrics


def example(n, k, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, k)).astype(np.float32), draw.integers(0, k, n), draw.uniform(0.1, 1, n).astype("f4")


@given(st.integers(1, 20), st.integers(2, 6), st.integers(0, 99))
def test_accuracy_is_scikit_learns_with_weights(n, k, seed):
    outputs, labels, weights = example(n, k, seed)
    ours = metrics.accuracy.compute(metrics.accuracy.update(outputs, labels, weights))
    np.testing.assert_allclose(ours, accuracy_score(labels, outputs.argmax(-1), sample_weight=weights), rtol=1e-5)


@given(st.integers(1, 20), st.integers(0, 99))
def test_a_single_output_tells_two_classes_apart(n, seed):
    outputs, labels, weights = example(n, 1, seed)
    ours = metrics.accuracy.compute(metrics.accuracy.update(outputs, labels, weights))
    np.testing.assert_allclose(ours, accuracy_score(labels, outputs[:, 0] > 0, sample_weight=weights), rtol=1e-5)


@given(st.integers(1, 20), st.integers(3, 6), st.integers(1, 2), st.integers(0, 99))
def test_top_k_is_scikit_learns(n, k, top, seed):
    outputs, labels, weights = example(n, k, seed)
    metric = metrics.top_k(top)
    theirs = top_k_accuracy_score(labels, outputs, k=top, labels=range(k), sample_weight=weights)
    np.testing.assert_allclose(metric.compute(metric.update(outputs, labels, weights)), theirs, rtol=1e-5)


@given(st.integers(2, 20), st.data())
def test_parts_add_up_to_the_whole(n, data):
    outputs, labels, weights = example(n, 3, 0)
    cut = data.draw(st.integers(1, n - 1))
    parts = [metrics.accuracy.update(outputs[s], labels[s], weights[s]) for s in (slice(cut), slice(cut, None))]
    whole = metrics.accuracy.update(outputs, labels, weights)
    a, b = metrics.accuracy.compute(metrics.merge(parts)), metrics.accuracy.compute(whole)
    np.testing.assert_allclose(a, b, rtol=1e-6)
    assert metrics.compute({"accuracy": metrics.accuracy}, {"accuracy": whole}) == {"accuracy": b}


def test_nothing_counted_is_not_a_number():
    assert np.isnan(metrics.accuracy.compute((np.zeros(()), np.zeros(()))))


def test_a_metric_of_one_of_several_heads():
    outputs, labels, weights = example(9, 3, 0)
    alone = metrics.accuracy.update(outputs, labels, weights)
    of = metrics.of("kind", metrics.accuracy)
    among = of.update({"kind": outputs, "size": outputs[:, :1]}, {"kind": labels, "size": weights}, weights)
    assert of.compute(among) == metrics.accuracy.compute(alone)
