"""CIFAR-10: a dense network, a small CNN, and a residual network that takes 94 % of its photographs for what they are.

A dense network has to learn every object at every place; a CNN does not. ResNet-9 adds what made the difference after
that: batch normalisation, skips around convolutions, high learning rates that rise and fall, and photographs that are
mirrored, shifted and cut out of. On one GPU it takes a minute or two; on a CPU, hours.

The recipe of ResNet-9 is Page's for DAWNBench, https://github.com/davidcpage/cifar10-fast/blob/master/dawn.py:
24 epochs of Nesterov's momentum in half precision, batches of 512, a rate that rises to 0.4 in 5 epochs and falls to 0
in a straight line, weight decay of 5e-4 as part of the gradient, and a square of 8 pixels cut out. Other than there, a
tenth of the training data is only watched; `--all-data` trains on it too, and keeps the last epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from experiments import chapter, demo, images
from experiments.chapter import Outcome
from jaxdl import Phase, augment, data, report

SOURCE = "codebasics 16_cnn_cifar10_small_image_classification"
CHANGES = augment.Chain(
    augment.Affine(flip=True, pad=4), augment.Erase(1.0, smallest=1 / 16, largest=1 / 16, aspect=1.0, fill="mean")
)


@dataclass(frozen=True)
class Options(images.Options):
    """CIFAR-10 by a dense network, a CNN, and ResNet-9."""

    epochs: int = 10
    """Of the CNN; of the dense network, half as many."""
    resnet_epochs: int = 24
    all_data: bool = False
    """ResNet-9 trains on the validation data too."""


def fast(epochs: int, learning_rate: float) -> Phase:
    """The optimizer and the rate of ResNet-9."""
    return Phase(
        epochs,
        learning_rate,
        optimizer="sgd",
        schedule="polynomial",
        warmup=5 / 24,
        weight_decay=5e-4,
        clip_norm=None,
    )


def load(options: Options, seed: int) -> images.Data:
    """CIFAR-10; at toy size, textures. Scaled by the training data."""
    if options.smoke:
        splits = data.Splits(*(replace(part, inputs=part.inputs[:, ::2, ::2]) for part in demo.textures()))
    else:
        learned, tested = data.load("cifar10", split=("train", "test"), manual_dir=options.manual_dir)
        splits = images.held_out(learned, tested, seed)
    pixels = splits.train.inputs.astype(np.float32)
    mean, std = (tuple(each.tolist()) for each in (pixels.mean((0, 1, 2)), pixels.std((0, 1, 2))))
    preprocessing = data.Preprocessing(32, mean=mean, std=std)
    if options.smoke:
        return images.Data("textures", splits, preprocessing, "toy")
    return images.Data("cifar10", splits, preprocessing, "published")


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The three networks."""
    pictures = load(options, seed)
    epochs, resnet_epochs = (2, 6) if options.smoke else (options.epochs, options.resnet_epochs)
    hidden, width, rate, many = ((64,), 8, 0.05, 10) if options.smoke else ((3000, 1000), 64, 0.4, 512)
    plain, adam = chapter.plain_phase(max(1, epochs // 2), 0.01, "gradient-descent"), chapter.plain_phase(epochs)
    resnet = (fast(resnet_epochs, rate), many, CHANGES)
    networks: dict[str, tuple[Any, ...]] = {
        "dense": ("dense", {"hidden": hidden}, plain, 32, None, 0.47, SOURCE),
        "CNN": ("cnn", {"filters": (32, 64), "hidden": (64,)}, adam, 32, None, 0.703, SOURCE),
        "ResNet-9": ("resnet9", {"width": width}, *resnet, 0.94, "Page, DAWNBench"),
    }
    figures, histories = [], {}
    for name, (model, settings, phase, batch_size, changes, published, source) in networks.items():
        used = pictures
        if options.all_data and changes and not options.smoke:
            everything = data.load("cifar10", split="train", manual_dir=options.manual_dir)
            used = replace(pictures, splits=data.Splits(everything, None, pictures.splits.test))
        trained = images.train(
            out / name, model, used, phase, settings, batch_size=batch_size, augment=changes, seed=seed
        )
        histories[name] = trained.history
        figures.append(pictures.figure(f"accuracy, {name}", trained.figures["accuracy"], published, source))
    images.pictures(out, trained, pictures, batch_size)
    report.compare(histories).savefig(out / "curves.png", dpi=120)
    return Outcome(str(pictures), figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("cifar10", Options, run, arguments)


if __name__ == "__main__":
    main()
