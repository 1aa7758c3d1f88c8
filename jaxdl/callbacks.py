"""What happens beside training: functions of an event, which may answer with an action.

A callback of your own is a function. It is called after each epoch, with an `Event`, and once more for the last of them
where training goes on after an interruption (`event.kind` is "resume" then):

    def announce(event):
        print(event.epoch, event.metrics["loss"])

What a callback decides follows from the event's history alone, so a run that is continued decides as if it had never
stopped. A callback that wants other events has a field `kinds` that names them.
"""

import csv
import io
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from jaxdl import checkpoint, parallel, trees
from jaxdl.errors import InputError, nearest
from jaxdl.history import History, better, plain, stale
from jaxdl.optim import Phase
from jaxdl.train import TrainState

Kind = Literal["begin", "phase", "note", "batch", "epoch", "resume", "interrupt", "end"]
"""Training begins; a phase begins; there is something to say; some steps are done, at most ten times a second; an
epoch has ended; training goes on after an epoch that had ended before; it stops in the middle; it ends, also by an
error."""

SAVE_EVERY = 10.0  # seconds of training that may be lost where the process is killed, unless saving takes long:
SAVE_SHARE = 0.02  # of the time, at most


@dataclass(frozen=True)
class Training:
    """What is the same for all events of a training."""

    model: Any
    input_shape: tuple[int, ...]
    """Of one example."""
    phases: tuple[Phase, ...]
    masks: tuple[trees.Tree, ...]
    """What each phase trains."""
    examples: int
    """In an epoch."""
    steps: int
    """In an epoch."""
    figures: tuple[str, ...]
    """The names of what is measured in each epoch: "loss", "accuracy", "val_loss", …"""
    monitor: str
    """That of them by which epochs are compared."""


@dataclass(frozen=True)
class Event:
    """Something that has happened in a training."""

    kind: Kind
    training: Training
    number: int
    """Of the phase, from 0."""
    state: TrainState
    """Of the whole network. Valid during the callback, as the next step takes its memory; not at "batch", and at "end"
    not after an error. Before the first step of a phase it has no optimizer."""
    history: History
    """The rows of all epochs that have ended, over all phases."""
    begun: int = 0
    """How many of them there were when the phase began."""
    metrics: Mapping[str, Any] = field(default_factory=dict)
    """The last row of the history; at "batch", the figures of the epoch's steps so far, with "examples"."""
    last: bool = False
    """Whether the phase ends with this epoch."""
    text: str = ""
    """Of a note."""
    best: Mapping[str, Any] | None = None
    """The variables of the phase's best epoch, where they are kept."""
    place: Mapping[str, Any] = field(default_factory=dict)
    """With the state and the best, all that `fit` needs to go on."""

    @property
    def phase(self) -> Phase:
        return self.training.phases[self.number]

    @property
    def epoch(self) -> int:
        """The last that has ended, counted from 1 over all phases."""
        return len(self.history)


@dataclass(frozen=True)
class Stop:
    """An action: the phase ends here."""

    reason: str
    restore_best: bool = False
    """Go back to the variables of its best epoch."""


@dataclass(frozen=True)
class ScaleRate:
    """An action: from here on in this phase, the learning rate is this times that of the schedule."""

    factor: float


Action = Stop | ScaleRate
Callback = Callable[[Event], Action | None]


@dataclass(frozen=True)
class EarlyStopping:
    """Ends a phase when the monitored figure has not got better for some epochs, and goes back to its best epoch.

    Args:
      patience: how many epochs without a better figure it takes.
      min_delta: by how much it must be better to count.
      monitor: the figure; None for that of `fit`.
      restore_best: go back to the phase's best epoch, also where the phase ends by itself; the best is by the
        monitor of `fit`.

    Raises:
      InputError: a value is out of range; as training begins, the figure is not measured, or the best epoch is to be
        restored by another figure than the monitor of `fit`.
    """

    patience: int = 5
    min_delta: float = 0.0
    monitor: str | None = None
    restore_best: bool = True
    kinds = ("begin", "epoch", "resume")

    def __post_init__(self) -> None:
        _check(self, patience=self.patience >= 1, min_delta=self.min_delta >= 0)

    def __call__(self, event: Event) -> Stop | None:
        monitor = _monitor(self, event)
        if self.restore_best and monitor != event.training.monitor:
            raise InputError(
                f"EarlyStopping can restore the best epoch by {event.training.monitor!r} only, the monitor of fit; "
                f"give fit(monitor={monitor!r}), or restore_best=False"
            )
        if event.kind == "begin":
            return None
        waited = stale(event.history[event.begun :], monitor, self.min_delta)
        if waited >= self.patience:
            return Stop(f"{monitor} has not got better for {waited} epochs", self.restore_best)
        return Stop("", True) if event.last and self.restore_best else None


@dataclass(frozen=True)
class ReduceLROnPlateau:
    """Lowers the learning rate when the monitored figure has not got better for some epochs.

    Args:
      factor: what the rate is multiplied by, each time.
      patience: how many epochs without a better figure it takes.
      min_delta: by how much it must be better to count.
      cooldown: epochs after a reduction that do not count.
      min_rate: of the schedule's highest; where the reductions end.
      monitor: the figure; None for that of `fit`.

    Raises:
      InputError: a value is out of range; as training begins, the figure is not measured.
    """

    factor: float = 0.1
    patience: int = 5
    min_delta: float = 1e-4
    cooldown: int = 0
    min_rate: float = 0.0
    monitor: str | None = None
    kinds = ("begin", "epoch", "resume")

    def __post_init__(self) -> None:
        _check(self, factor=0 < self.factor < 1, patience=self.patience >= 1, min_delta=self.min_delta >= 0)
        _check(self, cooldown=self.cooldown >= 0, min_rate=self.min_rate >= 0)

    def __call__(self, event: Event) -> ScaleRate | None:
        monitor = _monitor(self, event)
        best, waited, cooling, factor = None, 0, 0, 1.0
        lowest = self.min_rate / event.phase.learning_rate
        for row in event.history[event.begun :]:
            cooling = max(0, cooling - 1)
            if better(monitor, row, best, self.min_delta):
                best, waited = row, 0
            elif not cooling:
                waited += 1
                if waited >= self.patience:
                    factor, waited, cooling = max(factor * self.factor, min(factor, lowest)), 0, self.cooldown
        return None if event.kind == "begin" else ScaleRate(factor)


@dataclass(eq=False)
class ModelCheckpoint:
    """Keeps the best and the last state in a folder of checkpoints, from which `fit(…, resume=directory)` goes on.

    The best never makes way for the last, nor the last for the best, and what is not a number is never the best.
    They are written in the background while training goes on. States of epochs that follow each other fast are written
    together, every few seconds, at the end of a phase, and when training ends, whatever ends it.

    Args:
      directory: of the checkpoints.
      monitor: the figure that tells the best; None for that of `fit`. Where no epoch has it, the last is kept alone.
      every: seconds of training between two saves, at least; None for ten, while saving takes 2 % of the time at most.
      config: plain data to keep with each checkpoint: what the network is, its classes, its preprocessing.

    Raises:
      InputError: as training begins, the folder holds checkpoints that it does not go on from; later, the disk is full
        or cannot be written.
    """

    directory: str | Path
    monitor: str | None = None
    every: float | None = None
    config: Mapping[str, Any] | None = None
    kinds = ("begin", "phase", "epoch", "interrupt", "end")
    _waiting: dict[int, dict[str, Any]] = field(default_factory=dict, init=False, repr=False)
    _saver: checkpoint.Saver = field(init=False, repr=False)
    _kept: set[int] = field(default_factory=set, init=False, repr=False)
    _best: Mapping[str, Any] | None = field(default=None, init=False, repr=False)
    _begun: float = field(default=0.0, init=False, repr=False)
    _saved: float = field(default=0.0, init=False, repr=False)

    def __call__(self, event: Event) -> None:
        monitor = self.monitor or event.training.monitor
        if event.kind == "begin":
            self._kept = set(parallel.first_says(lambda: checkpoint.steps(self.directory)))
            if self._kept and int(event.state.step) not in self._kept:
                raise InputError(f"{self.directory} holds checkpoints already; continue them with resume, or move them")
            self._best = History(row for row in event.history if row["step"] in self._kept).best(monitor)
            self._saver = checkpoint.Saver(self.directory, plain(self.config))
            self._begun = self._saved = time.monotonic()
            return
        if event.kind == "phase":  # the one before it may have ended by a Stop
            self._save()
            return
        if event.kind == "end":
            try:
                self._save()
            except InputError:  # of an earlier save; this one may have room again
                self._save()
                raise
            finally:
                self._saver.close()
            return
        now = time.monotonic()
        late: bool = now - self._saved > (SAVE_EVERY if self.every is None else self.every)
        if self.every is None:
            another = self._saver.seconds / (self._saver.saves or 1)
            late = late and self._saver.seconds + another <= SAVE_SHARE * (now - self._begun)
        late = bool(parallel.most(late))
        due = event.kind != "epoch" or event.last or late
        step = int(event.state.step)
        if event.kind == "epoch" and better(monitor, event.metrics, self._best):
            self._best = event.metrics
        # A state that waits is a copy, as the next step takes its memory.
        state = event.state if due else checkpoint.copied(event.state)
        best = self._best["step"] if self._best else None
        self._waiting = {n: waiting for n, waiting in self._waiting.items() if n == best}
        self._waiting[step] = {"state": state, "best": _other_best(event), "place": event.place}
        if due:
            self._save()

    def _save(self) -> None:
        """Write what waits, if anything does; what is neither the best nor the last is removed then."""
        best = {self._best["step"]} if self._best else set()
        for step in sorted(self._waiting.keys() - self._kept):
            kept = {step} | (best & (self._kept | self._waiting.keys()))
            waiting = self._waiting[step] | {"place": plain(self._waiting[step]["place"])}
            self._saver.save(**waiting, keep=kept)
            self._kept = kept  # after an error of an earlier save, this one still waits
        self._waiting.clear()
        self._saved = time.monotonic()


def _other_best(event: Event) -> Mapping[str, Any] | None:
    """The variables of the phase's best epoch, if they are kept; None where they are the state's: `fit` looks there."""
    if event.best is None:
        return None
    row = History(event.history[event.begun :]).best(event.training.monitor)
    return None if row is not None and row["step"] == int(event.state.step) else event.best


@dataclass(frozen=True)
class CSVLogger:
    """Writes a file with a line for each epoch, comma-separated, under a line of names."""

    path: str | Path
    kinds = ("begin", "epoch")

    def __call__(self, event: Event) -> None:
        text = io.StringIO(newline="")
        for row in _new_rows(event):
            table = csv.DictWriter(text, list(row), lineterminator="\n")
            if row["epoch"] == 1:
                table.writeheader()
            table.writerow(row)
        _write(self.path, event, text.getvalue())


@dataclass(frozen=True)
class JSONLines:
    """Writes a file with a line of JSON for each epoch."""

    path: str | Path
    kinds = ("begin", "epoch")

    def __call__(self, event: Event) -> None:
        _write(self.path, event, "".join(json.dumps(row) + "\n" for row in _new_rows(event)))


@dataclass(eq=False)
class TensorBoard:
    """Writes a folder for TensorBoard: figures by epoch, the parameters as histograms, the network as a graph.

    Args:
      directory: of the event files.
      histograms: of the parameters, after each epoch.
      images: pictures to draw after each epoch, as a function of the event: a matplotlib figure, or an array uint8
        `[H,W]` or `[H,W,3]`, by name.

    Raises:
      InputError: tensorboardX is not installed.
    """

    directory: str | Path
    histograms: bool = True
    images: Callable[[Event], Mapping[str, Any]] | None = None
    kinds = ("begin", "epoch", "end")
    _writer: Any = field(default=None, init=False, repr=False)

    def __call__(self, event: Event) -> None:
        if event.kind == "epoch":
            self._epoch(event)
        elif not parallel.first():
            return
        elif event.kind == "begin":
            try:
                from tensorboardX import SummaryWriter
            except ImportError:
                raise InputError("TensorBoard needs tensorboardX; run: pip install 'jaxdl[tensorboard]'") from None
            # What a continued training does again after its last checkpoint is hidden.
            self._writer = SummaryWriter(str(self.directory), purge_step=event.epoch + 1, write_to_disk=True)
            self._writer.add_text("model", f"    {event.training.model!r}".replace("\n", "\n    "), event.epoch)
            self._writer.file_writer.add_event(_graph(event.state.params))
        else:
            self._writer.close()

    def _epoch(self, event: Event) -> None:
        variables = event.state.variables["params"] if self.histograms else {}
        parameters = {path: parallel.fetch(leaf) for path, leaf in trees.paths(variables).items()}
        pictures = self.images(event) if self.images else {}
        if not parallel.first():
            return
        for name, value in event.metrics.items():
            if isinstance(value, float | int) and name not in ("epoch", "step"):
                part = "validation" if name.startswith("val_") else "training"
                self._writer.add_scalar(f"{name.removeprefix('val_')}/{part}", value, event.epoch)
        for path, leaf in parameters.items():
            self._writer.add_histogram(path, leaf, event.epoch)
        for name, picture in pictures.items():
            if hasattr(picture, "savefig"):
                self._writer.add_figure(name, picture, event.epoch)
            else:
                self._writer.add_image(name, picture, event.epoch, dataformats="HWC" if picture.ndim == 3 else "HW")
        self._writer.flush()


@dataclass(frozen=True)
class LambdaCallback:
    """Functions for the kinds of events that are not the end of an epoch, or for that, too; `epoch` hears "resume" as
    well, as a callback that is a function does."""

    begin: Callback | None = None
    phase: Callback | None = None
    batch: Callback | None = None
    epoch: Callback | None = None
    interrupt: Callback | None = None
    end: Callback | None = None

    @property
    def kinds(self) -> tuple[str, ...]:
        kinds = tuple(kind for kind, function in vars(self).items() if function is not None)
        return (*kinds, "resume") if self.epoch is not None else kinds

    def __call__(self, event: Event) -> Action | None:
        answer: Action | None = getattr(self, "epoch" if event.kind == "resume" else event.kind)(event)
        return answer


@dataclass(eq=False)
class Progress:
    """Shows a bar on a terminal while an epoch runs, and prints a line when it has ended; to standard error."""

    kinds = ("begin", "phase", "note", "batch", "epoch", "interrupt", "end")
    _console: Console = field(init=False, repr=False)
    _bar: Bar | None = field(default=None, init=False, repr=False)

    def __call__(self, event: Event) -> None:
        if event.kind == "begin":
            self._console = Console(stderr=True, highlight=False, markup=False, quiet=not parallel.first())
        elif event.kind == "phase":
            moving, total = trees.split(event.state.params, event.training.masks[event.number])[0], event.state.params
            of = f"{trees.count(moving):,} of {trees.count(total):,} parameters trainable"
            self._say(f"{event.phase.name}: {event.phase.epochs} epochs, {of}")
        elif event.kind == "note":
            self._say(event.text)
        elif event.kind == "batch" and self._console.is_terminal:
            self._advance(event)
        elif event.kind != "batch" and self._bar is not None:
            self._bar.stop()
            self._bar = None
        if event.kind == "epoch":
            speed = f"{event.metrics['seconds']:.1f} s  {event.metrics['examples_per_second']:,.0f}/s"
            self._say(f"epoch {event.epoch:>2}/{_epochs(event)}  {_said(event)}  {speed}")

    def _advance(self, event: Event) -> None:
        if self._bar is None:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.percentage:>3.0f}%"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
            )
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task(f"epoch {event.epoch + 1}/{_epochs(event)}", total=event.training.examples, figures="")
            self._bar.start()
        done = event.metrics["examples"]
        figures = f"{_said(event)}  {event.metrics['examples_per_second']:,.0f}/s"
        self._bar.update(self._bar.task_ids[0], completed=done, figures=figures)

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)


def _epochs(event: Event) -> int:
    return sum(phase.epochs for phase in event.training.phases)


def _said(event: Event) -> str:
    """The figures in a line."""
    shown = {name: event.metrics[name] for name in event.training.figures if name in event.metrics}
    return "  ".join(f"{name} {value:.4f}" for name, value in shown.items() if isinstance(value, float))


def _check(owner: Any, **fields: bool) -> None:
    for name, right in fields.items():
        if not right:
            raise InputError(f"{type(owner).__name__}: {name}={getattr(owner, name)} cannot be used")


def _monitor(owner: EarlyStopping | ReduceLROnPlateau, event: Event) -> str:
    """The figure to watch, which is there."""
    monitor, known = owner.monitor or event.training.monitor, event.training.figures
    if monitor not in known:
        hint = "; give validation data" if monitor.startswith("val_") else ""
        raise InputError(
            f"{type(owner).__name__} watches {monitor!r}, which is not measured{hint}{nearest(monitor, known)}"
        )
    return monitor


def _new_rows(event: Event) -> list[dict[str, Any]]:
    """The rows that a log does not have yet: all there are where training begins, as it may be continued."""
    rows: list[dict[str, Any]] = plain(event.history if event.kind == "begin" else event.history[-1:])
    return rows


def _write(path: str | Path, event: Event, text: str) -> None:
    """Begin a log with a text, or add it; whole or not at all."""
    if not parallel.first():
        return
    path = Path(path)
    draft, size = path.with_name(f"{path.name}.tmp"), None
    try:
        if event.kind == "begin":
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(text)
            draft.replace(path)
        else:
            size = path.stat().st_size
            with path.open("a") as file:
                file.write(text)
    except OSError as error:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
            if size is not None:
                os.truncate(path, size)
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _graph(params: trees.Tree) -> Any:
    """An event with the modules in the order of their parameters, as TensorBoard draws them."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.graph_pb2 import GraphDef
    from tensorboardX.proto.node_def_pb2 import NodeDef

    modules = dict.fromkeys(path.rpartition("/")[0] for path in trees.paths(params))
    nodes, before = [NodeDef(name="input", op="Input")], "input"
    for module in modules:
        nodes.append(NodeDef(name=module, op="Module", input=[before]))
        before = module
    return Event(graph_def=GraphDef(node=nodes).SerializeToString())
