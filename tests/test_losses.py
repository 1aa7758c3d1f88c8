import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads
from scipy.special import expit, softmax
from sklearn.metrics import log_loss, mean_absolute_error, mean_squared_error
from sklearn.utils.class_weight import compute_class_weight

from jaxdl import losses
from jaxdl.errors import InputError

N = 8  # examples: a new shape is compiled anew, so there are few
SEEDS, CLASSES = st.integers(0, 9999), st.sampled_from([2, 3, 7])
KINDS = st.sampled_from(["sparse", "categorical", "binary"])
CROSS_ENTROPIES = {
    "sparse": losses.cross_entropy,
    "categorical": losses.categorical_cross_entropy,
    "binary": losses.binary_cross_entropy,
}


def example(k, seed):
    draw = np.random.default_rng(seed)
    return draw.normal(size=(N, k)).astype(np.float32) * 5, draw.integers(0, k, N)


def problem(kind, k, seed):
    """The outputs and labels of a kind of cross-entropy; the probabilities and the shares they stand for, float64."""
    logits, labels = example(1 if kind == "binary" else k, seed)
    if kind == "binary":
        labels = np.random.default_rng(seed).integers(0, 2, N)
        p = expit(logits.astype(float))
        return logits, labels, np.concatenate([1 - p, p], -1), np.eye(2)[labels]
    p, shares = softmax(logits.astype(float), -1), np.eye(k)[labels]
    return logits, labels if kind == "sparse" else shares.astype(np.float32), p, shares


@given(CLASSES, SEEDS)
def test_cross_entropy_is_scikit_learns(k, seed):
    logits, labels = example(k, seed)
    ours = losses.cross_entropy(logits, labels)
    assert ours.shape == (N,)
    theirs = log_loss(labels, softmax(logits.astype(np.float64), -1), labels=range(k))
    np.testing.assert_allclose(ours.mean(), theirs, rtol=1e-4, atol=1e-6)


@given(CLASSES, SEEDS)
def test_cross_entropy_against_shares_is_that_of_their_mixture(k, seed):
    logits, _ = example(k, seed)
    shares = np.random.default_rng(seed).dirichlet(np.ones(k), N).astype(np.float32)
    each = [shares[:, c] * losses.cross_entropy(logits, np.full(N, c)) for c in range(k)]
    np.testing.assert_allclose(losses.categorical_cross_entropy(logits, shares), sum(each), rtol=1e-4)


@given(CLASSES, SEEDS)
def test_one_hot_and_integer_labels_are_the_same(k, seed):
    logits, labels = example(k, seed)
    one_hot = losses.categorical_cross_entropy(logits, np.eye(k, dtype=int)[labels])
    np.testing.assert_allclose(one_hot, losses.cross_entropy(logits, labels), rtol=1e-6)


@given(SEEDS)
def test_binary_cross_entropy_is_scikit_learns(seed):
    logits, labels, p, _ = problem("binary", 1, seed)
    ours = losses.binary_cross_entropy(logits, labels)
    np.testing.assert_allclose(ours.mean(), log_loss(labels, p, labels=[0, 1]), rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(losses.binary_cross_entropy(logits, labels[:, None]), ours)


@given(KINDS, CLASSES, SEEDS, st.floats(0, 1))
def test_smoothing_is_cross_entropy_against_smoothed_labels(kind, k, seed, amount):
    logits, labels, p, shares = problem(kind, k, seed)
    target = shares * (1 - amount) + amount / shares.shape[-1]
    expected = -(target * np.log(p)).sum(-1)
    np.testing.assert_allclose(losses.label_smoothing(amount)(logits, labels), expected, rtol=1e-4, atol=1e-5)


@given(KINDS, CLASSES, SEEDS, st.floats(0, 5))
def test_focal_is_its_definition(kind, k, seed, gamma):
    logits, labels, p, shares = problem(kind, k, seed)
    p = (p * shares).sum(-1)
    ours = losses.focal(CROSS_ENTROPIES[kind], gamma)(logits, labels)
    np.testing.assert_allclose(ours, (1 - p) ** gamma * -np.log(p), rtol=1e-4, atol=1e-6)


@given(KINDS, CLASSES, SEEDS, st.booleans())
def test_probabilities_give_the_loss_of_their_logits(kind, k, seed, composed):
    logits, labels, p, _ = problem(kind, k, seed)
    logits = logits / 4  # no probability is near the clipping
    p = expit(logits) if kind == "binary" else softmax(logits, -1)
    loss = CROSS_ENTROPIES[kind]
    loss = losses.label_smoothing(0.2) if composed else loss
    np.testing.assert_allclose(losses.from_probabilities(loss)(p, labels), loss(logits, labels), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", CROSS_ENTROPIES)
def test_probabilities_of_0_and_1_give_finite_losses_and_gradients(kind):
    p = np.array([[0.0], [1.0]] if kind == "binary" else [[1.0, 0.0], [0.0, 1.0]], np.float32)
    labels = np.array([1, 1])
    labels = np.eye(2, dtype=np.float32)[labels] if kind == "categorical" else labels
    loss = losses.from_probabilities(CROSS_ENTROPIES[kind])
    ours, slope = loss(p, labels), jax.grad(lambda p: loss(p, labels).sum())(p)
    np.testing.assert_allclose(ours, [-np.log(losses.EPSILON), 0], rtol=1e-2, atol=1e-6)
    assert np.isfinite(slope).all()


@given(KINDS, CLASSES, SEEDS)
def test_class_weights_are_weights_of_the_examples(kind, k, seed):
    logits, labels, p, shares = problem(kind, k, seed)
    weights = np.random.default_rng(seed).uniform(0.1, 3, shares.shape[-1])
    ours = losses.class_weighted(CROSS_ENTROPIES[kind], weights)(logits, labels)
    of_example = shares @ weights
    theirs = log_loss(shares.argmax(-1), p, labels=range(len(weights)), sample_weight=of_example)
    np.testing.assert_allclose(ours.sum() / of_example.sum(), theirs, rtol=1e-4, atol=1e-6)


@given(CLASSES, st.integers(0, 40), SEEDS)
def test_balanced_weights_are_scikit_learns(k, more, seed):
    labels = np.concatenate([np.arange(k), np.random.default_rng(seed).integers(0, k, more)])
    theirs = compute_class_weight("balanced", classes=np.arange(k), y=labels)
    np.testing.assert_allclose(losses.balanced_weights(labels, k), theirs, rtol=1e-6)


@given(st.sampled_from([1, 4]), SEEDS)
def test_errors_of_numbers_are_scikit_learns_and_scipys(k, seed):
    outputs, targets = np.random.default_rng(seed).normal(size=(2, N, k)).astype(np.float32)
    theirs = {
        losses.squared_error: mean_squared_error(targets.T, outputs.T, multioutput="raw_values"),
        losses.absolute_error: mean_absolute_error(targets.T, outputs.T, multioutput="raw_values"),
        losses.huber(0.7): scipy.special.huber(0.7, outputs - targets).mean(-1),
    }
    for loss, expected in theirs.items():
        np.testing.assert_allclose(loss(outputs, targets), expected, rtol=1e-5)
        flat = loss(outputs[:, :1], targets[:, 0])
        np.testing.assert_array_equal(flat, loss(outputs[:, :1], targets[:, :1]))


SMOOTH = {
    "cross_entropy": losses.cross_entropy,
    "smoothed": losses.label_smoothing(0.1),
    "focal": losses.focal(losses.cross_entropy),
    "weighted": losses.class_weighted(losses.cross_entropy, [1.0, 2.0, 3.0]),
    "probabilities": losses.from_probabilities(losses.cross_entropy),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_gradients_equal_finite_differences(name):
    outputs, labels = example(3, 0)
    outputs = softmax(outputs / 5, -1) if name == "probabilities" else outputs / 5
    check_grads(lambda x: SMOOTH[name](x, labels).sum(), (outputs,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("loss", [losses.squared_error, losses.absolute_error, losses.huber(1.0)])
def test_gradients_of_errors_equal_finite_differences(loss):
    outputs = np.array([[-3.0, -0.6], [0.8, 2.5]], np.float32)  # away from the kinks at 0 and 1
    labels = np.zeros_like(outputs)
    check_grads(lambda x: loss(x, labels).sum(), (outputs,), order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_large_logits_stay_finite(gamma):
    logits, labels = np.array([[1e4, -1e4], [1e4, -1e4]], np.float32), np.array([1, 0])
    for loss, z in ((losses.cross_entropy, logits), (losses.binary_cross_entropy, logits[:, :1])):
        focal = losses.focal(loss, gamma)
        for each in (loss, focal):
            assert np.isfinite(each(z, labels)).all()
            assert np.isfinite(jax.grad(lambda z, each=each: each(z, labels).sum())(z)).all()


@pytest.mark.parametrize("name", losses.NAMED)
def test_every_loss_computes_in_float32(name):
    k = 1 if name == "binary_cross_entropy" else 3
    logits, labels = example(k, 0)
    if name in ("categorical_cross_entropy", "squared_error", "absolute_error", "huber"):
        labels = np.eye(3, dtype=np.float32)[labels]
    half, loss = jnp.asarray(logits, jnp.bfloat16), losses.by_name(name)
    ours = jax.jit(loss)(half, labels)
    assert (ours.dtype, ours.shape) == (jnp.float32, (N,))
    np.testing.assert_allclose(ours, loss(half.astype(jnp.float32), labels), rtol=1e-5)


def test_the_losses_of_several_heads_add_up():
    logits, labels = example(3, 0)
    outputs, targets = {"kind": logits, "size": logits[:, :1]}, {"kind": labels, "size": np.arange(float(N))}
    both = losses.combine({"kind": losses.cross_entropy, "size": losses.squared_error})(outputs, targets)
    expected = losses.cross_entropy(logits, labels) + losses.squared_error(logits[:, :1], np.arange(float(N)))
    np.testing.assert_allclose(both, expected, rtol=1e-6)
    with pytest.raises(InputError, match="'sise'; the nearest: size"):
        losses.combine({"sise": losses.squared_error})(outputs, targets)


logits, labels = example(3, 0)
one_hot, numbers = np.eye(3, dtype=np.float32)[labels], np.arange(N, dtype=np.float32)


@pytest.mark.parametrize(
    ("loss", "outputs", "labels", "said"),
    [
        (losses.cross_entropy, logits, one_hot, "float32 .8,3.: use categorical_cross_entropy"),
        (losses.cross_entropy, logits, numbers, "for numbers use squared_error"),
        (losses.cross_entropy, logits, labels[:3], "not int32 .3."),
        (losses.cross_entropy, logits[:, :1], labels, "use binary_cross_entropy"),
        (losses.categorical_cross_entropy, logits, labels, "int32 .8.: use cross_entropy"),
        (losses.categorical_cross_entropy, logits, one_hot[:, :2], "not float32 .8,2."),
        (losses.categorical_cross_entropy, logits[:, :1], labels, "use binary_cross_entropy"),
        (losses.binary_cross_entropy, logits, labels, "use cross_entropy"),
        (losses.binary_cross_entropy, logits[:, :1], one_hot, "is not float32 .8,3."),
        (losses.label_smoothing(0.1), logits, numbers, "integers .B. or one-hot"),
        (losses.squared_error, logits, numbers, "the outputs' shape"),
        (losses.absolute_error, logits[:, :1], numbers[None], "the outputs' shape"),
        (losses.class_weighted(losses.cross_entropy, [1, 2]), logits, labels, "2 class weights for 3 classes"),
        (losses.class_weighted(losses.binary_cross_entropy, [1]), logits[:, :1], labels, "1 class weights for 2"),
    ],
)
def test_labels_that_do_not_fit_are_found_when_the_step_is_traced(loss, outputs, labels, said):
    with pytest.raises(InputError, match=said):
        jax.eval_shape(loss, outputs, labels)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: losses.label_smoothing(1.5), "share"),
        (lambda: losses.focal(losses.cross_entropy, -1), "gamma"),
        (lambda: losses.huber(0), "delta"),
        (lambda: losses.class_weighted(losses.cross_entropy, [1, -2]), "from 0"),
        (lambda: losses.balanced_weights(np.array([0, 2]), 3), "class 1 has no example"),
        (lambda: losses.balanced_weights(np.array([0, 3]), 3), "label 3 is out of range"),
        (lambda: losses.balanced_weights(np.array([0.5]), 3), "not float64 .1."),
        (lambda: losses.by_name("hubert"), "no loss 'hubert'; the nearest: huber"),
    ],
)
def test_impossible_losses(make, said):
    with pytest.raises(InputError, match=said):
        make()
