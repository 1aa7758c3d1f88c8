"""Losses: pure functions `(outputs, labels) -> [B]`, one number per example; the train step weighs and averages them.

Some are made from others, in any nesting: `focal(loss)`, `class_weighted(loss, weights)`, `from_probabilities(loss)`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl.errors import InputError, nearest

Loss = Callable[[Any, Any], Array]
"""`(outputs [B,K], labels) -> float32 [B]`; of a network with several heads, dicts of them."""

EPSILON = 1e-7  # a probability is at least this far from 0 and 1, as in Keras (keras.config.epsilon)


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy in nats, the sparse one: `logits [B,K]`, integer `labels [B]`, to float32 `[B]`.

    Raises:
      InputError: the labels are something else, one-hot for instance, or there is a single output.
    """
    if logits.shape[-1] == 1:
        raise InputError("cross_entropy needs an output for each class, and there is one: use binary_cross_entropy")
    if labels.shape == logits.shape:
        raise InputError(
            f"cross_entropy takes integer labels [B], and these are one-hot, {_said(labels)}: "
            "use categorical_cross_entropy"
        )
    if labels.shape != logits.shape[:1] or not jnp.issubdtype(labels.dtype, jnp.integer):
        raise InputError(
            f"cross_entropy takes integer labels [{logits.shape[0]}] for outputs {_said(logits)}, not {_said(labels)}; "
            "for numbers use squared_error"
        )
    return -_of_labels(_log_p(logits), logits, labels)


def categorical_cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy in nats against shares: `logits [B,K]`, `labels [B,K]`, one-hot or soft, to float32 `[B]`.

    Raises:
      InputError: the labels are something else, integers `[B]` for instance, or there is a single output.
    """
    if logits.shape[-1] == 1:
        raise InputError(
            "categorical_cross_entropy needs an output for each class, and there is one: use binary_cross_entropy"
        )
    if labels.shape == logits.shape[:1]:
        raise InputError(
            f"categorical_cross_entropy takes one-hot labels [B,{logits.shape[-1]}], and these are {_said(labels)}: "
            "use cross_entropy"
        )
    if labels.shape != logits.shape:
        raise InputError(
            f"categorical_cross_entropy takes labels of the outputs' shape, {_said(logits)}, not {_said(labels)}"
        )
    return -_of_labels(_log_p(logits), logits, labels)


def binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """Sigmoid cross-entropy in nats of a single output: `logits [B,1]`, `labels [B]` or `[B,1]` from 0 to 1, to float32
    `[B]`.

    Raises:
      InputError: there are several outputs, or the labels have another shape.
    """
    if logits.shape[-1] != 1:
        raise InputError(
            f"binary_cross_entropy takes a single output, and there are {logits.shape[-1]}: "
            "use cross_entropy, or categorical_cross_entropy for one-hot labels"
        )
    return -_of_labels(_log_p(logits), logits, labels)


def label_smoothing(amount: float) -> Loss:
    """Cross-entropy against labels of which this share is spread evenly over all classes.

    The labels are those of any of the three cross-entropies. Szegedy et al., "Rethinking the Inception Architecture for
    Computer Vision" (2015), arXiv:1512.00567, section 7.

    Raises:
      InputError: the share is outside 0 to 1.
    """
    if not 0 <= amount <= 1:
        raise InputError(f"label smoothing is a share, 0 to 1; got {amount}")

    def loss(logits: Array, labels: Array) -> Array:
        log_p = _log_p(logits)
        return -(1 - amount) * _of_labels(log_p, logits, labels) - amount * log_p.mean(-1)

    return loss


def focal(loss: Loss, gamma: float = 2.0) -> Loss:
    """A cross-entropy in which examples count the less the surer they are: times `(1 - p)^gamma`, p that of the label.

    Lin et al., "Focal Loss for Dense Object Detection" (2017), arXiv:1708.02002, where gamma is 2 and the classes are
    weighted too: `class_weighted(focal(binary_cross_entropy), (0.75, 0.25))`.

    Args:
      loss: one of the three cross-entropies, against labels that are not soft.
      gamma: 0 is the cross-entropy itself.

    Raises:
      InputError: gamma is negative or not a number.
    """
    if not 0 <= gamma < math.inf:
        raise InputError(f"focal: gamma is a number from 0; got {gamma}")

    def focused(outputs: Array, labels: Array) -> Array:
        nats = loss(outputs, labels)  # -log p
        # A power below 1 has no slope at 0; there the loss is 0, and so is the slope.
        wrong = jnp.maximum(-jnp.expm1(-nats), jnp.finfo(jnp.float32).tiny)  # 1 - p
        return wrong**gamma * nats

    return focused


def from_probabilities(loss: Loss) -> Loss:
    """A loss for a network that ends in a softmax or sigmoid: made from a cross-entropy, or from what is made of one.

    `metrics.from_probabilities` does the same for a metric.
    """
    return lambda outputs, labels: loss(to_logits(outputs), labels)


def to_logits(probabilities: Array) -> Array:
    """Logits that give these probabilities: of a softmax `[B,K]`, or of a sigmoid `[B,1]`; float32.

    They are kept 1e-7 away from 0 and 1, as Keras does, so that a sure mistake costs 16 nats and not infinitely many.
    """
    p = jnp.clip(probabilities.astype(jnp.float32), EPSILON, 1 - EPSILON)
    return jnp.log(p) - jnp.log1p(-p) if p.shape[-1] == 1 else jnp.log(p)


def class_weighted(loss: Loss, weights: Sequence[float] | np.ndarray) -> Loss:
    """A loss times the weight of the example's class; for soft labels, the mean of the weights by their shares.

    The weights multiply and nothing divides by them, as in Keras: the train step's mean is over examples. PyTorch's
    divides by the sum of a batch's class weights, which for `balanced_weights` is about the count of its examples.

    Args:
      loss: of classes: labels are integers `[B]`, shares `[B,K]`, or for a single output 0 to 1.
      weights: one for each class, `[K]`; for a single output two, of label 0 and of label 1.

    Raises:
      InputError: a weight is negative or no number; when the loss is called, their count is not that of the classes.
    """
    table = np.asarray(weights, np.float32)
    if table.ndim != 1 or not np.isfinite(table).all() or (table < 0).any():
        raise InputError(f"class weights are numbers from 0, one for each class; got {weights}")

    def weighted(outputs: Array, labels: Array) -> Array:
        each = loss(outputs, labels)
        classes = max(2, outputs.shape[-1])
        if len(table) != classes:
            raise InputError(f"there are {len(table)} class weights for {classes} classes; give one for each class")
        return each * _of_labels(jnp.broadcast_to(table, (each.shape[0], classes)), outputs, labels)

    return weighted


def balanced_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The weights `[K]` that give every class the same say: N / (K × its count), float32; their mean over the examples
    is 1.

    What scikit-learn calls "balanced", after King and Zeng, "Logistic Regression in Rare Events Data" (2001),
    doi:10.1093/oxfordjournals.pan.a004868.

    Args:
      labels: integers `[N]`, those of the training data.
      num_classes: K; 2 for a single output.

    Raises:
      InputError: a label is none of the classes, or a class has no example.
    """
    labels = np.asarray(labels)
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"balanced_weights takes integer labels [N], not {_said(labels)}")
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise InputError(
            f"label {wrong[0]} is out of range: labels of {num_classes} classes are 0 to {num_classes - 1}"
        )
    counts = np.bincount(labels, minlength=num_classes)
    if not counts.all():
        raise InputError(f"class {int(np.argmin(counts))} has no example, so no weight balances it")
    return (len(labels) / (num_classes * counts)).astype(np.float32)


def squared_error(outputs: Array, labels: Array) -> Array:
    """The mean over the targets of the squared differences: `outputs [B,K]`, `labels [B,K]` or, for K = 1, `[B]`, to
    float32 `[B]`.

    Raises:
      InputError: the labels have another shape.
    """
    return jnp.square(outputs.astype(jnp.float32) - targets(outputs, labels)).mean(-1)


def absolute_error(outputs: Array, labels: Array) -> Array:
    """The mean over the targets of the absolute differences; shapes as `squared_error` has them."""
    return jnp.abs(outputs.astype(jnp.float32) - targets(outputs, labels)).mean(-1)


def huber(delta: float = 1.0) -> Loss:
    """The mean over the targets of Huber's loss, half the square of a difference up to `delta` and straight beyond.

    Huber, "Robust Estimation of a Location Parameter" (1964), doi:10.1214/aoms/1177703732. Shapes as `squared_error`
    has them.

    Args:
      delta: in the units of the labels.

    Raises:
      InputError: delta is not above 0.
    """
    if not 0 < delta < math.inf:
        raise InputError(f"huber: delta is a number above 0; got {delta}")

    def loss(outputs: Array, labels: Array) -> Array:
        distance = jnp.abs(outputs.astype(jnp.float32) - targets(outputs, labels))  # [B,K]
        near = jnp.minimum(distance, delta)
        return (near * (distance - near / 2)).mean(-1)

    return loss


def targets(outputs: Array, labels: Array) -> Array:
    """Labels that are numbers, `[B,K]` or for a single output `[B]`, as float32 `[B,K]`.

    Raises:
      InputError: they have another shape.
    """
    if labels.shape != outputs.shape and (outputs.shape[-1] != 1 or labels.shape != outputs.shape[:1]):
        raise InputError(f"labels that are numbers have the outputs' shape: {_said(outputs)} is not {_said(labels)}")
    return labels.reshape(outputs.shape).astype(jnp.float32)


def combine(parts: Mapping[str, Loss]) -> Loss:
    """The sum of the losses of several heads: outputs and labels are dicts by the heads' names.

    Raises:
      InputError: when the loss is called, the network has no head of a name.
    """

    def loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Array:
        for name in parts:
            if name not in outputs:
                raise InputError(f"combine: the network has no head {name!r}{nearest(name, outputs)}")
        each = [part(outputs[name], labels[name]) for name, part in parts.items()]
        return jnp.stack(each).sum(0)  # [B]

    return loss


NAMED: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "categorical_cross_entropy": categorical_cross_entropy,
    "binary_cross_entropy": binary_cross_entropy,
    "focal": focal(cross_entropy),
    "squared_error": squared_error,
    "absolute_error": absolute_error,
    "huber": huber(),
}
"""Losses by name, with the constants of their sources."""


def by_name(name: str) -> Loss:
    """The loss of that name in `NAMED`.

    Raises:
      InputError: there is none; the nearest is named.
    """
    if name not in NAMED:
        raise InputError(f"there is no loss {name!r}{nearest(name, NAMED)}")
    return NAMED[name]


def _log_p(logits: Array) -> Array:
    """Log-probabilities of the classes, float32 `[B,K]`; for a single output `[B,2]`, of label 0 and of label 1."""
    z = logits.astype(jnp.float32)
    return jax.nn.log_sigmoid(jnp.concatenate([-z, z], -1)) if z.shape[-1] == 1 else jax.nn.log_softmax(z)


def _of_labels(values: Array, outputs: Array, labels: Array) -> Array:
    """Of the `values` of the classes, `[B,K]` or for a single output `[B,2]`, those of the labels, `[B]`."""
    if outputs.shape[-1] == 1:
        y = targets(outputs, labels)[:, 0]  # [B]
        return values[:, 0] * (1 - y) + values[:, 1] * y
    if labels.shape == outputs.shape:
        return (values * labels.astype(jnp.float32)).sum(-1)
    if labels.shape == outputs.shape[:1] and jnp.issubdtype(labels.dtype, jnp.integer):
        return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]
    raise InputError(
        f"labels of classes are integers [B] or one-hot [B,K]; {_said(labels)} is neither for outputs {_said(outputs)}"
    )


def _said(array: Any) -> str:
    """An array in a message: `float32 [32,3]`."""
    return f"{array.dtype} [{','.join(map(str, array.shape))}]"
