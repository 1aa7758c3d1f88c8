import dataclasses
import errno
import hashlib
import subprocess
import sys
import threading
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import fill

from jaxdl import checkpoint, models, parallel, train
from jaxdl.errors import BadFile, InputError

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


def test_small_arrays_lie_end_to_end_and_older_checkpoints_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SMALL", 15)  # the first kernel has 20
    saved = state(seed=3, steps=2)
    found = checkpoint._orbax().load_checkpointables(checkpoint.save(tmp_path / "new", saved))
    flat = [np.ravel(leaf) for leaf in jax.tree.leaves(saved.opt_state)]
    np.testing.assert_array_equal(
        found["opt_state"]["float32"],
        np.concatenate([leaf for leaf in flat if leaf.dtype == np.float32 and leaf.size < 20]),
    )
    np.testing.assert_array_equal(found["params"]["dense_0"]["kernel"], saved.params["dense_0"]["kernel"])
    start = checkpoint.manifest(tmp_path / "new")["arrays"]["params/head/kernel"]["start"]
    np.testing.assert_array_equal(
        found["params"]["float32"][start : start + 12], np.ravel(saved.params["head"]["kernel"])
    )
    monkeypatch.setattr(checkpoint, "_packed", lambda tree: (tree, {}))
    checkpoint.save(tmp_path / "old", saved)
    for folder in ("old", "new"):
        chex.assert_trees_all_equal(arrays(checkpoint.restore(tmp_path / folder, state())), arrays(saved))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "float8_e4m3fn", "int8", "bool"])
def test_every_type_is_kept(dtype, tmp_path):
    values = jnp.asarray(np.random.default_rng(0).integers(0, 2, (3, 2)), dtype)
    params, extra = {"a": {"b": values}}, {"counts": {"none": jnp.zeros((0, 4), dtype), "all": values}}
    saved = train.TrainState(jnp.int32(1), params, {}, (extra, jax.random.key(5)), jax.random.key(0), {})
    checkpoint.save(tmp_path, saved)
    other = ({"counts": jax.tree.map(jnp.zeros_like, extra["counts"])}, jax.random.key(6))
    restored = checkpoint.restore(tmp_path, dataclasses.replace(saved, opt_state=other))
    found, key = restored.opt_state
    chex.assert_trees_all_equal_dtypes(found, extra)
    chex.assert_trees_all_equal((restored.params, found), (params, extra))
    assert key == jax.random.key(5)


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
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), fill(MODEL, (5,)))
    with pytest.raises(InputError, match=r"(?s)params differ.*dense_0/bias: expected float16, got float32"):
        checkpoint.restore_variables(tmp_path, half)
    assert not (tmp_path / checkpoint.QUARANTINE).exists(), "the file is not to blame"
    for file in (path / "params").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(BadFile, match="damaged"):
        checkpoint.restore(tmp_path, state(), step=1)


def test_the_latest_that_is_whole_is_read_and_the_others_are_put_aside(tmp_path):
    for n in (1, 2, 3):
        checkpoint.save(tmp_path, state(steps=n), place={"n": n})
    (tmp_path / "00000003" / "params" / "_METADATA").unlink()
    (tmp_path / "00000099").mkdir()
    with pytest.warns(UserWarning, match="is damaged") as said:
        restored = checkpoint.restore(tmp_path, state())
    assert len(said) == 2
    chex.assert_trees_all_equal(arrays(restored), arrays(state(steps=2)))
    assert checkpoint.steps(tmp_path) == [1, 2]
    reasons = sorted(path.read_text() for path in (tmp_path / checkpoint.QUARANTINE).glob("*.txt"))
    assert "params/_METADATA: No such file" in reasons[0]
    assert "manifest.json: No such file" in reasons[1]
    text = (tmp_path / "00000002" / checkpoint.MANIFEST).read_text()
    (tmp_path / "00000002" / checkpoint.MANIFEST).write_text(text.replace('"n": 2', '"n": 3'))
    with pytest.warns(UserWarning, match=r"manifest\.json is not what was saved"):
        assert checkpoint.place(tmp_path) == {"n": 1}
    (tmp_path / "00000001" / checkpoint.MANIFEST).write_text("[]")
    with pytest.warns(UserWarning, match="damaged"):
        assert checkpoint.newest(tmp_path) is None


def test_a_disk_that_does_not_answer_is_no_damage(tmp_path, monkeypatch):
    checkpoint.save(tmp_path, state())

    def stale(*_):
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="cannot read .*Stale file handle"):
        patch.setattr(Path, "read_bytes", stale)
        checkpoint.newest(tmp_path)
    assert checkpoint.newest(tmp_path) == 0
    assert not (tmp_path / checkpoint.QUARANTINE).exists()


def test_only_the_names_that_steps_have_are_steps(tmp_path):
    checkpoint.save(tmp_path, state())
    for name in ("000000100", "1", "٠٠٠٠٠٠٠١", "notes"):
        (tmp_path / name).mkdir()
    assert checkpoint.steps(tmp_path) == [0]
    assert checkpoint.newest(tmp_path) == 0


def test_what_is_being_written_is_waited_for(tmp_path, monkeypatch):
    """By whoever reads there, and by the next to save there, who would take its files for leftovers."""
    write = checkpoint._write

    def slowly(*arguments):
        time.sleep(0.5)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "_write", slowly)
    with checkpoint.Saver(tmp_path) as saver:
        saver.save(state(steps=1))
        assert checkpoint.place(tmp_path) == {}
        saver.save(state(steps=2))
        with checkpoint.Saver(tmp_path):
            assert checkpoint.steps(tmp_path) == [1, 2]


def test_a_checkpoint_says_what_made_it(tmp_path):
    with checkpoint.Saver(tmp_path, {"classes": ["a", "b"]}) as saver:
        saver.save(state())
    found = checkpoint.manifest(tmp_path)
    assert found["config"] == {"classes": ["a", "b"]}
    assert found["versions"]["jax"] == jax.__version__
    assert found["topology"] == {"platform": "cpu", "devices": 8, "processes": 1}
    kernel = np.asarray(state().params["head"]["kernel"])
    said = {"dtype": "float32", "shape": [4, 3], "sha256": hashlib.sha256(kernel.tobytes()).hexdigest(), "start": 27}
    assert found["arrays"]["params/head/kernel"] == said


def test_training_goes_on_while_a_state_is_written(tmp_path, monkeypatch):
    go, write = threading.Event(), checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda *args: (go.wait(), write(*args)))
    step, expected = jax.jit(train.make_train_step(MODEL, OPTIMIZER), donate_argnums=0), state(steps=2)
    now = state(steps=1)
    with checkpoint.Saver(tmp_path) as saver:
        for _ in range(2):
            saver.save(now)
            now, _ = step(now, BATCH)  # takes the memory of what is being written
        assert checkpoint.steps(tmp_path) == []
        go.set()
    chex.assert_trees_all_equal(arrays(checkpoint.restore(tmp_path, state(), 1)), arrays(state(steps=1)))
    chex.assert_trees_all_equal(arrays(checkpoint.restore(tmp_path, state(), 2)), arrays(expected))


def test_what_goes_wrong_in_the_background_is_raised(tmp_path, monkeypatch):
    def full(path, items, **_):
        (path.parent / f"{path.name}.orbax-checkpoint-tmp").mkdir()
        raise ValueError("INTERNAL: No space left on device")

    with checkpoint.Saver(tmp_path) as saver:
        saver.save(state(steps=1))
        saver.save(state(steps=2), keep={2})
    saver = checkpoint.Saver(tmp_path)
    monkeypatch.setattr(checkpoint._orbax(), "save_checkpointables", full)
    saver.save(state(steps=3), keep={3})
    with pytest.raises(InputError, match="the disk is full: cannot save .*00000003"):
        saver.close()
    assert [path.name for path in tmp_path.iterdir()] == ["00000002"], "what was good stays, what was begun does not"


def test_what_was_left_by_a_kill_is_removed(tmp_path):
    checkpoint.save(tmp_path, state(steps=1))
    for name in ("00000002.draft-tmp.orbax-checkpoint-tmp", "00000003.draft-tmp", "00000001.deleted-tmp", "my.tmp"):
        (tmp_path / name).mkdir()
    checkpoint.Saver(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000001", "my.tmp"]


LEAVE = """
import sys, jax, numpy as np
from jaxdl import checkpoint, train
params = {"w": np.ones(1000, np.float32)}
state = train.TrainState(jax.numpy.int32(7), params, {}, {}, jax.random.key(0), {})
checkpoint.Saver(sys.argv[1]).save(state)
sys.exit(3)
"""


def test_leaving_without_closing_loses_nothing(tmp_path):
    done = subprocess.run([sys.executable, "-c", LEAVE, tmp_path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert checkpoint.newest(tmp_path) == 7
    done = subprocess.run([sys.executable, "-c", LEAVE, tmp_path], capture_output=True, text=True, check=False)
    assert done.stderr == f"jaxdl: {tmp_path}/00000007 is saved already\n"


@pytest.mark.parametrize("fsdp", [False, True])
def test_a_state_goes_from_eight_devices_to_four_and_one_and_back(tmp_path, monkeypatch, fsdp):
    monkeypatch.setattr("jaxdl.parallel.LARGE", 8)
    model = models.create("dense", 3, hidden=(16,))
    saved, fresh = (train.init_state(fill(model, (8,), seed), OPTIMIZER, jax.random.key(seed)) for seed in (3, 0))
    meshes = [parallel.make_mesh(jax.devices()[:count]) for count in (8, 4, 1, 8)]
    for n, mesh in enumerate(meshes):
        like = parallel.place(mesh, fresh, fsdp)
        assert fsdp == (len(like.params["head"]["kernel"].addressable_shards[0].data) < 16) or mesh.size == 1
        placed = parallel.place(mesh, saved, fsdp) if n == 0 else checkpoint.restore(tmp_path / str(n - 1), like)
        for leaf, wanted in zip(jax.tree.leaves(placed.opt_state), jax.tree.leaves(like.opt_state), strict=True):
            assert leaf.sharding == wanted.sharding
        chex.assert_trees_all_equal(arrays(placed), arrays(saved))
        checkpoint.save(tmp_path / str(n), placed)
    chex.assert_trees_all_equal(arrays(checkpoint.restore(tmp_path / "0", fresh)), arrays(saved))


def test_nowhere_to_write(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot save"):
        checkpoint.save(tmp_path / "file", state())
