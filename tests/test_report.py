import sys

import jax
import numpy as np
import pytest

from jaxdl import report
from jaxdl.errors import InputError

ROWS = [
    {"epoch": n, "loss": 1 / n, "accuracy": 1 - 1 / n, "val_loss": 1.1 / n, "val_accuracy": 0.9 - 1 / n}
    for n in (1, 2, 3)
]


def test_curves_draw_what_they_are_given():
    figure = report.curves({"one": ROWS, "two": [{k: v for k, v in row.items() if "val" not in k} for row in ROWS]})
    loss, accuracy = figure.axes
    assert [len(axis.lines) for axis in (loss, accuracy)] == [3, 3]
    np.testing.assert_allclose(loss.lines[0].get_ydata(), [1, 1 / 2, 1 / 3])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["one", "two"]


def test_predictions_say_what_is_wrong():
    images = np.zeros((7, 8, 8, 1), np.uint8)
    logits = np.eye(3)[[0, 1, 2, 0, 1, 2, 0]] * 9
    figure = report.predictions(images, logits, np.array([0, 1, 2, 0, 1, 2, 1]), ("a", "b", "c"))
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[0] == "a 100%"
    assert titles[6] == "a 100%\nis b"
    figure.savefig("/dev/null", format="png")


def test_errors_name_the_history(monkeypatch):
    with pytest.raises(InputError, match="'one' has no 'f1'"):
        report.curves({"one": ROWS}, "f1")
    with pytest.raises(InputError, match="'one' is empty"):
        report.curves({"one": []})
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r"jaxdl\[plots\]"):
        report.curves({"one": ROWS})


def test_the_suggested_rate_is_marked():
    found = np.array([2.0, 1.0, np.nan])
    figure = report.learning_rates(np.array([1e-4, 1e-3, 1e-2]), found, 3e-4)
    (axis,) = figure.axes
    np.testing.assert_array_equal(axis.lines[0].get_ydata(), found)
    assert axis.get_xscale() == "log"
    assert axis.lines[1].get_xdata()[0] == 3e-4
    assert axis.get_legend().get_texts()[0].get_text() == "suggested: 3.0e-04"


@pytest.mark.parametrize("channels", [1, 3])
def test_augmentations_stand_beside_their_originals(channels):
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, channels), dtype=np.uint8)

    def brighter(key, images):
        return images + 300.0 * jax.random.uniform(key)

    figure = report.augmentations(images, brighter, jax.random.key(0), count=3, title="light")
    assert figure.get_suptitle() == "light"
    shown = [axis.images[0].get_array() for axis in figure.axes]
    assert len(shown) == 2 * 4
    for row, image in enumerate(images):
        np.testing.assert_array_equal(shown[4 * row], image.squeeze())
        for n in range(3):
            light = float(jax.random.uniform(jax.random.fold_in(jax.random.key(0), n)))
            expected = np.clip(np.round(image + 300 * light), 0, 255).squeeze()
            np.testing.assert_allclose(shown[4 * row + 1 + n].astype(float), expected, atol=1)
