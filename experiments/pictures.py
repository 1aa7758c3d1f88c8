"""A picture of each plot of `jaxdl.report`, on data that come with packages: `make pictures`, in under two minutes.

Writes docs/images/report-*.png and the page that shows them, docs/pictures.md. A function here is a picture: its
docstring is the sentence below it, its lines are the code that is shown, and its arguments are made in `prepare`.
"""

import inspect
import io
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import skimage.data
import sklearn.datasets
from PIL import Image

import jaxdl
from experiments import demo
from jaxdl import augment, data, explain, features, metrics, models, optim, parallel, pretrained, rates, report

DOCS = Path(__file__).parents[1] / "docs"
LARGEST = 60_000  # bytes of a picture

INTRODUCTION = """\
# Pictures

What `jaxdl.report` draws. Each function returns a matplotlib figure (`figure.savefig("picture.png")`); one of a single
axis takes `axis=`, to be a part of a figure of yours. `make pictures` makes this page.

The lines below use networks that `jaxdl.fit` has trained on 3,600 of MNIST's digits: `layer` is a single layer,
`dense` has a hidden one, `cnn` is TinyVGG. `digits` are the data, `gray` their preprocessing, and `matrix` is the
confusion of the single layer, `metrics.confusion()`, on the test data. `moon` has two hidden layers and one output, for
points on two half moons, `moons`. `lite0` is an EfficientNet with its pretrained `variables` and `preprocessing`, and
`tuned` what `jaxdl.fine_tune` makes of it from 400 digits. `photos` are three photographs that come with scikit-image
and scikit-learn, and `names` those of ImageNet's classes.
"""


def prepare() -> dict[str, Any]:
    """The data and the networks, by the names that the pictures take them by."""
    gray, digits = data.Preprocessing(28, mean=(0.0,), std=(255.0,)), demo.digits()
    same: Any = {"normalize": gray.normalize, "progress": False}

    def trained(name: str, phase: jaxdl.Phase, **options: Any) -> Any:
        model = models.create(name, 10, **options)
        return jaxdl.fit(model, digits.train, digits.validation, phases=phase, **same)

    points, sides = sklearn.datasets.make_moons(400, noise=0.25, random_state=0)
    moons = data.from_arrays(points.astype(np.float32), sides)
    phase = jaxdl.Phase(100, 1e-2)
    lite0, variables, preprocessing = pretrained.load("efficientnet_lite0")
    rgb = data.Preprocessing(demo.PATCH, mean=preprocessing.mean, std=preprocessing.std)
    few, held = (
        data.from_arrays(np.stack([rgb.resize(image) for image in part.inputs[::step]]), part.labels[::step])
        for part, step in ((digits.train, 9), (digits.validation, 2))
    )
    recipe = jaxdl.Recipe(head_epochs=10, epochs=5, learning_rate=3e-3, ema=None)
    layer = trained("dense", jaxdl.Phase(8, 5e-3), hidden=())
    confusion = {"matrix": metrics.confusion()}
    figures = jaxdl.evaluate(layer.model, layer.variables, digits.test, metrics=confusion, normalize=gray.normalize)
    photos = (skimage.data.chelsea(), skimage.data.coffee(), sklearn.datasets.load_sample_image("china.jpg"))
    return {
        "digits": digits,
        "gray": gray,
        "layer": layer,
        "matrix": figures["matrix"],
        "dense": trained("dense", jaxdl.Phase(8, 3e-3)),
        "cnn": trained("tiny_vgg", jaxdl.Phase(5, 5e-3)),
        "moons": moons,
        "moon": jaxdl.fit(
            models.create("dense", 1, hidden=(16, 16)),
            moons,
            phases=phase,
            progress=False,
            loss=jaxdl.losses.binary_cross_entropy,
        ),
        "lite0": lite0,
        "variables": variables,
        "preprocessing": preprocessing,
        "photos": np.stack([preprocessing.resize(photo) for photo in photos]),
        "names": pretrained.imagenet_classes(),
        "tuned": jaxdl.fine_tune(
            lite0, variables, few, held, recipe, augment=None, normalize=rgb.normalize, progress=False
        ),
    }


def curves(tuned: Any) -> Any:
    """Loss and accuracy of a fine-tuning: first the new head alone, and right of the line more of the network."""
    return report.curves(tuned.history)


def compare(layer: Any, dense: Any, cnn: Any) -> Any:
    """The same of several trainings."""
    return report.compare({"one layer": layer.history, "hidden layer": dense.history, "CNN": cnn.history})


def schedule() -> Any:
    """The learning rate that phases plan, batch by batch."""
    cycle = jaxdl.Phase(10, 3e-3, name="one cycle", schedule="one-cycle")
    steps = jaxdl.Phase(12, 1e-3, name="steps", schedule=optim.Step(0.3, every="4ep"), warmup="1ep")
    return report.schedule([cycle, steps], steps=100)


def learning_rates(digits: Any, gray: Any) -> Any:
    """The loss while the learning rate rises, and the rate at which it falls fastest."""
    model, phase = models.create("dense", 10), jaxdl.Phase(1, 1e-3)
    fresh = models.init(model, jax.random.key(0), (28, 28, 1))
    stage = features.prepare(model, fresh, phase, digits.train, normalize=gray.normalize)
    found = rates.sweep(stage, phase)
    return report.learning_rates(found.rates, found.losses, found.suggestion)


def confusion_matrix(matrix: Any, digits: Any) -> Any:
    """Which digits a single layer takes for which, in percent of each."""
    return report.confusion_matrix(matrix, digits.test.classes)


def class_scores(matrix: Any, digits: Any) -> Any:
    """How well each class is found: the harmonic mean of precision and recall."""
    return report.class_scores(matrix, digits.test.classes)


def confused_pairs(matrix: Any, digits: Any) -> Any:
    """What is taken for what most often."""
    return report.confused_pairs(matrix, digits.test.classes)


def predictions(layer: Any, digits: Any, gray: Any) -> Any:
    """Images with what is said of them."""
    some = digits.test.subset(np.arange(77, 1000, 83))
    logits = jaxdl.predict(layer.model, layer.variables, some, normalize=gray.normalize)
    return report.predictions(some.inputs, logits, some.labels, some.classes)


def most_wrong(cnn: Any, digits: Any, gray: Any) -> Any:
    """Where the network is wrong and most sure that it is right."""
    test = digits.test
    logits = jaxdl.predict(cnn.model, cnn.variables, test, normalize=gray.normalize)
    return report.most_wrong(test.inputs, logits, test.labels, test.classes)


def precision_recall(layer: Any, digits: Any, gray: Any) -> Any:
    """Precision against recall of the digits 3, 5 and 8; a star at the best F1, a circle at a threshold of one half."""
    metric = {"curves": metrics.precision_recall_curve()}
    figures = jaxdl.evaluate(layer.model, layer.variables, digits.test, metrics=metric, normalize=gray.normalize)
    return report.precision_recall([figures["curves"][n] for n in (3, 5, 8)], ["3", "5", "8"])


def thresholds(moon: Any, moons: Any) -> Any:
    """What another threshold than one half would give."""
    metric = {"curves": metrics.precision_recall_curve()}
    loss = jaxdl.losses.binary_cross_entropy
    figures = jaxdl.evaluate(moon.model, moon.variables, moons, loss=loss, metrics=metric)
    return report.thresholds(figures["curves"][0])


def reliability(dense: Any, digits: Any, gray: Any) -> Any:
    """Whether the network is right as often as it says."""
    logits = jaxdl.predict(dense.model, dense.variables, digits.test, normalize=gray.normalize)
    p = np.asarray(jax.nn.softmax(logits))
    return report.reliability(p.max(-1), p.argmax(-1) == digits.test.labels)


def decision_boundary(moon: Any, moons: Any) -> Any:
    """What a small network says between the examples."""
    return report.decision_boundary(
        lambda points: jaxdl.predict(moon.model, moon.variables, points), moons.inputs, moons.labels
    )


def scatter() -> Any:
    """Numbers by what is predicted for them: how far diabetes has gone on after a year, by a network without layers."""
    measured, progress = sklearn.datasets.load_diabetes(return_X_y=True)
    patients = data.from_arrays(20 * measured.astype(np.float32), progress / 100)
    train, test = patients.subset(np.arange(300)), patients.subset(np.arange(300, 442))
    same: Any = {"loss": jaxdl.losses.squared_error, "metrics": {"mae": metrics.mae}, "progress": False}
    fitted = jaxdl.fit(models.create("neuron", 1), train, phases=jaxdl.Phase(40, 3e-2), **same)
    predicted = jaxdl.predict(fitted.model, fitted.variables, test)
    return report.scatter(100 * test.labels, 100 * predicted[:, 0], "progress")


def filters(variables: Any) -> Any:
    """What the first convolution of a pretrained EfficientNet looks for."""
    return report.filters(variables["params"]["stem"]["kernel"])


def weights(layer: Any) -> Any:
    """What a single layer has learned of the digits 0 to 9: its weights as images, and its biases."""
    return report.weights(layer.variables["params"], shape=(28, 28))


def feature_maps(cnn: Any, digits: Any, gray: Any) -> Any:
    """What the layers of TinyVGG make of a digit."""
    outputs = explain.layer_outputs(cnn.model, cnn.variables, digits.test.inputs[300:301], gray.normalize)
    return report.feature_maps({path: maps[0] for path, maps in outputs.items() if maps.ndim == 4})


def grad_cam(lite0: Any, variables: Any, preprocessing: Any, photos: Any, names: Any) -> Any:
    """Where a pretrained network sees what it says (Grad-CAM)."""
    logits = jaxdl.predict(lite0, variables, photos, normalize=preprocessing.normalize)
    heat = explain.grad_cam(lite0, variables, photos, normalize=preprocessing.normalize)
    return report.heatmaps(photos, heat, [names[n] for n in logits.argmax(-1)])


def saliency(lite0: Any, variables: Any, preprocessing: Any, photos: Any, names: Any) -> Any:
    """Which pixels move that answer most (saliency)."""
    logits = jaxdl.predict(lite0, variables, photos, normalize=preprocessing.normalize)
    heat = explain.saliency(lite0, variables, photos, normalize=preprocessing.normalize)
    return report.heatmaps(photos, heat, [names[n] for n in logits.argmax(-1)])


def gradient_flow(digits: Any, gray: Any) -> Any:
    """How gradients vanish from layer to layer behind sigmoids, and hardly do with other activations."""
    batch = digits.train.take(np.arange(0, 3600, 30))
    norms = {}
    for activation in ("sigmoid", "tanh", "relu"):
        model = models.create("dense", 10, hidden=(64,) * 8, activation=activation)
        fresh = models.init(model, jax.random.key(0), (28, 28, 1))
        norms[activation] = explain.gradient_norms(model, fresh, batch, normalize=gray.normalize)
    return report.gradient_flow(norms)


def activations() -> Any:
    """The activation functions by their names, and their derivatives (dashed)."""
    return report.activations()


def augmentations(photos: Any) -> Any:
    """What an augmentation makes of images."""
    return report.augmentations(photos[:2], augment.RandAugment(), jax.random.key(2), count=3)


def sheet(digits: Any) -> Any:
    """Images of any kind, with titles."""
    some = digits.train.subset(np.arange(0, 3600, 300))
    return report.sheet(list(some.inputs), [digits.train.classes[label] for label in some.labels])


CHAPTERS: dict[str, tuple[Callable[..., Any], ...]] = {
    "Data": (sheet, augmentations),
    "Training": (curves, compare, schedule, learning_rates),
    "How good it is": (
        *(confusion_matrix, class_scores, confused_pairs, predictions, most_wrong),
        *(precision_recall, thresholds, reliability, decision_boundary, scatter),
    ),
    "What is inside": (
        *(weights, filters, feature_maps, grad_cam, saliency),
        *(gradient_flow, activations),
    ),
}


def page() -> str:
    """The gallery: below each picture a sentence and the lines that made it."""
    parts = [INTRODUCTION]
    for chapter, pictures in CHAPTERS.items():
        parts.append(f"## {chapter}\n")
        for picture in pictures:
            sentence = inspect.getdoc(picture) or ""
            lines = inspect.getsource(picture).split('"""\n', 1)[1].replace("    return report", "    figure = report")
            code = textwrap.dedent(lines).strip()
            parts.append(f"![{sentence}](images/{file(picture)})\n\n{sentence}\n\n```python\n{code}\n```\n")
    return "\n".join(parts)


def file(picture: Callable[..., Any]) -> str:
    return f"report-{picture.__name__.replace('_', '-')}.png"


def draw(picture: Callable[..., Any], made: Mapping[str, Any]) -> Any:
    """The figure, from what it asks for by the names of its arguments."""
    return picture(*(made[name] for name in inspect.signature(picture).parameters))


def save(figure: Any, path: Path) -> None:
    """A small PNG: as fine and with as many colours as there is room for."""
    for dpi, colours in ((80, 256), (80, 128), (64, 256), (64, 128), (64, 64)):
        drawn, small = io.BytesIO(), io.BytesIO()
        figure.savefig(drawn, dpi=dpi)
        Image.open(drawn).convert("RGB").quantize(colours).save(small, "png", optimize=True)
        if small.tell() <= LARGEST:
            break
    path.write_bytes(small.getvalue())


def main() -> None:
    """Draw everything and write the page."""
    parallel.configure()
    made = prepare()
    for picture in (each for pictures in CHAPTERS.values() for each in pictures):
        save(draw(picture, made), DOCS / "images" / file(picture))
    (DOCS / "pictures.md").write_text(page())
    print(f"{DOCS / 'pictures.md'}: {sum(map(len, CHAPTERS.values()))} pictures")


if __name__ == "__main__":
    main()
