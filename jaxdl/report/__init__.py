"""Pictures of a training. Each function returns a matplotlib figure; save it with `figure.savefig(path)`."""

from jaxdl.report.plots import augmentations, curves, learning_rates, predictions, sheet

__all__ = ["augmentations", "curves", "learning_rates", "predictions", "sheet"]
