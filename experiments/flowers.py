"""Five kinds of flowers: a CNN from scratch, the same with augmentation and dropout, and a pretrained network.

The first knows its photographs by heart: the training loss goes on to fall where the validation loss rises, in
`curves.png`. Augmentation and dropout are against that. A network that has seen the million photographs of ImageNet
needs to learn no more than which of its features make a daisy.

The data set is tf_flowers, 3,670 photographs, of which a fifth is for the test; `--data FOLDER` takes another.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, feature_extraction, images
from experiments.chapter import Outcome
from jaxdl import Phase, augment, data, report

SOURCE = "codebasics 17_data_augmentation"


@dataclass(frozen=True)
class Options(images.Photographs):
    """Five flowers by CNNs from scratch and by a pretrained network."""

    size: int = 128
    """Height and width of the photographs for the CNNs, in pixels."""
    filters: tuple[int, ...] = (16, 32, 64)
    epochs: int = 30
    """Of the CNNs."""
    batch_size: int = 32
    weights: str = "efficientnet_lite0"
    """Of the pretrained network: a name, or a file of weights."""
    head_epochs: int = 40


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The three networks."""
    preprocessing = data.Preprocessing(32 if options.smoke else options.size, mean=(127.5,) * 3, std=(127.5,) * 3)
    epochs, batch_size = (8, 10) if options.smoke else (options.epochs, options.batch_size)
    where: Any = (seed, "tf_flowers", ("train[:80%]", "train[80%:]"))
    small = images.photographs(options, preprocessing, *where)
    changes = augment.Chain(augment.PHOTOS, augment.Color(brightness=0.2, contrast=0.2))
    figures, histories = [], {}
    for name, dropout, change, published in (
        ("CNN", 0.0, None, 0.67),
        ("CNN, augmentation and dropout", 0.3, changes, 0.737),
    ):
        trained = images.train(
            out / name.replace(", ", "-").replace(" ", "-"),
            "cnn",
            small,
            Phase(epochs, 1e-3),
            {"filters": options.filters, "hidden": (128,), "dropout": dropout},
            batch_size=batch_size,
            augment=change,
            seed=seed,
        )
        histories[name] = trained.history
        figures.append(small.figure(name, trained.figures["accuracy"], published, SOURCE))
    weights, _ = network = images.network(options.weights, options.smoke)
    large = images.photographs(options, weights.preprocessing, *where)
    trained = feature_extraction.train(out / "pretrained", large, network, options.head_epochs, seed, options.cache)
    histories["pretrained"] = trained.history
    figures.append(
        large.figure(f"{weights.name}, a new head", trained.figures["accuracy"], 0.868, "codebasics, transfer learning")
    )
    images.pictures(out, trained, large)
    report.compare(histories).savefig(out / "curves.png", dpi=120)
    return Outcome(str(large), figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("flowers", Options, run, arguments)


if __name__ == "__main__":
    main()
