"""What the loop costs: an epoch of `fit` with the usual callbacks, beside a bare loop and Keras: `make bench-loop`.

A dense net (784-100-10) on 60,000 images, batch 32. The processes and their turns are those of
`benchmarks/efficientnet.py`. Both `fit` run in a thread of their own, and a callback holds them after each epoch. By
default Keras writes the weights after each better epoch, and jaxdl the whole state every ten seconds at most.
"""

import argparse
import importlib.util
import os
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jaxdl
from benchmarks.efficientnet import OURS, Prepared, measure, report, row, take_turns
from benchmarks.record import write
from jaxdl import callbacks, checkpoint, data, models, optim, parallel, train

COUNT, BATCH = 60_000, 32
STREAMED = "jaxdl, streamed"
NAMES = {"bare": "a bare jitted loop", "keras": "Keras 3 (JAX)"}
FOREVER = 10**6
# Keras's Adam, which neither decays nor clips.
PHASE = optim.Phase(FOREVER, 1e-3, optimizer="adam", schedule="constant", warmup=0, weight_decay=0, clip_norm=None)


@dataclass(frozen=True)
class Work:
    """What is timed."""

    what: str = "an epoch of fit with logs, early stopping and default checkpoints; dense net, 60,000 images, batch 32"
    calls: int = 3  # in a turn


def images() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (COUNT, 28, 28, 1), np.uint8), draw.integers(0, 10, COUNT)


def epoch_by_epoch(fit: Callable[[Callable[..., None]], Any]) -> Callable[[], None]:
    """A call for each epoch of a `fit`, which is given a callback that holds it."""
    go, done = threading.Semaphore(0), threading.Semaphore(0)

    def hold(*_: Any) -> None:
        done.release()
        go.acquire()

    thread = threading.Thread(target=fit, args=(hold,), daemon=True)

    def call() -> None:
        if thread.ident is None:
            thread.start()
        else:
            go.release()
        done.acquire()

    return call


def ours(streamed: bool) -> Prepared:
    inputs, labels = images()
    folder = Path(tempfile.mkdtemp())
    watching: list[callbacks.Callback] = [
        callbacks.ModelCheckpoint(folder / "checkpoints"),
        callbacks.EarlyStopping(FOREVER, monitor="loss"),
        callbacks.ReduceLROnPlateau(patience=FOREVER),
        callbacks.CSVLogger(folder / "rows.csv"),
        callbacks.JSONLines(folder / "rows.jsonl"),
    ]
    options: Any = {"normalize": data.Preprocessing(28, mean=(0.0,), std=(255.0,)).normalize, "monitor": "loss"}
    options["batch_size"] = BATCH
    if streamed:
        jaxdl.loop._resident = lambda *_: False
    model, phase = models.create("dense", 10), PHASE

    def written(_: callbacks.Event) -> None:
        """In our own turn, not in that of a peer."""
        checkpoint.wait(folder / "checkpoints")

    def fit(hold: Callable[..., None]) -> None:
        source = data.from_arrays(inputs, labels)
        jaxdl.fit(model, source, phases=phase, callbacks=[*watching, written, hold], **options)

    return epoch_by_epoch(fit), {}


def bare() -> Prepared:
    """The same step on the same batches, and nothing else."""
    source = data.from_arrays(*images())
    model, phase = models.create("dense", 10), PHASE
    optimizer = optim.make_optimizer(phase, optim.make_schedule(phase, FOREVER))
    normalize = data.Preprocessing(28, mean=(0.0,), std=(255.0,)).normalize
    step = jax.jit(train.make_train_step(model, optimizer, normalize=normalize), donate_argnums=0)
    state = train.init_state(models.init(model, jax.random.key(0), (28, 28, 1)), optimizer, jax.random.key(0))
    epoch = 0

    def call() -> None:
        nonlocal state, epoch
        epoch += 1
        for batch in data.batches(source, BATCH, seed=0, epoch=epoch):
            state, sums = step(state, batch)
        jax.block_until_ready((state, sums))

    return call, {}


def keras_fit() -> Prepared:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    inputs, labels = images()
    inputs = inputs.reshape(-1, 784).astype(np.float32) / 255
    network = keras.Sequential([keras.layers.Dense(100, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, metrics=["accuracy"])
    folder = Path(tempfile.mkdtemp())
    watching = [
        keras.callbacks.ModelCheckpoint(
            folder / "best.weights.h5", "loss", save_best_only=True, save_weights_only=True
        ),
        keras.callbacks.EarlyStopping("loss", patience=FOREVER),
        keras.callbacks.ReduceLROnPlateau("loss", patience=FOREVER),
        keras.callbacks.CSVLogger(folder / "rows.csv"),
    ]

    def fit(hold: Callable[..., None]) -> None:
        held = keras.callbacks.LambdaCallback(on_epoch_end=hold)
        network.fit(inputs, labels, batch_size=BATCH, epochs=FOREVER, verbose=0, callbacks=[*watching, held])

    return epoch_by_epoch(fit), {}


def serve(library: str) -> None:
    """A library's process: prepare, call twice, take turns."""
    parallel.configure()
    if library == "bare":
        call, facts = bare()
    elif library == "keras":
        call, facts = keras_fit()
    else:
        call, facts = ours(library == STREAMED)
    call()
    call()
    take_turns(call, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", nargs=2, metavar=("LIBRARY", "WORK"), help=argparse.SUPPRESS)
    if served := parser.parse_args().serve:
        serve(served[0])
        return
    peers = ("bare", *(("keras",) if importlib.util.find_spec("keras") else ()))
    result = measure(Work(), (OURS, STREAMED, *peers), 7, "benchmarks.loop")
    turns = result["turns"]
    rows = [row(Work().what, NAMES[peer], turns[OURS], turns[peer]) for peer in peers]
    rows += [row("the same, batch by batch from the host", NAMES[peer], turns[STREAMED], turns[peer]) for peer in peers]
    record = {"command": "make bench-loop", "rows": rows, "details": [{"libraries": result["facts"]}]}
    print(write("loop", record, peers[1:]))
    report(rows)


if __name__ == "__main__":
    main()
