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

from jaxdl import augment, losses, metrics, models, optim, train, trees
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


def optimizer_of(**options):
    phase = optim.Phase(1, 0.5, optimizer="sgd", schedule="constant", warmup=0, **options)
    return optim.make_optimizer(phase, optim.make_schedule(phase, 100))


@pytest.mark.parametrize("count", [2, 3])
def test_batches_that_accumulate_are_one_batch(count):
    model = models.create("dense", 3, hidden=(4,))
    variables, data = fill(model, (8, 8, 3)), batch(4 * count)
    parts = [{name: array[4 * n : 4 * n + 4] for name, array in data.items()} for n in range(count)]

    def trained(batches, optimizer):
        state = train.init_state(variables, optimizer, jax.random.key(0), average=True)
        return run(train.make_train_step(model, optimizer, ema=0.75, normalize=normalize), state, batches)[0]

    ours, theirs = trained(parts * 2, optimizer_of(accumulate=count)), trained([data] * 2, optimizer_of())
    chex.assert_trees_all_close((ours.params, ours.average), (theirs.params, theirs.average), rtol=1e-5, atol=1e-6)
    waiting = trained(parts[:-1], optimizer_of(accumulate=count))
    chex.assert_trees_all_equal((waiting.params, waiting.average), (variables["params"],) * 2)
    assert int(waiting.step) == count - 1


def test_a_scaled_loss_trains_as_it_is():
    state_of = lambda optimizer: train.init_state(VARIABLES, optimizer, jax.random.key(0), average=True)  # noqa: E731
    ours, theirs = (
        run(train.make_train_step(MODEL, optimizer, ema=0.9, normalize=normalize), state_of(optimizer), [batch()] * 3)
        for optimizer in (optimizer_of(loss_scale=True), optimizer_of())
    )
    chex.assert_trees_all_close(ours[1], theirs[1], rtol=1e-5)
    ours, theirs = ((state.params, state.model_state, state.average) for state, _ in (ours, theirs))
    chex.assert_trees_all_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_after_an_overflow_the_scale_falls_until_the_step_moves():
    model, optimizer = models.create("dense", 3, hidden=(4,)), optimizer_of(loss_scale=True)
    variables = fill(model, (8, 8, 3))

    def huge(outputs, labels):
        return 1e36 * losses.cross_entropy(outputs, labels)  # times 2^15 it is beyond float32

    state = train.init_state(variables, optimizer, jax.random.key(0), average=True)
    step = jax.jit(train.make_train_step(model, optimizer, loss=huge, metrics={}, ema=0.5, normalize=normalize))
    for n in range(1, 16):
        state, sums = step(state, batch())
        assert sums["finite"].all()
        if int(optax.tree.get(state.opt_state, "updates_made")):
            break
        assert float(optax.tree.get(state.opt_state, "loss_scale")) == 2.0 ** (15 - n)
        chex.assert_trees_all_equal((state.params, state.average), (variables["params"],) * 2)
    assert 1 < n < 15
    assert (state.params["head"]["kernel"] != variables["params"]["head"]["kernel"]).any()


def test_the_scale_keeps_small_gradients_of_float16():
    variables = fill(models.create("dense", 3, hidden=(4,)), (8, 8, 3))

    def small(outputs, labels):
        return 1e-8 * losses.cross_entropy(outputs, labels)  # half of the smallest number of float16 is 3e-8

    def change(dtype, **options):
        model, optimizer = models.create("dense", 3, hidden=(4,), dtype=dtype), optimizer_of(clip_norm=None, **options)
        state = train.init_state(variables, optimizer, jax.random.key(0))
        step = train.make_train_step(model, optimizer, loss=small, normalize=normalize)
        return optax.tree.get(run(step, state, [batch()])[0].opt_state, "TraceState").trace["dense_0"]["kernel"]

    exact, lost, kept = change("float32"), change("float16"), change("float16", loss_scale=True)
    decay = 1e-4 * variables["params"]["dense_0"]["kernel"]
    np.testing.assert_array_equal(lost, decay)
    np.testing.assert_allclose(kept - decay, exact - decay, rtol=0.01, atol=1e-2 * jnp.abs(exact - decay).max())


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
    # Another last bit in the pixels moves parameters by 4e-5 in these four steps.
    chex.assert_trees_all_close(scanned.params, stepped.params, rtol=1e-4, atol=1e-4)
    chex.assert_trees_all_close(scanned.model_state, stepped.model_state, rtol=1e-4, atol=1e-5)
    chex.assert_trees_all_close(sums, total, rtol=1e-5)


def test_an_epoch_keeps_no_matrix_of_every_step(key):
    optimizer, many = optax.sgd(0.1), {"roc_auc": metrics.roc_auc(), "mae": metrics.mean(lambda y, _: jnp.abs(y[:, 0]))}
    step = train.make_train_step(MODEL, optimizer, normalize=normalize, metrics=many)
    state, indices = train.init_state(VARIABLES, optimizer, key), np.arange(30).reshape(5, 6)
    data = {"image": batch(30)["image"], "label": batch(30)["label"]}
    arguments = (state, jax.device_put(data), indices, np.ones((5, 6), np.float32))
    assert "f32[5,3,2,2048]" not in str(jax.make_jaxpr(train.make_epoch(step))(*arguments))
    _, sums = jax.jit(train.make_epoch(step))(*arguments)
    parts, compiled = [], jax.jit(step)
    for rows in indices:
        each = {name: array[rows] for name, array in data.items()}
        state, part = compiled(state, {**each, "weight": np.ones(6, np.float32)})
        parts.append(part)
    chex.assert_trees_all_close(sums, jax.tree.map(np.float32, metrics.merge(parts)), rtol=1e-4)


@pytest.mark.parametrize("shape", [(6, 1), (1,), ()])
def test_a_loss_gives_one_number_for_each_example(shape, key):
    def wrong(outputs, labels):
        return jnp.zeros(shape) + outputs.mean()

    state = train.init_state(VARIABLES, ADAMW, key)
    with pytest.raises(InputError, match=r"one number for each example, \[6\], .* drop the last axis"):
        train.make_train_step(MODEL, ADAMW, loss=wrong, normalize=normalize)(state, batch())
    with pytest.raises(InputError, match="one number for each example"):
        train.make_eval_step(MODEL, loss=wrong, normalize=normalize)(VARIABLES, batch())


def test_evaluation_is_deterministic_and_predicts_the_same(key):
    data = batch()
    logits = jax.jit(train.make_predict_step(MODEL, normalize=normalize))(VARIABLES, data)
    sums = jax.jit(train.make_eval_step(MODEL, normalize=normalize))(VARIABLES, data)
    np.testing.assert_allclose(sums["loss"][0], losses.cross_entropy(logits, data["label"]).sum(), rtol=1e-5)
    expected = MODEL.apply(VARIABLES, normalize(data["image"]), train=False)
    np.testing.assert_allclose(logits, expected, rtol=1e-5)


def test_views_count_as_much_as_the_images():
    change, data = augment.Affine(flip=True, rotate=30), batch()
    step = jax.jit(train.make_predict_step(MODEL, normalize=normalize, augment=change, views=2))
    images = data["image"].astype(np.float32)
    views = [images, *(change(jax.random.fold_in(jax.random.key(0), n), images) for n in (1, 2))]
    expected = np.mean([MODEL.apply(VARIABLES, normalize(view), train=False) for view in views], 0)
    outputs = step(VARIABLES, data)
    np.testing.assert_allclose(outputs, expected, rtol=1e-3, atol=1e-4)
    sums = jax.jit(train.make_eval_step(MODEL, normalize=normalize, augment=change, views=2))(VARIABLES, data)
    np.testing.assert_allclose(sums["loss"][0], losses.cross_entropy(outputs, data["label"]).sum(), rtol=1e-5)


def test_views_of_several_heads():
    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return {"sum": x.sum((1, 2, 3))[:, None], "corner": x[:, 0, 0]}

    step = train.make_predict_step(Heads(), augment=lambda key, x: x + 3.0, views=2)
    outputs, images = step({}, batch()), batch()["image"].astype(np.float32)
    np.testing.assert_allclose(outputs["corner"], images[:, 0, 0] + 2, rtol=1e-6)
    np.testing.assert_allclose(outputs["sum"], (images + 2).sum((1, 2, 3))[:, None], rtol=1e-6)


def test_what_views_cannot_be():
    for wrong in ({"views": 1}, {"augment": augment.PHOTOS}, {"augment": augment.PHOTOS, "views": -1}):
        with pytest.raises(InputError, match="both `augment` and `views`"):
            train.make_predict_step(MODEL, **wrong)
    step = train.make_eval_step(MODEL, augment=augment.MixUp(), views=1)
    with pytest.raises(InputError, match="for training steps only"):
        jax.eval_shape(step, VARIABLES, batch())


def halves(key, images):
    """A mix of known partners and shares."""
    count = len(images)
    share = 0.5 + jnp.arange(count) / (2 * count)
    part = share[:, None, None, None]
    return augment.Mixed(part * images + (1 - part) * images[::-1], jnp.arange(count)[::-1], share)


def test_a_mix_is_trained_on_its_labels_in_the_same_shares():
    """Cross-entropy against the mixed distributions, written out."""
    model = models.create("dense", 3, hidden=(4,))
    variables, optimizer, data = fill(model, (8, 8, 3)), optax.sgd(0.5), batch()
    state = train.init_state(variables, optimizer, jax.random.key(0))
    after, sums = run(train.make_train_step(model, optimizer, normalize=normalize, augment=halves), state, [data])
    images, _, share = halves(None, data["image"])
    hot = np.eye(3, dtype=np.float32)[data["label"]]
    targets = share[:, None] * hot + (1 - share)[:, None] * hot[::-1]

    def mean_loss(params):
        return optax.softmax_cross_entropy(model.apply({"params": params}, normalize(images)), targets).mean()

    loss, grads = jax.value_and_grad(mean_loss)(variables["params"])
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, variables["params"], grads)
    chex.assert_trees_all_close(after.params, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums["loss"][0] / sums["loss"][1], loss, rtol=1e-5)
    logits = model.apply(variables, normalize(images))
    assert sums["accuracy"][0] == (np.argmax(logits, -1) == data["label"]).sum()


def test_a_mix_of_numbers_and_of_several_heads():
    class Heads(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            x = x.reshape(len(x), -1)
            return {"kind": nn.Dense(3, name="kind")(x), "size": nn.Dense(1, name="size")(x)}

    model, data = Heads(), batch()
    variables = model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    sizes = np.linspace(-1, 1, 6).astype(np.float32)
    data["label"] = {"kind": data["label"], "size": sizes}
    state = train.init_state(variables, optax.sgd(0.1), jax.random.key(0))
    loss = losses.combine({"kind": losses.cross_entropy, "size": losses.squared_error})
    step = train.make_train_step(model, optax.sgd(0.1), loss=loss, metrics={}, normalize=normalize, augment=halves)
    _, sums = run(step, state, [data])
    images, _, share = halves(None, data["image"])
    outputs = jax.tree.map(np.asarray, model.apply(variables, normalize(images)))
    log_p = np.asarray(jax.nn.log_softmax(outputs["kind"]))
    rows, kinds = np.arange(6), data["label"]["kind"]
    error = (outputs["size"] - np.stack([sizes, sizes[::-1]], -1)) ** 2  # from the own number and the partner's
    own, other = error[:, 0] - log_p[rows, kinds], error[:, 1] - log_p[rows, kinds[::-1]]
    np.testing.assert_allclose(sums["loss"][0], (share * own + (1 - share) * other).sum(), rtol=1e-4)


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
