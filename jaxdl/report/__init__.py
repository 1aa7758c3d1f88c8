"""Pictures: of data, of a training, of what it has come to, and of what a network does inside.

Each function returns a matplotlib figure; save it with `figure.savefig(path)`. A picture of a single axis takes `axis`,
to be one of several in a figure of yours. Without matplotlib (`pip install 'jaxdl[plots]'`) all raise an InputError.
"""

from jaxdl.report.classes import (
    class_scores,
    confused_pairs,
    confusion_matrix,
    decision_boundary,
    most_wrong,
    precision_recall,
    predictions,
    reliability,
    thresholds,
)
from jaxdl.report.images import augmentations, heatmaps, sheet
from jaxdl.report.networks import activations, feature_maps, filters, gradient_flow, weights
from jaxdl.report.numbers import scatter
from jaxdl.report.training import compare, curves, learning_rates, schedule

__all__ = [
    "activations",
    "augmentations",
    "class_scores",
    "compare",
    "confused_pairs",
    "confusion_matrix",
    "curves",
    "decision_boundary",
    "feature_maps",
    "filters",
    "gradient_flow",
    "heatmaps",
    "learning_rates",
    "most_wrong",
    "precision_recall",
    "predictions",
    "reliability",
    "scatter",
    "schedule",
    "sheet",
    "thresholds",
    "weights",
]
