"""Losses: pure functions `(logits, labels) -> [B]`, one number per example; the train step weighs and averages them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from jaxdl.errors import InputError

Loss = Callable[[Array, Array], Array]
"""`(outputs [B,K], labels [B]) -> float32 [B]`"""


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
