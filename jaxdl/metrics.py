"""Metrics as sums that merge: batches, devices and epochs add up to the figure of the whole, whatever their sizes."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


class Metric(NamedTuple):
    """Two pure functions, with a tree of sums between them that adds up over batches."""

    update: Callable[[Any, Any, Array], Any]
    """`(outputs [B,K], labels [B], weights [B]) -> sums`"""
    compute: Callable[[Any], Any]
    """`sums -> the figure`"""


def mean(values: Callable[[Array, Array], Array]) -> Metric:
    """The weighted mean of a per-example function `(outputs [B,K], labels [B]) -> [B]`, a loss for instance."""

    def update(outputs: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
        return (values(outputs, labels) * weights).sum(), weights.sum()

    def compute(sums: tuple[Any, Any]) -> float:
        total, weight = sums
        return float(total) / float(weight) if weight else float("nan")

    return Metric(update, compute)


def of(head: str, metric: Metric) -> Metric:
    """A metric of one of several heads, whose outputs and labels are dicts."""
    return Metric(lambda outputs, labels, weights: metric.update(outputs[head], labels[head], weights), metric.compute)


def top_k(k: int) -> Metric:
    """The share of examples whose label is among the k largest outputs."""

    def hit(outputs: Array, labels: Array) -> Array:
        of_label = jnp.take_along_axis(outputs, labels[:, None], axis=-1)  # [B,1]
        return ((outputs > of_label).sum(-1) < k).astype(jnp.float32)

    return mean(hit)


def _accurate(outputs: Array, labels: Array) -> Array:
    guess = outputs[:, 0] > 0 if outputs.shape[-1] == 1 else outputs.argmax(-1)
    return (guess == labels).astype(jnp.float32)


accuracy = mean(_accurate)
"""The share of examples whose largest output is the label's; with a single output, whose sign is right."""


def merge(parts: list[Any]) -> Any:
    """The sum of many trees of sums, in float64 on the host. Waits for them to be computed."""
    return jax.tree.map(lambda *leaves: np.sum(leaves, 0, dtype=np.float64), *jax.device_get(parts))


def compute(metrics: Mapping[str, Metric], sums: Mapping[str, Any]) -> dict[str, float]:
    """The figures of a mapping of metrics from their sums."""
    return {name: metric.compute(sums[name]) for name, metric in metrics.items()}
