"""Losses: pure functions `(logits, labels) -> [B]`, one number per example; the train step weighs and averages them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.errors import InputError

Loss = Callable[[Any, Any], Array]
"""`(outputs [B,K], labels [B]) -> float32 [B]`; of a network with several heads, dicts of them."""


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy in nats: `logits [B,K]`, integer `labels [B]`, to `[B]`."""
    return label_smoothing(0.0)(logits, labels)


def label_smoothing(amount: float) -> Loss:
    """Cross-entropy against labels of which this share is spread evenly over all classes.

    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), arXiv:1512.00567.

    Raises:
      InputError: the share is outside 0 to 1.
    """
    if not 0 <= amount <= 1:
        raise InputError(f"label smoothing is a share, 0 to 1; got {amount}")

    def loss(logits: Array, labels: Array) -> Array:
        log_p = jax.nn.log_softmax(logits.astype(jnp.float32))  # [B,K]
        of_label = jnp.take_along_axis(log_p, labels[:, None], axis=-1)[:, 0]  # [B]
        return -(1 - amount) * of_label - amount * log_p.mean(-1)

    return loss


def binary_cross_entropy(logits: Array, labels: Array) -> Array:
    """Sigmoid cross-entropy in nats of a single output: `logits [B,1]`, `labels [B]` of 0 and 1, to `[B]`."""
    z = logits[:, 0].astype(jnp.float32)  # [B]
    return jax.nn.softplus(z) - labels * z


def squared_error(outputs: Array, labels: Array) -> Array:
    """The mean over the targets of the squared differences: `outputs [B,K]`, `labels [B,K]` or, for K = 1, `[B]`, to
    `[B]`."""
    labels = labels.reshape(outputs.shape).astype(jnp.float32)
    return jnp.square(outputs.astype(jnp.float32) - labels).mean(-1)


def combine(parts: Mapping[str, Loss]) -> Loss:
    """The sum of the losses of several heads: outputs and labels are dicts by the heads' names."""

    def loss(outputs: Mapping[str, Array], labels: Mapping[str, Array]) -> Array:
        each = [part(outputs[name], labels[name]) for name, part in parts.items()]
        return jnp.stack(each).sum(0)  # [B]

    return loss
