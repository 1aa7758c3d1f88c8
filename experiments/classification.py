"""Two circles, one inside the other, and two moons: what no line can part, and what hidden layers make of it.

A network of several layers without activations is a line still, and on the circles guesses. ReLUs between the same
layers bend it. `boundary.png` shows what each of them says everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.datasets import make_circles, make_moons

from experiments import chapter
from experiments.chapter import Figure, Outcome
from jaxdl import Phase, data, predict, report

SOURCE = "Bourke 02_neural_network_classification"


@dataclass(frozen=True)
class Options(chapter.Options):
    """Circles and moons by a linear and a non-linear network, with their decision boundaries."""

    hidden: tuple[int, ...] = (32, 32)
    epochs: int = 100
    learning_rate: float = 1e-2
    batch_size: int = 32


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Both networks on both tables; the last 200 of 1,000 points are for the test."""
    figures = []
    for shape, make in (("circles", make_circles), ("moons", make_moons)):
        points, labels = make(1000, noise=0.03, random_state=42)
        rows = ((*point, label) for point, label in zip(points.tolist(), labels.tolist(), strict=True))
        table = chapter.write_table(out / f"{shape}.csv", ("x", "y", "class"), rows)
        *parts, preprocessing = data.from_csv(table, "class", scale=None, validation=0, test=np.arange(800, 1000))
        splits = data.Splits(*parts)
        for activation in ("linear", "relu"):
            trained = chapter.train(
                out / f"{shape}-{activation}",
                "dense",
                splits,
                preprocessing,
                Phase(20 if options.smoke else options.epochs, options.learning_rate),
                options={"hidden": options.hidden, "activation": activation},
                batch_size=options.batch_size,
                seed=seed,
                progress=False,
            )
            figure = Figure(f"accuracy on {shape}, {activation}", trained.figures["accuracy"])
            if activation == "relu":
                figure = replace(figure, at_least=0.995, source=SOURCE)
            elif shape == "circles":  # any line leaves half of each circle on either side; of moons it parts most
                figure = replace(figure, at_most=0.55, source=SOURCE)
            figures.append(figure)
            says = partial(predict, trained.model, trained.variables, batch_size=4096)
            boundary = report.decision_boundary(says, splits.test.inputs, splits.test.labels)
            boundary.savefig(out / f"{shape}-{activation}.png", dpi=120)
    return Outcome("scikit-learn's circles and moons, 800 + 200 points each", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("classification", Options, run, arguments)


if __name__ == "__main__":
    main()
