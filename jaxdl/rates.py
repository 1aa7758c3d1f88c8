"""Which learning rate: a sweep over all of them in one training, or many trainings of the head at once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxdl import optim, train
from jaxdl.data import order
from jaxdl.errors import InputError
from jaxdl.features import Stage
from jaxdl.losses import Loss, cross_entropy
from jaxdl.optim import Phase

SMOOTHING = 3.0  # steps; the width of the Gaussian that the losses are smoothed with, which does not lag behind them
DIVERGED = 4.0  # a sweep is read up to where the loss passes this many times its lowest value
LASTING = 10  # steps: so many above that, all of them, after as many below, so that no noise is taken for it


@dataclass(frozen=True)
class Found:
    """What was measured at which learning rate, and the rate that it suggests."""

    rates: np.ndarray
    """float32 `[K]`"""
    losses: np.ndarray
    """float32 `[K]`; not a number where the training has diverged."""
    suggestion: float
    accuracies: np.ndarray | None = None
    """float32 `[K]`, of a grid."""


def sweep(
    stage: Stage,
    phase: Phase,
    *,
    low: float = 1e-6,
    high: float = 1.0,
    steps: int = 100,
    batch_size: int = 32,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Found:
    """Train once while the learning rate rises from `low` to `high`, the same factor at every step; one compiled scan.

    Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), arXiv:1506.01186, section 3.3.

    Args:
      stage: what is trained on what, from `features.prepare`.
      phase: its optimizer, decay, clipping and factors are used; not its length or schedule.

    Returns:
      The smoothed losses, and the rate at which they fall most steeply by its logarithm; where they hardly fall, as
      those of a trained network, the rate of the lowest.

    Raises:
      InputError: the rates do not rise, there are too few steps, or the loss is no number from the first step on.
    """
    if not 0 < low < high:
        raise InputError(f"the rates rise from low to high, both above 0; got low={low}, high={high}")
    if steps // phase.accumulate < 10:
        batches = f" of accumulate={phase.accumulate} batches" if phase.accumulate > 1 else ""
        raise InputError(f"a sweep takes at least 10 updates{batches}, got {steps} steps")
    source = stage.sources[0]
    rows, weights = _rows(len(source), batch_size, steps, seed)
    used, rows = np.unique(rows, return_inverse=True)  # files that no batch needs are not decoded
    rates = low * (high / low) ** (np.arange(steps) / (steps - 1))
    optimizer = optim.make_optimizer(phase, lambda n: low * (high / low) ** (n / (steps - 1)))
    step = stage.make_train_step(replace(phase, ema=None), optimizer, loss=loss)
    state = train.init_state(stage.variables, optimizer, jax.random.key(seed), stage.mask)

    def body(state: train.TrainState, each: tuple[Array, Array]) -> tuple[train.TrainState, Array]:
        batch = jax.tree.map(lambda array: array[each[0]], data)
        state, sums = step(state, {**batch, "weight": each[1]})
        return state, sums["loss"][0] / sums["loss"][1]

    data = jax.device_put(source.take(used))
    _, raw = jax.jit(lambda state, rows, weights: lax.scan(body, state, (rows, weights)))(
        state, rows.reshape(weights.shape), weights
    )
    smooth = _smoothed(np.asarray(raw, np.float64))
    return Found(rates.astype(np.float32), smooth.astype(np.float32), _steepest(rates, smooth))


def grid(
    stage: Stage,
    phase: Phase,
    rates: Sequence[float],
    *,
    batch_size: int = 32,
    loss: Loss = cross_entropy,
    seed: int = 0,
) -> Found:
    """Train the head at many learning rates at once, as one program under `vmap`, and measure each on the validation
    data.

    Args:
      stage: from `features.prepare`, for a phase with `views`, with validation data.
      phase: how the head is trained; the rates take the place of its learning rate.
      rates: one for each training.

    Returns:
      Losses and accuracies on the validation data, and the rate with the lowest loss.

    Raises:
      InputError: there are no rates above 0, no validation data, or the phase has no `views`; or the loss is no number
        at any of the rates.
    """
    if not rates or min(rates) <= 0:
        raise InputError(f"learning rates are above 0, and there is at least one; got {list(rates)}")
    if phase.views is None:
        raise InputError(f"many rates are tried on features computed once; the phase {phase.name!r} has no views")
    if stage.validation is None:
        raise InputError("the rates are compared on validation data, and there are none")
    count = len(stage.sources[0])
    epochs = [order(count, batch_size, seed=seed, epoch=n + 1) for n in range(phase.epochs)]  # as `fit` counts them
    rows, weights = (np.concatenate(parts) for parts in zip(*epochs, strict=True))
    views = np.repeat(np.arange(phase.epochs) % len(stage.sources), len(epochs[0][0]))
    taken = [source.take(np.arange(count)) for source in stage.sources]
    data = {"features": np.stack([part["features"] for part in taken]), "label": taken[0]["label"]}
    held = stage.validation.take(np.arange(len(stage.validation)))
    held["weight"] = np.ones(len(stage.validation), np.float32)
    trained = jax.jit(jax.vmap(make_training(stage, phase, len(rows), loss, seed), in_axes=(0, *(None,) * 5)))
    sums = jax.device_get(trained(jnp.asarray(rates, jnp.float32), data, held, rows, weights, views))
    found, accuracies = (sums[name][0] / sums[name][1] for name in ("loss", "accuracy"))
    if not np.isfinite(found).any():
        raise InputError("the loss is no number at any of the rates: check the data, or try lower ones")
    return Found(np.asarray(rates, np.float32), found, float(rates[int(np.nanargmin(found))]), accuracies)


def make_training(
    stage: Stage, phase: Phase, steps: int, loss: Loss = cross_entropy, seed: int = 0
) -> Callable[..., dict[str, Any]]:
    """A whole training of a head as one pure function of its learning rate, for `jit` and `vmap`.

    Returns:
      `(rate, data, held, rows, weights, views) -> sums` of the loss and accuracy on `held`, a batch. The data are
      `{"features": [V,N,F], "label": [N]}`; step n takes `rows[n]`, with `weights[n]`, `[B]`, of view `views[n]`.
    """
    shape = optim.make_schedule(replace(phase, learning_rate=1.0), steps)
    evaluate = train.make_eval_step(stage.model, loss=loss)

    def training(rate: Array, data: Any, held: Any, rows: Array, weights: Array, views: Array) -> dict[str, Any]:
        optimizer = optim.make_optimizer(phase, lambda n: rate * shape(n))
        step = stage.make_train_step(phase, optimizer, loss=loss)
        key, average = jax.random.key(seed), phase.ema is not None
        state = train.init_state(stage.variables, optimizer, key, stage.mask, average)

        def body(state: train.TrainState, each: tuple[Array, Array, Array]) -> tuple[train.TrainState, None]:
            row, weight, view = each
            batch = {"features": data["features"][view, row], "label": data["label"][row], "weight": weight}
            return step(state, batch)[0], None

        state, _ = lax.scan(body, state, (rows, weights, views))
        return evaluate(state.variables, held)

    return training


def _rows(count: int, batch_size: int, steps: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Examples and weights of that many batches, over as many epochs as it takes."""
    per_epoch = -(-count // batch_size)
    epochs = [order(count, batch_size, seed=seed, epoch=n) for n in range(-(-steps // per_epoch))]
    rows, weights = (np.concatenate(parts)[:steps] for parts in zip(*epochs, strict=True))
    return rows, weights


def _smoothed(raw: np.ndarray) -> np.ndarray:
    """The losses without their noise, and NaN from where the training has diverged."""
    finite = np.append(np.isfinite(raw), False)
    end = int(np.argmin(finite))
    after = np.array([raw[n : min(n + LASTING, end)].min() for n in range(end)])
    before = np.array([raw[n - LASTING : n].max() if n >= LASTING else np.inf for n in range(end)])
    diverged = np.append(after > DIVERGED * np.minimum.accumulate(before), True)
    end = int(np.argmax(diverged))
    steps = np.arange(len(raw))
    near = np.exp(-0.5 * ((steps[:end, None] - steps[None, :end]) / SMOOTHING) ** 2)  # [end,end]
    smooth = np.full(len(raw), np.nan)
    smooth[:end] = near @ raw[:end] / near.sum(-1)
    return smooth


def _steepest(rates: np.ndarray, smooth: np.ndarray) -> float:
    """The rate at which the loss falls fastest by the logarithm of the rate; that of the lowest loss where it falls by
    less than a tenth, as that of a trained network does."""
    known = np.isfinite(smooth)
    if known.sum() < 3:
        raise InputError("the loss is no number from the first steps on: check the data, or lower the lowest rate")
    rates, smooth = rates[known], smooth[known]
    if smooth.min() > 0.9 * smooth[0]:
        return float(rates[np.argmin(smooth)])
    return float(rates[np.argmin(np.gradient(smooth, np.log(rates)))])
