"""From a source to batches: the order is a pure function of (seed, epoch), the shape is always the same."""

from collections import deque
from collections.abc import Iterator
from multiprocessing import TimeoutError as TookTooLong
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from jaxdl.data import store
from jaxdl.data.sources import Arrays, Batch, Images, Source, workers
from jaxdl.errors import InputError

PATIENCE = 120.0  # seconds that a batch may take to be read; a disk that is gone answers never
MEMORY = 4 << 30  # bytes of decoded images up to which they are kept in memory


def order(
    count: int, batch_size: int, *, seed: int | None, epoch: int = 0, multiple: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Which example goes where in an epoch.

    Args:
      count: examples in the source.
      batch_size: examples in a batch; the last may have fewer.
      seed: of the shuffle, together with the epoch; None for the source's own order.
      multiple: rows are added to every batch until their number is a multiple of this (the number of devices).

    Returns:
      Indices int32 and weights float32, both `[steps, rows]`. Rows that only fill a batch up repeat examples of the
      epoch's beginning, so that batch normalisation sees real ones, and have weight 0.

    Raises:
      InputError: `batch_size` is below 1.
    """
    if not isinstance(batch_size, int | np.integer) or batch_size < 1:
        raise InputError(f"a batch has at least one example, got batch_size={batch_size!r}")
    rows = np.arange(count) if seed is None else np.random.default_rng((seed, epoch)).permutation(count)
    steps = -(-count // batch_size)
    width = -(-min(batch_size, count) // multiple) * multiple
    batches = [rows[n * batch_size : (n + 1) * batch_size] for n in range(steps)]
    indices = np.stack([np.concatenate([batch, np.resize(rows, width - len(batch))]) for batch in batches])
    weights = np.stack([np.arange(width) < len(batch) for batch in batches])
    return indices.astype(np.int32), weights.astype(np.float32)


def batches(
    source: Source,
    batch_size: int,
    *,
    seed: int | None = None,
    epoch: int = 0,
    start: int = 0,
    multiple: int = 1,
    shard: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """The batches of one epoch, in `order`; what has to be decoded or read from a file is read ahead by threads.

    Args:
      start: steps of the epoch to leave out, where training goes on in the middle of one.
      multiple: see `order`; the number of devices.
      shard: `(n, count)`: of every batch, give part n of count equal ones, for process n of count. It divides
        `multiple`.

    Returns:
      `{"image" | "features": [B,…], "label": [B], "weight": float32 [B]}`, every batch of the same shape.

    Raises:
      InputError: a file cannot be read or decoded, or reading does not end; the batch is smaller than 1, or cannot be
        shared so.
    """
    indices, weights = order(len(source), batch_size, seed=seed, epoch=epoch, multiple=multiple)
    part, parts = shard
    if multiple % parts:
        raise InputError(f"batches of a multiple of {multiple} rows cannot be shared by {parts} processes")
    width = indices.shape[1] // parts
    columns = slice(part * width, (part + 1) * width)
    todo = list(zip(indices[start:, columns], weights[start:, columns], strict=True))
    if isinstance(source, Arrays) and not isinstance(source.inputs, np.memmap):
        for rows, weight in todo:
            yield {**source.take(rows), "weight": weight}
        return
    # Threads, as decoders leave Python's lock: no copies between processes. The pool's are daemons, so one that waits
    # for a disk that is gone does not keep the process from ending.
    with ThreadPool(workers()) as pool:
        ahead = deque(pool.apply_async(source.take, (rows,)) for rows, _ in todo[: workers() + 1])
        for n, (_, weight) in enumerate(todo):
            try:
                batch = ahead.popleft().get(PATIENCE)
            except TookTooLong:
                late = f"reading {len(weight)} examples takes more than {PATIENCE:g} s; is the disk there?"
                raise InputError(late) from None
            if n + len(ahead) + 1 < len(todo):
                ahead.append(pool.apply_async(source.take, (todo[n + len(ahead) + 1][0],)))
            yield {**batch, "weight": weight}


def decoded(source: Source, folder: str | Path | None = None) -> Source:
    """The source with its images decoded and resized once and for all, where that can be kept.

    Args:
      folder: keep them there, in a file named by a digest of the images' contents and the preprocessing, which the
        next call finds again; it is mapped into memory, not read into it. None: keep them in memory, up to 4 GiB;
        beyond that the source is returned as it is, and decodes in every epoch.

    Raises:
      InputError: a file cannot be read or decoded, or the folder cannot be written.
    """
    if not isinstance(source, Images):
        return source
    shape = (len(source), *source.shape)

    def parts() -> Iterator[np.ndarray]:
        for batch in batches(source, min(64, len(source))):
            yield batch["image"][batch["weight"] > 0]

    if folder is not None:
        path = Path(folder) / f"{source.digest()}.npy"
        pixels = store.read(path) if path.exists() else store.keep(path, shape, np.uint8, parts())
    elif np.prod(shape) <= MEMORY:
        pixels = np.empty(shape, np.uint8)
        done = 0
        for part in parts():
            pixels[done : done + len(part)] = part
            done += len(part)
    else:
        return source
    return Arrays(pixels, source.labels, source.classes)
