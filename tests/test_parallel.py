"""The same step on one device, as a scan, under jit over eight, and under pmap over eight."""

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

from jaxdl import models, parallel, train, trees

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.sgd(0.1, momentum=0.9), optax.add_decayed_weights(-1e-3))
MODULES = ("stem", "stem_bn", "head")


class Net(nn.Module):
    """Convolution and BatchNorm; no dropout, whose draws differ between the devices of a pmap."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="stem")(x)
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
    placed = parallel.replicate(mesh, state)
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
    eight, _ = step(parallel.replicate(mesh, state), parallel.shard_batch(mesh, batch))
    chex.assert_trees_all_close(eight.model_state, one.model_state, rtol=1e-4, atol=1e-6)
    chex.assert_trees_all_close(eight.params, one.params, rtol=1e-2, atol=1e-4)


def test_a_mesh_of_some_devices_divides_the_batch():
    mesh = parallel.make_mesh(jax.devices()[:4])
    placed = parallel.shard_batch(mesh, {"image": np.zeros((8, 2))})
    assert {shard.data.shape for shard in placed["image"].addressable_shards} == {(2, 2)}
    assert len(placed["image"].addressable_shards) == mesh.size == 4


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
