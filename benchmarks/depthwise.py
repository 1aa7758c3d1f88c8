"""The depthwise convolutions of EfficientNet-B0, forward and backward, ours against XLA's grouped convolution.

One run measures both, layer by layer in turn: `python -m benchmarks.depthwise`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.record import seconds, spread, write
from jaxdl import parallel
from jaxdl.ops.depthwise import Pads, _pads, reference, shifted

BATCH, SIZE, REPEATS = 16, 128, 7
# Height at 224 pixels, channels, filter, stride: each different depthwise layer of B0 once.
LAYERS = (
    (112, 32, 3, 1),
    (112, 96, 3, 2),
    (56, 144, 3, 1),
    (56, 144, 5, 2),
    (28, 240, 5, 1),
    (28, 240, 3, 2),
    (14, 480, 3, 1),
    (14, 480, 5, 1),
    (14, 672, 5, 1),
    (14, 672, 5, 2),
    (7, 1152, 5, 1),
    (7, 1152, 3, 1),
)


def work(
    convolve: Callable[[jax.Array, jax.Array, int, Pads], jax.Array], height: int, channels: int, k: int, stride: int
) -> Any:
    """A compiled call of the layer and its gradients."""
    draw = np.random.default_rng(0)
    x = jnp.asarray(draw.normal(size=(BATCH, height, height, channels)), jnp.float32)
    kernel = jnp.asarray(draw.normal(size=(k, k, 1, channels)), jnp.float32)

    pads = _pads(x.shape, kernel.shape, stride, "SAME")

    @jax.jit
    def both(x: jax.Array, kernel: jax.Array) -> Any:
        y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, pads), x, kernel)
        return y, pull(y)

    return lambda: both(x, kernel)


def main() -> None:
    parallel.configure()
    ours, theirs = np.zeros(REPEATS), np.zeros(REPEATS)
    for height, channels, k, stride in LAYERS:
        layer = (height * SIZE // 224, channels, k, stride)
        a, b = seconds(work(shifted, *layer), REPEATS), seconds(work(reference, *layer), REPEATS)
        a_ms, b_ms = np.median(a) * 1e3, np.median(b) * 1e3
        print(f"{layer}: {a_ms:8.2f} ms, XLA {b_ms:8.2f} ms, ×{b_ms / a_ms:.1f}")
        ours += a
        theirs += b
    ratio = spread((theirs / ours).tolist())
    print(f"sum: {np.median(ours) * 1e3:.1f} ms, XLA {np.median(theirs) * 1e3:.1f} ms, ×{ratio['median']:.1f}")
    row = {
        "what": f"depthwise convolutions of EfficientNet-B0, forward + backward, batch {BATCH} @{SIZE}, float32",
        "peer": "XLA grouped convolution",
        "ours_seconds": spread(ours.tolist()),
        "peer_seconds": spread(theirs.tolist()),
        "ratio": ratio,
    }
    print(write("depthwise", {"command": "python -m benchmarks.depthwise", "rows": [row]}))


if __name__ == "__main__":
    main()
