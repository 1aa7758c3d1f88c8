"""Gradient descent with all rows in a step, with a single one, and with a few: three ways to the same line.

Prices of 20 homes by their area and bedrooms, all columns scaled to 0 to 1, from w1 = w2 = 1 and bias = 0. A step on
all rows has their mean slope; one on a single row has that row's, which points elsewhere each time, but after an epoch
of them about the same way has been gone; a mini-batch is in between. Each is done by hand in NumPy and by `jaxdl.fit`,
with the rows in the same order (`data.order`), so both come to the same numbers. All of them stop on the way: the
bottom of the bowl, which linear algebra finds at once, lies elsewhere.

The table is homeprices_banglore.csv of https://github.com/codebasics/deep-learning-keras-tf-tutorial, for `--csv`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments import chapter
from experiments.chapter import Figure, Outcome, near
from jaxdl import data, losses, report

SOURCE = "codebasics 8_sgd_vs_gd"
REFERENCE = (0.707, 0.675, -0.230)
HEADER = ("area", "bedrooms", "price")
# Rows in a step, epochs, and the learning rate. The course divides the slope of its single rows by the count of all
# rows, so one epoch of them goes as far as one step on all rows; here the rate is divided.
WAYS = {"batch": (20, 500, 0.01), "stochastic": (1, 500, 0.01 / 20), "mini-batch": (5, 120, 0.01)}


@dataclass(frozen=True)
class Options(chapter.Options):
    """Batch, stochastic and mini-batch gradient descent on house prices."""

    csv: Path | None = None
    """Columns area, bedrooms and price; None for 20 homes that are made up."""


def made_up(seed: int) -> Iterator[tuple[int, int, float]]:
    draw = np.random.default_rng(seed)
    for area in draw.integers(800, 3700, size=20):
        bedrooms = 1 + area // 900
        yield int(area), int(bedrooms), round(float(0.04 * area + 8 * bedrooms + draw.normal(scale=6)), 2)


def by_hand(x: np.ndarray, y: np.ndarray, size: int, epochs: int, rate: float, seed: int) -> np.ndarray:
    """w1, w2 and the bias, `[3]`; `x [N,2]`, `y [N]`."""
    w, bias = np.ones(2), 0.0
    for epoch in range(1, epochs + 1):
        indices, weights = data.order(len(x), size, seed=seed, epoch=epoch)
        for rows in (row[weight > 0] for row, weight in zip(indices, weights, strict=True)):
            error = x[rows] @ w + bias - y[rows]
            w, bias = w - rate * 2 * error @ x[rows] / len(rows), bias - rate * 2 * error.mean()
    return np.array([*w, bias])


def by_library(out: Path, splits: data.TableSplits, size: int, epochs: int, rate: float, seed: int) -> chapter.Trained:
    return chapter.train(
        out,
        "neuron",
        data.Splits(splits.train, None, None),
        splits.preprocessing,
        chapter.plain_phase(epochs, rate, "gradient-descent"),
        variables={"params": {"head": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}},
        batch_size=size,
        loss=losses.squared_error,
        metrics=chapter.of_numbers(splits.preprocessing),
        seed=seed,
        progress=False,
    )


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Each way by hand and by the library, and the curves of their losses."""
    table = options.csv or chapter.write_table(out / "made-up.csv", HEADER, made_up(seed))
    splits = data.from_csv(table, HEADER[-1], scale="minmax", validation=0, test=0)
    x, y = splits.train.inputs, splits.train.labels
    figures: list[Figure] = []
    histories: dict[str, Any] = {}
    apart = 0.0
    for name, (size, epochs, rate) in WAYS.items():
        epochs = min(epochs, 20) if options.smoke else epochs
        hand = by_hand(x, y, size, epochs, rate, seed)
        trained = by_library(out / name, splits, size, epochs, rate, seed)
        head = trained.variables["params"]["head"]
        library = np.array([*head["kernel"][:, 0], *head["bias"]])
        histories[name] = trained.history
        apart = max(apart, float(np.abs(hand - library).max()))
        if options.csv and not options.smoke:
            for what, value, goal in zip(("w1", "w2", "bias"), library, REFERENCE, strict=True):
                figures.append(near(f"{name}, {what}", float(value), goal, 1e-2, SOURCE))
    report.compare(histories, "mae").savefig(out / "curves.png", dpi=120)
    figures.append(Figure("largest difference to NumPy", apart, at_most=1e-4, source="the same algorithm"))
    bottom = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), y, rcond=None)[0]
    print(f"the bottom of the bowl: w1 {bottom[0]:.3f}, w2 {bottom[1]:.3f}, bias {bottom[2]:.3f}")
    return Outcome(f"{table.name}, {len(y)} rows", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("gradient_descent", Options, run, arguments)


if __name__ == "__main__":
    main()
