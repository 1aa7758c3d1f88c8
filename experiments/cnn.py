"""Convolutional networks from scratch on photographs: pizza or not, then ten dishes.

Without pooling, a network that reads every pixel's features knows its few photographs by heart. Max pooling leaves a
fourth of the features from group to group, and augmentation shows every photograph anew in each epoch: the curves of
training and validation come closer, in `pizza.png`. The ten dishes need more than a small network from scratch:
that is what `feature_extraction` is for.

The course has pizza and steak, and ten dishes, of Food-101. Other folders stand in with `--binary` and `--data`; give
both where nothing can be downloaded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import chapter, images
from experiments.chapter import Outcome
from experiments.feature_extraction import DISHES
from jaxdl import Phase, augment, data, report

SOURCE = "Bourke 03_convolutional_neural_networks"


@dataclass(frozen=True)
class Options(images.Photographs):
    """CNNs from scratch on photographs of two and of ten classes; `--data` are the ten."""

    binary: Path | None = None
    """A folder of two classes, in place of pizza and steak."""
    size: int = 128
    """Height and width of the photographs, in pixels."""
    filters: tuple[int, ...] = (16, 32, 64)
    epochs: int = 20
    learning_rate: float = 1e-3
    batch_size: int = 32


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Three networks on two classes, two on ten."""
    preprocessing = data.Preprocessing(32 if options.smoke else options.size, mean=(127.5,) * 3, std=(127.5,) * 3)
    epochs, batch_size = (8, 10) if options.smoke else (options.epochs, options.batch_size)
    phase = Phase(epochs, options.learning_rate)
    plain = {"filters": options.filters}
    regularised, change = {**plain, "dropout": 0.3}, augment.PHOTOS
    tasks: dict[str, tuple[Any, ...]] = {
        "pizza": (
            replace(options, data=options.binary),
            ("pizza", "steak"),
            0.85,
            {"baseline": ({**plain, "pooling": False}, None), "max pooling": (plain, None)},
        ),
        "ten dishes": (options, DISHES, 0.39, {"max pooling": (plain, None)}),
    }
    figures, said = [], []
    for task, (where, classes, published, networks) in tasks.items():
        photographs = images.photographs(where, preprocessing, seed, "food101", ("train", "validation"), classes)
        said.append(str(photographs))
        histories = {}
        for name, (settings, augmented) in {**networks, "augmentation": (regularised, change)}.items():
            trained = images.train(
                out / f"{task}-{name}".replace(" ", "-"),
                "cnn",
                photographs,
                phase,
                settings,
                batch_size=batch_size,
                augment=augmented,
                seed=seed,
            )
            histories[name] = trained.history
            figure = photographs.figure(f"{task}, {name}", trained.figures["accuracy"], published, SOURCE)
            # Only the last one is meant to get there.
            figures.append(figure if augmented else replace(figure, at_least=-float("inf"), source=""))
        report.compare(histories).savefig(out / f"{task.replace(' ', '-')}.png", dpi=120)
    images.pictures(out, trained, photographs)
    return Outcome("; ".join(said), figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("cnn", Options, run, arguments)


if __name__ == "__main__":
    main()
