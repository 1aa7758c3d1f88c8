"""What the chapters on images share: where the images come from, and what a network computes in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import chapter, demo
from jaxdl import data, models, pretrained

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
    """Keep decoded images here, for the next time."""


def dtype() -> str:
    """What networks compute in: half precision where the hardware is made for it."""
    return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def held_out(train: data.Source, test: data.Source, seed: int) -> data.Splits:
    """A tenth of the training data, of every class, becomes the validation data."""
    return data.Splits(*data.split(train, 0.1, seed), test)


def subset(splits: data.Splits, each: Sequence[int]) -> data.Splits:
    """Evenly spread examples of each split, so many of them."""

    def some(source: Any, count: int) -> Any:
        return source.subset(np.linspace(0, len(source) - 1, count).round().astype(int))

    return data.Splits(*map(some, splits, each))


def said(splits: data.Splits) -> str:
    """How much of what there is."""
    train, validation, test = map(len, splits)
    return f"{len(splits.train.classes)} classes, {train:,} to train, {validation:,} to watch, {test:,} to test"


def only(source: data.Source, classes: Sequence[str]) -> Any:
    """The examples of some classes, which are its only ones then, in this order."""
    wanted = [source.classes.index(name) for name in classes]
    rows = np.flatnonzero(np.isin(source.labels, wanted))
    number = np.zeros(len(source.classes), np.int32)
    number[wanted] = np.arange(len(wanted))
    part: Any = source.subset(rows)
    return replace(part, labels=number[part.labels], classes=tuple(classes))


def photographs(
    options: Photographs,
    preprocessing: data.Preprocessing,
    seed: int,
    name: str,
    train: str,
    test: str,
    classes: Sequence[str] = (),
) -> tuple[str, data.Splits]:
    """What the photographs are, and the photographs: textures at toy size, a folder, or a published data set.

    Args:
      name, train, test: of the published set and its splits, as `data.load` takes them.
      classes: of these only; none: all.
    """
    if options.smoke:
        textures = demo.textures()
        splits = data.Splits(*(_resized(part, preprocessing) for part in textures))
        return f"textures: {said(splits)}", splits
    if options.data is not None:
        splits = data.from_folder(options.data, preprocessing, seed=seed)
        what = f"the folder {options.data.name}"
    else:
        parts = data.load(name, preprocessing, split=(train, test), manual_dir=options.manual_dir)
        splits = held_out(*(only(part, classes) if classes else part for part in parts), seed)
        what = f"{name} {train}"
    splits = data.Splits(*(data.decoded(part, options.cache) for part in splits))
    return f"{what}: {said(splits)}", splits


def network(weights: str, options: Photographs) -> tuple[pretrained.Weights, Any]:
    """Pretrained weights, and their network in `dtype()`; at toy size, for small images."""
    found = pretrained.read(weights)
    preprocessing = found.preprocessing
    if options.smoke:
        preprocessing = replace(preprocessing, size=demo.PATCH, crop=1.0)
    found = replace(found, options={**found.options, "dtype": dtype()}, preprocessing=preprocessing)
    return found, models.create(found.name, found.num_classes, **found.options)


def _resized(source: data.Arrays, preprocessing: data.Preprocessing) -> data.Arrays:
    return replace(source, inputs=np.stack([preprocessing.resize(image) for image in source.inputs]))
