"""`fit`, `fine_tune`, `evaluate` and `predict`: the only loop and the only clock."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn

from jaxdl import features, losses, models, optim, parallel, train, transfer, trees
from jaxdl import metrics as metrics_
from jaxdl.augment import PHOTOS, Augmentation
from jaxdl.data import Arrays, Source, batches, check_labels, check_seed, from_arrays, order
from jaxdl.errors import InputError
from jaxdl.losses import Loss
from jaxdl.metrics import Metric
from jaxdl.optim import Phase
from jaxdl.train import Normalize, TrainState
from jaxdl.transfer import Recipe

RESIDENT = 0.25  # share of the device's memory that training data may take to stay there, an epoch one program
LAG = 2  # steps between the one that is started and the one whose result is read, so that reading never waits


@dataclass(frozen=True)
class Event:
    """The end of an epoch, as callbacks see it."""

    phase: Phase
    epoch: int
    """Counted from 1 over all phases."""
    metrics: dict[str, Any]
    """The row of the history."""
    state: TrainState
    """Valid during the callback: the next step takes its memory."""
    last: bool
    """Whether the phase ends with this epoch."""


Callback = Callable[[Event], None]


@dataclass(frozen=True)
class Result:
    """What `fit` returns."""

    model: Any
    state: TrainState
    history: list[dict[str, Any]]
    """A row per epoch: epoch, phase, step, loss, accuracy, val_loss, …, learning_rate, seconds, examples_per_second."""

    @property
    def variables(self) -> dict[str, Any]:
        """What `model.apply`, `evaluate` and `predict` take."""
        return self.state.variables


def fit(
    model: Any,
    train_data: Source,
    validation: Source | None = None,
    *,
    phases: Phase | Sequence[Phase],
    variables: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    augment: Augmentation | None = None,
    normalize: Normalize | None = None,
    seed: int = 0,
    mesh: Mesh | None = None,
    cache: str | Path | None = None,
    callbacks: Sequence[Callback] = (),
    progress: bool = True,
) -> Result:
    """Train a model, one phase after the other.

    Args:
      model: a Flax module from `models.create`, or your own.
      train_data, validation: sources, from `data.from_arrays` or `data.from_folder`. Never give the test set here.
      phases: what is trained, how long and how fast; `Phase(epochs=5, learning_rate=1e-3)` or `transfer.fine_tune(…)`.
        A phase begins with the parameters and statistics of the best epoch of the one before it, by the validation
        loss (of the last epoch, without validation data), and with a new optimizer; steps and epochs count on.
      variables: to start from; None for fresh ones.
      batch_size: examples in a batch, over all devices. The last batch may be short; it is padded, and weighted.
      loss, metrics: see `losses` and `metrics`; the same are taken on the validation data. None: accuracy.
      augment: `(key, images) -> images` on training batches, or a mix of them (`augment.MixUp`): the training loss is
        then that of the mixed labels, and the training metrics go by the label that counts more.
      normalize: from pixels to the model's input, `preprocessing.normalize`.
      seed: of the order of the examples, of augmentation, of dropout, and of fresh variables.
      mesh: devices to share the batch (`parallel.make_mesh()`); None for one.
      cache: folder in which the features of phases with `views` are kept for the next time (`features.extract`).
      callbacks: called with an `Event` after each epoch.
      progress: show a bar on a terminal, or print a line for each epoch.

    Raises:
      InputError: labels outside the model's classes, a pattern that matches no parameter, `views` in a phase that
        trains more than the head, or a loss that is not a number.
    """
    phases = (phases,) if isinstance(phases, Phase) else tuple(phases)
    if not phases:
        raise InputError("there is no phase to train; give at least one Phase")
    check_seed(seed)
    all_metrics = _with_loss(loss, metrics)
    for source in (train_data, validation):
        if source is not None:
            _check_labels(model, source, loss, metrics)
    shape, key = _input_shape(train_data), jax.random.key(seed)
    variables = models.init(model, key, shape) if variables is None else dict(variables)
    if problem := trees.difference(models.shapes(model, shape)[0], variables):
        raise InputError(f"the variables do not belong to this model:\n{problem}")
    masks = [features.checked_mask(model, phase, variables["params"]) for phase in phases]

    steps = len(order(len(train_data), batch_size, seed=None)[0])
    display = _Display(all_metrics, progress, sum(phase.epochs for phase in phases))
    history: list[dict[str, Any]] = []
    done = 0  # steps
    for phase, mask in zip(phases, masks, strict=True):
        display.phase(phase, variables["params"], mask)
        started = time.perf_counter()
        how: Any = {"augment": augment, "normalize": normalize, "seed": seed, "batch_size": batch_size}
        stage = features.prepare(model, variables, phase, train_data, validation, **how, mesh=mesh, folder=cache)
        if phase.views is not None:
            seconds = time.perf_counter() - started
            display.note(f"features of {len(stage.sources)} × {len(train_data)} examples: {seconds:.1f} s")
        schedule = optim.make_schedule(phase, phase.epochs * steps)
        optimizer = optim.make_optimizer(phase, schedule)
        state = train.init_state(stage.variables, optimizer, key, stage.mask, average=phase.ema is not None)
        state = replace(state, step=state.step + done)
        state = state if mesh is None else parallel.replicate(mesh, state)
        step = stage.make_train_step(phase, optimizer, loss=loss, metrics=metrics)
        resident = mesh is None and _resident(stage.sources[0], stage.variables)
        make_run = _resident_run if resident else partial(_streamed_run, mesh=mesh)
        run = make_run(step, stage.sources, batch_size, seed)
        if resident:
            display.note("the data stay on the device; an epoch is one program")
        best: tuple[float, Any] = math.inf, None
        for n in range(phase.epochs):
            epoch, started = len(history) + 1, time.perf_counter()
            with display.epoch(epoch, len(train_data)) as advance:
                state, sums = run(state, epoch, advance)
            seconds = time.perf_counter() - started
            row: dict[str, Any] = {**metrics_.compute(all_metrics, sums)}
            # The last step's update shows in no loss, so the parameters are looked at too, before anything keeps them.
            if not math.isfinite(row["loss"]) or not _finite(state.params):
                bad = n * steps + min(int(sums["finite"]), steps - 1)
                what = "parameters became nan" if math.isfinite(row["loss"]) else f"loss became {row['loss']}"
                raise InputError(
                    f"the {what} in step {done + bad + 1} (epoch {epoch}, phase {phase.name!r}), "
                    f"at the learning rate {float(schedule(bad)):.3g}; try a lower one"
                )
            if stage.validation is not None:
                figures = evaluate(
                    stage.model,
                    state.variables,
                    stage.validation,
                    batch_size=batch_size,
                    loss=loss,
                    metrics=metrics,
                    normalize=stage.normalize,
                    mesh=mesh,
                )
                row |= {f"val_{name}": figures[name] for name in all_metrics}
                if phase is not phases[-1] and figures["loss"] < best[0]:
                    best = figures["loss"], jax.tree.map(jnp.copy, state.variables)  # the next step takes its memory
            row = {
                "epoch": epoch,
                "phase": phase.name,
                "step": done + (n + 1) * steps,
                **row,
                "learning_rate": float(schedule((n + 1) * steps - 1)),
                "seconds": seconds,
                "examples_per_second": len(train_data) / seconds,
            }
            history.append(row)
            display.row(row)
            whole = stage.whole(state)
            for callback in callbacks:
                callback(Event(phase, epoch, row, whole, n + 1 == phase.epochs))
        done += phase.epochs * steps
        variables = stage.whole(state).variables if best[1] is None else stage.joined(best[1])
    return Result(model, whole, history)


def fine_tune(
    model: Any,
    variables: Mapping[str, Any],
    train_data: Source,
    validation: Source | None = None,
    recipe: Recipe | None = None,
    *,
    augment: Augmentation | None = PHOTOS,
    **options: Any,
) -> Result:
    """Teach a pretrained network new classes: a new head, the phases of a recipe, `fit`.

    Args:
      model, variables: from `pretrained.load`.
      train_data, validation: as `fit` takes them.
      recipe: what is trained when and how fast; None for the defaults. `Recipe(epochs=0)` is feature extraction.
      augment: `(key, images) -> images`; None for none.
      **options: of `fit`; you will want `normalize=preprocessing.normalize`.

    Returns:
      The network with its new head, trained.
    """
    recipe = recipe or Recipe()
    model, variables = transfer.new_head(model, variables, len(train_data.classes), dropout=recipe.dropout)
    options = {"loss": losses.label_smoothing(recipe.label_smoothing)} | options
    phases = transfer.fine_tune(variables["params"], recipe)
    return fit(model, train_data, validation, variables=variables, phases=phases, augment=augment, **options)


def evaluate(
    model: Any,
    variables: Mapping[str, Any],
    source: Source,
    *,
    batch_size: int = 32,
    loss: Loss = losses.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    normalize: Normalize | None = None,
    augment: Augmentation | None = None,
    views: int = 0,
    mesh: Mesh | None = None,
) -> dict[str, Any]:
    """The loss, the metrics (None: accuracy) and the count of examples of a source, as a dict.

    Args:
      augment, views: for test-time augmentation: the outputs are the means over the images and this many augmented
        views of them, the same ones each time.

    Raises:
      InputError: a label is outside the model's classes, or `augment` mixes images or goes without `views`.
    """
    _check_labels(model, source, loss, metrics)
    chosen = None if metrics is None else tuple(metrics.items())
    step = _compiled_eval(model, loss, chosen, normalize, augment, views)
    sums = metrics_.merge([sums for _, sums in _over(step, variables, source, batch_size, mesh)])
    return metrics_.compute(_with_loss(loss, metrics), sums) | {"count": len(source)}


def predict(
    model: Any,
    variables: Mapping[str, Any],
    source: Source | np.ndarray | jax.Array,
    *,
    batch_size: int = 32,
    normalize: Normalize | None = None,
    augment: Augmentation | None = None,
    views: int = 0,
    mesh: Mesh | None = None,
) -> np.ndarray:
    """The model's outputs, logits for a classifier: float32 `[N,K]`, for a source or an array of inputs `[N,…]`;
    `augment` and `views` as `evaluate` takes them."""
    if isinstance(source, np.ndarray | jax.Array):
        source = from_arrays(source, np.zeros(len(source), np.int32))
    step = _compiled_predict(model, normalize, augment, views)
    parts = [(weight > 0, outputs) for weight, outputs in _over(step, variables, source, batch_size, mesh)]
    return np.concatenate([outputs[real] for real, outputs in jax.device_get(parts)])


@lru_cache(maxsize=16)
def _compiled_eval(
    model: Any,
    loss: Loss,
    metrics: tuple[tuple[str, Metric], ...] | None,
    normalize: Normalize | None,
    augment: Augmentation | None,
    views: int,
) -> Any:
    """Kept between calls, so that evaluating again does not compile again."""
    chosen = None if metrics is None else dict(metrics)
    how: Any = {"normalize": normalize, "augment": augment, "views": views}
    return jax.jit(train.make_eval_step(model, loss=loss, metrics=chosen, **how))


@lru_cache(maxsize=16)
def _compiled_predict(model: Any, normalize: Normalize | None, augment: Augmentation | None, views: int) -> Any:
    return jax.jit(train.make_predict_step(model, normalize=normalize, augment=augment, views=views))


def _over(
    step: Any, variables: Mapping[str, Any], source: Source, batch_size: int, mesh: Mesh | None
) -> Iterator[tuple[np.ndarray, Any]]:
    """For each batch of a source, in its order, the weights and the step's result."""
    variables = jax.device_put(variables) if mesh is None else parallel.replicate(mesh, variables)
    for host, batch in parallel.feed(mesh, batches(source, batch_size, **parallel.division(mesh))):
        yield host["weight"], step(variables, batch)


Run = Callable[[TrainState, int, Callable[[Any, int], None]], tuple[TrainState, Any]]
"""`(state, epoch, advance) -> (state, sums)`: an epoch's steps; `advance(sums, examples)` tells the display."""


def _streamed_run(
    step: train.TrainStep, sources: Sequence[Source], batch_size: int, seed: int, mesh: Mesh | None
) -> Run:
    """One call of the compiled step per batch."""
    compiled = jax.jit(step, donate_argnums=0)

    def run(state: TrainState, epoch: int, advance: Callable[[Any, int], None]) -> tuple[TrainState, Any]:
        started, parts = deque[Any](), []
        source = sources[(epoch - 1) % len(sources)]
        epoch_ = batches(source, batch_size, seed=seed, epoch=epoch, **parallel.division(mesh))
        for _, batch in parallel.feed(mesh, epoch_):
            state, sums = compiled(state, batch)
            started.append(sums)
            if len(started) > LAG:
                # Waits for an earlier step, which also keeps the host from filling the memory with batches.
                parts.append(jax.device_get(started.popleft()))
                advance(parts[-1], batch_size)
        return state, metrics_.merge([*parts, *started])

    return run


def _resident_run(step: train.TrainStep, sources: Sequence[Source], batch_size: int, seed: int) -> Run:
    """One call per epoch, over data that lies on the device."""
    compiled = jax.jit(train.make_epoch(step), donate_argnums=0)
    everything = np.arange(len(sources[0]))
    data = [jax.device_put(source.take(everything)) for source in sources]

    def run(state: TrainState, epoch: int, advance: Callable[[Any, int], None]) -> tuple[TrainState, Any]:
        rows = order(len(everything), batch_size, seed=seed, epoch=epoch)
        state, sums = compiled(state, data[(epoch - 1) % len(data)], *rows)
        return state, metrics_.merge([sums])

    return run


def _resident(source: Source, variables: Mapping[str, Any]) -> bool:
    """Whether a source should stay on the device and an epoch be one program. Not for convolutions on CPU: XLA runs
    the gradients of convolutions inside a scan about five times slower there."""
    convolutions = any(np.ndim(leaf) == 4 for leaf in trees.paths(variables["params"]).values())
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 4 << 30)  # a CPU does not say
    fits = isinstance(source, Arrays) and source.inputs.nbytes <= RESIDENT * memory
    return fits and not (convolutions and jax.default_backend() == "cpu")


@jax.jit
def _finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _input_shape(source: Source) -> tuple[int, ...]:
    return np.shape(train.inputs(source[0]))


def _check_labels(model: Any, source: Source, loss: Loss, metrics: Mapping[str, Metric] | None) -> None:
    outputs, labels = models.shapes(model, _input_shape(source))[1], source.labels
    if isinstance(outputs, dict) or isinstance(labels, Mapping):
        if not isinstance(outputs, dict) or not isinstance(labels, Mapping) or outputs.keys() != labels.keys():
            raise InputError(
                "a network with several heads needs labels for each of them by name: "
                f"it has {', '.join(outputs) if isinstance(outputs, dict) else 'one head'}, "
                f"the labels are for {', '.join(labels) if isinstance(labels, Mapping) else 'one'}"
            )
        if loss is losses.cross_entropy or metrics is None:
            raise InputError("a network with several heads needs a loss for them (losses.combine) and metrics")
        return
    width = outputs.shape[-1]
    if not np.issubdtype(labels.dtype, np.integer):
        if loss is losses.cross_entropy or metrics is None:
            raise InputError("labels that are numbers, not classes, need loss=losses.squared_error and metrics")
        return
    if width == 1 and loss is losses.cross_entropy:
        raise InputError("a model with one output needs loss=losses.binary_cross_entropy (or two outputs)")
    check_labels(labels, 2 if width == 1 else width)  # a single output tells two classes apart


def _with_loss(loss: Loss, metrics: Mapping[str, Metric] | None) -> dict[str, Metric]:
    return {"loss": metrics_.mean(loss), **({"accuracy": metrics_.accuracy} if metrics is None else metrics)}


class _Display:
    """What the user sees: a bar while an epoch runs, on a terminal, and a line when it has ended."""

    def __init__(self, metrics: Mapping[str, Metric], on: bool, epochs: int):
        self.metrics, self.epochs = metrics, epochs
        self.console = Console(stderr=True, quiet=not on, highlight=False, markup=False)

    def note(self, text: str) -> None:
        self.console.print(text, soft_wrap=True)

    def phase(self, phase: Phase, params: Any, mask: Any) -> None:
        moving, total = trees.count(trees.split(params, mask)[0]), trees.count(params)
        self.note(f"{phase.name}: {phase.epochs} epochs, {moving:,} of {total:,} parameters trainable")

    @contextmanager
    def epoch(self, epoch: int, examples: int) -> Iterator[Callable[[Any, int], None]]:
        columns = (
            "{task.description}",
            BarColumn(),
            "{task.percentage:>3.0f}%",
            TimeRemainingColumn(),
            "{task.fields[figures]}",
        )
        live = self.console.is_terminal and not self.console.quiet
        with Progress(*columns, console=self.console, transient=True, disable=not live) as bar:
            task = bar.add_task(f"epoch {epoch}/{self.epochs}", total=examples, figures="")
            total: Any = None
            started = time.perf_counter()

            def advance(sums: Any, count: int) -> None:
                nonlocal total
                if live:
                    total = sums if total is None else jax.tree.map(np.add, total, sums)
                    done = bar.tasks[0].completed + count
                    speed = done / (time.perf_counter() - started)
                    figures = _figures(metrics_.compute(self.metrics, total))
                    bar.update(task, completed=done, figures=f"{figures}  {speed:,.0f}/s")

            yield advance

    def row(self, row: Mapping[str, Any]) -> None:
        figures = _figures({k: v for k, v in row.items() if k.removeprefix("val_") in self.metrics})
        rate = f"{row['examples_per_second']:,.0f}/s"
        self.note(f"epoch {row['epoch']:>2}/{self.epochs}  {figures}  {row['seconds']:.1f} s  {rate}")


def _figures(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
