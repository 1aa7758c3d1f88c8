"""The chain rule, step by step, on a network of two layers; every derivative on the way beside that of `jax.grad`.

The network gives p = sigmoid(h W2 + b2) with h = sigmoid(x W1 + b1), and the loss L is the mean log loss of its rows.
Forwards, every value is kept. Backwards, each line below takes the derivative of L by what comes later and makes that
by what comes earlier: times the local slope, or through the matrix, transposed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import chapter
from experiments.chapter import Figure, Outcome

Values = dict[str, np.ndarray]


@dataclass(frozen=True)
class Options(chapter.Options):
    """Backpropagation by hand, every derivative equal to that of jax.grad."""

    rows: int = 8
    inputs: int = 3
    hidden: int = 4


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-z))


def forward(v: Values) -> Values:
    """All values on the way from `x [N,F]` to the loss."""
    z1 = v["x"] @ v["W1"] + v["b1"]  # [N,H]
    h = sigmoid(z1)  # [N,H]
    z2 = h @ v["W2"] + v["b2"]  # [N,1]
    p = sigmoid(z2)  # [N,1]
    loss = -np.mean(v["y"] * np.log(p) + (1 - v["y"]) * np.log(1 - p))
    return v | {"z1": z1, "h": h, "z2": z2, "p": p, "loss": loss}


def backward(v: Values) -> Values:
    """The derivative of the loss by every value, from the last to the first; each has the shape of its value."""
    d: Values = {}
    d["p"] = (v["p"] - v["y"]) / (v["p"] * (1 - v["p"])) / len(v["y"])  # of the log loss, and of the mean
    d["z2"] = d["p"] * v["p"] * (1 - v["p"])  # the sigmoid's slope is p (1 - p)
    d["W2"] = v["h"].T @ d["z2"]  # a weight moves z2 by its input, summed over the rows
    d["b2"] = d["z2"].sum(0)  # a bias moves every row's z2 by 1
    d["h"] = d["z2"] @ v["W2"].T  # h moves z2 by the weight
    d["z1"] = d["h"] * v["h"] * (1 - v["h"])
    d["W1"] = v["x"].T @ d["z1"]
    d["b1"] = d["z1"].sum(0)
    d["x"] = d["z1"] @ v["W1"].T
    return d


def by_jax(v: Values) -> Mapping[str, jax.Array]:
    """The same derivatives by `jax.grad`. To have those by values on the way too, a zero is added to each of them: the
    derivative by that zero is the derivative by the value."""

    def loss(zeros: Mapping[str, jax.Array]) -> jax.Array:
        x, W1, b1, W2, b2 = (v[name] + zeros[name] for name in ("x", "W1", "b1", "W2", "b2"))
        h = jax.nn.sigmoid(x @ W1 + b1[None] + zeros["z1"]) + zeros["h"]
        p = jax.nn.sigmoid(h @ W2 + b2[None] + zeros["z2"]) + zeros["p"]
        return -jnp.mean(v["y"] * jnp.log(p) + (1 - v["y"]) * jnp.log(1 - p))

    return jax.grad(loss)({name: jnp.zeros(np.shape(v[name])) for name in (*v, "z1", "h", "z2", "p") if name != "y"})


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Forwards, backwards, and a table of both ways."""
    draw = np.random.default_rng(seed)
    shapes = {
        "x": (options.rows, options.inputs),
        "W1": (options.inputs, options.hidden),
        "b1": (options.hidden,),
        "W2": (options.hidden, 1),
        "b2": (1,),
    }
    given = {name: draw.normal(scale=shape[0] ** -0.5, size=shape) for name, shape in shapes.items()}
    values = forward(given | {"y": draw.integers(2, size=(options.rows, 1)).astype(float)})
    hand, automatic = backward(values), by_jax({name: value for name, value in values.items() if name != "loss"})
    print(f"loss {values['loss']:.4f}\nvalue  shape    derivative, first entry by hand and by jax.grad")
    for name, slope in hand.items():
        print(f"{name:5}  {'×'.join(map(str, slope.shape)):7}  {slope.flat[0]:+.6f}  {automatic[name].ravel()[0]:+.6f}")
    apart = max(float(np.abs(slope - automatic[name]).max()) for name, slope in hand.items())
    figure = Figure("largest difference to jax.grad", apart, at_most=1e-6, source="float32's rounding")
    return Outcome(f"{options.rows} random rows", [figure])


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("backprop", Options, run, arguments)


if __name__ == "__main__":
    main()
