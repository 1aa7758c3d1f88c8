"""What the chapters on images share; that they run at toy size is in test_experiments.py."""

import jax
import numpy as np
import pytest
import tensorflow_datasets
from hypothesis import given
from hypothesis import strategies as st

from experiments import cifar10, fine_tuning, food_vision, images
from experiments.chapter import Trained
from experiments.feature_extraction import DISHES
from jaxdl import data, models, optim

PIXELS = data.Preprocessing(8)
PHOTOGRAPHS = images.Photographs()


def source(labels, classes):
    """Images that are all of the number of their place."""
    count = len(labels)
    pixels = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    return data.from_arrays(pixels, np.asarray(labels, np.int32), classes)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.permutations("abcde"), st.integers(1, 5))
def test_only_some_classes_are_renumbered(labels, names, count):
    chosen = names[:count]
    expected = [(n, "abcde"[label]) for n, label in enumerate(labels) if "abcde"[label] in chosen]
    part = images.only(source(labels, "abcde"), chosen)
    assert part.classes == tuple(chosen)
    found = [(int(each[0, 0, 0]), chosen[label]) for each, label in zip(part.inputs, part.labels, strict=True)]
    assert found == expected


@given(st.integers(1, 12), st.integers(0, 3))
def test_few_of_each_class(each, seed):
    everything = source(np.repeat(np.arange(3), 10), "abc")
    part = fine_tuning.few(everything, each, seed)
    assert (np.bincount(part.labels) == min(each, 10)).all()
    places = part.inputs[:, 0, 0, 0]
    assert len(np.unique(places)) == len(part)
    assert (everything.labels[places] == part.labels).all()


@pytest.mark.parametrize(
    ("kind", "reached", "reference", "said"),
    [
        ("published", False, "≥ 0.9", "them"),
        ("stand-in", True, "", "them: 0.9, on other data"),
        ("toy", True, "≥ 0.3333", "chance"),
    ],
)
def test_only_published_data_are_held_against_what_is_published(kind, reached, reference, said):
    splits = data.Splits(*[source([0, 1, 2], "abc")] * 3)
    figure = images.Data("some", splits, PIXELS, kind).figure("accuracy", 0.5, 0.9, "them")
    assert (figure.reached, figure.reference, figure.source) == (reached, reference, said)


@pytest.mark.parametrize(("backend", "expected"), [("cpu", "float32"), ("gpu", "bfloat16"), ("tpu", "bfloat16")])
def test_networks_compute_in_half_precision_where_that_is_fast(backend, expected, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    assert images.dtype() == expected


def test_published_sets_are_split_without_their_test_data():
    with tensorflow_datasets.testing.mock_data(num_examples=600):
        digits = images.gray(images.Options(), "mnist", seed=0)
        pictures = cifar10.load(cifar10.Options(), seed=0)
        dishes = images.photographs(PHOTOGRAPHS, PIXELS, 0, "food101", ("train", "validation"), DISHES)
        flowers = images.photographs(PHOTOGRAPHS, PIXELS, 0, "tf_flowers", ("train[:80%]", "train[80%:]"))
    shapes = [found.splits.train.inputs.shape[1:] for found in (digits, pictures, dishes, flowers)]
    assert shapes == [(28, 28, 1), (32, 32, 3), (8, 8, 3), (8, 8, 3)]
    assert {found.kind for found in (digits, pictures, dishes, flowers)} == {"published"}
    assert dishes.splits.test.classes == DISHES
    for found in (digits, pictures, flowers):
        parts = [{image.tobytes() for image in part.inputs} for part in found.splits]
        learned, watched, _ = map(len, found.splits)
        assert abs(watched / (learned + watched) - 0.1) < 0.02
        assert not parts[0] & parts[1]
    assert sum(map(len, flowers.splits)) == 600
    normalized = pictures.preprocessing.normalize(pictures.splits.train.inputs)
    np.testing.assert_allclose(normalized.mean((0, 1, 2)), 0, atol=1e-3)
    np.testing.assert_allclose(normalized.std((0, 1, 2)), 1, atol=1e-3)


def test_a_folder_stands_in(tmp_path):
    import cv2

    draw = np.random.default_rng(0)
    for name in "abc":
        (tmp_path / name).mkdir()
        for n in range(10):
            cv2.imwrite(str(tmp_path / name / f"{n}.png"), draw.integers(256, size=(12, 9, 3), dtype=np.uint8))
    found = images.photographs(images.Photographs(data=tmp_path), PIXELS, 0, "food101", ("train", "validation"))
    assert str(found) == f"the folder {tmp_path.name}, a stand-in: 3 classes, 21 to train, 3 to watch, 6 to test"


def test_the_rate_of_resnet9_is_the_published_one():
    phase = cifar10.fast(24, 0.4)
    steps = 98
    rate = optim.make_schedule(phase, 24 * steps)
    at = np.arange(0, 24 * steps, 7)
    published = np.interp(at / steps, [0, 5, 24], [0, 0.4, 0])
    np.testing.assert_allclose([rate(step) for step in at], published, atol=1e-6)


def test_own_photographs_get_answers(capsys, tmp_path):
    toy = images.Data("some", data.Splits(*[source([0, 1], ("brick", "grass"))] * 3), PIXELS, "toy")
    model = models.create("dense", 2, hidden=())
    bias = np.array([0.0, 9.0], np.float32)
    variables = {"params": {"head": {"kernel": np.zeros((192, 2), np.float32), "bias": bias}}}
    own = [np.zeros((8, 8, 3), np.uint8)] * 2
    figure = food_vision.answers(Trained(model, variables, [], {}, None), toy, own)
    assert [axis.get_title() for axis in figure.axes] == ["grass 100%"] * 2
    with pytest.raises(SystemExit) as stopped:
        food_vision.main(["--smoke", "--photos", str(tmp_path / "none.jpg"), "--out", str(tmp_path / "out")])
    assert stopped.value.code == 2
    assert "none.jpg" in capsys.readouterr().err
