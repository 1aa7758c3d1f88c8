"""Fashion-MNIST: ten kinds of clothes on 28x28 gray pixels, by a dense network and by a CNN.

A dense network sees 784 numbers and does not know which of them are neighbours; a convolution looks at neighbours only,
and at every place with the same weights. Shirts are taken for T-shirts, pullovers and coats by both: `confusion.png`.

The data set is on Debian as dataset-fashion-mnist, for `--manual-dir /usr/share/datasets/fashion-mnist`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import chapter, demo, images
from experiments.chapter import Figure, Outcome
from jaxdl import Phase, augment, data, evaluate, metrics, predict, report

GOALS = {
    # https://github.com/zalandoresearch/fashion-mnist#benchmark
    "dense": (0.89, "the data set's page: 0.900 with 256-128-64"),
    "CNN": (0.92, "the data set's page: 0.916 to 0.925 with two convolutions"),
}


@dataclass(frozen=True)
class Options(images.Options):
    """Fashion-MNIST by a dense network and by a CNN."""

    hidden: tuple[int, ...] = (256, 128)
    """Of the dense network."""
    filters: tuple[int, ...] = (32, 64)
    """Of the CNN, whose hidden layer has 128."""
    epochs: int = 30
    cnn_epochs: int = 8
    batch_size: int = 128


def load(options: images.Options, name: str, seed: int) -> tuple[str, data.Splits]:
    """What the data are, and the data: 28x28 gray pixels in ten classes."""
    if options.smoke:
        splits = images.subset(demo.digits(), (600, 100, 200))
        return f"some digits: {images.said(splits)}", splits
    parts = data.load(name, split=("train", "test"), manual_dir=options.manual_dir)
    splits = images.held_out(*parts, seed)
    return f"{name}: {images.said(splits)}", splits


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Both networks."""
    what, splits = load(options, "fashion_mnist", seed)
    dense, cnn = (3, 3) if options.smoke else (options.epochs, options.cnn_epochs)
    regularised = {"weight_decay": 0.03}
    settings: dict[str, Any] = {"hidden": (128,), "filters": options.filters, "dropout": 0.4}
    networks: dict[str, tuple[Any, ...]] = {
        "dense": ("dense", {"hidden": options.hidden, "dropout": 0.3}, Phase(dense, 2e-3, **regularised), None),
        "CNN": ("cnn", settings, Phase(cnn, 2e-3, **regularised), augment.Affine(flip=not options.smoke)),
    }
    figures, histories = [], {}
    for name, (model, settings, phase, change) in networks.items():
        trained = chapter.train(
            out / name,
            model,
            splits,
            images.GRAY,
            phase,
            options={**settings, "dtype": images.dtype()},
            batch_size=options.batch_size,
            normalize=images.GRAY.normalize,
            augment=change,
            seed=seed,
        )
        histories[name] = trained.history
        goal, source = (0.2, "twice as often as chance") if options.smoke else GOALS[name]
        figures.append(Figure(f"accuracy, {name}", trained.figures["accuracy"], at_least=goal, source=source))
    report.compare(histories).savefig(out / "curves.png", dpi=120)
    same = {"normalize": images.GRAY.normalize, "batch_size": options.batch_size}
    matrix = evaluate(
        trained.model, trained.variables, splits.test, metrics={"confusion": metrics.confusion()}, **same
    )["confusion"]
    report.confusion_matrix(matrix, splits.test.classes).savefig(out / "confusion.png", dpi=120)
    logits = predict(trained.model, trained.variables, splits.test, **same)
    wrong = report.most_wrong(splits.test.inputs, logits, splits.test.labels, splits.test.classes)
    wrong.savefig(out / "most-wrong.png", dpi=120)
    return Outcome(what, figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("fashion", Options, run, arguments)


if __name__ == "__main__":
    main()
