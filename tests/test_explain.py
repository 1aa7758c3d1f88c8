from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import fill
from flax import linen as nn

from jaxdl import data, explain, losses, models, train, trees
from jaxdl.errors import InputError
from jaxdl.models.efficientnet import Architecture, EfficientNet, Stage

PIXELS = data.Preprocessing(8, mean=(100.0,), std=(50.0,))
TINY = Architecture((Stage(3, 1, 1, 8, 1),), 1.0, 1.0, 32, 0.2, 0, lite=True, top=16)


class Others(nn.Module):
    """A network as somebody else writes it: a layer that is called twice, and layers under Flax's transformations."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        shared = nn.Conv(4, (1, 1), name="shared")
        x = nn.relu(shared(nn.relu(shared(x)))).mean((1, 2))  # [B,4]
        x = nn.remat(nn.Dense)(4, name="again")(x)
        x = nn.jit(nn.Dense)(4, name="compiled")(x)
        cell = nn.scan(Cell, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)
        return nn.Dense(3, name="end")(cell(name="cells")(x, None)[0])


class Cell(nn.Module):
    @nn.compact
    def __call__(self, x, _):
        return nn.tanh(nn.Dense(4, name="dense")(x)), None


class Pooled(nn.Module):
    """One convolution, ReLU, the mean over the positions, a dense layer: its Grad-CAM can be written down."""

    classes: int = 3

    @nn.compact
    def __call__(self, x, train=False):
        x = models.activations.activated(nn.Conv(5, (3, 3), name="conv")(x), "conv", "relu")
        return nn.Dense(self.classes, name="head")(x.mean((1, 2)))


class Listed(nn.Module):
    widths: list

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Dense(self.widths[0])(x)


def test_layers_come_in_the_order_of_computation(key):
    images = np.asarray(jax.random.randint(key, (2, 8, 8, 1), 0, 256), np.uint8)
    model = models.create("cnn", 3, filters=(2, 4), hidden=(5,))
    variables = fill(model, (8, 8, 1))
    outputs = explain.layer_outputs(model, variables, images, PIXELS.normalize)
    own = [path for path in outputs if "Dropout" not in path]
    convolutions = [
        f"{word}_{n}{end}" for n in (0, 1) for word, end in (("conv", "_0"), ("conv", "_0_relu"), ("pool", ""))
    ]
    assert own == [*convolutions, "dense_0", "dense_0_relu", "head"]
    np.testing.assert_allclose(outputs["head"], model.apply(variables, PIXELS.normalize(images)), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(outputs["conv_1_0_relu"], np.maximum(outputs["conv_1_0"], 0))
    blocks = np.asarray(outputs["conv_1_0_relu"]).reshape(2, 2, 2, 2, 2, 4)
    np.testing.assert_array_equal(outputs["pool_1"], blocks.max((2, 4)))


def test_the_layers_of_other_peoples_networks(key):
    model, x = Others(), jax.random.normal(key, (2, 6, 6, 1))
    variables = fill(model, (6, 6, 1))
    outputs = explain.layer_outputs(model, variables, x)
    assert list(outputs) == ["conv", "norm", "shared", "shared:2", "again", "compiled", "end"]
    assert [layer.kind for layer in models.layers(model, (6, 6, 1)).values()][:3] == ["Conv", "BatchNorm", "Conv"]
    params = variables["params"]
    second = np.maximum(outputs["shared"], 0) @ params["shared"]["kernel"][0, 0] + params["shared"]["bias"]
    np.testing.assert_allclose(outputs["shared:2"], second, rtol=1e-5, atol=1e-6)
    # By default after all that is done to the last convolution, which is the second call of the shared one.
    heat, chosen = (explain.grad_cam(model, variables, x, layer=layer) for layer in (None, "shared:2"))
    np.testing.assert_array_equal(heat, chosen)
    assert not np.array_equal(chosen, explain.grad_cam(model, variables, x, layer="shared"))


def test_gradient_norms_are_those_of_a_training_step(key):
    model, images = Others(), jax.random.uniform(key, (4, 8, 8, 1), maxval=255.0)
    variables, batch = fill(model, (8, 8, 1)), {"image": images, "label": jnp.array([0, 1, 2, 2])}
    weights, smooth = jnp.array([1.0, 0.5, 2.0, 0.0]), losses.label_smoothing(0.1)
    norms = explain.gradient_norms(model, variables, {**batch, "weight": weights}, smooth, PIXELS.normalize)
    # Plain descent at the rate 1 moves each parameter by its gradient.
    optimizer = optax.sgd(1.0)
    step = jax.jit(train.make_train_step(model, optimizer, loss=smooth, normalize=PIXELS.normalize))
    state, _ = step(train.init_state(variables, optimizer, key), {**batch, "weight": weights})
    moved = trees.paths(jax.tree.map(lambda old, new: np.asarray(old - new), variables["params"], state.params))
    assert list(norms) == ["conv", "norm", "shared", "again", "compiled", "end", "cells/dense"]
    for layer, norm in norms.items():
        own = [leaf.ravel() for path, leaf in moved.items() if path.rpartition("/")[0] == layer]
        np.testing.assert_allclose(norm, np.linalg.norm(np.concatenate(own)), rtol=1e-3)
    equal, threes = ({**batch, **more} for more in ({}, {"weight": jnp.full(4, 3.0)}))
    alike = [explain.gradient_norms(model, variables, each, smooth, PIXELS.normalize) for each in (equal, threes)]
    assert alike[0] == pytest.approx(alike[1], rel=1e-5)


def test_gradients_vanish_behind_sigmoids_and_not_behind_relu(key):
    batch = {"features": jax.random.normal(key, (64, 20)), "label": jnp.arange(64) % 3}
    shares = {}
    for activation in ("sigmoid", "relu"):
        model = models.create("dense", 3, hidden=(32,) * 8, activation=activation)
        norms = explain.gradient_norms(model, fill(model, (20,)), batch)
        assert list(norms) == [*(f"dense_{n}" for n in range(8)), "head"]
        shares[activation] = norms["dense_0"] / norms["dense_7"]
    # A sigmoid's slope is at most 1/4, and weights of variance 1/32 hardly change the size of a gradient.
    assert shares["sigmoid"] < 0.25**7
    assert shares["relu"] > 0.5**7


@pytest.mark.parametrize("classes", [1, 3])
def test_saliency_is_the_finite_difference(classes, key):
    model = models.create("dense", classes, hidden=(6,), activation="tanh")
    variables, images = fill(model, (4, 3, 2)), np.asarray(jax.random.uniform(key, (2, 4, 3, 2), maxval=255.0))
    pixels, labels = data.Preprocessing(4, mean=(100.0,) * 2, std=(200.0,) * 2), np.array([0, 1])
    found = explain.saliency(model, variables, images, labels, pixels.normalize)

    def score(images):
        logits = np.asarray(model.apply(variables, pixels.normalize(images)), np.float64)
        return logits[np.arange(2), labels] if classes > 1 else logits[:, 0] * [-1, 1]

    slopes = np.zeros(images.shape)
    for at in np.ndindex(images.shape[1:]):
        step = np.zeros(images.shape, np.float32)
        step[(slice(None), *at)] = 1.0
        slopes[(slice(None), *at)] = (score(images + step) - score(images - step)) / 2
    np.testing.assert_allclose(found, np.abs(slopes).max(-1), rtol=0.01, atol=2e-5)


def test_the_class_is_the_guess_where_none_is_given(key):
    images = np.asarray(jax.random.randint(key, (5, 8, 8, 1), 0, 256), np.uint8)
    for classes in (1, 3):
        model = Pooled(classes)
        variables = fill(model, (8, 8, 1))
        logits = np.asarray(model.apply(variables, PIXELS.normalize(images)))
        guesses = logits.argmax(-1) if classes > 1 else (logits[:, 0] > 0).astype(int)
        given, none = (
            explain.saliency(model, variables, images, labels, PIXELS.normalize) for labels in (guesses, None)
        )
        np.testing.assert_array_equal(given, none)


@pytest.mark.parametrize("layer", [None, "conv_relu"])
def test_grad_cam_of_a_network_with_a_closed_form(layer, key):
    model, images = Pooled(), jax.random.normal(key, (4, 6, 5, 2))
    variables, labels = fill(model, (6, 5, 2)), np.array([2, 0, 1, 1])
    maps = explain.layer_outputs(model, variables, images)["conv_relu"]  # [B,H,W,5]
    # The logit is the mean over the positions of maps @ kernel, so a channel's gradient is its weight / (H W).
    weights = variables["params"]["head"]["kernel"].T[labels] / 30  # [B,5]
    expected = np.maximum(np.einsum("bhwc,bc->bhw", maps, weights), 0)
    np.testing.assert_allclose(
        explain.grad_cam(model, variables, images, labels, layer), expected, rtol=1e-4, atol=1e-6
    )


def test_grad_cam_is_made_of_finite_differences_and_fits_the_image(key):
    model = models.create("cnn", 3, filters=(2, 3), activation="tanh")
    images, variables = jax.random.normal(key, (1, 8, 8, 1)), fill(model, (8, 8, 1))
    maps = explain.layer_outputs(model, variables, images)["conv_1_0_tanh"]  # [1,4,4,3]
    params, label = variables["params"]["head"], 1

    def score(maps):
        pooled = np.asarray(maps, np.float64).reshape(2, 2, 2, 2, 3).max((1, 3))
        return pooled.ravel() @ params["kernel"][:, label] + params["bias"][label]

    slopes = np.zeros((4, 4, 3))
    for at in np.ndindex(slopes.shape):
        step = np.zeros((4, 4, 3))
        step[at] = 1e-4
        slopes[at] = (score(maps[0] + step) - score(maps[0] - step)) / 2e-4
    small = np.maximum(np.asarray(maps[0]) @ slopes.mean((0, 1)), 0)  # [4,4]
    heat = explain.grad_cam(model, variables, images, np.array([label]))
    # Halfway between the centres of two of its cells the heat is their mean, with shares of a quarter.
    edge = np.pad(small, 1, mode="edge")
    rows = np.stack([0.25 * edge[:-2] + 0.75 * edge[1:-1], 0.75 * edge[1:-1] + 0.25 * edge[2:]], 1).reshape(8, 6)
    columns = np.stack([0.25 * rows[:, :-2] + 0.75 * rows[:, 1:-1], 0.75 * rows[:, 1:-1] + 0.25 * rows[:, 2:]], 2)
    np.testing.assert_allclose(heat[0], columns.reshape(8, 8), rtol=1e-3, atol=1e-5)


def test_grad_cam_of_an_efficientnet_takes_the_top_with_its_activation(key):
    model, images = EfficientNet(TINY, 3, dtype="bfloat16"), jax.random.normal(key, (2, 8, 8, 3))
    variables = fill(model, (8, 8, 3))
    last, named = (explain.grad_cam(model, variables, images, layer=layer) for layer in (None, "top_bn"))
    np.testing.assert_array_equal(last, named)
    assert last.dtype == np.float32
    assert jax.eval_shape(partial(models.layer_outputs, model), variables, images)[1]["top_bn"].dtype == jnp.bfloat16


def test_grad_cam_of_a_resnet_takes_the_last_sum(key):
    model, images = models.create("resnet9", 3, width=2), jax.random.normal(key, (2, 16, 16, 3))
    variables = fill(model, (16, 16, 3))
    outputs = explain.layer_outputs(model, variables, images)
    skipped = np.asarray(outputs["blocks_3_0_bn"]).reshape(2, 2, 2, 2, 2, 16).max((2, 4))
    np.testing.assert_allclose(outputs["blocks_3_sum"], skipped + outputs["blocks_3_2_bn"], rtol=1e-5, atol=1e-5)
    last, named = (explain.grad_cam(model, variables, images, layer=layer) for layer in (None, "blocks_3_sum"))
    np.testing.assert_array_equal(last, named)


def test_errors_say_what_does_not_fit(key):
    model, images = Pooled(), np.zeros((2, 6, 5, 2), np.float32)
    variables = fill(model, (6, 5, 2))
    flat = models.create("dense", 3)
    for wrong, message in (
        (
            lambda: explain.grad_cam(model, variables, images, layer="conv_rel"),
            "no layer 'conv_rel'; the nearest: conv",
        ),
        (
            lambda: explain.grad_cam(model, variables, images, layer="head"),
            r"'head' is \[3\], and grad_cam needs \[H,W,C\]",
        ),
        (lambda: explain.grad_cam(flat, fill(flat, (6, 5, 2)), images), "needs a convolution, and Dense has none"),
        (lambda: explain.saliency(model, variables, images[0]), r"images are \[B,H,W,C\]; got \[6, 5, 2\]"),
        (lambda: explain.saliency(model, variables, images[..., :1]), r"^conv takes inputs \[..., 2\], got \[..., 1\]"),
        (lambda: explain.saliency(model, variables, images[:0]), "at least one"),
        (lambda: explain.saliency(model, variables, images, np.array([0, 3])), "label 3 of example 1"),
        (lambda: explain.saliency(model, variables, images, np.array([0])), r"integers \[2\].*got int64 \[1\]"),
        (lambda: explain.saliency(model, variables, images, np.array([0.0, 1.0])), "got float64"),
        (lambda: explain.layer_outputs(model, {"params": {}}, images), "do not belong to this model"),
        (lambda: explain.gradient_norms(model, variables, {"image": images, "label": np.array([0, 5])}), "label 5"),
        (lambda: explain.gradient_norms(model, variables, {"image": images, "label": np.eye(3)[:2]}), "one-hot"),
    ):
        with pytest.raises(InputError, match=message):
            wrong()
    for other, message in (
        (nn.Dense(3), "Dense takes no argument `train`"),
        (Listed([3]), "Listed has a field that cannot be hashed"),
    ):
        with pytest.raises(InputError, match=message):
            explain.layer_outputs(other, {"params": {}}, np.zeros((2, 5), np.float32))
    two = models.create("dense", {"kind": 3, "colour": 2})
    with pytest.raises(InputError, match="this network has colour, kind"):
        explain.saliency(two, fill(two, (6, 5, 2)), images)
