"""The steps: what moves, what does not, and that every way of running them gives the same numbers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import fill
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl import augment, losses, models, train, trees
from jaxdl.errors import InputError


class Trunk(nn.Module):
    """A BatchNorm that has statistics but no parameters of its own."""

    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(4, name="mix")(x)
        return nn.BatchNorm(name="plain_bn", use_scale=False, use_bias=False)(x, use_running_average=not train)


class Net(nn.Module):
    """A small network with all that an EfficientNet has: convolution, BatchNorm, dropout, head."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = nn.relu(nn.BatchNorm(name="stem_bn", momentum=0.9)(x, use_running_average=not train))
        x = nn.Dropout(0.2, name="drop")(x, deterministic=not train)
        x = Trunk(name="trunk")(x, train)
        x = nn.Dense(5, name="top")(x.mean((1, 2)))
        x = nn.relu(nn.BatchNorm(name="top_bn", momentum=0.9)(x, use_running_average=not train))
        return nn.Dense(3, name="head")(x)


MODEL = Net()
VARIABLES = fill(MODEL, (8, 8, 3))


def batch(n=6, seed=0):
    draw = np.random.default_rng(seed)
    images = draw.integers(0, 256, (n, 8, 8, 3), dtype=np.uint8)
    return {"image": images, "label": draw.integers(0, 3, n), "weight": np.ones(n, np.float32)}


def normalize(x):
    return x.astype(jnp.float32) / 255


def run(step, state, batches):
    step = jax.jit(step)
    for each in batches:
        state, sums = step(state, each)
    return state, sums


masks = st.fixed_dictionaries({name: st.booleans() for name in VARIABLES["params"]}).filter(lambda m: any(m.values()))


def masked(chosen):
    params = VARIABLES["params"]
    return {name: jax.tree.map(lambda _, on=chosen[name]: on, module) for name, module in params.items()}


ADAMW = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(0.1, weight_decay=0.1))


@settings(max_examples=6)
@given(chosen=masks)
def test_frozen_leaves_keep_every_bit(chosen):
    mask = masked(chosen)
    state = train.init_state(VARIABLES, ADAMW, jax.random.key(0), mask, average=True)
    step = train.make_train_step(MODEL, ADAMW, trainable=mask, ema=0.5, normalize=normalize)
    after, _ = run(step, state, [batch(seed=n) for n in range(3)])
    before = trees.paths(VARIABLES["params"])
    for kept in (after.params, after.variables["params"]):
        for path, leaf in trees.paths(kept).items():
            assert np.array_equal(leaf, before[path]) != chosen[path.split("/")[0]], path
    for path, leaf in trees.paths(after.model_state["batch_stats"]).items():
        same = np.array_equal(leaf, trees.paths(VARIABLES["batch_stats"])[path])
        assert same == (not chosen[path.split("/")[0]]), path
    moving = trees.split(VARIABLES["params"], mask)[0]
    assert trees.paths(after.average).keys() == trees.paths(moving).keys()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(moving))
    assert sum(leaf.nbytes for leaf in jax.tree.leaves(after.opt_state) if leaf.ndim) == 2 * size


def test_what_is_frozen_costs_no_gradient():
    def flops(mask):
        state = train.init_state(VARIABLES, ADAMW, jax.random.key(0), mask)
        step = train.make_train_step(MODEL, ADAMW, trainable=mask, normalize=normalize)
        return jax.jit(step).lower(state, batch()).compile().cost_analysis()["flops"]

    names = VARIABLES["params"]
    everything, late, head = (
        flops(masked({name: name in on for name in names})) for on in (names, ("top", "head"), ("head",))
    )
    assert head <= late < 0.6 * everything


def test_the_average_is_that_of_the_parameters():
    state = train.init_state(VARIABLES, optax.sgd(0.1), jax.random.key(0), average=True)
    step = train.make_train_step(MODEL, optax.sgd(0.1), ema=0.75, normalize=normalize)
    expected = VARIABLES["params"]
    for n in range(3):
        state, _ = run(step, state, [batch(seed=n)])
        expected = jax.tree.map(lambda old, new: 0.75 * old + 0.25 * np.asarray(new), expected, state.params)
    chex.assert_trees_all_close(state.variables["params"], expected, rtol=1e-5, atol=1e-6)


def test_frozen_statistics_do_not_move_under_trained_scales(key):
    optimizer = optax.sgd(0.1)
    state = train.init_state(VARIABLES, optimizer, key)
    step = train.make_train_step(MODEL, optimizer, normalize=normalize, batch_stats="frozen")
    after, _ = run(step, state, [batch()])
    chex.assert_trees_all_equal(after.model_state, {"batch_stats": VARIABLES["batch_stats"]})
    assert (after.params["stem_bn"]["scale"] != VARIABLES["params"]["stem_bn"]["scale"]).any()


def test_the_step_is_plain_gradient_descent():
    model = models.create("dense", 3, hidden=(4,))
    variables = fill(model, (8, 8, 3))
    optimizer, data = optax.sgd(0.5), batch()
    state = train.init_state(variables, optimizer, jax.random.key(0))
    after, sums = run(train.make_train_step(model, optimizer, normalize=normalize), state, [data])

    def mean_loss(params):
        logits = model.apply({"params": params}, normalize(data["image"]))
        return optax.softmax_cross_entropy_with_integer_labels(logits, data["label"]).mean()

    loss, grads = jax.value_and_grad(mean_loss)(variables["params"])
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, variables["params"], grads)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], loss, rtol=1e-5)
    assert int(after.step) == 1


def test_rows_of_weight_zero_change_nothing():
    model = models.create("dense", 3)
    variables = fill(model, (8, 8, 3))
    optimizer = optax.adam(0.1)
    state = train.init_state(variables, optimizer, jax.random.key(0))
    step = train.make_train_step(model, optimizer, normalize=normalize)
    short, padded = batch(4), batch(6)
    padded["image"][:4], padded["label"][:4], padded["weight"][4:] = short["image"], short["label"], 0
    a, sums_a = run(step, state, [short])
    b, sums_b = run(step, state, [padded])
    chex.assert_trees_all_close(a.params, b.params, rtol=1e-5, atol=1e-6)
    chex.assert_trees_all_close(sums_a, sums_b, rtol=1e-6)


def test_an_epoch_in_one_program_is_its_steps_one_by_one(key):
    optimizer = optax.sgd(0.1, momentum=0.9)
    data = batch(10)
    del data["weight"]
    indices = np.array([[0, 3, 5], [9, 1, 2], [4, 6, 7], [8, 0, 3]])
    weights = np.ones((4, 3), np.float32)
    weights[3, 1:] = 0
    step = train.make_train_step(MODEL, optimizer, normalize=normalize, augment=augment.Affine(flip=True, rotate=20))
    state = train.init_state(VARIABLES, optimizer, key)
    stepped, total = state, None
    compiled = jax.jit(step)
    for rows, weight in zip(indices, weights, strict=True):
        each = {name: array[rows] for name, array in data.items()}
        stepped, sums = compiled(stepped, {**each, "weight": weight})
        total = sums if total is None else jax.tree.map(jnp.add, total, sums)
    scanned, sums = jax.jit(train.make_epoch(step))(state, jax.device_put(data), indices, weights)
    chex.assert_trees_all_close(scanned.params, stepped.params, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(scanned.model_state, stepped.model_state, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(sums, total, rtol=1e-5)


def test_evaluation_is_deterministic_and_predicts_the_same(key):
    data = batch()
    logits = jax.jit(train.make_predict_step(MODEL, normalize=normalize))(VARIABLES, data)
    sums = jax.jit(train.make_eval_step(MODEL, normalize=normalize))(VARIABLES, data)
    np.testing.assert_allclose(sums["loss"][0], losses.cross_entropy(logits, data["label"]).sum(), rtol=1e-5)
    expected = MODEL.apply(VARIABLES, normalize(data["image"]), train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_steps_draw_new_randomness_from_one_key(key):
    optimizer = optax.sgd(0.0)
    state = train.init_state(VARIABLES, optimizer, key)
    step = jax.jit(train.make_train_step(MODEL, optimizer, normalize=normalize))
    first, sums_1 = step(state, batch())
    _, sums_2 = step(first, batch())
    _, again = step(state, batch())
    assert sums_1["loss"][0] != sums_2["loss"][0]
    assert sums_1["loss"][0] == again["loss"][0]


def test_the_state_is_a_copy_and_knows_its_mask(key):
    state = train.init_state(VARIABLES, optax.sgd(0.1), key)
    before = jax.tree.map(np.copy, VARIABLES)
    step = jax.jit(train.make_train_step(MODEL, optax.sgd(0.1), normalize=normalize), donate_argnums=0)
    step(state, batch())
    chex.assert_trees_all_equal(before, VARIABLES)
    with pytest.raises(InputError, match="another tree"):
        train.init_state(VARIABLES, optax.sgd(0.1), key, {"head": True})
    with pytest.raises(InputError, match="both or neither"):
        train.make_train_step(MODEL, optax.sgd(0.1), ema=0.5)(train.init_state(VARIABLES, optax.sgd(0.1), key), batch())
    with pytest.raises(InputError, match="nothing is trainable"):
        train.init_state(VARIABLES, optax.sgd(0.1), key, jax.tree.map(lambda _: False, VARIABLES["params"]))
