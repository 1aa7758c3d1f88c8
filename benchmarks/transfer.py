"""A new head on a frozen EfficientNet-B0, here, in Keras and in PyTorch, side by side: `make bench-transfer`.

Fresh weights, float32, ten classes, Adam, on a CPU; the processes and their turns are those of
`benchmarks/efficientnet.py`. The peers run the whole network in every step, as their tutorials do; ours does so in the
first kind of work, and in the second runs the trunk once and trains the head on what it gave. The third is ours alone:
the head at many learning rates under `vmap`, and at one after another.
"""

import argparse
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.efficientnet import NAMES, OURS, Prepared, cost, measure, report, row, take_turns
from benchmarks.record import write
from jaxdl import data, features, models, parallel, rates, train, transfer, trees
from jaxdl.optim import Phase

BATCH, SIZE, CLASSES, IMAGES, EPOCHS, RATE = 16, 128, 10, 128, 20, 1e-3
RATES = np.geomspace(1e-4, 1e-1, 16).astype(np.float32)
SINGLY = "one rate after another"


@dataclass(frozen=True)
class Work:
    """What is timed."""

    what: str
    rounds: int
    calls: int  # in a turn


STEP = Work(f"training a new head on a frozen EfficientNet-B0, one step uncached, batch {BATCH} @{SIZE}", 5, 3)
# Keras takes more than a minute for a call.
EXTRACTION = Work(f"{EPOCHS} epochs of feature extraction, extraction included, {IMAGES} images @{SIZE} (n = 3)", 3, 1)
GRID = Work(f"training a head at {len(RATES)} learning rates at once on cached features (vmap)", 5, 3)


def images(count: int) -> data.Arrays:
    drawn = np.random.default_rng(0).normal(size=(count, SIZE, SIZE, 3)).astype(np.float32)
    return data.from_arrays(drawn, np.arange(count) % CLASSES)


def network() -> tuple[Any, dict[str, Any], trees.Tree]:
    """The model, its variables, and what of them is trained."""
    model = models.create("efficientnet_b0", CLASSES)
    variables = models.init(model, jax.random.key(0), (SIZE, SIZE, 3))
    return model, variables, transfer.freeze(variables["params"], until="head")


def our_step(source: data.Arrays) -> Prepared:
    """The whole network in the step; its memory and operations beside those of training everything."""
    model, variables, head = network()
    batch = jax.device_put(next(data.batches(source, BATCH)))
    optimizer = optax.adam(RATE)
    facts = {}
    for name, trainable in (("everything", None), ("head", head)):
        state = train.init_state(variables, optimizer, jax.random.key(1), trainable)
        step = train.make_train_step(model, optimizer, trainable=trainable)
        compiled = jax.jit(step, donate_argnums=0).lower(state, batch).compile()
        megabytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state.opt_state)) / 1e6
        facts[name] = {"optimizer_megabytes": megabytes, **cost(compiled)}

    def call() -> None:  # the head is the last of the two
        nonlocal state
        state, sums = compiled(state, batch)
        jax.block_until_ready((state, sums))

    return call, {"training": facts}


def our_extraction(source: data.Arrays) -> Prepared:
    """From images to a trained head: what `fit` does for a phase with `views`, in the same pieces.

    `features.extract` compiles at each call, which is not to be timed here.
    """
    model, variables, trainable = network()
    head, trunk = trees.split(variables["params"], trainable)
    variables = jax.device_put({**variables, "params": trunk})
    run = jax.jit(train.make_predict_step(models.without_head(model)))
    optimizer = optax.adam(RATE)
    step = train.make_train_step(models.head_alone(model), optimizer)
    epoch = jax.jit(train.make_epoch(step), donate_argnums=0)

    def call() -> None:
        parts = [np.asarray(run(variables, {"image": batch["image"]})) for batch in data.batches(source, BATCH)]
        cached = jax.device_put({"features": np.concatenate(parts), "label": source.labels})
        state = train.init_state({"params": head}, optimizer, jax.random.key(1))
        for n in range(EPOCHS):
            state, sums = epoch(state, cached, *data.order(len(source), BATCH, seed=0, epoch=n))
        jax.block_until_ready((state, sums))

    return call, {}


def our_grid(source: data.Arrays, singly: bool) -> Prepared:
    """The program of `rates.grid`, compiled once: for all rates, or for one of them and called for each."""
    model, variables, _ = network()
    phase = Phase(EPOCHS, RATE, trainable=("head",), views=0)
    stage = features.prepare(model, variables, phase, source, source)
    cached = stage.sources[0].take(np.arange(len(source)))
    held = jax.device_put({**cached, "weight": np.ones(len(source), np.float32)})
    epochs = [data.order(len(source), BATCH, seed=0, epoch=n) for n in range(EPOCHS)]
    rows, weights = (np.concatenate(parts) for parts in zip(*epochs, strict=True))
    views = np.zeros(len(rows), np.int32)
    cached["features"] = cached["features"][None]
    rest = jax.device_put((cached, held, rows, weights, views))
    training = rates.make_training(stage, phase, len(rows))
    compiled = jax.jit(training if singly else jax.vmap(training, in_axes=(0, *(None,) * len(rest))))

    def call() -> None:
        for rate in jnp.asarray(RATES) if singly else [RATES]:
            jax.block_until_ready(compiled(rate, *rest))

    return call, {}


def with_jaxdl(library: str, work: Work, source: data.Arrays) -> Prepared:
    if work == GRID:
        call, facts = our_grid(source, library == SINGLY)
    else:
        call, facts = our_step(source) if work == STEP else our_extraction(source)
    call()
    return call, facts


def with_keras(library: str, work: Work, source: data.Arrays) -> Prepared:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    base = keras.applications.EfficientNetB0(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    base.trainable = False
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(base(inputs, training=False))
    model = keras.Model(inputs, keras.layers.Dense(CLASSES)(keras.layers.Dropout(0.2)(pooled)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(RATE), loss=loss)

    def fit(epochs: int = EPOCHS) -> None:
        model.fit(source.inputs, source.labels, batch_size=BATCH, epochs=epochs, verbose=0)

    def step() -> None:
        model.train_on_batch(source.inputs, source.labels)

    if work == STEP:
        step()
        return step, {}
    fit(epochs=1)
    return fit, {}


def with_torch(library: str, work: Work, source: data.Arrays) -> Prepared:
    import geffnet
    import torch
    from torch.nn.functional import cross_entropy, dropout

    model = geffnet.tf_efficientnet_b0(num_classes=CLASSES).to(memory_format=torch.channels_last).eval()
    model.requires_grad_(False)
    model.classifier.requires_grad_(True)
    optimizer = torch.optim.Adam(model.classifier.parameters(), RATE)
    inputs = torch.from_numpy(source.inputs).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(source.labels).long()

    def step(inputs: Any, labels: Any) -> None:
        optimizer.zero_grad()
        with torch.no_grad():
            pooled = model.global_pool(model.features(inputs)).flatten(1)
        cross_entropy(model.classifier(dropout(pooled, 0.2)), labels).backward()
        optimizer.step()

    def call() -> None:
        for _ in range(1 if work == STEP else EPOCHS):
            for batch in zip(inputs.split(BATCH), labels.split(BATCH), strict=True):
                step(*batch)

    call()
    return call, {}


def serve(library: str, work: Work) -> None:
    """A library's process: prepare, call once, take turns."""
    parallel.configure()
    prepare: Mapping[str, Callable[[str, Work, data.Arrays], Prepared]] = {"keras": with_keras, "torch": with_torch}
    source = images(BATCH if work == STEP else IMAGES)
    take_turns(*prepare.get(library, with_jaxdl)(library, work, source))


def compare() -> None:
    """Measure every library on every kind of work, and write the record."""
    needed = {"keras": "keras", "torch": "geffnet"}
    installed = tuple(name for name, package in needed.items() if importlib.util.find_spec(package))
    rows, details = [], []
    for work in (STEP, EXTRACTION, GRID):
        print(work.what, flush=True)
        peers = (SINGLY,) if work == GRID else installed
        result = measure(work, (OURS, *peers), work.rounds, "benchmarks.transfer")
        turns = result["turns"]
        rows += [row(work.what, NAMES.get(peer, peer), turns[OURS], turns[peer]) for peer in peers]
        details.append({"work": work.what, "libraries": result["facts"]})
    packages = tuple(name for name in ("keras", "torch", "geffnet") if importlib.util.find_spec(name))
    print(write("transfer", {"command": "make bench-transfer", "rows": rows, "details": details}, packages))
    report(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", nargs=2, metavar=("LIBRARY", "WORK"), help=argparse.SUPPRESS)
    jax.config.update("jax_platforms", "cpu")  # where PyTorch is measured
    if served := parser.parse_args().serve:
        serve(served[0], Work(**json.loads(served[1])))
    else:
        compare()


if __name__ == "__main__":
    main()
