"""From a source to batches: the order is a pure function of (seed, epoch), the shape is always the same."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from jaxdl.data.sources import Arrays, Batch, Source
from jaxdl.errors import InputError


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
    if batch_size < 1:
        raise InputError(f"a batch has at least one example, got batch_size={batch_size}")
    rows = np.arange(count) if seed is None else np.random.default_rng((seed, epoch)).permutation(count)
    steps = -(-count // batch_size)
    width = -(-min(batch_size, count) // multiple) * multiple
    batches = [rows[n * batch_size : (n + 1) * batch_size] for n in range(steps)]
    indices = np.stack([np.concatenate([batch, np.resize(rows, width - len(batch))]) for batch in batches])
    weights = np.stack([np.arange(width) < len(batch) for batch in batches])
    return indices.astype(np.int32), weights.astype(np.float32)


def batches(
    source: Source, batch_size: int, *, seed: int | None = None, epoch: int = 0, multiple: int = 1, workers: int = 4
) -> Iterator[Batch]:
    """The batches of one epoch, in `order`; a source that decodes files is read ahead by threads.

    Returns:
      `{"image" | "features": [B,…], "label": [B], "weight": float32 [B]}`, every batch of the same shape.
    """
    indices, weights = order(len(source), batch_size, seed=seed, epoch=epoch, multiple=multiple)
    if isinstance(source, Arrays):
        for rows, weight in zip(indices, weights, strict=True):
            yield {**source.take(rows), "weight": weight}
        return
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[tuple[Future[dict[str, np.ndarray]], np.ndarray]] = deque()
        for rows, weight in zip(indices, weights, strict=True):
            ahead.append((pool.submit(source.take, rows), weight))
            if len(ahead) > workers:
                future, weight = ahead.popleft()
                yield {**future.result(), "weight": weight}
        while ahead:
            future, weight = ahead.popleft()
            yield {**future.result(), "weight": weight}
