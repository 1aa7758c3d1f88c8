"""An epoch of TinyVGG here, in plain Flax, in Keras and in PyTorch, side by side: `make bench-cnn`.

The processes and their turns are those of `benchmarks/efficientnet.py`. The images are uint8 here, as `fit` keeps them,
and are made float32 in the step; the peers get float32, as their tutorials do.
"""

import argparse
import importlib.util
import json
import os
import time
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn

from benchmarks.efficientnet import NAMES, OURS, Prepared, measure, report, row, take_turns
from benchmarks.record import write
from jaxdl import data, losses, metrics, models, optim, parallel, train

BATCH, CLASSES = 32, 10


@dataclass(frozen=True)
class Work:
    """What is timed: an epoch."""

    count: int  # of images
    size: int  # height and width in pixels
    channels: int
    network: str = "tiny_vgg"
    calls: int = 1  # in a turn

    def __str__(self) -> str:
        pixels = "×".join(map(str, (self.size, self.size, self.channels)))
        return f"an epoch of {NETWORKS[self.network][0]}, {self.count:,} images of {pixels}, batch {BATCH}"


NETWORKS = {"tiny_vgg": ("TinyVGG", (10, 10), 2), "cnn": ("a CNN of 32 and 64 filters", (32, 64), 1)}
WORKS = (Work(6400, 28, 1), Work(1600, 64, 3), Work(1600, 28, 1, "cnn"))
ROUNDS = 7


def images(work: Work) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    shape = (work.count, work.size, work.size, work.channels)
    return draw.integers(0, 256, shape, np.uint8), draw.integers(0, CLASSES, work.count)


def ours(work: Work) -> Prepared:
    """What `fit` runs: the whole epoch as one program, over data that stay on the device."""
    source, model = data.from_arrays(*images(work)), models.create(work.network, CLASSES)
    phase = optim.Phase(1, 1e-3)
    optimizer = optim.make_optimizer(phase, optim.make_schedule(phase, work.count // BATCH))
    zeros, full = (0.0,) * work.channels, (255.0,) * work.channels
    normalize = data.Preprocessing(work.size, mean=zeros, std=full).normalize
    variables = models.init(model, jax.random.key(0), (work.size, work.size, work.channels))
    state = train.init_state(variables, optimizer, jax.random.key(0))
    placed, n = jax.device_put(source.take(np.arange(len(source)))), 0
    rows = data.order(len(source), BATCH, seed=0, epoch=n)
    step = train.make_train_step(model, optimizer, normalize=normalize)
    started = time.perf_counter()
    epoch = jax.jit(train.make_epoch(step), donate_argnums=0).lower(state, placed, *rows).compile()
    facts = {"compile_seconds": time.perf_counter() - started}
    named = {"loss": metrics.mean(losses.cross_entropy), "accuracy": metrics.accuracy}

    def call() -> Any:
        nonlocal state, n
        n += 1
        state, sums = epoch(state, placed, *data.order(len(source), BATCH, seed=0, epoch=n))
        return metrics.compute(named, metrics.merge([sums]))

    return call, facts


class Plain(nn.Module):
    """The network as a Flax tutorial writes it."""

    filters: tuple[int, ...]
    convolutions: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for filters in self.filters:
            for _ in range(self.convolutions):
                x = nn.relu(nn.Conv(filters, (3, 3))(x))
            x = nn.max_pool(x, (2, 2), (2, 2))
        return nn.Dense(CLASSES)(x.reshape(len(x), -1))


def linen(work: Work) -> Prepared:
    pixels, labels = images(work)
    inputs = pixels.astype(np.float32) / 255
    model, optimizer = Plain(*NETWORKS[work.network][1:]), optax.adam(1e-3)
    params = jax.jit(model.init)(jax.random.key(0), inputs[:1])
    opt_state, draw = optimizer.init(params), np.random.default_rng(0)

    @jax.jit
    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def objective(params: Any) -> tuple[jax.Array, jax.Array]:
            logits = model.apply(params, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), (logits.argmax(-1) == y).mean()

        (loss, accuracy), gradients = jax.value_and_grad(objective, has_aux=True)(params)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, accuracy

    def call() -> None:
        nonlocal params, opt_state
        order, figures = draw.permutation(work.count), []
        for start in range(0, work.count, BATCH):
            rows = order[start : start + BATCH]
            params, opt_state, *now = step(params, opt_state, inputs[rows], labels[rows])
            figures.append(now)
        np.mean(jax.device_get(figures), 0)

    return call, {}


def keras_fit(work: Work) -> Prepared:
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layers, (_, groups, convolutions) = keras.layers, NETWORKS[work.network]
    network = keras.Sequential()
    for filters in groups:
        for _ in range(convolutions):
            network.add(layers.Conv2D(filters, 3, padding="same", activation="relu"))
        network.add(layers.MaxPooling2D())
    network.add(layers.Flatten())
    network.add(layers.Dense(CLASSES))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    network.compile("adam", loss, metrics=["accuracy"])
    pixels, labels = images(work)
    inputs = pixels.astype(np.float32) / 255
    return lambda: network.fit(inputs, labels, batch_size=BATCH, epochs=1, verbose=0), {}


def torch_loop(work: Work, compiled: bool) -> Prepared:
    """Its images in its faster layout, in batches taken by index, which is faster than a DataLoader."""
    import torch

    layers: list[torch.nn.Module] = []
    channels, (_, groups, convolutions) = work.channels, NETWORKS[work.network]
    for filters in groups:
        for _ in range(convolutions):
            layers += [torch.nn.Conv2d(channels, filters, 3, padding=1), torch.nn.ReLU()]
            channels = filters
        layers.append(torch.nn.MaxPool2d(2))
    flat = channels * (work.size // 2 ** len(groups)) ** 2
    net = torch.nn.Sequential(*layers, torch.nn.Flatten(), torch.nn.Linear(flat, CLASSES))
    net = net.to(memory_format=torch.channels_last)
    forward = torch.compile(net) if compiled else net
    adam = torch.optim.Adam(net.parameters())
    pixels, labels = images(work)
    inputs = torch.from_numpy(pixels.astype(np.float32) / 255).permute(0, 3, 1, 2)
    inputs, wanted = inputs.contiguous(memory_format=torch.channels_last), torch.from_numpy(labels)

    def call() -> float:
        order, total, right = torch.randperm(work.count), torch.zeros(()), torch.zeros(())
        for start in range(0, work.count, BATCH):
            rows = order[start : start + BATCH]
            adam.zero_grad()
            logits, y = forward(inputs[rows]), wanted[rows]
            loss = torch.nn.functional.cross_entropy(logits, y)
            loss.backward()
            adam.step()
            total, right = total + loss.detach(), right + (logits.argmax(1) == y).sum()
        return float(total) + float(right)

    return call, {}


def serve(library: str, work: Work) -> None:
    """A library's process: prepare, call twice, take turns."""
    parallel.configure()
    started = time.perf_counter()
    if library in ("torch", "compiled"):
        call, facts = torch_loop(work, library == "compiled")
    else:
        call, facts = {OURS: ours, "linen": linen, "keras": keras_fit}[library](work)
    call()
    facts["first_epoch_seconds"] = time.perf_counter() - started
    call()
    take_turns(call, facts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", nargs=2, metavar=("LIBRARY", "WORK"), help=argparse.SUPPRESS)
    if served := parser.parse_args().serve:
        serve(served[0], Work(**json.loads(served[1])))
        return
    installed = [name for name in ("keras", "torch") if importlib.util.find_spec(name)]
    peers = ["linen", *installed, *(["compiled"] if "torch" in installed else [])]
    rows, details = [], []
    for work in WORKS:
        print(work, flush=True)
        result = measure(work, (OURS, *peers), ROUNDS, "benchmarks.cnn")
        rows += [row(str(work), NAMES[peer], result["turns"][OURS], result["turns"][peer]) for peer in peers]
        details.append({"work": str(work), "libraries": result["facts"]})
    print(write("cnn", {"command": "make bench-cnn", "rows": rows, "details": details}, installed))
    report(rows)


if __name__ == "__main__":
    main()
