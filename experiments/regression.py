"""A number as the answer: a straight line, and what a year of medical insurance costs.

The line is y = x + 10, learned from 40 points and continued on the next 10. A single neuron is a line, so it finds this
one, and can go on where it has seen nothing.

The charges depend on age, smoking, weight and more, in ways that are no straight line; a network with hidden layers
lowers the mean absolute error of the course's, whose layers have no activation and so are a line still. Numbers are
scaled and names are one-hot, by the training rows alone.

The table is insurance.csv of https://github.com/stedy/Machine-Learning-with-R-datasets, for `--csv`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments import chapter
from experiments.chapter import Figure, Outcome, near
from jaxdl import Phase, data, losses, report

SOURCE = "Bourke 01_neural_network_regression"
HEADER = ("age", "sex", "bmi", "children", "smoker", "region", "charges")


@dataclass(frozen=True)
class Options(chapter.Options):
    """A toy line, and medical insurance charges."""

    csv: Path | None = None
    """Columns age, sex, bmi, children, smoker, region and charges; None for people who are made up."""
    hidden: tuple[int, ...] = (100, 10)
    epochs: int = 200
    learning_rate: float = 3e-3
    batch_size: int = 32


def made_up(count: int, seed: int) -> Iterator[tuple[Any, ...]]:
    """People whose charges rise with age, and with their weight if they smoke."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        age, bmi, children = int(draw.integers(18, 65)), round(float(draw.normal(30, 6)), 2), int(draw.poisson(1))
        sex, smoker = ("female", "male")[draw.integers(2)], ("no", "yes")[int(draw.random() < 0.2)]
        region = ("northeast", "northwest", "southeast", "southwest")[draw.integers(4)]
        charges = 3.3 * age**2 + 500 * children + draw.exponential(1500)
        if smoker == "yes":
            charges += 12_000 + 1200 * max(0.0, bmi - 25)
        yield age, sex, bmi, children, smoker, region, round(float(charges), 2)


def line(options: Options, out: Path, seed: int) -> list[Figure]:
    """What a neuron makes of y = x + 10, in x's and y's own units."""
    table = chapter.write_table(out / "line.csv", ("x", "y"), ((x, x + 10) for x in range(-100, 100, 4)))
    *parts, preprocessing = data.from_csv(table, "y", task="regression", validation=0, test=np.arange(40, 50))
    trained = chapter.train(
        out / "line",
        "neuron",
        data.Splits(*parts),
        preprocessing,
        Phase(40, 0.1, weight_decay=0),
        batch_size=10,
        loss=losses.squared_error,
        metrics=chapter.of_numbers(preprocessing),
        seed=seed,
        progress=False,
    )
    at_0, at_100 = preprocessing.values(
        trained.model.apply(trained.variables, preprocessing([{"x": 0}, {"x": 100}]), train=False)
    )
    said = "y = x + 10"
    slope, intercept = (float(at_100) - float(at_0)) / 100, float(at_0)
    return [near("slope of the line", slope, 1, 0.01, said), near("its value at 0", intercept, 10, 0.1, said)]


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The line, then the charges."""
    figures = line(options, out, seed)
    rows = 200 if options.smoke else 1338
    table = options.csv or chapter.write_table(out / "made-up.csv", HEADER, made_up(rows, seed))
    held_out = chapter.published_split(table, 0.2, random_state=42)
    *parts, preprocessing = data.from_csv(table, HEADER[-1], test=held_out, seed=seed)
    splits = data.Splits(*parts)
    trained = chapter.train(
        out / "charges",
        "dense",
        splits,
        preprocessing,
        Phase(10 if options.smoke else options.epochs, options.learning_rate),
        options={"hidden": options.hidden},
        batch_size=options.batch_size,
        loss=losses.absolute_error,
        metrics=chapter.of_numbers(preprocessing),
        seed=seed,
        progress=False,
    )
    report.curves(trained.history, "mae").savefig(out / "curves.png", dpi=120)
    error = trained.figures["mae"]  # in dollars
    if options.csv and not options.smoke:
        figures.append(Figure("mean absolute error of the charges", error, at_most=3171, source=SOURCE))
    else:
        known, true = (preprocessing.values(part.labels) for part in (splits.train, splits.test))
        guess = float(np.abs(true - np.median(known)).mean())
        figures.append(Figure("mean absolute error of the charges", error, at_most=guess, source="always the median"))
    return Outcome(f"a line; {table.name}, {sum(map(len, splits))} rows", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("regression", Options, run, arguments)


if __name__ == "__main__":
    main()
