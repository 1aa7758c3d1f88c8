"""What is done with a run: `jaxdl evaluate`, `predict`, `report` and `compare`; and `classify`, which needs none."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

import jaxdl
from jaxdl import data, page, pretrained, runs, trees
from jaxdl.cli.common import RunPath, counted, figures_line, measure, print_json, print_list, read_weights
from jaxdl.errors import InputError


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
        figures, _ = measure(run.model, run.variables(), source, run.preprocessing, self.batch_size, names)
        if self.json:
            print_json(figures | {"split": split})
        else:
            print(f"{figures_line(figures)}, loss {figures['loss']:.4f} on {counted(figures, run)} ({split})")


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
            print_json(answers)
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
        weights = read_weights(self.model)
        classes = weights.classes
        if classes is None and weights.num_classes == 1000:
            classes = pretrained.imagenet_classes()
        if classes is None:
            raise InputError(f"{self.model} does not name its {weights.num_classes or 'missing'} classes")
        answers = _answers(weights.model, weights.variables, weights.preprocessing, self.images, classes)
        if self.json:
            print_json(answers)
            return
        for answer in answers:
            print(answer["path"])
            for other in answer["top"]:
                print(f"  {other['probability']:.3f}  {other['label']}")


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
        compared = [runs.load(path) for path in self.paths]
        found = page.compare(compared)
        try:
            page.write_comparison(compared, self.out)
        except (InputError, OSError) as error:
            if not self.json:
                raise
            print(f"no page: {error}", file=sys.stderr)
        if self.json:
            print_json(found)
            return
        results, differ = page.rows(found)
        print(trees.columns(results, right=range(2, len(results[0]))))
        if len(differ) > 1:
            print(f"\n{trees.columns(differ)}")
        print_list("notes", found["notes"], sys.stderr)
        print(f"\npage: {self.out}")


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
