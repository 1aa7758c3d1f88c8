from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill
from flax import linen as nn

from jaxdl import models, trees
from jaxdl.errors import InputError
from jaxdl.models.efficientnet import Architecture, EfficientNet, Stage, round_channels


@pytest.mark.parametrize("name", [name for name in models.names() if models.parameters(name)])
def test_parameter_counts_are_the_published_ones(name):
    size = models.input_size(name)
    variables, outputs = models.shapes(models.create(name, 1000), (size, size, 3))
    assert trees.count(variables["params"]) == models.parameters(name)
    assert outputs.shape == (1, 1000)


def test_b0_has_the_statistics_that_keras_counts():
    # Keras counts 4,049,571 without the top: the parameters, the statistics, and 7 numbers of its normalisation layers.
    trunk = models.without_head(models.create("efficientnet_b0", 1000))
    variables, _ = models.shapes(trunk, (224, 224, 3))
    assert trees.count(variables["params"]) + trees.count(variables["batch_stats"]) + 7 == 4_049_571


def test_v2_b0_has_the_statistics_that_keras_counts():
    variables, _ = models.shapes(models.create("efficientnet_v2_b0", 1000), (224, 224, 3))
    assert trees.count(variables) == 7_200_312


@pytest.mark.parametrize(
    ("channels", "width", "expected"), [(32, 1.0, 32), (32, 1.1, 32), (24, 1.4, 32), (40, 1.2, 48)]
)
def test_channels_are_rounded_to_eights(channels, width, expected):
    assert round_channels(channels, width) == expected


def test_the_neuron_is_a_weighted_sum():
    model = models.create("neuron", 1)
    variables = {"params": {"head": {"kernel": jnp.array([[2.0], [-1.0]]), "bias": jnp.array([0.5])}}}
    np.testing.assert_allclose(model.apply(variables, jnp.array([[3.0, 4.0]])), [[2.5]])


@pytest.mark.parametrize("name", ["dense", "cnn", "tiny_vgg", "efficientnet_lite0"])
def test_the_network_is_its_trunk_and_its_head(name, key):
    model = models.create(name, 5)
    variables = fill(model, (32, 32, 3))
    x = jax.random.uniform(key, (2, 32, 32, 3))
    logits = model.apply(variables, x, train=False)
    params = dict(variables["params"])
    head = params.pop("head")
    features = models.without_head(model).apply({**variables, "params": params}, x, train=False)
    chex.assert_shape(logits, (2, 5))
    np.testing.assert_allclose(features @ head["kernel"] + head["bias"][None], logits, rtol=1e-4, atol=1e-5)


# Each kind of block once: not expanding, expanding, fused, fused and not expanding.
TINY = Architecture(
    (Stage(3, 1, 1, 8, 1), Stage(5, 2, 2, 16, 1), Stage(3, 1, 2, 16, 1, fused=True), Stage(3, 1, 1, 8, 1, fused=True)),
    width=1.0,
    depth=1.0,
    size=32,
    dropout=0.2,
    parameters=0,
    top=64,
)


def test_fresh_variables_are_spread_like_flaxs(key):
    model = EfficientNet(TINY, 500)
    ours = trees.paths(models.init(model, key, (32, 32, 3)))
    flaxs = trees.paths(jax.jit(model.init)(key, jnp.zeros((1, 32, 32, 3))))
    assert ours.keys() == flaxs.keys()
    for path, leaf in ours.items():
        assert (leaf.shape, leaf.dtype) == (flaxs[path].shape, np.float32)
        if not path.endswith("/kernel"):
            np.testing.assert_array_equal(leaf, flaxs[path])
        else:
            # Six standard errors of a standard deviation, of which both are estimates.
            np.testing.assert_allclose(leaf.std(), flaxs[path].std(), rtol=6 / np.sqrt(leaf.size))
            assert abs(leaf.mean()) < 6 * leaf.std() / np.sqrt(leaf.size)


def test_fresh_variables_follow_the_key():
    model = EfficientNet(TINY, 3)
    first, same, other = (models.init(model, jax.random.key(n), (32, 32, 3)) for n in (1, 1, 2))
    chex.assert_trees_all_equal(first, same)
    assert (first["params"]["head"]["kernel"] != other["params"]["head"]["kernel"]).all()


@pytest.mark.parametrize("options", [{}, {"padding": "symmetric", "bn_epsilon": 1e-5}])
def test_folding_keeps_the_outputs(options, key):
    model = EfficientNet(TINY, 7, **options)
    variables = fill(model, (33, 31, 3))
    x = jax.random.normal(key, (2, 33, 31, 3))
    folded, fewer = models.fold_batchnorm(model, variables)
    assert trees.difference(models.shapes(folded, (33, 31, 3))[0], fewer) == ""
    assert "batch_stats" not in fewer
    expected = model.apply(variables, x, train=False)
    np.testing.assert_allclose(folded.apply(fewer, x, train=False), expected, rtol=1e-4, atol=1e-5)
    for wrong in (folded, models.create("dense", 3)):
        with pytest.raises(InputError, match="can be folded"):
            models.fold_batchnorm(wrong, variables)


def test_training_normalises_by_the_batch(key):
    model = EfficientNet(TINY, 3, drop_connect=0.0, dropout=0.0, bn_momentum=0.0)
    variables = fill(model, (32, 32, 3))
    x = jax.random.normal(key, (4, 32, 32, 3))
    logits, state = models.apply(model, variables, x, key=key)
    # With the batch's own statistics as running averages, evaluation does the same.
    np.testing.assert_allclose(logits, model.apply({**variables, **state}, x, train=False), rtol=1e-3, atol=1e-4)


class Small(nn.Module):
    """BatchNorm and Dropout switched by fields in one block, and by the call in the other."""

    @nn.compact
    def __call__(self, x, train=False):
        for name in ("first", "second"):
            x = nn.Dense(4, name=name)(x)
            if name == "first":
                x = nn.BatchNorm(use_running_average=not train, name="first_bn")(x)
            else:
                x = nn.BatchNorm(name="second_bn")(x, use_running_average=not train)
        return nn.Dropout(0.5, name="drop")(x, deterministic=not train)


def test_apply_trains_what_is_not_frozen(key):
    model, x = Small(), jax.random.normal(key, (8, 3))
    variables = jax.jit(model.init)(key, x)
    for frozen, moves in [
        ((), {"first_bn", "second_bn"}),
        (("first_bn",), {"second_bn"}),
        (("second_bn",), {"first_bn"}),
    ]:
        _, state = models.apply(model, variables, x, key=key, frozen=frozenset(frozen))
        old, new = variables["batch_stats"], state["batch_stats"]
        assert {name for name in old if (old[name]["mean"] != new[name]["mean"]).any()} == moves
    _, state = models.apply(model, variables, x, key=key, batch_stats="frozen")
    chex.assert_trees_all_equal(state["batch_stats"], variables["batch_stats"])


def test_a_wholly_frozen_network_runs_as_in_evaluation(key):
    model, x = Small(), jax.random.normal(key, (8, 3))
    variables = jax.jit(model.init)(key, x)
    frozen = trees.frozen_modules(jax.tree.map(lambda _: False, variables["params"]))
    y, _ = models.apply(model, variables, x, key=key, frozen=frozen)
    np.testing.assert_array_equal(y, model.apply(variables, x, train=False))
    y, _ = models.apply(model, variables, x, key=key)
    assert (np.asarray(y) == 0).any(), "dropout is on in training"


def of_dtype(name, dtype):
    return EfficientNet(TINY, 5, dtype=dtype) if name == "tiny" else models.create(name, 5, dtype=dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["dense", "tiny_vgg", "tiny"])
def test_a_network_computes_in_its_dtype_and_keeps_float32(name, dtype, key):
    model, exact = of_dtype(name, dtype), of_dtype(name, "float32")
    variables = fill(model, (32, 32, 3))
    x = jax.random.normal(key, (4, 32, 32, 3))

    def trained(model, params=variables["params"]):
        logits, state = models.apply(model, {**variables, "params": params}, x, key=key)
        return logits.sum(), (logits, state)

    gradients, _ = jax.eval_shape(jax.grad(partial(trained, model), has_aux=True), variables["params"])
    (_, ours), (_, theirs) = (jax.jit(partial(trained, each))() for each in (model, exact))
    fresh = models.shapes(model, (32, 32, 3))[0]
    assert {leaf.dtype for leaf in jax.tree.leaves((gradients, ours, fresh))} == {jnp.dtype("float32")}
    # Each layer rounds its operands and its result: about eps of the norm, and they add up at worst.
    eps = sum(path.endswith("kernel") for path in trees.paths(variables["params"])) * float(jnp.finfo(dtype).eps)
    for rounded, expected in zip(*map(jax.tree.leaves, (ours, theirs)), strict=True):
        assert 0 < np.linalg.norm(rounded - expected) < eps * np.linalg.norm(expected)

    run = partial(model.apply, variables, capture_intermediates=True, mutable=["intermediates"])
    outputs = trees.paths(jax.eval_shape(run, x)[1]["intermediates"])
    hidden = {path: calls for path, calls in outputs.items() if path != "__call__" and not path.startswith("head")}
    assert {call.dtype for calls in hidden.values() for call in calls} == {jnp.dtype(dtype)}


def test_other_backends_compute_in_the_dtype_too(monkeypatch, key):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    model = of_dtype("tiny", "bfloat16")
    variables, x = fill(model, (32, 32, 3)), jnp.zeros((2, 32, 32, 3))
    text = str(jax.make_jaxpr(lambda x: models.apply(model, variables, x, key=key))(x))
    convolutions = [line for line in text.splitlines() if "= conv_general_dilated" in line]
    assert convolutions
    assert all("bf16[" in line.split("=")[0] for line in convolutions)


def test_features_and_folded_networks_are_float32_outside(key):
    model = of_dtype("tiny", "bfloat16")
    variables, x = fill(model, (32, 32, 3)), jax.random.normal(key, (2, 32, 32, 3))
    params = {name: tree for name, tree in variables["params"].items() if name != "head"}
    features = jax.jit(models.without_head(model).apply)({**variables, "params": params}, x)
    assert features.dtype == jnp.float32
    logits = models.head_alone(model).apply({"params": {"head": variables["params"]["head"]}}, features)
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, x), rtol=1e-5, atol=1e-6)
    folded, fewer = models.fold_batchnorm(model, variables)
    run = partial(folded.apply, fewer, capture_intermediates=True, mutable=["intermediates"])
    assert jax.eval_shape(run, x)[1]["intermediates"]["top_bn"]["__call__"][0].dtype == jnp.bfloat16


def test_errors_name_what_there_is():
    with pytest.raises(InputError, match="nearest: efficientnet_b0"):
        models.create("eficientnet_b0", 3)
    with pytest.raises(InputError, match="nearest: hidden"):
        models.create("dense", 3, hiden=(1,))
    with pytest.raises(InputError, match="cannot compute in 'float15'; the nearest: float16"):
        models.create("cnn", 3, dtype="float15")
    with pytest.raises(InputError, match="at least one class"):
        models.create("dense", 0)
    with pytest.raises(InputError, match="cannot take inputs"):
        models.shapes(models.create("cnn", 3), (5,))
