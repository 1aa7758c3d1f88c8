import jax
import numpy as np
import pytest
from conftest import fill

from jaxdl import models, transfer, trees
from jaxdl.errors import InputError

MODEL = models.create("efficientnet_lite0", 1000)
SHAPES = models.shapes(MODEL, (32, 32, 3))[0]
PARAMS = SHAPES["params"]


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


def test_the_two_phases_are_data():
    head, rest = transfer.fine_tune(PARAMS, start="blocks_7", head_epochs=2, epochs=3, learning_rate=0.5)
    assert (head.epochs, head.trainable, head.learning_rate) == (2, ("head",), 0.5)
    assert (rest.epochs, rest.trainable, rest.learning_rate) == (3, ("blocks_7_0", "top", "top_bn", "head"), 0.05)
    assert len(transfer.fine_tune(PARAMS, epochs=0)) == 1
    with pytest.raises(InputError, match="0 epochs"):
        transfer.fine_tune(PARAMS, head_epochs=0, epochs=0)
    with pytest.raises(InputError, match="no module called 'head'"):
        transfer.fine_tune({"stem": PARAMS["stem"]})
