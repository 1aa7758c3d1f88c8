"""What comes before the network, here and in Keras, PyTorch, Pillow and grain, side by side: `make bench-input`.

The processes and their turns are those of `benchmarks/efficientnet.py`. Photographs are drawn: noise whose spectrum
falls as that of photographs does, 512×400, JPEG of quality 90.
"""

import argparse
import importlib.util
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from benchmarks.efficientnet import OURS, Prepared, measure, report, row, take_turns
from benchmarks.record import write
from jaxdl import augment, data, features, losses, metrics, models, optim, parallel, train

PREPROCESSING = data.Preprocessing(224, crop=0.875, mean=(127.0,) * 3, std=(128.0,) * 3)
PHOTOS, BATCH, STEPS = 320, 32, 10
NAMES = {
    "keras": "Keras 3 (JAX)",
    "torch": "PyTorch",
    "pillow": "Pillow",
    "threads": "grain, threads",
    "processes": "grain, processes",
    "held": "one batch that stays on the device",
    "one": "one thread",
}


@dataclass(frozen=True)
class Work:
    """What is timed."""

    what: str
    kind: str
    peers: tuple[str, ...]
    batch: int = BATCH
    rounds: int = 7
    calls: int = 3  # in a turn


WORKS = (
    Work("JPEG 512×400 to pixels @224, one thread", "decode", ("pillow",)),
    Work("JPEG 512×400 to batches of 32 @224, all cores", "load", ("one", "torch", "threads", "processes")),
    Work("augmentation: flip, crop, rotation, zoom, colour; batch 32 @224", "augment", ("keras",)),
    Work("an epoch of a dense net (784-100-10) on 60,000 images, batch 256", "dense", ("keras", "torch"), 256),
    Work("an epoch of a dense net (784-100-10) on 60,000 images, batch 32", "dense", ("keras", "torch"), 32, 5, 1),
    Work(
        "training EfficientNet-Lite0 from decoded images in a file, batch 32 @224", "feed", ("held",), rounds=5, calls=1
    ),
)


def photographs() -> list[bytes]:
    """JPEG files of 512×400 pixels with a photograph's spectrum and colours, and about as many bytes to a pixel as
    those of Food-101, 0.28."""
    draw = np.random.default_rng(0)
    falloff = np.maximum(np.hypot(np.fft.fftfreq(400)[:, None], np.fft.fftfreq(512)[None]), 1 / 512) ** -1.5
    photos = []
    for _ in range(PHOTOS):
        noise = draw.normal(size=(400, 512, 1)) + 0.2 * draw.normal(size=(400, 512, 3))
        spectrum = np.fft.fft2(noise, axes=(0, 1)) * falloff[..., None]
        waves = np.fft.ifft2(spectrum, axes=(0, 1)).real
        pixels = np.clip(128 + 50 * (waves - waves.mean()) / waves.std(), 0, 255).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, "JPEG", quality=90)
        photos.append(stream.getvalue())
    return photos


def with_pillow(photo: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(photo)).convert("RGB")
    side = int(PREPROCESSING.crop * min(image.size))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((224, 224), Image.Resampling.BICUBIC, box=box))


def decode(library: str, work: Work) -> Prepared:
    """One image after the other."""
    photos = photographs()[:64]
    decoder = with_pillow if library == "pillow" else PREPROCESSING.resize
    return lambda: [decoder(photo) for photo in photos], {}


class Photos:
    """The same source for every loader, as grain and PyTorch take it."""

    def __init__(self) -> None:
        self.photos = photographs()

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> np.ndarray:
        return PREPROCESSING.resize(self.photos[index])


def load(library: str, work: Work) -> Prepared:
    """An epoch of batches, each decoder our own: what is compared is the loader."""
    cores = os.cpu_count() or 1
    if library in (OURS, "one"):
        if library == "one":
            # There is no option for it; a module, to mypy, has no attributes of its own.
            sys.modules["jaxdl.data.batches"].workers = lambda: 1  # type: ignore[attr-defined]
        source = data.Images(photographs(), np.zeros(PHOTOS, np.int32), ("photo",), PREPROCESSING)
        epoch: Callable[[], Iterator[Any]] = partial(data.batches, source, BATCH, seed=0)
    elif library == "torch":
        import torch.utils.data

        dataset: Any = Photos()
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=BATCH, shuffle=True, num_workers=cores, persistent_workers=True
        )
        epoch = partial(iter, loader)
    else:
        import grain
        from absl import flags

        flags.FLAGS.mark_as_parsed()  # its workers ask for flags
        records = grain.MapDataset.source(Photos()).shuffle(seed=0)
        if library == "threads":
            options = grain.ReadOptions(num_threads=cores, prefetch_buffer_size=2 * BATCH)
            epoch = partial(iter, records.to_iter_dataset(options).batch(BATCH))
        else:
            still = records.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)).batch(BATCH)
            epoch = partial(iter, still.mp_prefetch(grain.MultiprocessingOptions(num_workers=cores)))
    return lambda: sum(1 for _ in epoch()), {}


def augmentation(library: str, work: Work) -> Prepared:
    images = np.random.default_rng(0).integers(0, 256, (work.batch, 224, 224, 3), np.uint8)
    if library == OURS:
        geometry = augment.Affine(flip=True, crop=0.7, rotate=15, zoom=0.2)
        colour = augment.Color(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.05)
        change = jax.jit(augment.Chain(geometry, colour))
        placed, key = jax.device_put(images), jax.random.key(0)
        return lambda: jax.block_until_ready(change(key, placed)), {}
    os.environ["KERAS_BACKEND"] = "jax"
    import keras

    layers = keras.layers
    change = keras.Sequential(
        [
            layers.RandomFlip("horizontal"),
            layers.RandomTranslation(0.1, 0.1),  # its RandomCrop cuts a fixed size: this moves as much
            layers.RandomRotation(15 / 360),
            layers.RandomZoom(0.2),
            layers.RandomColorJitter(
                brightness_factor=0.2, contrast_factor=0.2, saturation_factor=0.2, hue_factor=0.05
            ),
        ]
    )
    pixels = keras.ops.convert_to_tensor(images.astype(np.float32))
    return lambda: jax.block_until_ready(change(pixels, training=True)), {}


def dense(library: str, work: Work) -> Prepared:
    """The images are uint8 here and are made float32 in the step; the peers get float32, as their tutorials do."""
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (60_000, 28, 28, 1), np.uint8), draw.integers(0, 10, 60_000)
    if library == OURS:
        source, model = data.from_arrays(images, labels), models.create("dense", 10, hidden=(100,))
        phase = optim.Phase(1, 1e-3, optimizer="adam", weight_decay=0, clip_norm=None)  # as the peers'
        optimizer = optim.make_optimizer(phase, optim.make_schedule(phase, 60_000 // work.batch))
        normalize = data.Preprocessing(28, mean=(0.0,), std=(255.0,)).normalize
        step = train.make_train_step(model, optimizer, normalize=normalize)
        state = train.init_state(models.init(model, jax.random.key(0), (28, 28, 1)), optimizer, jax.random.key(0))
        epoch = jax.jit(train.make_epoch(step), donate_argnums=0)
        placed = jax.device_put(source.take(np.arange(len(source))))
        named = {"loss": metrics.mean(losses.cross_entropy), "accuracy": metrics.accuracy}
        n = 0

        def call() -> Any:
            nonlocal state, n
            n += 1
            state, sums = epoch(state, placed, *data.order(len(source), work.batch, seed=0, epoch=n))
            return metrics.compute(named, metrics.merge([sums]))

        return call, {}
    inputs, wanted = images.reshape(-1, 784).astype(np.float32) / 255, labels.astype(np.int64)
    if library == "keras":
        os.environ["KERAS_BACKEND"] = "jax"
        import keras

        network = keras.Sequential([keras.layers.Dense(100, "relu"), keras.layers.Dense(10)])
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        network.compile("adam", loss, metrics=["accuracy"])
        return lambda: network.fit(inputs, wanted, batch_size=work.batch, epochs=1, verbose=0), {}
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    net = torch.nn.Sequential(torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10))
    adam = torch.optim.Adam(net.parameters())
    loader = DataLoader(
        TensorDataset(torch.from_numpy(inputs), torch.from_numpy(wanted)), batch_size=work.batch, shuffle=True
    )

    def pass_() -> None:
        for x, y in loader:
            adam.zero_grad()
            torch.nn.functional.cross_entropy(net(x), y).backward()
            adam.step()

    return pass_, {}


def feed(library: str, work: Work) -> Prepared:
    """Ten steps of the train step on batches from the file of `data.decoded`, and on one batch that is there."""
    folder = Path(tempfile.mkdtemp())
    items = photographs()
    source = data.decoded(
        data.Images(items, np.arange(PHOTOS, dtype=np.int32) % 10, tuple("abcdefghij"), PREPROCESSING), folder
    )
    model = models.create("efficientnet_lite0", 10)
    phase = optim.Phase(1, 1e-4)
    variables = models.init(model, jax.random.key(0), (224, 224, 3))
    stage = features.prepare(model, variables, phase, source, augment=augment.PHOTOS, normalize=PREPROCESSING.normalize)
    optimizer = optim.make_optimizer(phase, optim.make_schedule(phase, 1000))
    step = jax.jit(stage.make_train_step(phase, optimizer), donate_argnums=0)
    state = train.init_state(stage.variables, optimizer, jax.random.key(0))
    one = jax.device_put(next(data.batches(source, BATCH)))
    n = 0

    def call() -> None:
        nonlocal state, n
        n += 1
        held = library == "held"
        fed = (one,) * STEPS if held else parallel.feed(None, data.batches(source, BATCH, seed=0, epoch=n))
        for batch in fed:
            state, sums = step(state, batch)
        jax.block_until_ready((state, sums))

    return call, {}


def serve(library: str, work: Work) -> None:
    """A library's process: prepare, call once, take turns."""
    parallel.configure()
    prepare = {"decode": decode, "load": load, "augment": augmentation, "dense": dense, "feed": feed}[work.kind]
    call, facts = prepare(library, work)
    call()
    call()
    take_turns(call, facts)


def compare(kinds: list[str]) -> None:
    """Measure every library on every kind of work, and write the record."""
    needed = {"keras": "keras", "torch": "torch", "threads": "grain", "processes": "grain"}
    rows, details = [], []
    for work in WORKS:
        if kinds and work.kind not in kinds:
            continue
        print(work.what, flush=True)
        peers = [peer for peer in work.peers if peer not in needed or importlib.util.find_spec(needed[peer])]
        result = measure(work, (OURS, *peers), work.rounds, "benchmarks.input")
        turns = result["turns"]
        rows += [row(work.what, NAMES[peer], turns[OURS], turns[peer]) for peer in peers]
        details.append({"work": work.what, "libraries": result["facts"]})
    packages = tuple(name for name in ("pillow", "keras", "torch", "grain") if importlib.util.find_spec(name))
    if not kinds:
        print(write("input", {"command": "make bench-input", "rows": rows, "details": details}, packages))
    report(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--serve", nargs=2, metavar=("LIBRARY", "WORK"), help=argparse.SUPPRESS)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help="only these, without a record: decode load augment …")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], Work(**json.loads(options.serve[1])))
    else:
        compare(options.kinds)


if __name__ == "__main__":
    main()
