"""`jaxdl train`, `fine-tune` and `lr-find`."""

import dataclasses
import shlex
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import jax
import numpy as np
import tyro

import jaxdl
from jaxdl import callbacks, data, features, losses, models, optim, page, parallel, rates, report, runs, transfer
from jaxdl.augment import PHOTOS, Affine
from jaxdl.cli.common import (
    Data,
    Folder,
    all_devices,
    left_out,
    measure,
    print_json,
    read_weights,
    result_line,
    terms_for,
)
from jaxdl.errors import InputError, Interrupted
from jaxdl.report import canvas


@dataclass(frozen=True)
class Watch:
    """What happens beside training."""

    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Measured beside the accuracy, or the mean absolute error: f1, top5, roc_auc, rmse, … (docs/metrics.md)."""
    monitor: str = "val_loss"
    """The figure that tells which epoch is the best."""
    early_stopping: Annotated[int | None, tyro.conf.arg(metavar="EPOCHS", help_behavior_hint="(default: off)")] = None
    """End a phase where the monitored figure has not got better for so long."""
    reduce_on_plateau: Annotated[int | None, tyro.conf.arg(metavar="EPOCHS", help_behavior_hint="(default: off)")] = (
        None
    )
    """Divide the learning rate by ten where the monitored figure has not got better for so long."""
    bad_numbers: jaxdl.loop.BadNumbers = "stop"
    """Where the loss, a gradient or a parameter is no number: end training, skip the batch, or begin the epoch again at
    a tenth of the learning rate."""
    tensorboard: bool = False
    """Write RUN/tensorboard for TensorBoard."""
    resume: bool = False
    """Go on with a run that was interrupted: the same command, with this."""

    def callbacks(self, run: runs.Run) -> list[callbacks.Callback]:
        watching: list[callbacks.Callback] = [*run.callbacks]
        if self.early_stopping is not None:
            watching.append(callbacks.EarlyStopping(self.early_stopping, restore_best=False))  # runs keep the best
        if self.reduce_on_plateau is not None:
            watching.append(callbacks.ReduceLROnPlateau(patience=self.reduce_on_plateau))
        if self.tensorboard:
            watching.append(callbacks.TensorBoard(run.path / "tensorboard"))
        return watching


@dataclass(frozen=True)
class Devices:
    """What computes: all devices that there are, of this process, or of several that train together."""

    fsdp: bool = False
    """Divide parameters, averages and the optimizer's state over the devices, where they are large."""
    distributed: bool = False
    """This is one of several processes, started by Slurm, Open MPI, Kubernetes or for a TPU pod; all of them are given
    the same command, and a run directory on a disk that all have."""
    coordinator: Annotated[str | None, tyro.conf.arg(metavar="HOST:PORT", help_behavior_hint="(default: found)")] = None
    """Where process 0 listens, if nothing of the above has started the processes."""
    num_processes: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: found)")] = None
    """How many there are."""
    process_id: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: found)")] = None
    """Which of them this is, from 0."""

    def start(self) -> None:
        by_hand = (self.coordinator, self.num_processes, self.process_id)
        if self.distributed or by_hand != (None, None, None):
            parallel.start(*by_hand)


@dataclass(frozen=True)
class FineTune:
    """Teach a pretrained network the classes of a folder of photographs: its head, then more of it."""

    folder: Folder
    """Photographs in a folder for each class, inside train/ and test/ or not."""
    model: str = "efficientnet_lite0"
    """A network with pretrained weights (`jaxdl models` lists them), a weight file, an earlier run, or
    hf-hub:OWNER/REPO."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: runs/FOLDER-MODEL)")] = None
    """The run directory to make."""
    recipe: Annotated[transfer.Recipe, tyro.conf.arg(name="")] = field(default_factory=transfer.Recipe)
    batch_size: int = 32
    """Images in a batch, over all devices."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    watch: Annotated[Watch, tyro.conf.arg(name="")] = field(default_factory=Watch)
    devices: Annotated[Devices, tyro.conf.arg(name="")] = field(default_factory=Devices)
    augment: Affine = PHOTOS

    def run(self) -> None:
        self.devices.start()
        out = self.out or Path("runs") / f"{self.folder.resolve().name}-{Path(self.model).stem}"
        parallel.first_says(lambda: runs.check_new(out, resume=self.watch.resume))
        weights = read_weights(self.model)
        splits = self.data.load(self.folder, weights.preprocessing)
        recipe = self.recipe
        model, variables = transfer.new_head(
            weights.model, weights.variables, len(splits.train.classes), dropout=recipe.dropout
        )
        phases = transfer.fine_tune(variables["params"], recipe)
        changed = {} if recipe.dropout is None else {"dropout": recipe.dropout}
        spec = {"name": weights.name, "options": {**weights.options, **changed}, "from": self.model}
        loss = losses.label_smoothing(recipe.label_smoothing)
        _train(self, out, spec, model, variables, weights.preprocessing, splits, phases, loss)


@dataclass(frozen=True)
class Columns:
    """The columns of a table: which one is predicted, and how the others are read."""

    target: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """The column to predict; without a header its number from 0, or -1 for the last."""
    drop: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN...")] = ()
    """Columns to leave out, such as identifiers."""
    categorical: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN...")] = ()
    """Columns whose numbers are names."""
    task: Literal["classification", "regression"] | None = None
    """None: classes, where the target is text or has at most ten different values, all whole numbers."""
    scale: Literal["standard", "minmax"] | None = "standard"
    """Numbers to mean 0 and standard deviation 1, to the range 0 to 1, or as they are."""
    header: bool = True
    """Whether the first line names the columns."""

    def load(self, path: Path, parts: Data) -> data.TableSplits:
        if self.target is None:
            raise InputError(f"say with --target which column of {path} is to be predicted")
        shares: Any = {"validation": parts.validation, "test": parts.test, "seed": parts.seed}
        return data.from_csv(path, **vars(self), **shares)


@dataclass(frozen=True)
class Train:
    """Train a network from scratch on a folder of images, or on a table."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|TABLE.csv")]
    """Images in a folder for each class, inside train/ and test/ or not; or a table with a --target."""
    model: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: tiny_vgg, dense for a table)")] = None
    """Any of `jaxdl models`."""
    hidden: Annotated[
        tuple[int, ...] | None, tyro.conf.arg(metavar="WIDTH...", help_behavior_hint="(default: the network's own)")
    ] = None
    """Widths of the dense hidden layers."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN", help_behavior_hint="(default: runs/FOLDER-MODEL)")] = None
    """The run directory to make."""
    size: Annotated[
        int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: the network's own, or 64)")
    ] = None
    """Height and width of the images."""
    weights: str | None = None
    """Start from what fits of a weight file, an earlier run, or another source of weights, and print what did."""
    strict: bool = False
    """All of those weights must fit."""
    epochs: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 10, 100 for a table)")] = None
    """Passes over the training data."""
    learning_rate: float = 1e-3
    """The highest."""
    optimizer: str = "adamw"
    """One of jaxdl.optim.OPTIMIZERS: sgd, momentum, adam, adamw, rmsprop, lion, muon, …"""
    schedule: str = "cosine"
    """How the learning rate falls after its warm-up: constant, cosine, polynomial, step, exponential, or one-cycle."""
    loss: str = "cross_entropy"
    """Of classes: one of jaxdl.losses.NAMED."""
    class_weights: Literal["balanced"] | None = None
    """Give every class the same say, however many examples it has."""
    batch_size: int = 32
    """Examples in a batch, over all devices."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    columns: Annotated[Columns, tyro.conf.arg(name="")] = field(default_factory=Columns)
    watch: Annotated[Watch, tyro.conf.arg(name="")] = field(default_factory=Watch)
    devices: Annotated[Devices, tyro.conf.arg(name="")] = field(default_factory=Devices)
    augment: Affine = PHOTOS

    def run(self) -> None:
        self.devices.start()
        table = self.folder.is_file() or self.folder.suffix == ".csv"
        name = self.model or ("dense" if table else "tiny_vgg")
        out = self.out or Path("runs") / f"{self.folder.resolve().stem if table else self.folder.resolve().name}-{name}"
        parallel.first_says(lambda: runs.check_new(out, resume=self.watch.resume))
        loss = losses.by_name(self.loss)
        # The averages of batch normalisation settle within a few hundred steps, not in ImageNet's hundred thousand.
        model_options: dict[str, Any] = {"bn_momentum": 0.9} if name.startswith("efficientnet") else {}
        if self.hidden is not None:
            model_options["hidden"] = self.hidden
        models.create(name, 2, **model_options)
        preprocessing: data.Preprocessing | data.TablePreprocessing
        if table:
            if self.size is not None or self.augment != PHOTOS:
                raise InputError(f"--size and --augment are for images; {self.folder} is a table")
            *parts, preprocessing = self.columns.load(self.folder, self.data)
            splits = data.Splits(*parts)
        else:
            if self.columns != Columns():
                raise InputError(f"--target and other options of columns are for tables; {self.folder} is none")
            preprocessing = data.Preprocessing(self.size if self.size is not None else models.input_size(name) or 64)
            splits = self.data.load(self.folder, preprocessing)
        model = models.create(name, len(splits.train.classes) or 1, **model_options)
        epochs = self.epochs if self.epochs is not None else 100 if table else 10
        phases = (optim.Phase(epochs, self.learning_rate, optimizer=self.optimizer, schedule=self.schedule),)
        if not splits.train.classes and self.loss != Train.loss:
            raise InputError("--loss is for classes; a number is predicted here, by the squared error")
        if self.class_weights is not None:
            if not splits.train.classes:
                raise InputError("--class-weights are for classes; a number is predicted here")
            balanced = losses.balanced_weights(splits.train.labels, len(splits.train.classes))
            loss = losses.class_weighted(loss, balanced)
        variables = None
        if self.weights is not None:
            shape = np.shape(jaxdl.train.inputs(splits.train[0]))
            fresh = models.init(model, jax.random.key(self.data.seed), shape)
            loaded = transfer.partial_load(fresh, read_weights(self.weights).variables, strict=self.strict)
            if parallel.first():
                print(loaded, file=sys.stderr)
            variables = loaded.variables
        spec = {"name": name, "options": model_options, "from": self.weights}
        _train(self, out, spec, model, variables, preprocessing, splits, phases, loss)


@dataclass(frozen=True)
class LrFind:
    """Suggest a learning rate for the head: from one sweep over all rates, or from many trainings at once."""

    folder: Folder
    """Photographs in a folder for each class, inside train/ and test/ or not."""
    model: str = "efficientnet_lite0"
    """As of `jaxdl fine-tune`."""
    grid: int = 0
    """Train the head at this many rates from 1e-4 to 0.1 at once, and choose by the validation images. 0: a sweep."""
    whole: bool = False
    """After the head, sweep for the modules that fine-tuning unfreezes."""
    out: Path = Path("lr-find.png")
    """The picture to make."""
    recipe: Annotated[transfer.Recipe, tyro.conf.arg(name="")] = field(default_factory=transfer.Recipe)
    batch_size: int = 32
    """Images in a batch."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    augment: Affine = PHOTOS
    json: bool = False
    """Print one JSON object and nothing else: suggestion, rates, losses (and accuracies)."""

    def run(self) -> None:
        if self.grid < 0 or (self.grid and self.whole):
            raise InputError("--grid is a number of rates, for the head alone: leave out --whole")
        canvas.new(1, 1)  # where there is no matplotlib it says so now, not after minutes
        weights = read_weights(self.model)
        pixels = weights.preprocessing
        splits = self.data.load(self.folder, pixels)
        train, validation, _ = self.data.decoded(splits._replace(test=None))
        model, variables = transfer.new_head(
            weights.model, weights.variables, len(splits.train.classes), dropout=self.recipe.dropout
        )
        *head, last = transfer.fine_tune(variables["params"], self.recipe)
        loss = losses.label_smoothing(self.recipe.label_smoothing)
        shared: Any = {"augment": self.augment, "normalize": pixels.normalize, "seed": self.data.seed}
        shared["batch_size"] = self.batch_size
        phase = head[0] if head and not self.whole else last
        if self.whole and head:
            more: Any = {"variables": variables, "phases": head, "loss": loss, "cache": self.data.cache}
            variables = jaxdl.fit(model, train, validation, **more, **shared, progress=not self.json).variables
        stage = features.prepare(model, variables, phase, train, validation, **shared, folder=self.data.cache)
        same: Any = {"batch_size": self.batch_size, "loss": loss, "seed": self.data.seed}
        if self.grid:
            found = rates.grid(stage, phase, np.geomspace(1e-4, 0.1, self.grid).tolist(), **same)
        else:
            found = rates.sweep(stage, phase, **same)
        accuracies = None if found.accuracies is None else found.accuracies.tolist()
        if self.json:
            said = {"suggestion": found.suggestion, "rates": found.rates.tolist(), "losses": found.losses.tolist()}
            print_json(said | {"accuracies": accuracies})
        else:
            for rate, lost, right in zip(found.rates, found.losses, accuracies or (), strict=False):
                print(f"  {rate:.2e}  validation loss {lost:.4f}  accuracy {right:.4f}")
            print(f"suggested learning rate of the phase {phase.name!r}: {found.suggestion:.1e}; picture: {self.out}")
        report.learning_rates(found.rates, found.losses, found.suggestion).savefig(self.out, dpi=120)


def _train(
    options: FineTune | Train,
    out: Path,
    spec: dict[str, Any],
    model: Any,
    variables: dict[str, Any] | None,
    preprocessing: data.Preprocessing | data.TablePreprocessing,
    splits: data.Splits,
    phases: tuple[optim.Phase, ...],
    loss: losses.Loss,
) -> None:
    """What `fine-tune` and `train` share: decode, train, keep the run, measure on the test data."""
    started = time.perf_counter()
    train, validation, test = options.data.decoded(splits)
    counts = {"training": train, "validation": validation, "test": test}
    counts = {name: 0 if part is None else len(part) for name, part in counts.items()}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    images = isinstance(preprocessing, data.Preprocessing)
    goal = f"{len(train.classes)} classes" if train.classes else "a number to predict"
    if parallel.first():
        print(f"{goal}; {'images' if images else 'rows'}: {said}", file=sys.stderr)
    # The same run goes on on other devices.
    again = dataclasses.replace(options, watch=dataclasses.replace(options.watch, resume=False), devices=Devices())
    config = {
        "model": {"num_classes": len(splits.train.classes) or 1, **spec},
        "classes": splits.train.classes,
        "preprocessing": preprocessing,
        "data": {
            "folder": options.folder,
            **vars(options.data),
            "fingerprint": data.fingerprint(*splits),
            "counts": counts,
            "skipped": left_out(splits),
        },
        "phases": phases,
        "monitor": options.watch.monitor,
        "command": again,
        "command_line": _command_line(again),
    }
    watch, how, mesh = options.watch, terms_for(preprocessing, options.watch.metrics), all_devices()
    if options.devices.fsdp and mesh is None:
        print("--fsdp divides the state over devices, and here is one: it changes nothing", file=sys.stderr)
    with runs.create(out, config, resume=watch.resume) as run:
        before = sum(row["seconds"] + row["val_seconds"] for row in run.history())  # where it goes on
        try:
            jaxdl.fit(
                model,
                train,
                validation,
                phases=phases,
                variables=variables,
                batch_size=options.batch_size,
                augment=options.augment if images else None,
                seed=options.data.seed,
                mesh=mesh,
                fsdp=options.devices.fsdp and mesh is not None,
                cache=options.data.cache,
                monitor=watch.monitor,
                bad_numbers=watch.bad_numbers,
                callbacks=watch.callbacks(run),
                resume=run.checkpoints if watch.resume else None,
                **({"loss": loss} | how),
            )
        except Interrupted as told:
            nothing = run.best_step() is None
            kept = "nothing was done yet" if nothing else f"{out} keeps what is done, and --resume goes on with it"
            raise Interrupted(told.signal, f"stopped; {kept}") from None
        parallel.most(0)  # until the first has written what the others read
        figures: dict[str, Any] = {"accuracy": None, "loss": None, "count": 0}
        outputs = None
        if test is not None:
            figures, outputs = measure(model, run.variables(), test, preprocessing, options.batch_size, watch.metrics)
        summary = run.finish({**figures, "seconds": before + time.perf_counter() - started})
        if parallel.first():
            print(result_line(summary, run))
    if parallel.first():
        print(f"run directory: {out}")
        try:
            page.write(run, splits.test, outputs)
        except (InputError, OSError) as error:
            print(f"no page: {error}; then: jaxdl report {out}", file=sys.stderr)
    parallel.most(0)  # all end together


def _command_line(options: FineTune | Train) -> str:
    """What is typed for a training: every option that is not the default."""
    words = ["jaxdl", "train" if isinstance(options, Train) else "fine-tune", str(options.folder)]

    def add(options: Any, default: Any, prefix: str) -> None:
        hints = get_type_hints(type(options), include_extras=True)
        for part in dataclasses.fields(options):
            value, usual = getattr(options, part.name), getattr(default, part.name)
            notes = getattr(hints[part.name], "__metadata__", ())
            name = f"{prefix}{part.name.replace('_', '-')}"
            if dataclasses.is_dataclass(value):
                add(value, usual, prefix if any(getattr(note, "name", None) == "" for note in notes) else f"{name}.")
            elif value != usual:
                if isinstance(value, bool):
                    head, _, last = name.rpartition(".")
                    words.append(f"--{name}" if value else f"--{head}{'.' if head else ''}no-{last}")
                else:
                    words.extend([f"--{name}", *map(str, value if isinstance(value, tuple) else [value])])

    add(options, type(options)(options.folder), "")
    return shlex.join(words)
