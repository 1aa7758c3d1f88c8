"""How many photographs it takes, and what fine-tuning adds: five trainings of one pretrained network, in `compare.png`.

First the head alone, on 10 % of the photographs; on 1 % and on 10 % with augmented views of each; then the last ten
layers with it, at a fifth of the rate, since what they know is not to be lost; and that on all photographs. Layers are
counted as Keras counts them, an activation being one (docs/transfer.md).

Which epoch is the best is told in all five by the same photographs, which none is trained on. The course takes ten of
Food-101's classes and EfficientNet-B0. Where a folder (`--data`) has 10 % of that, the last training is left out. On
such a folder of ten other dishes, with Lite0, neither the views nor the last ten layers gained anything (RESULTS.md);
more layers and averaged weights did (docs/transfer.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments import chapter, images
from experiments.chapter import Outcome
from experiments.feature_extraction import DISHES
from jaxdl import Phase, augment, data, losses, report, transfer, trees

SOURCE = "Bourke 05_transfer_learning_in_tensorflow_part_2, B0"


@dataclass(frozen=True)
class Options(images.Photographs):
    """1 %, 10 % and all of the photographs; the head, and the last ten layers with it."""

    weights: str = "efficientnet_lite0"
    """A name, or a file of weights."""
    hundredth: int = 7
    """Photographs of each class that are 1 %."""
    tenth: int = 75
    """Photographs of each class that are 10 %."""
    views: int = 4
    """Augmented ones of each photograph for the head."""
    head_epochs: int = 40
    epochs: int = 5
    """Of fine-tuning."""
    last: int = 10
    """Layers that are fine-tuned."""
    learning_rate: float = 5e-4
    """Of the head."""


def few(source: Any, each: int, seed: int) -> Any:
    """So many of each class, or all where there are no more."""
    share = each * len(source.classes) / len(source)
    return source if share >= 1 else data.split(source, share, seed)[1]


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The trainings, from the least to the most."""
    weights, model = images.network(options.weights, options.smoke)
    split = ("train", "validation")
    everything = images.photographs(options, weights.preprocessing, seed, "food101", split, DISHES)
    hundredth, tenth, head_epochs = options.hundredth, options.tenth, options.head_epochs
    if options.smoke:
        hundredth, tenth, head_epochs = 5, 20, 5
    head = Phase(head_epochs, options.learning_rate, name="head", trainable=("head",), views=0)
    seen = replace(head, views=options.views)
    late = Phase(
        1 if options.smoke else options.epochs,
        options.learning_rate / 5,
        name=f"last {options.last}",
        trainable=trees.names(transfer.unfreeze(weights.variables["params"], last=options.last)),
        batch_stats="frozen",
    )
    enough = len(everything.splits.train) > tenth * len(everything.splits.train.classes)
    trainings: dict[str, tuple[Any, ...]] = {
        "10 %": (tenth, (head,), 0.0),
        "1 % + augmentation": (hundredth, (seen,), 0.419),
        "10 % + augmentation": (tenth, (seen,), 0.822),
        f"10 % + augmentation, last {options.last}": (tenth, (seen, late), 0.85),
        **({f"100 % + augmentation, last {options.last}": (10**9, (seen, late), 0.916)} if enough else {}),
    }
    figures, histories = [], {}
    for number, (name, (each, phases, published)) in enumerate(trainings.items()):
        train = few(everything.splits.train, each, seed)
        photographs = replace(everything, splits=everything.splits._replace(train=train))
        trained = images.train(
            out / str(number),
            weights.name,
            photographs,
            phases,
            weights.options,
            pretrained=(model, weights.variables),
            loss=losses.label_smoothing(0.1),
            augment=augment.PHOTOS,
            cache=options.cache or out / "features",
            seed=seed,
        )
        histories[f"{name} ({len(train):,})"] = trained.history
        figure = photographs.figure(f"{name} ({len(train):,})", trained.figures["accuracy"], published, SOURCE)
        figures.append(figure if published or options.smoke else replace(figure, at_least=-float("inf"), source=""))
    images.pictures(out, trained, photographs)
    report.compare(histories).savefig(out / "compare.png", dpi=120)
    return Outcome(f"{everything}; {weights.name}", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("fine_tuning", Options, run, arguments)


if __name__ == "__main__":
    main()
