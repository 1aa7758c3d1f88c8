"""Fashion-MNIST: ten kinds of clothes on 28x28 gray pixels, by a dense network and by a CNN.

A dense network sees 784 numbers and does not know which of them are neighbours; a convolution looks at neighbours only,
and at every place with the same weights. What either takes for something else is mostly a shirt: `confusion.png`.

The data set is a package of Debian, dataset-fashion-mnist, for `--manual-dir /usr/share/datasets/fashion-mnist`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, images
from experiments.chapter import Outcome
from jaxdl import Phase, augment, report

SOURCE = "Fashion-MNIST's page"  # https://github.com/zalandoresearch/fashion-mnist#benchmark


@dataclass(frozen=True)
class Options(images.Options):
    """Fashion-MNIST by a dense network and by a CNN."""

    hidden: tuple[int, ...] = (256, 128)
    """Of the dense network."""
    epochs: int = 30
    """Of the dense network."""
    filters: tuple[int, ...] = (32, 64)
    """Of the CNN; its hidden layer has 128 units."""
    cnn_epochs: int = 12
    batch_size: int = 128


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Both networks."""
    clothes = images.gray(options, "fashion_mnist", seed)
    dense, cnn = (2, 2) if options.smoke else (options.epochs, options.cnn_epochs)
    convolutions = {"filters": options.filters, "hidden": (128,), "dropout": 0.25}
    mirrored = augment.Affine(flip=True)
    networks: dict[str, tuple[Any, ...]] = {
        "dense": ("dense", {"hidden": options.hidden, "dropout": 0.3}, dense, None, 0.89, "0.900 with 256-128-64"),
        "CNN": ("cnn", convolutions, cnn, mirrored, 0.92, "0.916 to 0.925 with two convolutions"),
    }
    figures, histories = [], {}
    for name, (model, settings, epochs, change, goal, published) in networks.items():
        trained = images.train(
            out / name,
            model,
            clothes,
            Phase(epochs, 2e-3, weight_decay=0.03),
            settings,
            batch_size=options.batch_size,
            augment=change,
            seed=seed,
        )
        histories[name] = trained.history
        accuracy = trained.figures["accuracy"]
        figures.append(clothes.figure(f"accuracy, {name}", accuracy, goal, f"{SOURCE}: {published}"))
    images.pictures(out, trained, clothes, options.batch_size)
    report.compare(histories).savefig(out / "curves.png", dpi=120)
    return Outcome(str(clothes), figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("fashion", Options, run, arguments)


if __name__ == "__main__":
    main()
