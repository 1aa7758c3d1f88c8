"""Dense nets, CNNs and transfer learning with pretrained EfficientNets in JAX, as pure functions."""

from jaxdl import augment, data, losses, metrics, models, optim, parallel, pretrained, report, train, transfer, trees
from jaxdl.errors import InputError
from jaxdl.loop import evaluate, fit, predict
from jaxdl.optim import Phase

__version__ = "0.1.0"

__all__ = [
    "InputError",
    "Phase",
    "augment",
    "data",
    "evaluate",
    "fit",
    "losses",
    "metrics",
    "models",
    "optim",
    "parallel",
    "predict",
    "pretrained",
    "report",
    "train",
    "transfer",
    "trees",
]
