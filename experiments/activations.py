"""What stands between layers: activation functions, their slopes, and why the gradients of deep networks vanish.

Backpropagation multiplies by the slope of the activation at every layer. A sigmoid's is at most 1/4, so after ten
layers little more than a millionth is left, and the first layers do not learn; tanh and ReLU have a slope of 1 where
they are steepest. `activations.png` shows the functions and `gradients.png` the norm of the gradient at each layer of
the same network with each of them, before any training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import chapter
from experiments.chapter import Figure, Outcome, near
from jaxdl import explain, models, report
from jaxdl.models import activations

NAMES = ("sigmoid", "tanh", "relu", "leaky_relu")


@dataclass(frozen=True)
class Options(chapter.Options):
    """Sigmoid, tanh, ReLU, leaky ReLU; vanishing gradients in a deep network."""

    layers: int = 10
    """Hidden layers of the deep network."""
    width: int = 32
    """Neurons in each."""


def steepest(name: str) -> float:
    """The largest slope from -8 to 8, by `jax.grad`."""
    slope = jax.vmap(jax.grad(activations.by_name(name)))
    return float(slope(jnp.linspace(-8, 8, 1601)).max())


def gradients(name: str, options: Options, seed: int) -> dict[str, float]:
    """The norm of the gradient of each layer of a fresh network, over 256 random examples of two classes."""
    draw = np.random.default_rng(seed)
    x = draw.normal(size=(256, 8)).astype(np.float32)
    batch = {"features": x, "label": (x[:, 0] * x[:, 1] > 0).astype(np.int32)}
    model = models.create("dense", 2, hidden=(options.width,) * options.layers, activation=name)
    return explain.gradient_norms(model, models.init(model, jax.random.key(seed), x.shape[1:]), batch)


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The functions, then the same deep network with each of them."""
    slopes = {"sigmoid": 0.25, "tanh": 1.0, "relu": 1.0, "leaky_relu": 1.0}
    figures = [near(f"steepest slope, {name}", steepest(name), slopes[name], 1e-6, "calculus") for name in NAMES]
    norms = {name: gradients(name, options, seed) for name in NAMES}
    for name, each in norms.items():
        left = each["dense_0"] / each[f"dense_{options.layers - 1}"]
        figures.append(Figure(f"gradient of the first layer / of the last, {name}", left))
        if name == "sigmoid":
            figures[-1] = replace(figures[-1], at_most=0.25 ** (options.layers - 1), source="1/4 at each layer")
    out.mkdir(parents=True)
    report.activations(NAMES).savefig(out / "activations.png", dpi=120)
    report.gradient_flow(norms).savefig(out / "gradients.png", dpi=120)
    return Outcome(f"a network of {options.layers} hidden layers, 256 random examples", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("activations", Options, run, arguments)


if __name__ == "__main__":
    main()
