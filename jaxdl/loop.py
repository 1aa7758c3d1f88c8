"""`fit`, `fine_tune`, `evaluate` and `predict`: the only loop and the only clock."""

import math
import os
import signal
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxdl import checkpoint, features, losses, models, optim, parallel, train, transfer, trees
from jaxdl import metrics as metrics_
from jaxdl.augment import PHOTOS, Augmentation
from jaxdl.callbacks import Action, Callback, Event, Kind, ModelCheckpoint, Progress, ScaleRate, Stop, Training
from jaxdl.data import Arrays, Source, batches, check_labels, check_seed, check_source, from_arrays, order
from jaxdl.errors import InputError, Interrupted, nearest
from jaxdl.history import History, better, plain
from jaxdl.losses import Loss
from jaxdl.metrics import Metric
from jaxdl.optim import Phase
from jaxdl.train import Normalize, TrainState
from jaxdl.transfer import Recipe

RESIDENT = 0.25  # share of the device's memory that training data may take to stay there, an epoch one program
BadNumbers = Literal["stop", "skip", "rollback"]
ROLLBACK, ROLLBACKS = 0.1, 3  # what the learning rate is multiplied by, and how often in a row
LAG = 2  # steps between the one that is started and the one whose result is read, so that reading never waits


@dataclass(frozen=True)
class Result:
    """What `fit` returns."""

    model: Any
    state: TrainState
    history: History

    def __repr__(self) -> str:
        """Without the weights: a notebook shows it where a cell ends with `fit`."""
        return f"Result(model={self.model!r}, epochs={len(self.history)}, last={self.history[-1:]})"

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
    fsdp: bool = False,
    cache: str | Path | None = None,
    monitor: str = "val_loss",
    callbacks: Sequence[Callback] = (),
    resume: str | Path | None = None,
    bad_numbers: BadNumbers = "stop",
    progress: bool = True,
) -> Result:
    """Train a model, one phase after the other.

    Ctrl-C, or SIGTERM, ends training after the step that runs, or after the epoch where that is one program, once the
    callbacks have kept it; a second one ends it at once. Where several processes train, all end with the one that is
    told, a few steps later.

    Args:
      model: a Flax module from `models.create`, or your own.
      train_data, validation: sources, from `data.from_arrays` or `data.from_folder`. Never give the test set here.
      phases: what is trained, how long and how fast; `Phase(epochs=5, learning_rate=1e-3)` or `transfer.fine_tune(…)`.
        A phase begins with the parameters and statistics of the best epoch of the one before it, by the monitor (of
        the last epoch, where that is not measured), and with a new optimizer; steps and epochs count on.
      variables: to start from; None for fresh ones.
      batch_size: examples in a batch, over all devices. The last batch may be short; it is padded, and weighted.
      loss, metrics: see `losses` and `metrics`; the same are taken on the validation data. None: accuracy.
      augment: `(key, images) -> images` on training batches, or a mix of them (`augment.MixUp`): the training loss is
        then that of the mixed labels, and the training metrics go by the label that counts more.
      normalize: from pixels to the model's input, `preprocessing.normalize`.
      seed: of the order of the examples, of augmentation, of dropout, and of fresh variables.
      mesh: devices to share the batch (`parallel.make_mesh()`); None for one.
      fsdp: divide the parameters, their averages and the optimizer's state over the mesh as well, where they are large.
      cache: folder in which the features of phases with `views` are kept for the next time (`features.extract`).
      monitor: the figure that tells which epoch is the best, "val_accuracy" for instance.
      callbacks: see `callbacks`; a function of your own is called with an `Event` after each epoch.
      resume: the folder of a `ModelCheckpoint`; training goes on from its latest whole checkpoint, to the same bits as
        if it had never stopped, if all else is given as it was. Where it is empty, training begins.
      bad_numbers: what is done where the loss, a gradient or a parameter is no number; looked for in every step, and
        found at the end of the epoch. "stop": training ends, and no callback sees that state. "skip": the batch changes
        nothing; the row has how many were "skipped". "rollback": the epoch is done again from its beginning, at a tenth
        of the learning rate for the rest of the phase; the row has the "rollbacks"; after three in a row training ends.
      progress: show a bar on a terminal, or print a line for each epoch.

    Raises:
      InputError: examples or variables that do not fit the model, labels outside its classes, a pattern that matches no
        parameter, a phase too short for its durations, `views` in a phase that trains more than the head, a figure to
        monitor that is not measured, no folder to resume from, a checkpoint of another training, `fsdp` without a mesh,
        or a loss or parameters that are not numbers.
      Interrupted: it was told to stop.
    """
    phases = tuple(phases) if isinstance(phases, Sequence) else (phases,)
    if not phases or not all(isinstance(phase, Phase) for phase in phases):
        raise InputError(f"there is no phase to train; give Phase(epochs=5, learning_rate=1e-3), not {phases!r:.60}")
    if not isinstance(callbacks, Sequence) or not all(map(callable, callbacks)):
        raise InputError(f"callbacks are a list of functions of an event; got {callbacks!r:.60}")
    check_seed(seed)
    if mesh is None and parallel.several():
        raise InputError("several processes train together over the devices of them all: give mesh=make_mesh()")
    if fsdp and mesh is None:
        raise InputError("fsdp divides the state over a mesh: give mesh=make_mesh()")
    if bad_numbers not in get_args(BadNumbers):
        raise InputError(f"bad_numbers={bad_numbers!r} is not known{nearest(str(bad_numbers), get_args(BadNumbers))}")
    all_metrics = _with_loss(loss, metrics)
    given = [(source, _input_shape(source, normalize)) for source in (train_data, validation) if source is not None]
    for source, its in given:
        _check_labels(model, its, source.labels, loss, metrics)
    shape, key = given[0][1], jax.random.key(seed)
    variables = models.init(model, key, shape) if variables is None else dict(variables)
    for _, its in given:
        models.check_variables(model, variables, its)
    if problem := trees.difference(models.shapes(model, shape)[0], variables):
        raise InputError(f"the variables do not belong to this model:\n{problem}")
    masks = tuple(features.checked_mask(model, phase, variables["params"]) for phase in phases)
    figures = (*all_metrics, *(f"val_{name}" for name in all_metrics if validation is not None))
    if monitor not in figures and monitor != "val_loss":
        raise InputError(f"there is no figure {monitor!r} to monitor{nearest(monitor, figures)}")
    steps = len(order(len(train_data), batch_size, seed=None)[0])
    for phase in phases:
        optim.make_schedule(phase, phase.epochs * steps)  # raises where a phase is too short for its durations
    same: dict[str, Any] = {"phases": phases, "examples": len(train_data), "batch_size": batch_size, "seed": seed}
    same |= {"bad_numbers": bad_numbers, "metrics": tuple(all_metrics), "monitor": monitor}
    saved = None if resume is None else _Saved.find(resume, same)
    if saved is not None:
        like = jax.eval_shape(lambda: variables)  # with their own types, which may be others than the model's
        variables = checkpoint.restore_variables(saved.directory, like, saved.step)
    run = _Run(
        Training(model, shape, phases, masks, len(train_data), steps, figures, monitor),
        [*([Progress()] if progress else []), *callbacks],
        _state(variables, key, saved.step if saved else 0),
        same,
        *((saved.number, saved.begun, saved.history) if saved else ()),
    )
    options: Any = {"augment": augment, "normalize": normalize, "seed": seed, "batch_size": batch_size, "mesh": mesh}
    run.tell("begin")  # what cannot begin has no end: nothing is kept or put in order then
    with _raised_by_signal(run), ExitStack() as ends:
        ends.push(run.end)
        for number, phase in list(enumerate(phases))[run.number :]:
            run.number = number
            run.whole = _state(variables, run.whole.key, int(run.whole.step))
            run.tell("phase")
            started = time.perf_counter()
            stage = features.prepare(model, variables, phase, train_data, validation, **options, folder=cache)
            if phase.views is not None:
                seconds = time.perf_counter() - started
                run.note(f"features of {len(stage.sources)} × {len(train_data)} examples: {seconds:.1f} s")
            variables = run.phase(stage, loss, metrics, batch_size, seed, mesh, fsdp, saved)
            saved = None
    return Result(model, run.whole, run.history)


@dataclass(frozen=True)
class _Saved:
    """Where a training stood that is to go on."""

    directory: str | Path
    step: int
    number: int
    """Of the phase."""
    begun: int
    """Epochs before it."""
    history: History
    sums: list[Any] | None
    """Of the steps of an epoch that has begun."""
    rollbacks: int = 0
    """Of that epoch."""

    @classmethod
    def find(cls, directory: str | Path, same: Mapping[str, Any]) -> Self | None:
        """The latest whole checkpoint of a folder; None where there is none.

        Raises:
          InputError: there is no such folder, or what was saved there is another training.
        """
        if not Path(directory).is_dir():
            raise InputError(f"there is no folder {directory} to resume from")
        step, damaged = parallel.first_says(
            lambda: (checkpoint.newest(directory), Path(directory, checkpoint.QUARANTINE).exists())
        )
        if step is None and damaged:
            raise InputError(f"all checkpoints in {directory} are damaged; to begin again, remove it, or give another")
        if step is None:
            return None
        manifest = checkpoint.manifest(directory, step)
        place = manifest["place"]
        if "same" not in place:
            raise InputError(f"{directory} was not saved by a ModelCheckpoint, so it does not tell how to go on")
        for name, was in place.pop("same").items():
            if was != plain(same[name]):
                raise InputError(f"{directory} holds another training, of other {name}: {was}, not {plain(same[name])}")
        was, is_ = manifest["versions"] | manifest["topology"], checkpoint.versions() | checkpoint.topology()
        other = [f"{name} {was.get(name)}, not {is_[name]}" for name in is_ if was.get(name) != is_[name]]
        if other and parallel.first():
            warnings.warn(f"{directory} was saved with {', '.join(other)}: the last bits may be others", stacklevel=3)
        return cls(directory, step, **place | {"history": History(place["history"])})


class _Together(InputError):
    """What all processes of a training raise, after the same step."""


@dataclass
class _Run:
    """A training while it runs."""

    training: Training
    callbacks: Sequence[Callback]
    whole: TrainState
    """Of the whole network, after the last step that callbacks may hear of."""
    same: Mapping[str, Any]
    """What does not change where a training goes on."""
    number: int = 0
    """Of the phase."""
    begun: int = 0
    """Epochs before it."""
    history: History = field(default_factory=History)

    @property
    def done(self) -> int:
        """Steps before the phase."""
        return self.history[self.begun - 1]["step"] if self.begun else 0

    def event(self, kind: Kind, **more: Any) -> Event:
        return Event(kind, self.training, self.number, self.whole, self.history, self.begun, **more)

    def tell(self, kind: Kind, **more: Any) -> list[Action]:
        """Call the callbacks for which this is, and return what they ask for."""
        event = self.event(kind, **more)
        answers = [(each, each(event)) for each in self.callbacks if kind in _kinds(each)]
        for callback, answer in answers:
            if not isinstance(answer, Action | None):
                raise InputError(f"the callback {callback!r} returned {answer!r}, not None, Stop or ScaleRate")
        return [answer for _, answer in answers if answer is not None]

    def end(self, kind: object, error: object, traceback: object) -> None:
        """Tell the callbacks of the end, each of them whatever happens in the others. After an error of one of several
        processes they hear of none: what they do together, the others may not do."""
        if error is not None and parallel.several() and not isinstance(error, _Together):
            return
        event = self.event("end")
        with ExitStack() as stack:
            for callback in reversed([each for each in self.callbacks if "end" in _kinds(each)]):
                stack.callback(callback, event)

    def note(self, text: str) -> None:
        self.tell("note", text=text)

    def place(self, sums: Any = None, rollbacks: int = 0) -> dict[str, Any]:
        """All that is needed to go on, beside the state and the best variables."""
        leaves = None if sums is None else [np.asarray(leaf) for leaf in jax.tree.leaves(sums)]
        where: dict[str, Any] = {"number": self.number, "begun": self.begun, "same": self.same}
        return {**where, "history": list(self.history), "sums": leaves, "rollbacks": rollbacks}

    def phase(
        self,
        stage: features.Stage,
        loss: Loss,
        metrics: Mapping[str, Metric] | None,
        batch_size: int,
        seed: int,
        mesh: Mesh | None,
        fsdp: bool,
        saved: _Saved | None,
    ) -> dict[str, Any]:
        """Train through a phase, or what is left of it; returns the variables that the next one begins with."""
        phase, all_metrics, steps = self.training.phases[self.number], _with_loss(loss, metrics), self.training.steps
        schedule = optim.make_schedule(phase, phase.epochs * steps)
        optimizer = optim.make_optimizer(phase, schedule)
        state = train.init_state(stage.variables, optimizer, self.whole.key, stage.mask, average=phase.ema is not None)
        state = replace(state, step=state.step + self.done)
        state = state if mesh is None else parallel.place(mesh, state, fsdp)
        policy: BadNumbers = self.same["bad_numbers"]
        step = stage.make_train_step(phase, optimizer, loss=loss, metrics=metrics, skip=policy == "skip")
        step = parallel.undivided(mesh, step, min(batch_size, self.training.examples))
        measured_by: Any = {"loss": loss, "metrics": metrics, "normalize": stage.normalize}
        measured_by |= {"batch_size": batch_size, "mesh": mesh}
        resident = not parallel.most(not _resident(stage.sources, stage.model, stage.variables))
        layout = None if mesh is None else (parallel.shardings(mesh, state, fsdp), parallel.whole(mesh))
        make_epoch = _resident_epoch if resident else _streamed_epoch
        run_epoch = make_epoch(step, stage.sources, batch_size, seed, mesh, layout)
        if resident:
            self.note("the data stay on the device; an epoch is one program")

        best: Any = None
        sums: Any = None  # of the steps of the epoch that are done
        actions: list[Action] = []
        if saved is not None:
            state, best = self.restored(stage, state, saved)
            sums = None if saved.sums is None else _like_sums(saved.sums, step, state, stage.sources[0], batch_size)
        self.whole = stage.whole(state)
        if saved is not None and len(self.history) > self.begun:
            last = len(self.history) - self.begun == phase.epochs
            actions = self.tell("resume", metrics=self.history[-1], last=last, best=best)

        factor = float(optim.rate_factor(state.opt_state))  # of the schedule's rate
        rollbacks = 0 if saved is None else saved.rollbacks  # of this epoch
        with _told_to_stop() as told:
            while not any(isinstance(action, Stop) for action in actions):
                n, epoch = len(self.history) - self.begun, len(self.history) + 1  # n epochs of the phase are done
                if parallel.most(bool(told)) or n == phase.epochs:
                    break
                lowered = rollbacks + sum(row.get("rollbacks", 0) for row in self.history[self.begun :])
                asked = ROLLBACK**lowered * math.prod(a.factor for a in actions if isinstance(a, ScaleRate))
                if asked != factor:
                    factor = asked
                    state = replace(state, opt_state=optim.with_rate_factor(state.opt_state, factor))
                    state = state if mesh is None else parallel.place(mesh, state, fsdp)
                    self.note(f"the learning rate is {factor:g} times the schedule's from here on")
                good = jax.tree.map(jnp.copy, state) if policy == "rollback" else None
                watch = _Watch(partial(self.tell, "batch"), all_metrics, sums)
                start = int(state.step) - self.done - n * steps
                state, sums = run_epoch(state, epoch, start, sums, watch, told)
                seconds, done = watch.seconds(), int(state.step) - self.done - n * steps
                wrong = None if sums is None else self._wrong(sums, done, stage, n * steps, factor, schedule)
                if wrong is not None and rollbacks < ROLLBACKS and good is not None:
                    rollbacks += 1
                    self.note(f"{wrong}; epoch {epoch} begins again")
                elif wrong is not None:
                    raise _Together(f"{wrong}{f', {rollbacks} times lowered' if rollbacks else ''}; try a lower one")
                if good is not None and (wrong is not None or done < steps):  # what is done again begins where it did
                    state, sums = good, None
                self.whole = stage.whole(state)
                if done < steps:
                    break
                if wrong is not None:
                    continue
                figures: dict[str, Any] = {**metrics_.compute(all_metrics, sums)}
                if stage.validation is not None:
                    held = evaluate(stage.model, state.variables, stage.validation, **measured_by)
                    figures |= {f"val_{name}": held[name] for name in all_metrics}
                rate = factor * float(schedule((n + 1) * steps - 1))
                times = [seconds, watch.waited, watch.seconds() - seconds]
                examples = self.training.examples - start * batch_size
                row = self.row(int(state.step), figures, rate, times, examples)
                if policy == "skip":
                    row["skipped"] = steps - int(sums["finite"][0])
                elif policy == "rollback":
                    row["rollbacks"], rollbacks = rollbacks, 0
                if self.keeps_best and better(self.training.monitor, row, self.best_row()):
                    best = jax.tree.map(jnp.copy, state.variables)  # the next step takes its memory
                self.history.append(row)
                sums, last = None, n + 1 == phase.epochs
                actions = self.tell("epoch", metrics=row, last=last, best=best, place=self.place())
            number = parallel.most(max(told, default=0))  # of the signal, for all processes
        if number:
            self.tell("interrupt", best=best, place=self.place(sums, rollbacks))
            raise _interrupted(number, int(state.step), self.callbacks)
        for stop in (action for action in actions if isinstance(action, Stop)):
            if stop.reason:
                self.note(f"phase {phase.name!r} ends after epoch {len(self.history)}: {stop.reason}")
            if stop.restore_best and best is not None:
                self.whole = stage.whole(_with_variables(state, best))
        self.begun = len(self.history)
        return self.whole.variables if best is None else stage.joined(best)

    def restored(self, stage: features.Stage, like: TrainState, saved: _Saved) -> tuple[TrainState, Any]:
        """The state of a phase, and the variables of its best epoch, if they are kept."""
        state = stage.part(checkpoint.restore(saved.directory, stage.whole(like), saved.step))
        best = checkpoint.restore_best(saved.directory, stage.variables, saved.step)
        if best is None and self.keeps_best and (self.best_row() or {}).get("step") == saved.step:
            best = jax.tree.map(jnp.copy, state.variables)  # the best is kept apart only where it is another
        return state, best

    def row(
        self, step: int, figures: Mapping[str, Any], rate: float, times: list[float], examples: int
    ) -> dict[str, Any]:
        """Of the epoch that has ended, the same in all processes; times are those of the first."""
        seconds, waited, held = parallel.first_says(times.copy)
        return {
            "epoch": len(self.history) + 1,
            "phase": self.training.phases[self.number].name,
            "step": step,
            **figures,
            "learning_rate": rate,
            "seconds": seconds,
            "data_seconds": waited,
            "val_seconds": held,
            "examples_per_second": examples / seconds,
        }

    def _wrong(
        self, sums: Any, done: int, stage: features.Stage, before: int, factor: float, schedule: optax.Schedule
    ) -> str | None:
        """What is no number in the steps of an epoch that are done, and since when; None if nothing is, or if batches
        are skipped and this is not so in all of them."""
        good, of_loss, *each = (int(count) for count in sums["finite"])
        if good == done or (self.same["bad_numbers"] == "skip" and (good or done < self.training.steps)):
            return None
        moving = trees.split(stage.variables["params"], stage.mask)[0]
        first = sorted(trees.paths(moving), key=lambda path: path.split("/"))[each.index(min(each))]
        loss = float(sums["loss"][0])
        what = f"{'loss' if of_loss == good else 'update'} became {'nan' if math.isfinite(loss) else loss}"
        # Once there is one in the parameters it stays, so the first is in the step after the good ones.
        return (
            f"the {what} in step {self.done + before + good + 1} (epoch {len(self.history) + 1}, phase "
            f"{self.training.phases[self.number].name!r}, first in {first}), at the learning rate "
            f"{factor * float(schedule(before + good)):.3g}"
        )

    @property
    def keeps_best(self) -> bool:
        """Whether the variables of the phase's best epoch are wanted after it."""
        restores = any(getattr(callback, "restore_best", False) for callback in self.callbacks)
        return restores or self.number + 1 < len(self.training.phases)

    def best_row(self) -> dict[str, Any] | None:
        """The row of the phase's best epoch."""
        return History(self.history[self.begun :]).best(self.training.monitor)


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

    Raises:
      InputError: the labels have no classes; or see `transfer.new_head`, `transfer.fine_tune`, `fit`.
    """
    recipe = recipe or Recipe()
    check_source(train_data)
    if not train_data.classes:
        raise InputError("fine_tune teaches classes, and these labels have none: use transfer.new_head and fit")
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
      InputError: a label is outside the model's classes, the examples or the variables do not fit the model, or
        `augment` mixes images or goes without `views`.
    """
    shape, all_metrics = _input_shape(source, normalize), _with_loss(loss, metrics)
    _check_labels(model, shape, source.labels, loss, metrics)
    models.check_variables(model, variables, shape)
    chosen = None if metrics is None else tuple(metrics.items())
    step = _compiled_eval(model, loss, chosen, normalize, augment, views, mesh)
    sums = metrics_.merge(list(_over(step, variables, source, batch_size, mesh)))
    return metrics_.compute(all_metrics, sums) | {"count": len(source)}


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
) -> Any:
    """The model's outputs, logits for a classifier: float32 `[N,K]`, for a source or an array of inputs `[N,…]`; of a
    network with several heads, a dict of them. `augment` and `views` as `evaluate` takes them.

    Raises:
      InputError: as `evaluate`.
    """
    if isinstance(source, np.ndarray | jax.Array):
        source = from_arrays(source, np.zeros(np.shape(source)[:1], np.int32))
    models.check_variables(model, variables, _input_shape(source, normalize))
    step = _compiled_predict(model, normalize, augment, views, mesh)
    each = jax.device_get(list(_over(step, variables, source, batch_size, mesh)))
    # Rows that fill a batch up are its last.
    return jax.tree.map(lambda *parts: np.concatenate([part[:batch_size] for part in parts])[: len(source)], *each)


@lru_cache(maxsize=16)
def _compiled_eval(
    model: Any,
    loss: Loss,
    metrics: tuple[tuple[str, Metric], ...] | None,
    normalize: Normalize | None,
    augment: Augmentation | None,
    views: int,
    mesh: Mesh | None,
) -> Any:
    """Kept between calls, so that evaluating again does not compile again."""
    chosen = None if metrics is None else dict(metrics)
    how: Any = {"normalize": normalize, "augment": augment, "views": views}
    return jax.jit(train.make_eval_step(model, loss=loss, metrics=chosen, **how), out_shardings=parallel.whole(mesh))


@lru_cache(maxsize=16)
def _compiled_predict(
    model: Any, normalize: Normalize | None, augment: Augmentation | None, views: int, mesh: Mesh | None
) -> Any:
    step = train.make_predict_step(model, normalize=normalize, augment=augment, views=views)
    return jax.jit(step, out_shardings=parallel.whole(mesh))


def _over(step: Any, variables: Mapping[str, Any], source: Source, batch_size: int, mesh: Mesh | None) -> Iterator[Any]:
    """The step's result for each batch of a source, in its order."""
    variables = parallel.on(mesh, variables)
    for batch in parallel.feed(mesh, batches(source, batch_size, **parallel.division(mesh))):
        yield step(variables, batch)


Epoch = Callable[[TrainState, int, int, Any, "_Watch", Sequence[int]], tuple[TrainState, Any]]
"""`(state, epoch, start, sums, watch, told) -> (state, sums)`: the steps of an epoch from number `start` on, or fewer
where something is told; their sums are added to those before."""


def _streamed_epoch(
    step: train.TrainStep, sources: Sequence[Source], batch_size: int, seed: int, mesh: Mesh | None, layout: Any
) -> Epoch:
    """One call of the compiled step per batch."""
    packed = _Packed(step, layout)

    def run(
        state: TrainState, epoch: int, start: int, sums: Any, watch: "_Watch", told: Sequence[int]
    ) -> tuple[TrainState, Any]:
        source, started = sources[(epoch - 1) % len(sources)], deque[jax.Array]()
        total = None if sums is None else np.append(np.concatenate(list(map(np.ravel, jax.tree.leaves(sums)))), 0.0)
        rest = batches(source, batch_size, seed=seed, epoch=epoch, start=start, **parallel.division(mesh))
        if several := parallel.several():  # they tell each other with the batches, so that all stop after the same step
            rest = ({**batch, "told": np.full_like(batch["weight"], bool(told))} for batch in rest)
        for batch in watch.waiting(parallel.feed(mesh, rest)):
            state, new = packed(state, batch)
            started.append(new)
            if len(started) > LAG:
                # Waits for an earlier step, which also keeps the host from filling the memory with batches.
                total = _added(total, started.popleft())
                if watch.due():
                    watch(packed.unpacked(total))
            if (total is not None and total[-1]) if several else told:
                break
        while started:
            total = _added(total, started.popleft())
        return state, packed.unpacked(total)

    return run


class _Packed:
    """A compiled step whose sums are one vector: the host fetches one array faster than many. Behind them stands
    whether a process was told to stop."""

    def __init__(self, step: train.TrainStep, layout: Any):
        def packed(state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
            state, sums = step(state, batch)
            leaves, self._tree = jax.tree.flatten(sums)  # known once the step is traced, before the first result
            self._shapes = [leaf.shape for leaf in leaves]
            told = batch.get("told", jnp.zeros(1)).max()
            return state, jnp.concatenate([leaf.reshape(-1) for leaf in (*leaves, told)])

        self._call = jax.jit(packed, donate_argnums=0, out_shardings=layout)

    def __call__(self, state: TrainState, batch: Any) -> tuple[TrainState, jax.Array]:
        result: tuple[TrainState, jax.Array] = self._call(state, batch)
        return result

    def unpacked(self, vector: np.ndarray | None) -> Any:
        """The sums as a tree; None where there are none."""
        if vector is None:
            return None
        ends = np.cumsum([math.prod(shape) for shape in self._shapes])
        parts = np.split(vector, ends)[:-1]
        return jax.tree.unflatten(self._tree, [part.reshape(s) for part, s in zip(parts, self._shapes, strict=True)])


def _resident_epoch(
    step: train.TrainStep, sources: Sequence[Source], batch_size: int, seed: int, mesh: Mesh | None, layout: Any
) -> Epoch:
    """One call per epoch, over data that lies on the device, on each of them all; they take their rows from there."""
    compiled = jax.jit(train.make_epoch(step), donate_argnums=0, out_shardings=layout)
    everything = np.arange(len(sources[0]))
    data = [parallel.on(mesh, source.take(everything)) for source in sources]
    multiple = 1 if mesh is None else mesh.size

    def run(
        state: TrainState, epoch: int, start: int, sums: Any, watch: "_Watch", told: Sequence[int]
    ) -> tuple[TrainState, Any]:
        rows = order(len(everything), batch_size, seed=seed, epoch=epoch, multiple=multiple)
        rows_left = [parallel.columns(mesh, part[start:]) for part in rows]
        state, new = compiled(state, data[(epoch - 1) % len(data)], *rows_left)
        new = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), jax.device_get(new))
        return state, new if sums is None else jax.tree.map(np.add, sums, new)

    return run


def _like_sums(leaves: list[Any], step: train.TrainStep, state: TrainState, source: Source, batch_size: int) -> Any:
    """The leaves of a step's sums as the tree that they are of."""
    rows = min(batch_size, len(source))
    one = next(batches(source.subset(np.arange(1)), 1))
    batch = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype), one)
    return jax.tree.unflatten(jax.tree.structure(jax.eval_shape(step, state, batch)[1]), map(np.asarray, leaves))


def _added(total: np.ndarray | None, new: jax.Array) -> np.ndarray:
    """The sums on the host, float64, one after the other: the same wherever training was interrupted."""
    arrived = np.asarray(new, np.float64)
    return arrived if total is None else total + arrived


class _Watch:
    """The clock of an epoch, which tells how far it is."""

    def __init__(self, tell: Callable[..., Any], metrics: Mapping[str, Metric], sums: Any):
        self.waited = 0.0  # seconds, for batches
        self._tell, self._metrics = tell, metrics
        self._begun = self._told = time.perf_counter()
        self._before = 0.0 if sums is None else float(sums["loss"][1])

    def seconds(self) -> float:
        return time.perf_counter() - self._begun

    def waiting(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches; how long they take is noted."""
        while True:
            started = time.perf_counter()
            batch = next(batches, None)
            self.waited += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    def due(self) -> bool:
        """Whether nothing was told in the last tenth of a second."""
        return time.perf_counter() - self._told > 0.1

    def __call__(self, sums: Any) -> None:
        """Tell of the steps that are done."""
        self._told, examples = time.perf_counter(), float(sums["loss"][1])
        speed = (examples - self._before) / self.seconds()
        figures = metrics_.compute(self._metrics, sums)
        self._tell(metrics={**figures, "examples": examples, "examples_per_second": speed})


@contextmanager
def _told_to_stop() -> Iterator[list[int]]:
    """The signals to stop, Ctrl-C and SIGTERM, are put into a list; a second one does what it always does."""
    told: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        told.append(number)
        restore()
        os.write(2, b"jaxdl: stopping; once more to stop at once\n")  # `print` may be interrupted in the middle of one

    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, note)
    try:
        yield told
    finally:
        restore()


@contextmanager
def _raised_by_signal(run: _Run) -> Iterator[None]:
    """SIGTERM is raised where it would end the process at once, with checkpoints half-written."""

    def stop(number: int, frame: Any) -> None:
        raise _interrupted(number, run.history[-1]["step"] if run.history else 0, run.callbacks)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _kinds(callback: Callback) -> tuple[str, ...]:
    kinds: tuple[str, ...] = getattr(callback, "kinds", ("epoch", "resume"))
    return kinds


def _interrupted(number: int, step: int, callbacks: Sequence[Callback]) -> Interrupted:
    kept = [str(each.directory) for each in callbacks if isinstance(each, ModelCheckpoint)]
    how = (
        f"fit(…, resume={kept[0]!r}) goes on from there"
        if kept and step
        else "nothing is kept yet"
        if kept
        else "nothing keeps it (callbacks.ModelCheckpoint does)"
    )
    return Interrupted(number, f"stopped after step {step}; {how}")


def _state(variables: Mapping[str, Any], key: jax.Array, step: int) -> TrainState:
    """A state without an optimizer, for callbacks before there is one."""
    model_state = dict(variables)
    return TrainState(jnp.int32(step), model_state.pop("params"), model_state, {}, key, {})


def _with_variables(state: TrainState, variables: Mapping[str, Any]) -> TrainState:
    """The state with other variables, of which the averages are the same."""
    model_state = dict(variables)
    params = model_state.pop("params")
    average = {path: leaf for path, leaf in trees.paths(params).items() if path in trees.paths(state.average)}
    return replace(state, params=params, model_state=model_state, average=trees.from_paths(average))


def _resident(sources: Sequence[Source], model: Any, variables: Mapping[str, Any]) -> bool:
    """Whether sources should stay on the device and an epoch be one program: where they fit, and `models.loops`."""
    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 4 << 30)  # a CPU does not say
    arrays = [source for source in sources if isinstance(source, Arrays)]
    fits = len(arrays) == len(sources) and sum(source.inputs.nbytes for source in arrays) <= RESIDENT * memory
    return fits and models.loops(model, variables)


def _input_shape(source: Source, normalize: Normalize | None) -> tuple[int, ...]:
    check_source(source)
    return train.input_shape(source.take(np.arange(1)), normalize)


def _check_labels(
    model: Any, shape: tuple[int, ...], labels: Any, loss: Loss, metrics: Mapping[str, Metric] | None
) -> None:
    outputs = models.shapes(model, shape)[1]
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
        if loss is losses.cross_entropy:
            raise InputError("labels that are numbers, not classes, need loss=losses.squared_error and metrics")
        if metrics is None:
            raise InputError("labels that are numbers go with no metric by default: give metrics too, {} for none")
        return
    if width == 1 and loss is losses.cross_entropy:
        raise InputError("a model with one output needs loss=losses.binary_cross_entropy (or two outputs)")
    try:
        check_labels(labels, 2 if width == 1 else width)  # a single output tells two classes apart
    except InputError as error:
        hint = "; for regression give floats: labels.astype('float32')" if width == 1 else ""
        raise InputError(f"{error}{hint}") from None


def _with_loss(loss: Loss, metrics: Mapping[str, Metric] | None) -> dict[str, Metric]:
    if not callable(loss):
        raise InputError(f"a loss is a function, such as losses.cross_entropy; got {loss!r:.40}")
    if not isinstance(metrics, Mapping | None):
        raise InputError(f"metrics are a dict by name, such as {{'top5': metrics.top_k(5)}}; got {metrics!r:.40}")
    return {"loss": metrics_.mean(loss), **({"accuracy": metrics_.accuracy} if metrics is None else metrics)}
