"""What several commands share: options, weights by name, and how a result is measured and said."""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import jaxdl
from jaxdl import data, losses, metrics, parallel, pretrained, runs
from jaxdl.errors import InputError

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
            print_list("files are left out", left_out(splits), sys.stderr)
        return splits

    def decoded(self, splits: data.Splits) -> data.Splits:
        """The images decoded once and for all, where that can be kept; says so."""
        parts = parallel.in_turn(lambda: [source and data.decoded(source, self.cache) for source in splits])
        kept = data.Splits(*parts)
        if isinstance(kept.train, data.Images) and parallel.first():
            print("too many images for memory: they are decoded in every epoch; --cache keeps them", file=sys.stderr)
        return kept


def read_weights(source: str, model: str | None = None, flavour: Any = None) -> pretrained.Weights:
    """A network with weights, from a run directory or from whatever `pretrained.read` takes."""
    if not Path(source).is_dir():
        return pretrained.read(source, model=model, flavour=flavour)
    weights = runs.weights(source)
    if model not in (None, weights.name):
        raise InputError(f"{source} holds {weights.name}, not {model}")
    if flavour is not None:
        raise InputError(f"{source} tells its flavour itself; leave out {flavour!r}")
    return weights


def left_out(splits: data.Splits) -> list[str]:
    """What is wrong with each file that was left out."""
    return list(dict.fromkeys(line for part in splits if part is not None for line in getattr(part, "skipped", ())))


def print_list(what: str, lines: Sequence[str], file: Any = None, most: int = 10) -> None:
    """Print how many there are, and the first of them."""
    if lines:
        more = [f"… and {len(lines) - most} more"] if len(lines) > most else []
        print(f"{len(lines)} {what}:", *lines[:most], *more, sep="\n  ", file=file)


def print_json(found: Any) -> None:
    """On standard output, and strictly JSON: what is no number is null."""

    def strict(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: strict(each) for name, each in value.items()}
        if isinstance(value, list | tuple):
            return [strict(each) for each in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    print(json.dumps(strict(found), allow_nan=False))


def terms_for(
    preprocessing: data.Preprocessing | data.TablePreprocessing, names: tuple[str, ...] = ()
) -> dict[str, Any]:
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


def measure(
    model: Any,
    variables: Any,
    source: data.Source,
    preprocessing: data.Preprocessing | data.TablePreprocessing,
    batch_size: int,
    names: tuple[str, ...] = (),
) -> tuple[dict[str, Any], np.ndarray]:
    """Accuracy, or for a number that is predicted mae and r2 (None where all labels are equal); the metrics of these
    names, loss and count. And the outputs that they are of, `[N,K]`."""
    terms = terms_for(preprocessing, names)
    same: Any = {"normalize": terms.get("normalize"), "batch_size": batch_size, "mesh": all_devices()}
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


def figures_line(figures: dict[str, Any]) -> str:
    if "mae" not in figures:
        return f"accuracy {figures['accuracy']:.4f}"
    r2 = "" if figures["r2"] is None else f", R² {figures['r2']:.4f}"
    return f"mean absolute error {figures['mae']:.6g}{r2}"


def counted(figures: dict[str, Any], run: runs.Run) -> str:
    return f"{figures['count']} {'images' if isinstance(run.preprocessing, data.Preprocessing) else 'rows'}"


def result_line(summary: dict[str, Any], run: runs.Run) -> str:
    trained = f"trained in {summary['seconds']:.0f} s"
    if not summary["count"]:
        return f"{trained}; nothing to test on"
    return f"test {figures_line(summary)} on {counted(summary, run)}, {trained}"


def all_devices() -> Any:
    """A mesh of them; None for a single one."""
    return parallel.make_mesh() if jax.device_count() > 1 else None
