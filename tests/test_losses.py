import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.special import softmax
from sklearn.metrics import log_loss, mean_squared_error

from jaxdl import losses
from jaxdl.errors import InputError


def example(n, k, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(n, k)).astype(np.float32) * 5, draw.integers(0, k, n)


@given(st.integers(1, 9), st.integers(2, 7), st.integers(0, 99))
def test_cross_entropy_is_scikit_learns(n, k, seed):
    logits, labels = example(n, k, seed)
    ours = losses.cross_entropy(logits, labels)
    assert ours.shape == (n,)
    theirs = log_loss(labels, softmax(logits.astype(np.float64), -1), labels=range(k))
    np.testing.assert_allclose(ours.mean(), theirs, rtol=1e-4, atol=1e-6)


@given(st.integers(1, 9), st.integers(2, 7), st.integers(0, 99), st.floats(0, 1))
def test_smoothing_is_cross_entropy_against_smoothed_labels(n, k, seed, amount):
    logits, labels = example(n, k, seed)
    target = np.eye(k)[labels] * (1 - amount) + amount / k
    expected = -(target * np.asarray(jax.nn.log_softmax(logits))).sum(-1)
    np.testing.assert_allclose(losses.label_smoothing(amount)(logits, labels), expected, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 9), st.integers(0, 99))
def test_binary_cross_entropy_is_scikit_learns(n, seed):
    logits, _ = example(n, 1, seed)
    labels = np.random.default_rng(seed).integers(0, 2, n)
    p = 1 / (1 + np.exp(-logits[:, 0].astype(np.float64)))
    theirs = log_loss(labels, np.stack([1 - p, p], -1), labels=[0, 1])
    np.testing.assert_allclose(losses.binary_cross_entropy(logits, labels).mean(), theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.label_smoothing(0.1)])
def test_gradients_equal_finite_differences(loss):
    logits, labels = example(4, 3, 0)
    check_grads(lambda logits: loss(logits, labels).sum(), (logits / 5,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_impossible_smoothing():
    with pytest.raises(InputError, match="share"):
        losses.label_smoothing(1.5)


def test_large_logits_stay_finite():
    logits, labels = np.array([[1e4, -1e4]], np.float32), np.array([1])
    assert np.isfinite(losses.cross_entropy(logits, labels)).all()
    assert np.isfinite(losses.binary_cross_entropy(logits[:, :1], labels)).all()


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_squared_error_is_scikit_learns(n, k, seed):
    outputs, targets = np.random.default_rng(seed).normal(size=(2, n, k)).astype(np.float32)
    np.testing.assert_allclose(
        losses.squared_error(outputs, targets).mean(), mean_squared_error(targets, outputs), rtol=1e-5
    )
    flat = losses.squared_error(outputs[:, :1], targets[:, 0])
    np.testing.assert_allclose(flat, (outputs[:, 0] - targets[:, 0]) ** 2, rtol=1e-5)


def test_the_losses_of_several_heads_add_up():
    logits, labels = example(4, 3, 0)
    outputs, targets = {"kind": logits, "size": logits[:, :1]}, {"kind": labels, "size": np.arange(4.0)}
    both = losses.combine({"kind": losses.cross_entropy, "size": losses.squared_error})(outputs, targets)
    expected = losses.cross_entropy(logits, labels) + losses.squared_error(logits[:, :1], np.arange(4.0))
    np.testing.assert_allclose(both, expected, rtol=1e-6)
