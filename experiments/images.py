"""What the chapters on images share: where the images come from, how networks are trained on them, pictures of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.nn import softmax

import jaxdl
from experiments import chapter, demo
from experiments.chapter import Figure
from jaxdl import data, metrics, models, pretrained, report

GRAY = data.Preprocessing(28, mean=(0.0,), std=(255.0,))
"""Of digits and clothes."""


@dataclass(frozen=True)
class Options(chapter.Options):
    """What can be chosen in every chapter on images."""

    manual_dir: Path | None = None
    """A folder with the published files of the data set, where they cannot be downloaded."""


@dataclass(frozen=True)
class Photographs(Options):
    """What can be chosen in every chapter on photographs."""

    data: Path | None = None
    """A folder with a folder for each class, inside train/ and test/ or not, in place of the published data set."""
    cache: Path | None = None
    """A folder to keep decoded images and features in, for the next time."""


@dataclass(frozen=True)
class Data:
    """The images of a chapter, and what they are."""

    name: str
    splits: data.Splits
    preprocessing: data.Preprocessing
    kind: Literal["published", "stand-in", "toy"]

    def __str__(self) -> str:
        train, validation, test = map(len, self.splits)
        each = (
            f"{len(self.splits.train.classes)} classes, {train:,} to train, {validation:,} to watch, {test:,} to test"
        )
        return f"{self.name}{', a stand-in' if self.kind == 'stand-in' else ''}: {each}"

    def figure(self, name: str, value: float, published: float, source: str) -> Figure:
        """An accuracy. Only on the published data is it held against what is published; at toy size, against chance."""
        if self.kind == "published":
            return Figure(name, value, at_least=published, source=source)
        if self.kind == "stand-in":
            return Figure(name, value, source=f"{source}: {published:.4g}, on other data")
        return Figure(name, value, at_least=1 / len(self.splits.train.classes), source="chance")


def dtype() -> str:
    """What networks compute in: half precision where the hardware is made for it."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def held_out(train: Any, test: Any, seed: int) -> data.Splits:
    """A tenth of the training data, of every class, becomes the validation data."""
    rest, watched = data.split(train, 0.1, seed)
    return data.Splits(rest, watched, test)


def gray(options: Options, name: str, seed: int) -> Data:
    """A published set of 28x28 gray pixels in ten classes; at toy size, some digits."""
    if options.smoke:
        splits = data.Splits(*(part.subset(np.arange(0, len(part), 5)) for part in demo.digits()))
        return Data("some digits", splits, GRAY, "toy")
    learned, tested = data.load(name, split=("train", "test"), manual_dir=options.manual_dir)
    return Data(name, held_out(learned, tested, seed), GRAY, "published")


def photographs(
    options: Photographs,
    preprocessing: data.Preprocessing,
    seed: int,
    name: str,
    split: tuple[str, str],
    classes: Sequence[str] = (),
) -> Data:
    """A published set of photographs, the folder in its place, or at toy size, textures.

    Args:
      name, split: of the published set and of what it is trained and tested on, as `data.load` takes them.
      classes: of these only; none: all.
    """
    if options.smoke:
        small = data.Splits(*(_resized(part, preprocessing) for part in demo.textures()))
        return Data("textures", small, preprocessing, "toy")
    if options.data is not None:
        splits, name = data.from_folder(options.data, preprocessing, seed=seed), f"the folder {options.data.name}"
    else:
        parts = data.load(name, preprocessing, split=split, manual_dir=options.manual_dir)
        learned, tested = (only(part, classes) if classes else part for part in parts)
        splits = held_out(learned, tested, seed)
    kept = data.Splits(*(data.decoded(part, options.cache) for part in splits))
    return Data(name, kept, preprocessing, "published" if options.data is None else "stand-in")


def only(source: Any, classes: Sequence[str]) -> Any:
    """The examples of some classes, which are its only ones then, in this order."""
    wanted = [source.classes.index(name) for name in classes]
    number = np.full(len(source.classes), -1, np.int32)
    number[wanted] = np.arange(len(wanted))
    part = source.subset(np.flatnonzero(number[source.labels] >= 0))
    return replace(part, labels=number[part.labels], classes=tuple(classes))


def train(
    out: Path, name: str, images: Data, phases: Any, options: Mapping[str, Any] | None = None, **how: Any
) -> chapter.Trained:
    """`chapter.train` on images, computed in `dtype()`."""
    options = {**(options or {}), "dtype": dtype()}
    how = {"normalize": images.preprocessing.normalize} | how
    return chapter.train(out, name, images.splits, images.preprocessing, phases, options=options, **how)


def network(weights: str, smoke: bool) -> tuple[pretrained.Weights, Any]:
    """Pretrained weights, and their network computed in `dtype()`; at toy size, for small images."""
    found = pretrained.read(weights)
    if smoke:
        found = replace(found, preprocessing=replace(found.preprocessing, size=demo.PATCH, crop=1.0))
    return found, models.create(found.name, found.num_classes, **found.options, dtype=dtype())


def pictures(out: Path, trained: chapter.Trained, images: Data, batch_size: int = 32) -> metrics.Report:
    """Draw how a network was trained and what it makes of the test images; returns its scores by class."""
    test = images.splits.test
    same: Any = {"normalize": images.preprocessing.normalize, "batch_size": batch_size}
    logits = jaxdl.predict(trained.model, trained.variables, test, **same)
    guesses = logits.argmax(-1)
    matrix = np.zeros((len(test.classes),) * 2)
    np.add.at(matrix, (test.labels, guesses), 1)
    drawn = {
        "curves": report.curves(trained.history),
        "confusion": report.confusion_matrix(matrix, test.classes),
        "pairs": report.confused_pairs(matrix, test.classes),
        "scores": report.class_scores(matrix, test.classes),
    }
    if len(wrong := np.flatnonzero(guesses != test.labels)):
        rows = wrong[np.argsort(-softmax(logits[wrong]).max(-1))[:12]]
        drawn["most-wrong"] = report.most_wrong(test.take(rows)["image"], logits[rows], test.labels[rows], test.classes)
    for name, figure in drawn.items():
        figure.savefig(out / f"{name}.png", dpi=120)
    return metrics.classification_report(matrix, test.classes)


def _resized(source: data.Arrays, preprocessing: data.Preprocessing) -> data.Arrays:
    return replace(source, inputs=np.stack([preprocessing.resize(image) for image in source.inputs]))
