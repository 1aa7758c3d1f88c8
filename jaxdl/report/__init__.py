"""Pictures of a training. Each function returns a matplotlib figure; save it with `figure.savefig(path)`."""

from jaxdl.report.plots import curves, learning_rates, predictions

__all__ = ["curves", "learning_rates", "predictions"]
