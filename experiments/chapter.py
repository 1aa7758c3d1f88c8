"""What the chapters share: options, a training that is kept, figures beside their references, an exit code.

A chapter is a module with the options that it takes, a recipe, and a `main`:

    @dataclass(frozen=True)
    class Options(chapter.Options):
        epochs: int = 100

    def run(options: Options, seed: int, out: Path) -> Outcome: ...

    def main(arguments: Sequence[str] | None = None) -> None:
        chapter.main("churn", Options, run, arguments)
"""

import csv
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import jax
import numpy as np
import tyro

import jaxdl
from benchmarks import record
from jaxdl import data, losses, metrics, models, parallel, runs, trees
from jaxdl.errors import InputError, Interrupted, nearest
from jaxdl.metrics import Metric

RESULTS = Path(__file__).parent / "results"
PARTS = ("training", "validation", "test")


@dataclass(frozen=True)
class Options:
    """What can be chosen in every chapter."""

    smoke: bool = False
    """Toy size, in seconds, on generated or packaged data."""
    check: bool = False
    """Exit with code 1 if a figure misses its reference."""
    seeds: tuple[int, ...] = (0,)
    """The chapter is run with each; its figures are the means."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint="(default: runs/CHAPTER)")] = None
    """The folder to make, for run directories and pictures."""
    record: bool = False
    """Keep the figures in experiments/results, for RESULTS.md."""


@dataclass(frozen=True)
class Figure:
    """A number, where it should lie, and who says so."""

    name: str
    value: float
    at_least: float = -math.inf
    at_most: float = math.inf
    source: str = ""

    @property
    def reached(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    @property
    def reference(self) -> str:
        """≥ 0.9, ≤ 3171, or 0.707 ± 0.01; empty where there is none."""
        if math.isfinite(self.at_least) and math.isfinite(self.at_most):
            return f"{(self.at_least + self.at_most) / 2:.4g} ± {(self.at_most - self.at_least) / 2:.2g}"
        if math.isfinite(self.at_least):
            return f"≥ {self.at_least:.4g}"
        return f"≤ {self.at_most:.4g}" if math.isfinite(self.at_most) else ""


def near(name: str, value: float, reference: float, tolerance: float, source: str = "") -> Figure:
    """A figure that should equal its reference."""
    return Figure(name, value, reference - tolerance, reference + tolerance, source)


class Outcome(NamedTuple):
    """What a chapter measured with one seed."""

    data: str
    """What it was measured on."""
    figures: Sequence[Figure]


class Trained(NamedTuple):
    """A network at its best epoch by the validation data, or at its last without them."""

    model: Any
    variables: dict[str, Any]
    history: list[dict[str, Any]]
    figures: dict[str, Any]
    """Of the test data, as `jaxdl.evaluate` gives them."""
    run: runs.Run


def train(
    out: Path,
    name: str,
    splits: data.Splits,
    preprocessing: data.Preprocessing | data.TablePreprocessing,
    phases: jaxdl.Phase | Sequence[jaxdl.Phase],
    *,
    outputs: int | None = None,
    options: Mapping[str, Any] | None = None,
    pretrained: tuple[Any, Mapping[str, Any]] | None = None,
    **how: Any,
) -> Trained:
    """Make a network, train it, keep the run, measure it on the test data.

    Args:
      out: the run directory to make.
      name, outputs, options: as `models.create` takes them; outputs None for one for each class, or for a number.
      splits: the validation and test data may be None.
      pretrained: a network and its variables to begin with; it gets a new head.
      how: options of `jaxdl.fit`.
    """
    started = time.perf_counter()
    classes, options = splits.train.classes, dict(options or {})
    width = outputs or len(classes) or 1
    model = models.create(name, width, **options)
    if pretrained is not None:
        model, how["variables"] = jaxdl.transfer.new_head(*pretrained, width)
    config = {
        "model": {"name": name, "num_classes": width, "options": options, "from": pretrained and name},
        "classes": classes,
        "preprocessing": preprocessing,
        "data": {"counts": {part: len(each or ()) for part, each in zip(PARTS, splits, strict=True)}},
        "phases": [phases] if isinstance(phases, jaxdl.Phase) else phases,
        "seed": how.get("seed", 0),
    }
    how = {"mesh": parallel.make_mesh() if jax.device_count() > 1 else None} | how
    with runs.create(out, config) as run:
        history = jaxdl.fit(model, *splits[:2], phases=phases, callbacks=run.callbacks, **how).history
        variables, figures = run.variables(), {"accuracy": None, "loss": None, "count": 0}
        if splits.test is not None:
            same = {key: how[key] for key in ("batch_size", "loss", "metrics", "normalize", "mesh") if key in how}
            figures = jaxdl.evaluate(model, variables, splits.test, **same)
        run.finish(figures | {"seconds": time.perf_counter() - started})
    return Trained(model, variables, history, figures, run)


def plain_phase(epochs: int, learning_rate: float = 1e-3, optimizer: str = "adam") -> jaxdl.Phase:
    """Training as Keras does it by default: the rate stays as it is, nothing is decayed and nothing clipped."""
    return jaxdl.Phase(
        epochs,
        learning_rate,
        optimizer=optimizer,
        schedule="constant",
        warmup=0,
        weight_decay=0,
        clip_norm=None,
    )


def of_numbers(preprocessing: Any) -> dict[str, Metric]:
    """The metrics of a number that is predicted from a table: the mean absolute error, in the table's units, and R²."""
    unit = preprocessing.target.scale
    return {"mae": metrics.mean(lambda y, labels: unit * losses.absolute_error(y, labels)), "r2": metrics.r2()}


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """A CSV file of rows that were generated; without a header if that is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*([header] if header else []), *rows])
    return path


def published_split(
    table: Path, share: float, random_state: int, *, header: bool = True, stratify: str | None = None
) -> np.ndarray:
    """The numbers of the rows that scikit-learn's `train_test_split` holds out, of those without an empty field.

    Args:
      stratify: a column of which each value has the same share among them; None for none.

    Raises:
      InputError: there is no such column.
    """
    from sklearn.model_selection import train_test_split

    with table.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.reader(file))
    names = rows.pop(0) if header else []
    if stratify not in (None, *names):
        raise InputError(f"{table} has no column {stratify!r}{nearest(str(stratify), names)}")
    complete = [number for number, row in enumerate(rows) if all(field.strip() for field in row)]
    groups = None if stratify is None else [rows[number][names.index(stratify)] for number in complete]
    return np.array(train_test_split(complete, test_size=share, random_state=random_state, stratify=groups)[1])


def main(
    name: str,
    kind: type[Any],
    run: Callable[[Any, int, Path], Outcome],
    arguments: Sequence[str] | None = None,
) -> None:
    """The command line of a chapter: run it with each seed, print the figures beside their references.

    Exits with code 1 if a figure is missed and that was to be checked, and with 2 where the user can put it right.
    """
    parallel.configure()
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = tyro.cli(kind, args=given, prog=f"python -m experiments.{name}")
    try:
        if not options.seeds:
            raise InputError("--seeds needs at least one number")
        out = _folder(name, options.out)
        started = time.perf_counter()
        outcomes = [run(options, seed, out / f"seed-{seed}") for seed in options.seeds]
        seconds = time.perf_counter() - started
    except (InputError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as told:
        print(f"{name}: {told}", file=sys.stderr)
        sys.exit(128 + told.signal)
    figures, spreads = _over_seeds([outcome.figures for outcome in outcomes])
    print(f"\n{name}: {outcomes[0].data}; seeds {' '.join(map(str, options.seeds))}; {seconds:.0f} s")
    print(table(figures, spreads))
    if out.exists():
        print(f"runs and pictures: {out}")
    if options.record:
        said = " ".join(Path(word).name if Path(word).is_absolute() else word for word in given)
        platform = jax.default_backend()
        path = record.write(
            name if platform == "cpu" else f"{name}-{platform}",
            {
                "chapter": name,
                "command": f"python -m experiments.{name} {said}".strip(),
                "data": outcomes[0].data,
                "seeds": options.seeds,
                "seconds": seconds,
                "figures": [
                    {"name": each.name, "mean": each.value, "spread": spread, "reached": each.reached}
                    | {"reference": each.reference, "source": each.source}
                    for each, spread in zip(figures, spreads, strict=True)
                ],
            },
            peers=("scikit-learn",),
            folder=RESULTS,
        )
        print(f"recorded: {path.name}")
    if options.check and not all(figure.reached for figure in figures):
        sys.exit(1)


def table(figures: Sequence[Figure], spreads: Sequence[float | None]) -> str:
    """The figures beside their references, as text."""
    rows = [("figure", "here", "reference", "", "source")]
    for figure, spread in zip(figures, spreads, strict=True):
        verdict = "MISSED" if not figure.reached else "reached" if figure.reference else ""
        rows.append((figure.name, said(figure.value, spread), figure.reference, verdict, figure.source))
    return trees.columns(rows)


def said(mean: float, spread: float | None) -> str:
    """A mean with its standard deviation, if there is one."""
    return f"{mean:.4g}" if spread is None else f"{mean:.4g} ± {spread:.2g}"


def _over_seeds(outcomes: Sequence[Sequence[Figure]]) -> tuple[list[Figure], list[float | None]]:
    """The figures with the means for values, and their standard deviations; None with a single seed."""
    figures, spreads = [], []
    for same in zip(*outcomes, strict=True):
        values = [figure.value for figure in same]
        figures.append(replace(same[0], value=statistics.fmean(values)))
        spreads.append(statistics.stdev(values) if len(values) > 1 else None)
    return figures, spreads


def _folder(name: str, out: Path | None) -> Path:
    """The folder that was asked for, or the first of runs/NAME, runs/NAME-2, … that is free."""
    if out is not None:
        runs.check_new(out)
        return out
    names = (name if n == 1 else f"{name}-{n}" for n in count(1))
    return next(path for path in (Path("runs") / each for each in names) if not path.exists())
