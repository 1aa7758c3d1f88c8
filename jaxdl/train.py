"""Training as pure functions: a state of arrays, and steps from state and batch to state and sums.

Nothing here compiles, prints, or keeps anything: jit the steps (or map them, see `parallel`) and write the loop, or
let `jaxdl.fit` do it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxdl import losses, models, trees
from jaxdl.augment import Augmentation, Mixed, unmixed
from jaxdl.errors import InputError
from jaxdl.losses import Loss
from jaxdl.metrics import Metric, accuracy, mean
from jaxdl.ops import all_finite

Batch = Mapping[str, Any]
Sums = dict[str, Any]
Normalize = Callable[[Array], Array]
TrainStep = Callable[["TrainState", Batch], tuple["TrainState", Sums]]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """All that training needs to go on: arrays, nothing else."""

    step: Array
    """int32 []"""
    params: dict[str, Any]
    model_state: dict[str, Any]
    """The other collections of the model: `{"batch_stats": …}`, or `{}`."""
    opt_state: Any
    """Of the trainable parameters only."""
    key: Array
    """A typed PRNG key; step n uses `fold_in(key, n)`."""
    average: dict[str, Any]
    """A moving average of the trainable parameters, or `{}` where none is kept."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply` takes in evaluation: with the averages of the parameters, where they are kept."""
        params = trees.from_paths({**trees.paths(self.params), **trees.paths(self.average)})
        return {"params": params, **self.model_state}


def init_state(
    variables: Mapping[str, Any],
    optimizer: optax.GradientTransformation,
    key: Array,
    trainable: trees.Tree | None = None,
    average: bool = False,
) -> TrainState:
    """The state before the first step, with copies of the variables, so that the step may be given its memory.

    Args:
      variables: `{"params": …, "batch_stats": …}`, from `model.init` or `pretrained.load`.
      optimizer: any optax transformation.
      key: typed PRNG key, `jax.random.key(seed)`.
      trainable: mask over the parameters; None where all are trained. The optimizer sees the trainable ones only.
      average: keep a moving average of the trainable ones, which begins with what they are now.

    Raises:
      InputError: the mask belongs to other parameters, or nothing is trainable.
    """
    model_state = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), dict(variables))
    params = model_state.pop("params")
    moving = params if trainable is None else trees.split(params, trainable)[0]
    if not jax.tree.leaves(moving):
        raise InputError("nothing is trainable: the mask is false everywhere")
    # As one program: leaf by leaf, a large network takes seconds.
    opt_state = jax.jit(optimizer.init)(moving)
    averages = jax.tree.map(jnp.copy, moving) if average else {}
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, jnp.copy(key), averages)


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    *,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    trainable: trees.Tree | None = None,
    batch_stats: models.BatchStats = "update",
    ema: float | None = None,
    augment: Augmentation | None = None,
    normalize: Normalize | None = None,
    axis_name: str | None = None,
    skip: bool = False,
) -> TrainStep:
    """A pure step `(state, batch) -> (state, sums)`.

    The parameters are split by the mask before differentiation: there is no gradient, no optimizer state, no decay and
    no clipping for frozen ones, and frozen modules run as in evaluation (`models.apply`).

    Args:
      model: a Flax module.
      optimizer: the one given to `init_state`. One of `optim.make_optimizer` may say in its state how the loss is to be
        scaled ahead of its gradients, and that no update was made, with which the moving average waits too.
      loss: `(outputs, labels [B]) -> [B]`; its mean over the batch's weights is minimised.
      metrics: sums of these are returned beside those of "loss"; None for accuracy.
      trainable: the mask given to `init_state`.
      batch_stats: "frozen" keeps the running averages of trainable modules too, and normalises by them.
      ema: share of the old value in the moving average of the trainable parameters; None where `init_state` keeps
        none.
      augment: `(key, images) -> images`, drawn anew each step. Where it mixes (`augment.Mixed`), an example's loss is
        `share * loss(outputs, labels) + (1 - share) * loss(outputs, labels[partner])`, and so is the "loss" of the
        sums; the metrics are against its own label, which counts at least a half.
      normalize: from pixels to the model's input, `Preprocessing.normalize`.
      axis_name: of the mapped axis under `pmap`: gradients, sums and batch statistics are taken over all of it.
      skip: a batch whose loss, gradients or updated parameters are no numbers changes nothing but `step`, and its sums
        are 0.

    Returns:
      The step. Its batch is `{"image" | "features": [B,…], "label": [B], "weight": [B]}`; its sums are those of the
      metrics, and "finite", float32 `[2+P]`: 1 where all of this, the loss, and by path the gradient and the new value
      of each of the P trainable parameters are numbers.

    Raises:
      InputError: when the step is traced, `ema` is given and the state keeps no average, or the reverse.
    """
    metrics = {"accuracy": accuracy} if metrics is None else metrics
    frozen = frozenset() if trainable is None else trees.frozen_modules(trainable)

    def over_all(tree: Any) -> Any:
        return tree if axis_name is None else lax.psum(tree, axis_name)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Sums]:
        key = jax.random.fold_in(state.key, state.step)
        if axis_name is not None:
            key = jax.random.fold_in(key, lax.axis_index(axis_name))
        augment_key, dropout_key = jax.random.split(key)
        x, labels, weights = inputs(batch), batch["label"], batch["weight"]
        augmented = x if augment is None else augment(augment_key, x)
        x, mixed = (augmented.images, augmented) if isinstance(augmented, Mixed) else (augmented, None)
        if normalize is not None:
            x = normalize(x)
        if bool(state.average) != (ema is not None):
            raise InputError("the step's `ema` and the `average` of init_state go together: both or neither")
        moving, still = (state.params, {}) if trainable is None else trees.split(state.params, trainable)
        total_weight = over_all(weights.sum())
        loss_scale = optax.tree.get(state.opt_state, "loss_scale", 1.0)

        def each(outputs: Any, labels: Any) -> Array:
            """The loss of each example, `[B]`."""
            if mixed is None:
                return loss(outputs, labels)
            others = jax.tree.map(lambda labels: labels[mixed.partner], labels)
            return mixed.share * loss(outputs, labels) + (1 - mixed.share) * loss(outputs, others)

        def objective(moving: dict[str, Any]) -> tuple[Array, tuple[Array, dict[str, Any]]]:
            outputs, model_state = models.apply(
                model,
                {"params": trees.join(moving, still), **state.model_state},
                x,
                key=dropout_key,
                frozen=frozen,
                batch_stats=batch_stats,
                axis_name=axis_name,
            )
            total, _ = mean(each).update(outputs, labels, weights)
            return loss_scale * total / total_weight, (outputs, model_state)

        grads, (outputs, model_state) = jax.grad(objective, has_aux=True)(moving)
        grads = over_all(grads)
        updates, opt_state = optimizer.update(grads, state.opt_state, moving)
        moved_to = optax.apply_updates(moving, updates)
        average = state.average
        if ema is not None:
            before, after = (optax.tree.get(tree, "updates_made") for tree in (state.opt_state, opt_state))
            moved = True if after is None else after > before
            average = jax.tree.map(
                lambda old, new: jnp.where(moved, ema * old + (1 - ema) * new, old), average, moved_to
            )
        figures = {"loss": mean(each), **metrics}
        sums = over_all({name: metric.update(outputs, labels, weights) for name, metric in figures.items()})
        # A scaled loss may overflow: the optimizer leaves that batch out.
        each_right = (all_finite(jax.tree.leaves(grads)) | (loss_scale > 1)) & all_finite(jax.tree.leaves(moved_to))
        right = jnp.append(jnp.isfinite(sums["loss"][0]), each_right)  # [1+P]
        good = right.all()
        if skip:
            after, before = (moved_to, model_state, opt_state, average), (moving, state.model_state, state.opt_state)
            kept = jax.tree.map(partial(jnp.where, good), after, (*before, state.average))
            moved_to, model_state, opt_state, average = kept
            sums = jax.tree.map(lambda leaf: jnp.where(good, leaf, 0), sums)
        sums["finite"] = jnp.append(good, right).astype(jnp.float32)
        params = trees.join(moved_to, still)
        return TrainState(state.step + 1, params, model_state, opt_state, state.key, average), sums

    return step


def make_eval_step(
    model: Any,
    *,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    normalize: Normalize | None = None,
    augment: Augmentation | None = None,
    views: int = 0,
) -> Callable[[Mapping[str, Any], Batch], Sums]:
    """A pure function `(variables, batch) -> sums` of the loss and the metrics (None: accuracy), taken on the outputs
    of `make_predict_step`."""
    metrics = {"loss": mean(loss), **({"accuracy": accuracy} if metrics is None else metrics)}
    predict = make_predict_step(model, normalize=normalize, augment=augment, views=views)

    def step(variables: Mapping[str, Any], batch: Batch) -> Sums:
        outputs = predict(variables, batch)
        return {name: metric.update(outputs, batch["label"], batch["weight"]) for name, metric in metrics.items()}

    return step


def make_predict_step(
    model: Any, *, normalize: Normalize | None = None, augment: Augmentation | None = None, views: int = 0
) -> Callable[[Mapping[str, Any], Batch], Any]:
    """A pure function `(variables, batch) -> outputs [B,K]`, in evaluation mode.

    Args:
      normalize: from pixels to the model's input.
      augment, views: for test-time augmentation: the outputs are the means of those for the images and for this many
        augmented views of them. View n is drawn from the same key for every batch.

    Raises:
      InputError: there are views without an augmentation, or the reverse, or the augmentation mixes.
    """
    if views < 0 or bool(views) != (augment is not None):
        raise InputError(f"test-time augmentation needs both `augment` and `views` of at least 1; got views={views}")

    def step(variables: Mapping[str, Any], batch: Batch) -> Any:
        x = inputs(batch)

        def outputs(x: Array) -> Any:
            return model.apply(variables, x if normalize is None else normalize(x), train=False)

        if augment is None:
            return outputs(x)

        def view(n: Array) -> Any:
            # One loop, with the images themselves as number 0, so that the network is compiled once.
            return outputs(jnp.where(n == 0, x, unmixed(augment, jax.random.fold_in(jax.random.key(0), n), x)))

        return jax.tree.map(lambda each: each.mean(0), lax.map(view, jnp.arange(1 + views)))

    return step


def make_epoch(step: TrainStep) -> Callable[[TrainState, Batch, Array, Array], tuple[TrainState, Sums]]:
    """A whole epoch as one pure function, for data that lies on the device.

    Args:
      step: from `make_train_step`.

    Returns:
      `(state, data, indices, weights) -> (state, sums)`: `data` holds all examples, `{"image" | "features": [N,…],
      "label": [N]}`; `indices` and `weights`, `[steps,B]`, come from `data.order`. The result is that of the same
      steps one by one.
    """

    step = jax.jit(step, inline=True)  # traced once, although `eval_shape` and `scan` both ask

    def epoch(state: TrainState, data: Batch, indices: Array, weights: Array) -> tuple[TrainState, Sums]:
        def on(state: TrainState, rows: tuple[Array, Array]) -> tuple[TrainState, Sums]:
            batch = jax.tree.map(lambda array: array[rows[0]], dict(data))  # gathered as uint8, [B,…]
            return step(state, {**batch, "weight": rows[1]})

        def body(carry: tuple[TrainState, Sums], rows: tuple[Array, Array]) -> tuple[tuple[TrainState, Sums], Sums]:
            state, sums = on(carry[0], rows)
            totals = jax.tree.map(lambda total, leaf: total + leaf if leaf.ndim > 1 else total, carry[1], sums)
            return (state, totals), jax.tree.map(lambda leaf: jnp.zeros(()) if leaf.ndim > 1 else leaf, sums)

        # Matrices are added up on the way: those of `metrics.roc_auc` are megabytes, and would be kept of every step.
        like = jax.eval_shape(on, state, (indices[0], weights[0]))[1]
        none = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape if leaf.ndim > 1 else (), leaf.dtype), like)
        (state, totals), each = lax.scan(body, (state, none), (indices, weights))
        return state, jax.tree.map(lambda total, leaves: total if total.ndim else leaves.sum(0), totals, each)

    return epoch


def inputs(batch: Batch) -> Array:
    """The batch's images or features."""
    return batch["image"] if "image" in batch else batch["features"]


def input_shape(batch: Batch, normalize: Normalize | None) -> tuple[int, ...]:
    """What a model is given of each example of a batch, as a shape without the batch axis.

    Raises:
      InputError: `normalize` cannot take such examples.
    """
    x = inputs(batch)
    if normalize is None:
        return x.shape[1:]
    try:
        return jax.eval_shape(normalize, x).shape[1:]
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"`normalize` cannot take examples {list(x.shape[1:])}: {error}") from error
