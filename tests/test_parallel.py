"""The same step on one device, as a scan, under jit over eight, and under pmap over eight; one process, and two."""

import dataclasses
import inspect
import json
import os
import signal
import socket
import subprocess
import sys

import chex
import jax
import numpy as np
import optax
import pytest
from conftest import fill
from flax import linen as nn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import jaxdl
from jaxdl import augment, checkpoint, cli, data, features, losses, metrics, models, optim, parallel, runs, train, trees
from jaxdl.errors import InputError

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9), optax.add_decayed_weights(-1e-3))
MODULES = ("stem", "stem_bn", "head")


class Net(nn.Module):
    """Convolution and BatchNorm; no dropout, whose draws differ between the devices of a pmap."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(8, (3, 3), name="stem")(x)
        x = nn.relu(nn.BatchNorm(name="stem_bn", momentum=0.9)(x, use_running_average=not train))
        return nn.Dense(3, name="head")(x.mean((1, 2)))


def batches(count=3, size=16):
    draw = np.random.default_rng(0)
    for n in range(count):
        weight = np.ones(size, np.float32)
        weight[size - 5 * (n == count - 1) :] = 0  # the last one is short
        yield {
            "image": draw.normal(size=(size, 6, 6, 3)).astype("f4"),
            "label": draw.integers(0, 3, size),
            "weight": weight,
        }


@settings(max_examples=4)
@given(trained=st.sets(st.sampled_from(MODULES), min_size=1))
@example(trained=set(MODULES))
def test_scan_jit_over_a_mesh_and_pmap_equal_one_device(trained):
    assert jax.device_count() == 8
    model = Net()
    variables = fill(model, (6, 6, 3))
    mask = trees.mask(variables["params"], sorted(trained))
    options = {"trainable": mask, "ema": 0.5}

    def final(run, state, place=lambda batch: batch):
        total = None
        for batch in batches():
            state, sums = run(state, place(batch))
            total = sums if total is None else jax.tree.map(np.add, total, sums)
        return state, total

    step = train.make_train_step(model, OPTIMIZER, **options)
    state = train.init_state(variables, OPTIMIZER, jax.random.key(0), mask, average=True)
    one, sums = final(jax.jit(step), state)

    data = jax.tree.map(lambda *parts: np.concatenate(parts), *batches())
    weights, rows = data.pop("weight").reshape(3, -1), np.arange(48).reshape(3, -1)
    scanned, sums_s = jax.device_get(jax.jit(train.make_epoch(step))(state, data, rows, weights))

    mesh = parallel.make_mesh()
    placed = parallel.place(mesh, state)
    eight, sums_8 = final(jax.jit(step), placed, lambda batch: parallel.shard_batch(mesh, batch))

    mapped = train.make_train_step(model, OPTIMIZER, **options, axis_name=parallel.AXIS)
    run = parallel.pmap_step(mapped, jax.devices())
    stacked, sums_p = final(run, parallel.stack(state, 8))
    pmapped = parallel.unstack(stacked)

    for other, other_sums in ((scanned, sums_s), (eight, sums_8), (pmapped, sums_p)):
        for part in ("params", "model_state", "opt_state", "average"):
            chex.assert_trees_all_close(getattr(other, part), getattr(one, part), rtol=1e-3, atol=1e-5)
        chex.assert_trees_all_close(other_sums, sums, rtol=1e-4)
    for name in MODULES:
        same = jax.tree.map(np.array_equal, one.params[name], variables["params"][name])
        assert not any(jax.tree.leaves(same)) if name in trained else all(jax.tree.leaves(same))


def test_groups_of_the_batch_are_those_of_one_device():
    """Batch normalisation on pairs of devices."""
    draw, mesh = np.random.default_rng(0), parallel.make_mesh()
    batch = {"image": draw.normal(size=(16, 8, 8, 3)).astype("f4"), "label": draw.integers(0, 3, 16)}
    batch["weight"] = np.ones(16, np.float32)
    model = models.create("resnet9", 3, width=4, bn_groups=4)
    step = jax.jit(train.make_train_step(model, OPTIMIZER))
    state = train.init_state(fill(model, (8, 8, 3)), OPTIMIZER, jax.random.key(0))
    one, _ = step(state, batch)
    eight, _ = step(parallel.place(mesh, state), parallel.shard_batch(mesh, batch))
    chex.assert_trees_all_close(eight.model_state, one.model_state, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(eight.params, one.params, rtol=1e-2, atol=1e-4)


def test_a_mesh_of_some_devices_divides_the_batch():
    mesh = parallel.make_mesh(jax.devices()[:4])
    placed = parallel.shard_batch(mesh, {"image": np.zeros((8, 2))})
    assert {shard.data.shape for shard in placed["image"].addressable_shards} == {(2, 2)}
    assert len(placed["image"].addressable_shards) == mesh.size == 4


def pictures(count, seed=0):
    draw = np.random.default_rng(seed)
    return data.from_arrays(draw.normal(size=(count, 6, 6, 3)).astype("f4"), np.arange(count) % 3)


@pytest.mark.parametrize(
    ("devices", "batch_size", "fsdp", "epoch"),
    [(4, 6, True, "resident"), (8, 5, True, "streamed"), (8, 12, False, "resident")],
)
def test_a_training_on_any_mesh_is_that_on_one_device(monkeypatch, devices, batch_size, fsdp, epoch):
    """Batches that the mesh does not divide, and a last one that is smaller than it, too: with statistics of the
    batch, a row too many would show."""
    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: epoch == "resident")
    monkeypatch.setattr("jaxdl.parallel.LARGE", 8)
    phase = jaxdl.Phase(2, 0.1, optimizer="momentum", ema=0.5)
    options = {"variables": fill(Net(), (6, 6, 3)), "phases": phase, "batch_size": batch_size, "progress": False}
    options["augment"] = augment.MixUp(0.4) if fsdp else None
    one, many = (
        jaxdl.fit(Net(), pictures(25), pictures(13, 1), mesh=mesh, fsdp=fsdp and mesh is not None, **options)
        for mesh in (None, parallel.make_mesh(jax.devices()[:devices]))
    )
    for part in ("params", "model_state", "opt_state", "average"):
        chex.assert_trees_all_close(getattr(many.state, part), getattr(one.state, part), rtol=1e-3, atol=1e-5)
    for a, b in zip(one.history, many.history, strict=True):
        for figure in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert b[figure] == pytest.approx(a[figure], rel=1e-4)
    divided = [not leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(many.state.opt_state)]
    assert any(divided) == fsdp


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("a:1", None, None), "need the number of processes and the number of this process too"),
        ((None, 2, None), "need the coordinator and the number of this process too"),
        (("localhost", 2, 0), "the coordinator is HOST:PORT, where process 0 listens; got 'localhost'"),
        (("a:1", 2, 2), "of 2 processes this is one from 0 to 1; got 2"),
        (("a:1", 0, 0), "of 0 processes"),
    ],
)
def test_processes_that_cannot_find_each_other_are_told_what_is_missing(given, reason):
    with pytest.raises(InputError, match=reason):
        parallel.start(*given)


def test_fsdp_leaves_each_device_its_share():
    model, mesh = models.create("dense", 10, hidden=(256, 256)), parallel.make_mesh()
    variables, optimizer = fill(model, (64,)), optax.adam(0.1)
    state = parallel.place(mesh, train.init_state(variables, optimizer, jax.random.key(0), average=True), fsdp=True)
    layout = parallel.shardings(mesh, state, fsdp=True)
    step = jax.jit(train.make_train_step(model, optimizer, ema=0.9), out_shardings=(layout, parallel.whole(mesh)))
    batch = {"features": np.ones((16, 64), "f4"), "label": np.arange(16) % 10, "weight": np.ones(16, "f4")}
    state, _ = step(state, parallel.shard_batch(mesh, batch))

    def held(tree):
        """Bytes on the first device, and of the whole tree."""
        leaves = jax.tree.leaves(tree)
        return sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves), sum(leaf.nbytes for leaf in leaves)

    for tree in (state.params, state.opt_state, state.average):
        here, all_ = held(tree)
        assert all_ / 8 <= here < all_ / 6  # the head's few parameters are copied
    here, all_ = held(parallel.place(mesh, state.params))
    assert here == all_


PROGRAM = """
import functools, os, signal, sys
from jaxdl import callbacks, cli, loop, page, runs

loop._resident = lambda *_: False
runs.ModelCheckpoint = functools.partial(callbacks.ModelCheckpoint, every=0.0)
page.write = lambda *_: print("page")
told, batches = int(os.environ["TOLD"]), loop.batches


def hurt(*args, **options):
    for n, batch in enumerate(batches(*args, **options)):
        if told and options.get("epoch") == 3 and n == 2:
            os.kill(os.getpid(), told)
        yield batch


loop.batches = hurt
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes of two devices each that run a program, one of which is given a signal; what they leave."""
    cache = tmp_path_factory.mktemp("cache")

    def run(program, arguments, told=0, which=1):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{free.getsockname()[1]}"
        keep = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        processes = []
        for n in (0, 1):
            command = [sys.executable, "-c", program, *map(str, arguments)]
            command += ["--coordinator", where, "--num-processes", "2", "--process-id", str(n)]
            more = {"JAX_NUM_CPU_DEVICES": "2", "TOLD": str(told * (n == which))}
            more |= {"XDG_CACHE_HOME": str(cache), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            processes.append(subprocess.Popen(command, env=keep | more, **pipes))
        try:
            said = [process.communicate(timeout=300) for process in processes]
        finally:
            for process in processes:
                process.kill()
        return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]

    return run


def kept(run):
    """The last checkpoint of a run: its step, the digests of its arrays, the history without times."""
    step = checkpoint.steps(run / "checkpoints")[-1]
    manifest = checkpoint.manifest(run / "checkpoints", step)
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in manifest["place"]["history"]]
    return step, {name: array["sha256"] for name, array in manifest["arrays"].items()}, rows


def unlucky(mesh, **options):
    """Trainings with an example that gives no number, which is skipped, and at a rate that has to be lowered."""
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    labels = np.argmax(x, axis=1)
    x[7] = 3e38
    phase = optim.Phase(3, 0.05, optimizer="momentum", schedule="constant", warmup=0, weight_decay=0, ema=0.9)
    model, same = models.create("dense", 3, hidden=(64, 64)), {"batch_size": 6, "mesh": mesh, "progress": False}
    skipped = jaxdl.fit(model, data.from_arrays(x, labels), phases=phase, bad_numbers="skip", **same, **options)
    assert skipped.history.column("skipped").tolist() == [1, 1, 1]
    yield "skipped", skipped

    x[7] = 0
    source, model = data.from_arrays(x[:, :1], x[:, 0] * 2), models.create("neuron", 1)
    phase = dataclasses.replace(phase, learning_rate=5.0, optimizer="gradient-descent", clip_norm=None)
    same |= {"batch_size": 2, "loss": losses.squared_error, "metrics": {"error": metrics.mae}}
    rolled = jaxdl.fit(model, source, phases=phase, bad_numbers="rollback", **same, **options)
    assert rolled.history.column("rollbacks").tolist() == [1, 0, 0]
    yield "rolled", rolled


MEASURE = """
import dataclasses
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import optax

import jaxdl
from jaxdl import augment, callbacks, checkpoint, data, features, losses, metrics, models, optim, parallel, runs, train
from jaxdl.errors import InputError

UNLUCKY
folder, (_, where, _, count, _, index) = Path(sys.argv[1]), sys.argv[2:]
parallel.start(where, int(count), int(index))
mesh, model = parallel.make_mesh(), models.create("dense", 3, hidden=(64, 64))
variables = models.init(model, jax.random.key(0), (8, 8, 1))
source = data.from_arrays(np.load(folder / "x.npy"), np.arange(21) % 3)
state = train.init_state(variables, optax.adam(0.1), jax.random.key(0))
for fsdp in (False, True):
    for saved in ("copied", "divided"):
        found = checkpoint.restore(folder / saved, parallel.place(mesh, state, fsdp), 1)
        checkpoint.save(folder / f"{saved}-{fsdp}", found)
figures = jaxdl.evaluate(model, found.variables, source, batch_size=6, mesh=mesh)
outputs = jaxdl.predict(model, found.variables, source, batch_size=6, mesh=mesh)
drawn = {"views": 1, "augment": augment.Affine(flip=True)}
extracted = features.extract(model, found.variables, source, batch_size=6, mesh=mesh, folder=folder / "kept", **drawn)
np.savez(folder / f"{index}.npz", outputs=outputs, extracted=extracted, **figures)
for name, trained in unlucky(mesh, fsdp=True, callbacks=[callbacks.ModelCheckpoint(folder / "unlucky")]):
    np.savez(folder / f"{name}-{index}.npz", *map(parallel.fetch, jax.tree.leaves(trained.variables)))
    shutil.rmtree(folder / "unlucky") if parallel.first() else None
    parallel.most(0)
assert parallel.first_says(lambda: [index]) == ["0"]
assert parallel.most(int(index)) == 1
try:
    runs.create(folder / "run", {"seed": index})
except InputError as error:
    assert "do not train the same" in str(error)
else:
    raise AssertionError("processes of different trainings begin")
assert not (folder / "run").exists()
"""


@pytest.mark.slow
def test_states_go_from_one_process_to_two_and_back_and_are_measured_by_both(pair, tmp_path):
    model, mesh = models.create("dense", 3, hidden=(64, 64)), parallel.make_mesh()
    x = np.random.default_rng(0).normal(size=(21, 8, 8, 1)).astype("f4")
    np.save(tmp_path / "x.npy", x)
    state = train.init_state(fill(model, (8, 8, 1)), optax.adam(0.1), jax.random.key(0))
    state = dataclasses.replace(state, step=state.step + 1)
    checkpoint.save(tmp_path / "copied", state)
    checkpoint.save(tmp_path / "divided", parallel.place(mesh, state, fsdp=True))

    for status, _, error in pair(MEASURE.replace("UNLUCKY", inspect.getsource(unlucky)), [tmp_path]):
        assert status == 0, error

    def written(name):
        found = checkpoint.manifest(tmp_path / name)["arrays"]
        return {path: {**entry, "start": None} for path, entry in found.items()}  # depends on who has the others

    like = parallel.place(mesh, state, fsdp=True)
    for name in ("divided", "copied-False", "copied-True", "divided-False", "divided-True"):
        assert written(name) == written("copied")
        chex.assert_trees_all_equal(checkpoint.restore(tmp_path / name, like).params, state.params)
    source = data.from_arrays(x, np.arange(21) % 3)
    figures = jaxdl.evaluate(model, state.variables, source)
    for n in (0, 1):
        two = np.load(tmp_path / f"{n}.npz")
        assert {name: two[name] for name in figures} == pytest.approx(figures, rel=1e-5)
        np.testing.assert_allclose(two["outputs"], jaxdl.predict(model, state.variables, source), rtol=1e-4, atol=1e-5)
        drawn = {"views": 1, "augment": augment.Affine(flip=True)}
        extracted = features.extract(model, state.variables, source, batch_size=6, **drawn)
        np.testing.assert_allclose(two["extracted"], extracted, rtol=1e-4, atol=1e-5)
    for name, one in unlucky(None):
        for n in (0, 1):
            both = np.load(tmp_path / f"{name}-{n}.npz").values()
            for a, b in zip(both, jax.tree.leaves(one.variables), strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_whatever_ends_them(pair, tmp_path):
    digits = load_digits()
    table = np.column_stack([digits.data, digits.target])[:140]
    header = ",".join([*(f"p{n}" for n in range(64)), "digit"])
    np.savetxt(tmp_path / "digits.csv", table, "%g", ",", header=header, comments="")
    command = ["train", tmp_path / "digits.csv", "--target", "digit", "--hidden", "64", "--epochs", "5"]
    command += ["--batch-size", "9", "--optimizer", "momentum", "--learning-rate", "0.01", "--reduce-on-plateau", "1"]
    command += ["--monitor", "val_accuracy", "--fsdp", "--out"]

    (status, out, error), (other, silent, unheard) = pair(PROGRAM, [*command, tmp_path / "whole"])
    assert (status, other) == (0, 0), error + unheard
    assert "test accuracy" in out
    assert "test accuracy" not in silent
    assert "the learning rate is 0.1 times the schedule's" in error
    assert unheard.startswith("process 1 waits for all 2 at 127.0.0.1:")
    assert unheard.count("\n") == 1
    whole = kept(tmp_path / "whole")
    assert whole[0] == 5 * 12
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert (summary["processes"], summary["device"][:3]) == (2, "4 ×")

    # Killed: the other one says so, and ends.
    (status, _, error), (killed, _, _) = pair(PROGRAM, [*command, tmp_path / "run"], told=signal.SIGKILL)
    assert (status, killed) == (parallel.GONE, -signal.SIGKILL)
    assert error.endswith(parallel.FAREWELL)
    assert kept(tmp_path / "run")[0] == 2 * 12

    # And so does the second, where it is the one that all find each other by.
    again = [*command, tmp_path / "run", "--resume"]
    (killed, _, _), (status, _, error) = pair(PROGRAM, again, told=signal.SIGKILL, which=0)
    assert (status, killed) == (parallel.GONE, -signal.SIGKILL)
    assert error.endswith(parallel.FAREWELL)
    assert kept(tmp_path / "run")[0] == 2 * 12

    # Told to stop: both do, after the same step, and keep it together.
    for status, _, error in pair(PROGRAM, again, told=signal.SIGTERM):
        assert status == 128 + signal.SIGTERM, error
        assert "--resume goes on" in error
    assert 2 * 12 < kept(tmp_path / "run")[0] < 3 * 12

    for status, _, error in pair(PROGRAM, again):
        assert status == 0, error
    assert kept(tmp_path / "run") == whole

    # One process, on this one's eight devices.
    cli.main([*map(str, command[:-2]), "--out", str(tmp_path / "one")])
    for a, b in zip(kept(tmp_path / "one")[2], whole[2], strict=True):
        assert a.pop("phase") == b.pop("phase")
        assert a == pytest.approx(b, rel=1e-3)
    one, two = (runs.load(tmp_path / name).variables() for name in ("one", "whole"))
    chex.assert_trees_all_close(one, two, rtol=1e-3, atol=1e-4)


def faults_of_a_call(configured):
    """Pages that the kernel hands to a fresh process during a call that works in some 300 MB, the fewest of several."""
    code = """
import resource, jax, jax.numpy as jnp
from jaxdl import parallel
CONFIGURE
x = jnp.ones((1000, 2000))
swap = lambda n, both: (both[1] + n, both[0])
f = jax.jit(lambda x: jax.lax.fori_loop(0, 2, swap, (jnp.tile(x, (20, 1)),) * 2)[0].sum())
faults = [resource.getrusage(resource.RUSAGE_SELF).ru_minflt]
for _ in range(8):
    f(x).block_until_ready()
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(min(b - a for a, b in zip(faults, faults[1:])), jax.config.jax_compilation_cache_dir)
"""
    code = code.replace("CONFIGURE", "parallel.configure()" if configured else "")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    faults, cache = run.stdout.split()
    return int(faults), cache


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_configured_memory_is_kept_and_programs_are_too(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert faults_of_a_call(configured=False)[0] > 10_000
    faults, cache = faults_of_a_call(configured=True)
    assert faults < 1000
    assert cache == str(tmp_path / "jaxdl" / "xla")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    assert faults_of_a_call(configured=True)[1] == str(tmp_path / "own")
