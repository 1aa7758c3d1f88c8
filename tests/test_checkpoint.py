import chex
import jax
import numpy as np
import optax
import pytest
from conftest import fill

from jaxdl import checkpoint, models, train
from jaxdl.errors import InputError

MODEL = models.create("dense", 3, hidden=(4,))
OPTIMIZER = optax.adamw(0.1)
BATCH = {"features": np.ones((2, 5), np.float32), "label": np.array([0, 2]), "weight": np.ones(2, np.float32)}
STEP = jax.jit(train.make_train_step(MODEL, OPTIMIZER))


def state(seed=0, steps=0):
    new = train.init_state(fill(MODEL, (5,), seed), OPTIMIZER, jax.random.key(seed))
    for _ in range(steps):
        new, _ = STEP(new, BATCH)
    return new


def arrays(state):
    """chex cannot compare typed keys."""
    return (state.step, state.params, state.model_state, state.opt_state, jax.random.key_data(state.key))


def test_the_whole_state_comes_back_bit_for_bit_and_training_goes_on(tmp_path):
    saved = state(seed=3, steps=2)
    checkpoint.save(tmp_path, saved)
    restored = checkpoint.restore(tmp_path, state())
    chex.assert_trees_all_equal(arrays(restored), arrays(saved))
    chex.assert_trees_all_equal(arrays(STEP(restored, BATCH)[0]), arrays(STEP(saved, BATCH)[0]))


def test_averages_are_saved_and_are_what_is_predicted_with(tmp_path):
    mask = {"dense_0": {"kernel": False, "bias": False}, "head": {"kernel": True, "bias": True}}
    new = train.init_state(fill(MODEL, (5,)), OPTIMIZER, jax.random.key(0), mask, average=True)
    saved, _ = jax.jit(train.make_train_step(MODEL, OPTIMIZER, trainable=mask, ema=0.5))(new, BATCH)
    checkpoint.save(tmp_path, saved)
    chex.assert_trees_all_equal(checkpoint.restore(tmp_path, new).average, saved.average)
    variables = checkpoint.restore_variables(tmp_path, {"params": saved.params})
    chex.assert_trees_all_equal(variables, saved.variables)
    assert not np.array_equal(variables["params"]["head"]["bias"], saved.params["head"]["bias"])
    with pytest.raises(InputError, match="it has average as well"):
        checkpoint.restore(tmp_path, train.init_state(fill(MODEL, (5,)), OPTIMIZER, jax.random.key(0), mask))


def test_statistics_and_variables_alone_come_back(tmp_path):
    variables = {"params": {"a": np.ones(3, np.float32)}, "batch_stats": {"mean": np.arange(3, dtype=np.float32)}}
    checkpoint.save(tmp_path, train.init_state(variables, optax.sgd(0.1), jax.random.key(0)))
    chex.assert_trees_all_equal(checkpoint.restore_variables(tmp_path, variables), variables)


def test_steps_are_kept_apart(tmp_path):
    assert checkpoint.steps(tmp_path / "nowhere") == []
    for n in (1, 2, 3):
        checkpoint.save(tmp_path, state(steps=n))
    assert checkpoint.steps(tmp_path) == [1, 2, 3]
    assert int(checkpoint.restore(tmp_path, state()).step) == 3
    assert int(checkpoint.restore(tmp_path, state(), step=1).step) == 1
    checkpoint.delete(tmp_path, 2)
    assert checkpoint.steps(tmp_path) == [1, 3]
    with pytest.raises(InputError, match=r"no checkpoint of step 2.*\[1, 3\]"):
        checkpoint.restore(tmp_path, state(), step=2)


def test_another_model_or_optimizer_is_told_apart_from_damage(tmp_path):
    path = checkpoint.save(tmp_path, state(steps=1))
    wider = models.create("dense", 3, hidden=(7,))
    other = train.init_state(fill(wider, (5,)), OPTIMIZER, jax.random.key(0))
    with pytest.raises(InputError, match=r"(?s)params differ.*dense_0/kernel: expected \(5, 7\), got \(5, 4\)"):
        checkpoint.restore(tmp_path, other)
    with pytest.raises(InputError, match="opt_state"):
        checkpoint.restore(tmp_path, train.init_state(fill(MODEL, (5,)), optax.sgd(0.1, 0.9), jax.random.key(0)))
    with pytest.raises(InputError, match="it has opt_state as well"):
        checkpoint.restore(tmp_path, train.init_state(fill(MODEL, (5,)), optax.identity(), jax.random.key(0)))
    with pytest.raises(InputError, match="saved already"):
        checkpoint.save(tmp_path, state(steps=1))
    for file in (path / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        checkpoint.restore(tmp_path, state())


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot save"):
        checkpoint.save(tmp_path / "file", state())
