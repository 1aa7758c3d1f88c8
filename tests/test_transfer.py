import gzip
import json
from dataclasses import replace
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from conftest import fill
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import models, transfer, trees
from jaxdl.errors import InputError
from jaxdl.optim import Phase
from jaxdl.transfer import Recipe

MODEL = models.create("efficientnet_lite0", 1000)
SHAPES = models.shapes(MODEL, (32, 32, 3))[0]
PARAMS = SHAPES["params"]
B0 = models.shapes(models.create("efficientnet_b0", 10), (64, 64, 3))[0]["params"]


def moving(mask):
    return {path.split("/")[0] for path, on in trees.paths(mask).items() if on}


def test_modules_come_in_the_order_of_the_network():
    names = transfer.modules(PARAMS)
    assert names[:4] == ("stem", "stem_bn", "blocks_1_0", "blocks_2_0")
    assert names[-3:] == ("top", "top_bn", "head")
    cnn = models.shapes(models.create("cnn", 3, filters=(2,) * 11, hidden=(4,)), (2048, 2048, 1))
    assert transfer.modules(cnn[0]["params"])[-3:] == ("conv_10_0", "dense_0", "head")


def test_freezing_until_a_stage_is_unfreezing_from_it():
    late = {"blocks_6_0", "blocks_6_1", "blocks_6_2", "blocks_6_3", "blocks_7_0", "top", "top_bn", "head"}
    assert moving(transfer.unfreeze(PARAMS, start="blocks_6")) == late
    assert moving(transfer.freeze(PARAMS, until="blocks_6")) == late
    assert moving(transfer.freeze(PARAMS, until="head")) == {"head"}


def test_patterns_freeze_and_unfreeze():
    assert moving(transfer.unfreeze(PARAMS, "head", "top")) == {"head", "top"}
    assert "stem" not in moving(transfer.freeze(PARAMS, "stem"))
    with pytest.raises(InputError, match="nearest: blocks_9|nearest: blocks_"):
        transfer.unfreeze(PARAMS, start="blocks_9")
    with pytest.raises(InputError, match="place of 'Conv_0'"):
        transfer.unfreeze({"Conv_0": {"kernel": 1}, "Dense_0": {"kernel": 1}}, start="Dense_0")
    with pytest.raises(InputError, match="no parameter matches 'hed'"):
        transfer.freeze(PARAMS, "hed")


def test_a_new_head_leaves_everything_else(key):
    model = models.create("cnn", 10, filters=(4,))
    variables = fill(model, (8, 8, 1))
    changed, fresh = transfer.new_head(model, variables, 3)
    assert changed.apply(fresh, np.ones((2, 8, 8, 1), np.float32)).shape == (2, 3)
    assert not jax.tree.leaves(jax.tree.map(np.any, fresh["params"]["head"]))[0]
    assert fresh["params"]["conv_0_0"] is variables["params"]["conv_0_0"]
    assert variables["params"]["head"]["bias"].shape == (10,)
    with pytest.raises(InputError, match="no module called 'head'"):
        transfer.new_head(model, {"params": {"last": {}}}, 3)


def test_several_heads_and_the_old_one_beside_them(key):
    model = models.create("cnn", 10, filters=(4,))
    variables = fill(model, (8, 8, 1))
    x = np.ones((2, 8, 8, 1), np.float32)
    before = model.apply(variables, x)
    both, new = transfer.new_head(model, variables, {"food": 3, "price": 1}, keep="digits", dropout=0.5)
    outputs = both.apply(new, x)
    assert {name: y.shape for name, y in outputs.items()} == {"food": (2, 3), "price": (2, 1), "digits": (2, 10)}
    chex.assert_trees_all_equal(outputs["digits"], before)
    assert both.dropout == 0.5
    assert transfer.heads(new["params"]) == ("head_digits", "head_food", "head_price")
    one, last = transfer.new_head(both, new, {"mood": 2}, keep="food")
    assert set(one.apply(last, x)) == {"mood", "food"}
    for widths, keep in ((3, "digits"), ({"digits": 3}, "digits")):
        with pytest.raises(InputError, match="give the new ones other names"):
            transfer.new_head(model, variables, widths, keep=keep)
    with pytest.raises(InputError, match="the network has head_digits"):
        transfer.new_head(both, new, {"mood": 2}, keep="nothing")
    with pytest.raises(InputError, match="at least one class"):
        transfer.new_head(model, variables, {"food": 0})


KERAS = json.loads(gzip.decompress((Path(__file__).parent / "data" / "keras_layers.json.gz").read_bytes()))["layers"]
# Large members take seconds to trace; B1, V2-B3 and V2-L differ from these in widths and repeats only.
NETWORKS = {"EfficientNetB0": "efficientnet_b0", "EfficientNetV2B0": "efficientnet_v2_b0"}
NETWORKS |= {"EfficientNetV2S": "efficientnet_v2_s"}


@pytest.mark.parametrize("keras", NETWORKS)
def test_layers_are_counted_as_keras_counts_them(keras):
    params = models.shapes(models.create(NETWORKS[keras], 10), (64, 64, 3))[0]["params"]
    layers = models.keras_layers(params)
    assert [name for name, _ in layers][1:] == KERAS[keras][1:]  # the input's name is a matter of Keras's version
    modules = [module for _, module in layers if module]
    owners = {path.rsplit("/", 1)[0] for path in trees.paths(params)} - {"head"}
    assert sorted(modules) == sorted(owners)


def test_the_last_ten_layers_of_the_course():
    params = models.shapes(models.create("efficientnet_b0", 10), (64, 64, 3))[0]["params"]
    assert len(models.keras_layers(params)) == 237
    mask = transfer.unfreeze(params, last=10)
    expected = ("blocks_7_0/project", "blocks_7_0/project_bn", "blocks_7_0/se_expand", "blocks_7_0/se_reduce")
    assert set(trees.names(mask)) == {*expected, "top", "top_bn", "head"}
    assert moving(transfer.unfreeze(params, last=0)) == {"head"}
    chex.assert_trees_all_equal(transfer.unfreeze(params, last=237), transfer.unfreeze(params, "*"))
    for wrong in (238, -1):
        with pytest.raises(InputError, match="there are 237 layers"):
            transfer.unfreeze(params, last=wrong)
    with pytest.raises(InputError, match="counted for EfficientNets only"):
        transfer.unfreeze({"dense_0": {"kernel": 1}, "head": {"kernel": 1}}, last=1)


@given(st.integers(0, 237), st.integers(0, 237))
def test_more_layers_unfreeze_no_less(a, b):
    fewer, more = (transfer.unfreeze(B0, last=n) for n in sorted((a, b)))
    chosen = trees.paths(more)
    assert all(chosen[path] for path, on in trees.paths(fewer).items() if on)


def test_rules_may_be_functions_and_must_leave_something():
    mask = transfer.unfreeze(PARAMS, lambda path: path.endswith("scale"))
    assert {path.rsplit("/", 1)[1] for path, on in trees.paths(mask).items() if on} == {"scale"}
    with pytest.raises(InputError, match="no parameter matches the function"):
        transfer.unfreeze(PARAMS, lambda path: False)
    for nothing in (lambda: transfer.freeze(PARAMS, "*"), lambda: transfer.unfreeze(PARAMS)):
        with pytest.raises(InputError, match="nothing would be trained"):
            nothing()


def test_the_table_of_a_plan_says_what_moves():
    rows = transfer.table(Phase(1, 1e-3, trainable=("head",)), SHAPES).splitlines()
    assert rows[0].split() == ["module", "parameters", "they", "are", "statistics", "learning", "rate"]
    assert [row.split()[0] for row in rows[1:-1]] == list(transfer.modules(PARAMS))
    lines = {row.split()[0]: row.split()[1:] for row in rows[1:-1]}
    assert lines["head"] == ["1,281,000", "trainable", "×1"]
    assert lines["stem_bn"] == ["64", "frozen", "frozen"]
    assert lines["stem"] == ["864", "frozen"]
    assert rows[-1] == "4,652,008 parameters: 1,281,000 trainable, 3,371,008 frozen"
    factors = transfer.layer_decay(PARAMS, 0.5)
    phase = Phase(1, 1e-3, trainable=("top*", "blocks_7_0/project_bn", "head"), factors=factors)
    lines = {row.split()[0]: row.split()[1:] for row in transfer.table(phase, SHAPES).splitlines()}
    assert lines["blocks_7_0/project_bn"] == ["640", "trainable", "moving", "×0.25"]
    assert lines["blocks_7_0/depthwise_bn"] == ["2,304", "frozen", "frozen"]
    assert lines["top_bn"] == ["2,560", "trainable", "moving", "×0.5"]
    still = transfer.table(replace(phase, batch_stats="frozen"), SHAPES)
    assert "moving" not in still
    assert transfer.table(transfer.freeze(PARAMS, until="head"), SHAPES).splitlines()[-1] == rows[-1]
    with pytest.raises(InputError, match="another tree"):
        transfer.table({"head": True}, SHAPES)


def test_rates_fall_from_stage_to_stage():
    factors = dict(transfer.layer_decay(PARAMS, 0.5))
    assert factors.keys() == PARAMS.keys()
    assert (factors["head"], factors["top"], factors["top_bn"], factors["blocks_7_0"]) == (1, 0.5, 0.5, 0.25)
    assert factors["blocks_6_0"] == factors["blocks_6_3"] == 0.125
    assert factors["stem"] == factors["stem_bn"] == 0.5**9


def test_what_fits_is_taken_over_and_the_rest_is_named():
    model = models.create("dense", 3, hidden=(4, 5))
    variables, other = fill(model, (6,)), fill(models.create("dense", 7, hidden=(4, 5)), (6,), seed=1)
    other["params"]["extra"] = {"kernel": np.ones(2)}
    result = transfer.partial_load(variables, other)
    assert result.variables["params"]["dense_0"]["kernel"] is other["params"]["dense_0"]["kernel"]
    assert result.variables["params"]["head"]["kernel"] is variables["params"]["head"]["kernel"]
    assert set(result.fresh) == {"params/head/kernel", "params/head/bias"}
    assert set(result.ignored) == {"params/head/kernel", "params/head/bias", "params/extra/kernel"}
    assert "4 arrays loaded, 2 left fresh, 3 ignored" in str(result)
    assert "[5, 3] here, [5, 7] there" in str(result)
    with pytest.raises(InputError, match="do not fit exactly"):
        transfer.partial_load(variables, other, strict=True)
    whole = transfer.partial_load(variables, variables, strict=True)
    chex.assert_trees_all_equal(whole.variables, variables)
    with pytest.raises(InputError, match="none of the given weights fits"):
        transfer.partial_load(variables, {"params": {"stem": {"kernel": np.ones(3)}}})


def test_a_recipe_is_phases_and_phases_are_data():
    recipe = Recipe(start="blocks_7", head_epochs=2, epochs=3, learning_rate=0.5, fine_tuning_rate=0.05, views=4)
    head, rest = transfer.fine_tune(PARAMS, recipe)
    assert (head.epochs, head.trainable, head.learning_rate, head.views) == (2, ("head",), 0.5, 4)
    assert (rest.epochs, rest.learning_rate, rest.batch_stats, rest.views) == (3, 0.05, "frozen", None)
    assert set(rest.trainable) == {"blocks_7_0", "top", "top_bn", "head"}
    assert len(transfer.fine_tune(PARAMS, Recipe(epochs=0))) == 1
    steps = transfer.fine_tune(PARAMS, Recipe(start=("blocks_7", "blocks_6", "stem"), layer_decay=0.9))
    assert [phase.name for phase in steps] == ["head", *(f"fine-tune {s}" for s in ("blocks_7", "blocks_6", "stem"))]
    assert moving(trees.mask(PARAMS, steps[-1].trainable)) == set(PARAMS)
    assert dict(steps[-1].factors)["top"] == 0.9
    (last,) = transfer.fine_tune(B0, Recipe(head_epochs=0, last=10))
    assert "blocks_7_0/project" in last.trainable
    with pytest.raises(InputError, match="0 epochs"):
        transfer.fine_tune(PARAMS, Recipe(head_epochs=0, epochs=0))
    with pytest.raises(InputError, match="no module called 'head'"):
        transfer.fine_tune({"stem": PARAMS["stem"]})
    with pytest.raises(InputError, match="nearest: blocks_"):
        transfer.fine_tune(PARAMS, Recipe(start="blocks_9"))
