"""What checkpoints cost: training that keeps every epoch, beside the same without: `make bench-checkpoints`.

Turns of some epochs with and without them follow each other in one training, in the order 0110 0110 …, so that neither
is dearer because the machine gets slower. A turn with them ends when the last is on the disk: what nothing hides is
counted.
"""

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import sklearn.datasets

import jaxdl
from benchmarks.record import seconds, spread, write
from jaxdl import callbacks, checkpoint, data, models, parallel, transfer
from jaxdl.callbacks import ModelCheckpoint, Stop
from jaxdl.optim import Phase

FOREVER = 10**6


@dataclass(frozen=True)
class Work:
    """What is timed."""

    what: str
    start: Callable[[callbacks.Callback], Any]
    epochs: int  # in a turn
    rounds: int
    every: float | None = None  # as `ModelCheckpoint` takes it


def fine_tuning(watch: callbacks.Callback, count: int) -> Any:
    """All of EfficientNet-Lite0, at the recipe's settings."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 224, 224, 3), np.uint8)
    model = models.create("efficientnet_lite0", 10)
    variables = models.init(model, jax.random.key(0), (224, 224, 3))
    (*_, phase) = transfer.fine_tune(variables["params"], transfer.Recipe(epochs=FOREVER))
    normalize = data.Preprocessing(224, mean=(127.0,) * 3, std=(128.0,) * 3).normalize
    source = data.from_arrays(pixels, np.arange(count) % 10)
    return jaxdl.fit(
        model, source, phases=phase, variables=variables, normalize=normalize, monitor="loss", callbacks=[watch]
    )


def digits(watch: callbacks.Callback) -> Any:
    """A dense net (64-100-10) on scikit-learn's 1,797 digits."""
    found = sklearn.datasets.load_digits()
    source = data.from_arrays((found.data / 16).astype(np.float32), found.target)
    phase = Phase(FOREVER, 1e-3)
    return jaxdl.fit(models.create("dense", 10), source, phases=phase, monitor="loss", callbacks=[watch])


WORKS = (
    Work(
        "fine-tuning EfficientNet-Lite0 @224, 1,024 images, every epoch kept", partial(fine_tuning, count=1024), 3, 6, 0
    ),
    Work("the same with 256 images, kept as often as it is by default", partial(fine_tuning, count=256), 12, 4),
    Work("a dense net on 1,797 digits, epochs of some milliseconds, by default", digits, 2000, 3),
)


def measure(work: Work) -> dict[str, Any]:
    """The seconds of turns without and with checkpoints, and what these add, turn by turn."""
    taken: tuple[list[list[float]], list[list[float]]] = ([], [])
    with tempfile.TemporaryDirectory() as folder:
        keep = ModelCheckpoint(folder)
        begun, first = _clocks(), 1 + work.epochs  # ahead of it a turn that is not counted, for compiling

        def watch(event: callbacks.Event) -> Stop | None:
            nonlocal begun, keep
            turn, ends = (event.epoch - first) // work.epochs, (event.epoch + 1 - first) % work.epochs == 0
            if _keeps(turn):
                keep(event)
                if ends:
                    keep(replace(event, kind="end"))  # waits
            if ends:
                if turn >= 0:
                    taken[_keeps(turn)].append((_clocks() - begun).tolist())
                if _keeps(turn + 1):
                    keep = ModelCheckpoint(Path(folder, str(turn)), every=work.every)
                    keep(replace(event, kind="begin"))
                begun = _clocks()
            return Stop("measured") if ends and turn == 2 * work.rounds - 1 else None

        state, alone = work.start(watch).state, itertools.count()
        taken_alone = seconds(lambda: checkpoint.save(Path(folder, f"alone-{next(alone)}"), state), 5)
        kept = Path(keep.directory, f"{checkpoint.steps(keep.directory)[-1]:08d}")
        size = sum(file.stat().st_size for file in kept.rglob("*") if file.is_file())
    without, with_ = map(np.array, taken)  # [rounds,2]
    figures: dict[str, Any] = {"what": work.what, "megabytes": size / 1e6, "load": os.getloadavg()[1]}
    figures["alone"] = spread(taken_alone)
    for n, clock in enumerate(("", "processor_")):
        figures[f"{clock}without"] = spread(without[:, n].tolist())
        figures[f"{clock}with"] = spread(with_[:, n].tolist())
        figures[f"{clock}cost"] = spread((with_[:, n] / without[:, n] - 1).tolist())
    return figures


def _keeps(turn: int) -> bool:
    return turn % 4 in (1, 2)


def _clocks() -> np.ndarray:
    """Seconds of the wall and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args()
    parallel.configure()
    rows = []
    for work in WORKS:
        rows.append(row := measure(work))
        alone = f"a save by itself {row['alone']['median']:.2f} s"
        print(f"{row['what']}: {row['megabytes']:.1f} MB, {alone}, load {row['load']:.1f}")
        for clock in ("", "processor_"):
            cost, without = row[f"{clock}cost"], row[f"{clock}without"]["median"]
            quartiles = f"{100 * cost['q25']:+.1f} to {100 * cost['q75']:+.1f}"
            print(
                f"  {clock or 'wall_'}time: {100 * cost['median']:+.1f} % ({quartiles}) of {without:.1f} s", flush=True
            )
    print(write("checkpoints", {"command": "make bench-checkpoints", "costs": rows}, ("orbax-checkpoint",)))


if __name__ == "__main__":
    main()
