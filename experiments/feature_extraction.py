"""Ten dishes from 75 photographs of each: a new head on a network that has seen ImageNet, and that stays as it is.

Nothing ahead of the head changes, so what the network makes of each photograph is computed once; the epochs of the head
are milliseconds after that. `most-wrong.png` shows where it is surest and wrong.

The course takes 10 % of the photographs of ten of Food-101's classes, and EfficientNet-B0: `--weights` takes a file
with its weights (docs/weights.md). `--data FOLDER` takes other photographs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, images
from experiments.chapter import Outcome
from jaxdl import Phase, losses

SOURCE = "Bourke 04_transfer_learning_in_tensorflow_part_1"
DISHES = (
    *("chicken_curry", "chicken_wings", "fried_rice", "grilled_salmon", "hamburger", "ice_cream", "pizza", "ramen"),
    *("steak", "sushi"),
)
"""The course's ten."""


@dataclass(frozen=True)
class Options(images.Photographs):
    """A new head on a frozen, pretrained network."""

    weights: str = "efficientnet_lite0"
    """A name, or a file of weights."""
    epochs: int = 40
    learning_rate: float = 5e-4


def train(
    out: Path,
    photographs: images.Data,
    network: tuple[Any, Any],
    epochs: int,
    seed: int,
    cache: Path | None = None,
    learning_rate: float = 5e-4,
) -> chapter.Trained:
    """Train a head on the features of a frozen network, computed once; `network` is from `images.network`."""
    weights, model = network
    return images.train(
        out,
        weights.name,
        photographs,
        Phase(epochs, learning_rate, name="head", trainable=("head",), views=0),
        weights.options,
        pretrained=(model, weights.variables),
        loss=losses.label_smoothing(0.1),
        cache=cache,
        seed=seed,
    )


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Features once, a head, what it is wrong about."""
    weights, _ = network = images.network(options.weights, options.smoke)
    split = ("train[:10%]", "validation")
    photographs = images.photographs(options, weights.preprocessing, seed, "food101", split, DISHES)
    epochs = 10 if options.smoke else options.epochs
    trained = train(out / "head", photographs, network, epochs, seed, options.cache, options.learning_rate)
    print(images.pictures(out, trained, photographs))
    accuracy = trained.figures["accuracy"]
    figure = photographs.figure(f"accuracy, {weights.name}", accuracy, 0.864, f"{SOURCE}, B0")
    return Outcome(str(photographs), [figure])


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("feature_extraction", Options, run, arguments)


if __name__ == "__main__":
    main()
