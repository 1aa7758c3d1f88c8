from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("name", ["dense", "cnn", "tiny_vgg", "resnet9", "efficientnet_lite0"])
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


@pytest.mark.parametrize(("pooling", "features"), [(True, 2 * 3 * 5), (False, 8 * 12 * 5)])
def test_a_cnn_halves_its_groups_or_not(pooling, features):
    model = models.create("cnn", None, filters=(4, 5), pooling=pooling)
    assert models.shapes(model, (8, 12, 1))[1].shape == (1, features)


def test_resnet9_has_the_published_size():
    # 6,573,120 with a head that has no bias.
    variables, outputs = models.shapes(models.create("resnet9", 10), (32, 32, 3))
    assert trees.count(variables["params"]) == 6_573_130
    assert outputs.shape == (1, 10)


def test_resnet9_is_what_numpy_computes(key):
    model = models.create("resnet9", 3, width=4)
    variables = fill(model, (16, 16, 3))
    params, statistics = variables["params"], variables["batch_stats"]

    def convolution(x, name):
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))  # [B,H,W,I,3,3]
        y = np.einsum("bhwiyx,yxio->bhwo", windows, params[name]["kernel"])
        norm = {**params[f"{name}_bn"], **statistics[f"{name}_bn"]}
        return np.maximum((y - norm["mean"]) / np.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"], 0)

    def halved(x):
        return x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).max((2, 4))

    x = np.asarray(jax.random.normal(key, (2, 16, 16, 3)))
    y = halved(convolution(convolution(x, "stem"), "blocks_1_0"))
    y = y + convolution(convolution(y, "blocks_1_1"), "blocks_1_2")
    y = halved(convolution(halved(convolution(y, "blocks_2_0")), "blocks_3_0"))
    y = y + convolution(convolution(y, "blocks_3_1"), "blocks_3_2")
    expected = y.max((1, 2)) / 8 @ params["head"]["kernel"] + params["head"]["bias"]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, x), expected, rtol=1e-4, atol=1e-5)


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


@pytest.mark.parametrize(("name", "groups"), [("tiny", 2), ("resnet9", 4)])
def test_groups_are_batches_of_their_own(name, groups, key):
    """As on so many devices that do not tell one another their statistics: outputs, averages and gradients."""

    def network(groups):
        options = {"dropout": 0.0, "bn_groups": groups}
        if name == "tiny":
            return EfficientNet(TINY, 3, drop_connect=0.0, **options)
        return models.create("resnet9", 3, width=8, **options)

    variables = fill(network(1), (32, 32, 3))
    x = jax.random.normal(key, (8, 32, 32, 3)) * jnp.linspace(0.5, 2, 8)[:, None, None, None]

    @partial(jax.jit, static_argnums=0)
    def trained(model, x):
        def loss(params):
            logits, state = models.apply(model, {**variables, "params": params}, x, key=key)
            return jnp.cos(logits).sum(), (logits, state)

        gradients, (logits, state) = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, state, gradients

    logits, state, gradients = trained(network(groups), x)
    parts = [trained(network(1), part) for part in jnp.split(x, groups)]
    np.testing.assert_allclose(logits, jnp.concatenate([part[0] for part in parts]), rtol=1e-3, atol=1e-4)
    averages = jax.tree.map(lambda *leaves: np.mean(leaves, 0), *(part[1] for part in parts))
    chex.assert_trees_all_close(state, averages, rtol=1e-3, atol=1e-5)
    sums = jax.tree.map(lambda *leaves: np.sum(leaves, 0), *(part[2] for part in parts))
    chex.assert_trees_all_close(gradients, sums, rtol=1e-2, atol=1e-3)


def test_groups_that_cannot_be_are_named(key):
    model = models.create("resnet9", 3, width=8, bn_groups=3)
    variables, x = fill(model, (8, 8, 3)), jnp.zeros((4, 8, 8, 3))
    assert model.apply(variables, x, train=False).shape == (4, 3)  # by the averages, without groups
    with pytest.raises(InputError, match="a batch of 4 cannot be divided into 3 groups"):
        models.apply(model, variables, x, key=key)
    with pytest.raises(InputError, match="use jit over a mesh"):
        models.apply(model, variables, x, key=key, axis_name="data")


def test_what_is_computed_again_is_the_same(key):
    """Dropout and stochastic depth included; and less is kept for the backward pass."""
    kept, again = (EfficientNet(TINY, 3, remat=remat) for remat in (False, True))
    variables = fill(kept, (16, 16, 3))
    assert trees.difference(models.shapes(again, (16, 16, 3))[0], variables) == ""
    x = jax.random.normal(key, (4, 16, 16, 3))

    def loss(params, model):
        logits, state = models.apply(model, {**variables, "params": params}, x, key=key)
        return jnp.cos(logits).sum(), (logits, state)

    def residuals(params, model):
        return jax.vjp(lambda params: loss(params, model)[0], params)[1]

    results, sizes = [], []
    for model in (kept, again):
        results.append(jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)(variables["params"], model))
        leaves = jax.tree.leaves(jax.eval_shape(partial(residuals, model=model), variables["params"]))
        sizes.append(sum(leaf.size for leaf in leaves))
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=1e-5)
    assert sizes[1] < sizes[0] / 2


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
    if name == "tiny":
        return EfficientNet(TINY, 5, dtype=dtype)
    return models.create(name, 5, dtype=dtype, **({"width": 8} if name == "resnet9" else {}))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["dense", "tiny_vgg", "resnet9", "tiny"])
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


@given(
    size=st.tuples(*[st.integers(3, 9)] * 2),
    kernel=st.tuples(*[st.integers(1, 3)] * 2),
    stride=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 6]),
    dense=st.booleans(),
)
def test_flops_of_a_layer_are_those_that_xla_counts(size, kernel, stride, groups, dense):
    # Without padding, as XLA leaves out what meets it, and without a bias, whose additions it counts.
    model = nn.Conv(12, kernel, stride, "VALID", feature_group_count=groups, use_bias=False)
    model = nn.Dense(7, use_bias=False) if dense else model
    (row,) = models.summary(model, (*size, 6)).rows
    variables, outputs = models.shapes(model, (*size, 6))
    lowered = jax.jit(model.apply).lower(variables, jax.ShapeDtypeStruct((1, *size, 6), np.float32))
    assert row.flops == lowered.cost_analysis()["flops"]
    assert (row.path, row.output, row.parameters) == ("", outputs.shape, variables["params"]["kernel"].size)


# What torch.utils.flop_counter counts in geffnet's networks, and what torchvision publishes of multiply-adds, in G:
# https://docs.pytorch.org/vision/stable/models.html#table-of-all-available-classification-weights
@pytest.mark.parametrize(
    ("name", "flops", "published"),
    [
        ("efficientnet_b0", 771_629_504, 0.39),
        ("efficientnet_b3", 3_654_282_784, 1.83),
        ("efficientnet_lite0", 770_375_104, None),
    ],
)
def test_flops_of_a_network_are_those_that_torch_counts(name, flops, published):
    size = models.input_size(name)
    summary = models.summary(models.create(name, 1000), (size, size, 3))
    assert summary.flops == flops
    assert published in (None, round(flops / 2e9, 2))
    assert summary.parameters == models.parameters(name)
    assert summary.bytes == 4 * (summary.parameters + summary.statistics)


def test_flops_are_nearly_all_that_xla_counts():
    model = models.create("efficientnet_b0", 10)
    variables, _ = models.shapes(model, (64, 64, 3))
    lowered = jax.jit(model.apply).lower(variables, jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32))
    # XLA counts activations too, and no padding; on CPU depthwise convolutions are multiplications and additions.
    assert models.summary(model, (64, 64, 3)).flops == pytest.approx(lowered.cost_analysis()["flops"], rel=0.06)


def test_a_summary_is_the_same_on_other_backends(monkeypatch):
    here = models.summary(EfficientNet(TINY, 3), (32, 32, 3))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert models.summary(EfficientNet(TINY, 3), (32, 32, 3)) == here


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ["dense", "tiny_vgg", "resnet9", "tiny"])
def test_a_summary_is_the_same_in_every_dtype(name, dtype):
    exact, model = of_dtype(name, "float32"), of_dtype(name, dtype)
    assert models.summary(model, (32, 32, 3)) == models.summary(exact, (32, 32, 3))


def test_a_summary_lists_layers_or_blocks_in_the_order_of_computation():
    model = EfficientNet(TINY, (("a", 2), ("b", 3)))
    layers, blocks = (models.summary(model, (32, 32, 3), depth) for depth in (None, 1))
    assert [row.path for row in layers.rows[:6]] == [
        *("stem", "stem_bn", "blocks_1_0/depthwise", "blocks_1_0/depthwise_bn"),
        *("blocks_1_0/se_reduce", "blocks_1_0/se_expand"),
    ]
    assert [row.path for row in blocks.rows] == [
        *(
            "stem",
            "stem_bn",
            "blocks_1_0",
            "blocks_2_0",
            "blocks_3_0",
            "blocks_4_0",
            "top",
            "top_bn",
            "head_a",
            "head_b",
        )
    ]
    kinds = {row.path.split("/")[-1]: row.kind for row in layers.rows}
    assert [kinds[name] for name in ("stem", "depthwise", "expand_bn", "se_reduce")] == [
        *("Conv", "Depthwise", "BatchNorm", "Dense")
    ]
    assert (blocks.rows[2].kind, blocks.rows[3].output) == ("Block", (1, 8, 8, 16))
    variables = trees.paths(models.shapes(model, (32, 32, 3))[0])
    for summary in (layers, blocks):
        assert (summary.flops, summary.bytes) == (layers.flops, layers.bytes)
        for row in summary.rows:
            sizes = {path: leaf.size for path, leaf in variables.items() if f"/{row.path}/" in f"/{path}"}
            assert row.parameters == sum(size for path, size in sizes.items() if path.startswith("params"))
            assert row.statistics == sum(size for path, size in sizes.items() if path.startswith("batch_stats"))


class Everything(nn.Module):
    """What this library's networks do not have: attention, a loop, a layer twice, parameters at the top, no `train`."""

    @nn.compact
    def __call__(self, x):
        x = x + self.param("position", nn.initializers.zeros, (6, 8))[None]  # [B,6,8]
        x = nn.MultiHeadDotProductAttention(2, use_bias=False, name="attention")(x)
        x = nn.RNN(nn.SimpleCell(8, name="cell"))(x)
        twice = nn.Dense(8, use_bias=False, name="twice")
        x = nn.ConvTranspose(4, (3,), (2,), use_bias=False, name="up")(twice(nn.relu(twice(x))))  # [B,12,4]
        return nn.Dropout(0.5, deterministic=True, name="drop")(x)


def test_a_summary_of_anybodys_module():
    summary = models.summary(Everything(), (6, 8), depth=1)
    rows = {row.path: row for row in summary.rows}
    assert list(rows) == ["attention", "cell", "RNN_0", "twice", "up", "drop", ""]
    # Projections, and the products of queries with keys and of weights with values.
    assert rows["attention"].flops == 2 * (4 * 6 * 8 * 8 + 2 * 6 * 6 * 8)
    assert rows["cell"].flops == 2 * 6 * (8 * 8 + 8 * 8)
    assert rows["twice"].flops == 2 * (2 * 6 * 8 * 8)
    assert rows["up"].flops == 2 * (6 * 3 * 8 * 4)
    assert (rows["twice"].parameters, rows[""].parameters, rows["drop"].parameters) == (64, 48, 0)
    assert summary.flops == sum(row.flops for row in rows.values())
    assert (rows["up"].output, rows["drop"].kind) == ((1, 12, 4), "Dropout")
    layers = [row.path for row in models.summary(Everything(), (6, 8)).rows]
    assert layers[:5] == [f"attention/{name}" for name in ("query", "key", "value", "out")] + ["attention"]


def test_a_summary_is_printed_as_a_table():
    model = models.create("dense", 10)
    summary = models.summary(model, (28, 28, 1))
    assert str(summary).splitlines() == [
        "layer         kind      output       parameters     FLOPs",
        "input                   [B,28,28,1]",
        "dense_0       Dense     [B,100]          78,500  156.80 k",
        "dense_0_relu  Function  [B,100]",
        "head          Head      [B,10]            1,010    2.00 k",
        "79,510 parameters, 318.04 kB; 158.80 kFLOPs for one example, a multiply-add being two",
    ]
    params = models.shapes(model, (28, 28, 1))[0]["params"]
    for rules, marks in ((["head"], ["frozen", "k"]), (["*/bias"], ["part", "part"]), (["*"], ["k", "k"])):
        lines = summary.table(trees.mask(params, rules)).splitlines()[2:5:2]
        assert [line.split()[-1] for line in lines] == marks
    with pytest.raises(InputError, match="no layer of this one holds stem/kernel"):
        summary.table({"stem": {"kernel": True}})
    alone = models.summary(models.create("neuron", None), (4,))
    assert (alone.parameters, alone.flops, alone.bytes) == (0, 0, 0)
    assert "0 parameters, 0 B; 0 FLOPs" in str(alone)


def test_what_cannot_be_summed_up_names_the_layer():
    class Fails(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            return nn.Conv(2, (3, 3), name="second")(nn.Dense(2, name="first")(x))

    cases = [
        (models.create("cnn", 3), (5,), None, r"CNN .* \[5\]: a convolutional network takes images \[B,H,W,C\]"),
        (models.create("cnn", 3), (3, 2, 1), None, "too small, nothing is left of them at head"),
        (models.create("efficientnet_b0"), (1, 32, 32, 3), None, "takes images"),
        (Fails(), (5,), None, r"Fails cannot take inputs of shape \[5\]: second, given \[B,2\]: "),
        (Small(), (0,), None, "sizes from 1"),
        (Small(), 5, None, "sizes from 1"),
        (Small(), (5,), 0, "depth=0"),
        (Small, (5,), None, "the class Small, not one of it"),
        ("dense", (5,), None, "a Flax Linen module"),
    ]
    for model, shape, depth, reason in cases:
        with pytest.raises(InputError, match=reason):
            models.summary(model, shape, depth)


def test_variables_are_checked_against_inputs():
    dense, cnn = models.create("dense", 3), models.create("cnn", 3)
    grouped = CNNs()
    cases = [
        (dense, fill(dense, (4,)), (5,), r"^dense_0 takes inputs \[..., 4\], got \[..., 5\], from examples \[5\]$"),
        (cnn, fill(cnn, (16, 16, 3)), (16, 16, 1), r"^conv_0_0 takes inputs \[..., 3\], got \[..., 1\]"),
        (cnn, fill(cnn, (16, 16, 3)), (24, 24, 3), r"^head takes inputs \[..., 1024\], got \[..., 2304\]"),
        (grouped, fill(grouped, (8, 8, 4)), (8, 8, 6), r"^conv takes inputs \[..., 4\], got \[..., 6\]"),
        (models.create("dense", 4), fill(dense, (4,)), (4,), r"head/bias is \[3\], expected \[4\] \(and 1 more\)$"),
        (cnn, fill(dense, (4,)), (8, 8, 3), r"no params/conv_0_0/bias, expected \[32\] \(and 4 more\)$"),
        (dense, fill(dense, (4,))["params"], (4,), "a dict with 'params'; these have dense_0, head"),
        (dense, None, (4,), "a dict with 'params'; this is None"),
        (nn.Dense(3), {}, (4,), "Dense takes no argument `train`"),
    ]
    for model, variables, shape, reason in cases:
        with pytest.raises(InputError, match=reason):
            models.check_variables(model, variables, shape)
    models.check_variables(models.without_head(dense), fill(dense, (4,)), (4,))  # more do no harm


class CNNs(nn.Module):
    """A convolution in groups."""

    @nn.compact
    def __call__(self, x, train=False):
        return nn.Conv(6, (3, 3), feature_group_count=2, name="conv")(x)


def test_dropout_follows_every_hidden_layer_that_is_not_frozen(key):
    model = models.create("dense", None, hidden=(200, 200, 1), dropout=0.4, activation="linear")
    ones = jax.tree.map(jnp.ones_like, fill(model, (1,)))
    # Two dropouts ahead of two sums: what is left of 200 times what is left of 200, each scaled up by 1 / 0.6.
    ones["params"] = {name: {**layer, "bias": 0 * layer["bias"]} for name, layer in ones["params"].items()}
    for frozen, kept in (((), 0), (("dense_1",), 1), (("dense_1", "dense_2"), 2)):
        y, _ = models.apply(model, ones, jnp.ones((1, 1)), key=key, frozen=frozenset(frozen))
        parts = float(y[0, 0]) * 0.6 ** (2 - kept) / 200**kept
        assert parts == pytest.approx(round(parts), rel=1e-5)
        assert (parts == 1) == (kept == 2)


def test_convolutions_of_xlas_stay_out_of_loops_on_a_cpu(monkeypatch):
    def loops(model):
        return models.loops(model, models.shapes(model, (32, 32, 3))[0])

    assert all(loops(models.create(name, 3)) for name in ("dense", "cnn", "tiny_vgg"))
    assert not loops(of_dtype("tiny", "float32"))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert loops(of_dtype("tiny", "float32"))


def test_errors_name_what_there_is():
    with pytest.raises(InputError, match="nearest: efficientnet_b0"):
        models.create("eficientnet_b0", 3)
    with pytest.raises(InputError, match="nearest: hidden"):
        models.create("dense", 3, hiden=(1,))
    with pytest.raises(InputError, match="cannot compute in 'float15'; the nearest: float16"):
        models.create("cnn", 3, dtype="float15")
    for name, wrong in (
        ("dense", {"hidden": 8}),
        ("cnn", {"filters": (0,)}),
        ("cnn", {"dropout": 1.5}),
        ("dense", {"dropout": None}),
        ("efficientnet_b0", {"drop_connect": None}),
    ):
        with pytest.raises(InputError, match=f"the option {next(iter(wrong))} of {name} is"):
            models.create(name, 3, **wrong)
    for num_classes in (0, {}):
        with pytest.raises(InputError, match="at least one class"):
            models.create("dense", num_classes)
    for num_classes in ("3", 3.0, ["a"], {"a/b": 3}, {"a": "b"}):
        with pytest.raises(InputError, match="num_classes is a number"):
            models.create("dense", num_classes)
    assert models.create("efficientnet_b0", 3, dropout=None) == models.create("efficientnet_b0", 3)
    assert models.create("dense", np.int64(3)) == models.create("dense", 3)
    with pytest.raises(InputError, match="cannot take inputs"):
        models.shapes(models.create("cnn", 3), (5,))
