"""Dense nets, CNNs and transfer learning with pretrained EfficientNets in JAX, as pure functions."""

from jaxdl import (
    augment,
    callbacks,
    data,
    explain,
    features,
    losses,
    metrics,
    models,
    optim,
    parallel,
    pretrained,
    rates,
    report,
    train,
    transfer,
    trees,
)
from jaxdl.errors import InputError, Interrupted
from jaxdl.history import History
from jaxdl.loop import evaluate, fine_tune, fit, predict
from jaxdl.optim import Phase
from jaxdl.transfer import Recipe

__version__ = "0.1.0"

__all__ = [
    "History",
    "InputError",
    "Interrupted",
    "Phase",
    "Recipe",
    "augment",
    "callbacks",
    "data",
    "evaluate",
    "explain",
    "features",
    "fine_tune",
    "fit",
    "losses",
    "metrics",
    "models",
    "optim",
    "parallel",
    "predict",
    "pretrained",
    "rates",
    "report",
    "train",
    "transfer",
    "trees",
]
