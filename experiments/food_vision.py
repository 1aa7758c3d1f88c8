"""Food Vision, the course's milestone: all of Food-101, 75,750 photographs to learn from, 25,250 to be tested on.

First a new head on the frozen network, then the whole network with it, in half precision on a GPU or TPU. Every
photograph is decoded once, into `--cache FOLDER` (15 GB); batches are on the device before they are needed. The rate
falls by `--layer-decay` from stage to stage towards the input, and what is kept is an average over the last steps.

`scores.png` has the F1 of each dish, `most-wrong.png` what the network is surest about and wrong, and with `--photos`
`photos.png` what it says of photographs of yours. DeepFood is Liu et al. (2016), arXiv:1606.05675.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jax.nn import softmax

from experiments import chapter, images
from experiments.chapter import Outcome
from experiments.scaling_up import teach
from jaxdl import Recipe, predict, report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SOURCE = "Bourke 07_food_vision_milestone_project_1; DeepFood has 0.774"


@dataclass(frozen=True)
class Options(images.Photographs):
    """All of Food-101."""

    weights: str = "efficientnet_lite0"
    """A name, or a file of weights, such as EfficientNet-B0's."""
    head_epochs: int = 10
    epochs: int = 10
    """Of the whole network."""
    fine_tuning_rate: float = 1e-3
    layer_decay: float = 0.8
    batch_size: int = 128
    photos: tuple[Path, ...] = ()
    """Photographs of your own, to be told what they show."""


def answers(trained: chapter.Trained, photographs: images.Data, own: Sequence[np.ndarray]) -> "Figure":
    """Photographs, resized, each under what the network says of it."""
    normalize, classes = photographs.preprocessing.normalize, photographs.splits.train.classes
    p = softmax(predict(trained.model, trained.variables, np.stack(own), normalize=normalize))
    return report.sheet(own, [f"{classes[each.argmax()]} {each.max():.0%}" for each in p])


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The head, the whole network, the scores, photographs of one's own."""
    weights, _ = network = images.network(options.weights, options.smoke)
    own = [weights.preprocessing.resize(path) for path in options.photos]  # what cannot be read is known at once
    photographs = images.photographs(options, weights.preprocessing, seed, "food101", ("train", "validation"))
    recipe = Recipe(
        start="stem",
        head_epochs=5 if options.smoke else options.head_epochs,
        epochs=1 if options.smoke else options.epochs,
        fine_tuning_rate=options.fine_tuning_rate,
        layer_decay=options.layer_decay,
        ema=None if options.smoke else 0.99,
    )
    trained = teach(out / "train", photographs, network, recipe, options.batch_size, seed, options.cache)
    print(images.pictures(out, trained, photographs, options.batch_size))
    if own:
        answers(trained, photographs, own).savefig(out / "photos.png", dpi=120)
    figure = photographs.figure(f"accuracy, {weights.name}", trained.figures["accuracy"], 0.802, SOURCE)
    return Outcome(str(photographs), [figure])


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("food_vision", Options, run, arguments)


if __name__ == "__main__":
    main()
