"""All 101 dishes of Food-101, from 10 % of the photographs: the head of a pretrained network, then its last blocks.

`scores.png` has the F1 of each dish, from the easiest to the hardest; `pairs.png` which are taken for which.

The course uses EfficientNet-B0. `--data FOLDER` takes other photographs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, images
from experiments.chapter import Outcome
from jaxdl import Recipe, augment, losses, transfer

SOURCE = "Bourke 06_transfer_learning_in_tensorflow_part_3, B0"


@dataclass(frozen=True)
class Options(images.Photographs):
    """101 dishes from 10 % of the photographs."""

    weights: str = "efficientnet_lite0"
    """A name, or a file of weights."""
    head_epochs: int = 20
    epochs: int = 5
    """Of fine-tuning."""
    start: str = "blocks_5"
    """First module that is fine-tuned."""
    batch_size: int = 32


def teach(
    out: Path,
    photographs: images.Data,
    network: tuple[Any, Any],
    recipe: Recipe,
    batch_size: int,
    seed: int,
    cache: Path | None,
) -> chapter.Trained:
    """Train a network by a recipe; it is from `images.network`."""
    weights, model = network
    return images.train(
        out,
        weights.name,
        photographs,
        transfer.fine_tune(weights.variables["params"], recipe),
        weights.options,
        pretrained=(model, weights.variables),
        loss=losses.label_smoothing(recipe.label_smoothing),
        augment=augment.PHOTOS,
        batch_size=batch_size,
        cache=cache,
        seed=seed,
    )


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The head, the last blocks, the scores."""
    weights, _ = network = images.network(options.weights, options.smoke)
    photographs = images.photographs(options, weights.preprocessing, seed, "food101", ("train[:10%]", "validation"))
    head_epochs, epochs = (5, 1) if options.smoke else (options.head_epochs, options.epochs)
    recipe = Recipe(start=options.start, head_epochs=head_epochs, epochs=epochs, ema=None if options.smoke else 0.99)
    trained = teach(out / "train", photographs, network, recipe, options.batch_size, seed, options.cache)
    print(images.pictures(out, trained, photographs, options.batch_size))
    figure = photographs.figure(f"accuracy, {weights.name}", trained.figures["accuracy"], 0.606, SOURCE)
    return Outcome(str(photographs), [figure])


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("scaling_up", Options, run, arguments)


if __name__ == "__main__":
    main()
