"""A single neuron learns who buys an insurance, from age and whether it is affordable; three times over.

Its output is `sigmoid(w1 * age / 100 + w2 * affordable + bias)`, the probability of buying. Gradient descent lowers the
mean log loss of the 22 training rows from w1 = w2 = 1 and bias = 0, at the learning rate 0.5, until it is 0.4631: by
hand in NumPy, with gradients by JAX, and with `jaxdl.fit`. All three come to the same numbers. Adam at 0.001, which is
what Keras's `optimizer="adam"` does in 5,000 epochs, comes close to them.

The table is insurance_data.csv of https://github.com/codebasics/deep-learning-keras-tf-tutorial, for `--csv`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import chapter
from experiments.chapter import Figure, Outcome, near
from jaxdl import data, losses, train
from jaxdl.errors import InputError

SOURCE = "codebasics 6_gradient_descent"
Parameters = tuple[float, float, float]
"""w1, w2, bias"""


@dataclass(frozen=True)
class Options(chapter.Options):
    """Logistic regression as a single neuron: by hand in NumPy, in JAX, and by the library."""

    csv: Path | None = None
    """Columns age, affordibility, bought_insurance; None for 28 rows that are made up."""
    learning_rate: float = 0.5
    """Of gradient descent."""
    loss: float = 0.4631
    """Gradient descent stops once the loss is not above it."""


def made_up(seed: int) -> Iterator[tuple[int, int, int]]:
    """28 people; the older ones buy, with exceptions."""
    draw = np.random.default_rng(seed)
    for age in draw.integers(18, 63, size=28):
        affordable = draw.integers(2)
        yield int(age), int(affordable), int(age / 100 + 0.1 * affordable + draw.normal(scale=0.1) > 0.45)


def by_hand(x: np.ndarray, y: np.ndarray, rate: float, goal: float) -> tuple[Parameters, float, int]:
    """The parameters, the loss and the number of steps; `x [N,2]`, `y [N]`."""
    w, bias = np.ones(2), 0.0
    steps = 0
    while steps < 1000:
        steps += 1
        p = 1 / (1 + np.exp(-(x @ w + bias)))  # [N]
        loss = -np.mean(y * np.log(p) + (1 - y) * np.log(1 - p))
        error = p - y  # the slope of a row's loss by its weighted sum
        w, bias = w - rate * error @ x / len(x), bias - rate * error.mean()
        if loss <= goal:
            break
    return (float(w[0]), float(w[1]), float(bias)), float(loss), steps


def by_jax(x: np.ndarray, y: np.ndarray, rate: float, steps: int) -> Parameters:
    """The same with `jax.grad` in the place of the formulas, and the steps as one program."""

    def loss(parameters: tuple[jax.Array, jax.Array]) -> jax.Array:
        w, bias = parameters
        z = x @ w + bias
        return -jnp.mean(y * jax.nn.log_sigmoid(z) + (1 - y) * jax.nn.log_sigmoid(-z))

    def step(_: int, parameters: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return jax.tree.map(lambda value, slope: value - rate * slope, parameters, jax.grad(loss)(parameters))

    w, bias = jax.jit(partial(jax.lax.fori_loop, 0, steps, step))((jnp.ones(2), jnp.zeros(())))
    return float(w[0]), float(w[1]), float(bias)


def parameters(variables: dict) -> Parameters:
    head = variables["params"]["head"]
    return float(head["kernel"][0, 0]), float(head["kernel"][1, 0]), float(head["bias"][0])


def by_adam(model: object, start: dict, source: data.Arrays, steps: int) -> Parameters:
    """Keras's Adam, on all rows in every step, with the library's pure functions: `fit` is made of them."""
    optimizer = optax.adam(1e-3)
    step = train.make_train_step(model, optimizer, loss=losses.binary_cross_entropy)
    rows = jnp.tile(jnp.arange(len(source)), (steps, 1))  # [steps,N]
    everything = source.take(np.arange(len(source)))
    state = train.init_state(start, optimizer, jax.random.key(0))
    state, _ = jax.jit(train.make_epoch(step))(state, everything, rows, jnp.ones(rows.shape))
    return parameters(state.variables)


def run(options: Options, seed: int, out: Path) -> Outcome:
    """The three ways to the same neuron."""
    header = ("age", "affordibility", "bought_insurance")
    table = options.csv or chapter.write_table(out / "made-up.csv", header, made_up(seed))
    as_they_are = data.from_csv(table, header[-1], scale=None, validation=0, test=0).preprocessing
    numbers = [column for column in as_they_are.columns if isinstance(column, data.Numeric)]
    if [column.name for column in numbers] != ["age", "affordibility"]:
        raise InputError(f"{table} should have the columns {', '.join(header)}, all of numbers")
    # Ages in centuries, so that both columns are from 0 to 1.
    columns = (replace(numbers[0], scale=100.0), numbers[1])
    preprocessing = replace(as_they_are, columns=columns)
    source = preprocessing.labelled(table)
    held_out = chapter.published_split(table, 0.2, random_state=25)
    learned = source.subset(np.setdiff1d(np.arange(len(source)), held_out))

    hand, loss, steps = by_hand(learned.inputs, learned.labels, options.learning_rate, options.loss)
    jax_ = by_jax(learned.inputs, learned.labels, options.learning_rate, steps)
    start = {"params": {"head": {"kernel": jnp.ones((2, 1)), "bias": jnp.zeros(1)}}}
    trained = chapter.train(
        out / "fit",
        "neuron",
        data.Splits(learned, None, source.subset(held_out)),
        preprocessing,
        chapter.plain_phase(steps, options.learning_rate, "gradient-descent"),
        outputs=1,
        variables=start,
        batch_size=len(learned),
        loss=losses.binary_cross_entropy,
        progress=False,
    )
    library = parameters(trained.variables)
    adam = by_adam(trained.model, start, learned, 5000)
    for name, found in (("NumPy", hand), ("JAX", jax_), ("jaxdl", library), ("jaxdl, Adam", adam)):
        print(f"{name:12} w1 {found[0]:.4f}  w2 {found[1]:.4f}  bias {found[2]:.4f}")

    apart = max(abs(a - b) for other in (jax_, library) for a, b in zip(hand, other, strict=True))
    figures = [Figure("largest difference of the three", apart, at_most=1e-3, source="the same algorithm")]
    if options.csv is None:
        return Outcome("28 made-up rows", figures)
    for way, found, reference in (("by hand", hand, (5.051, 1.457, -2.960)), ("Adam", adam, (5.061, 1.409, -2.914))):
        for name, value, goal in zip(("w1", "w2", "bias"), found, reference, strict=True):
            figures.append(near(f"{name}, {way}", value, goal, 1e-3, SOURCE))
    figures += [
        Figure("loss, by hand", loss, at_most=0.4631, source=SOURCE),
        Figure("accuracy on the 6 test rows", trained.figures["accuracy"], at_least=1.0, source=SOURCE),
    ]
    return Outcome(f"{table.name}, {len(source)} rows", figures)


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("neuron", Options, run, arguments)


if __name__ == "__main__":
    main()
