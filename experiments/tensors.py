"""What a tensor is in JAX: an array with a shape and a type, which functions take and return and nothing changes.

Every statement below is computed, checked and printed. Run it, then read the file beside what it printed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from experiments import chapter
from experiments.chapter import Figure, Outcome


@dataclass(frozen=True)
class Options(chapter.Options):
    """Arrays, shapes, one-hot, keys, jit, vmap, grad: what a tensor is in JAX."""


Statement = tuple[str, object]
"""A sentence, and whether it is true."""


def arrays(key: jax.Array) -> Iterator[Statement]:
    scalar, vector, matrix = jnp.array(7), jnp.array([10, 7]), jnp.array([[10.0, 7.0], [3.0, 2.0], [8.0, 9.0]])
    yield "a scalar has no axis, a vector one, a matrix two", [a.ndim for a in (scalar, vector, matrix)] == [0, 1, 2]
    yield "the shape is the length of each axis: 3 rows of 2", matrix.shape == (3, 2)
    yield "whole numbers are int32 and others float32", [vector.dtype.name, matrix.dtype.name] == ["int32", "float32"]
    changed = matrix.at[0, 1].set(70.0)
    yield "an array never changes: .at[].set gives another one", matrix[0, 1] == 7 and changed[0, 1] == 70
    yield "NumPy's arrays go in, and come out", np.array_equal(np.asarray(jnp.asarray(np.ones(3))), np.ones(3))
    yield "@ multiplies matrices: [3,2] @ [2,3] is [3,3]", (matrix @ matrix.T).shape == (3, 3)
    yield "* multiplies entry by entry", jnp.array_equal(vector * vector, jnp.array([100, 49]))
    flipped, reshaped = matrix.T, matrix.reshape(2, 3)
    yield "transposing and reshaping differ, to the same shape", not jnp.array_equal(flipped, reshaped)
    yield "means go over the axes that are named", jnp.allclose(matrix.mean(0), jnp.array([7.0, 6.0]))
    yield "argmax is the position of the largest", matrix[:, 0].argmax() == 0
    yield "a new axis of length 1 costs nothing", matrix[:, None].shape == (3, 1, 2)
    hot = jax.nn.one_hot(jnp.array([2, 0]), 3)
    yield "one-hot: a class is a row with a single 1", jnp.array_equal(hot, jnp.array([[0.0, 0, 1], [1, 0, 0]]))
    yield "half the bits, half the memory", matrix.astype(jnp.bfloat16).nbytes * 2 == matrix.nbytes


def keys(key: jax.Array) -> Iterator[Statement]:
    first, second = jax.random.split(key)
    same = partial(jax.random.normal, shape=(5,))
    yield "a key decides its random numbers: twice the same", jnp.array_equal(same(first), same(first))
    yield "split a key for others", not jnp.array_equal(same(first), same(second))
    yield "fold_in makes a key for every step of a training", jax.random.fold_in(key, 1) != jax.random.fold_in(key, 2)
    shuffled = jax.random.permutation(key, 10)
    yield "a shuffle is a permutation of the rows", jnp.array_equal(jnp.sort(shuffled), jnp.arange(10))


def transformations(key: jax.Array) -> Iterator[Statement]:
    def loss(w: jax.Array, x: jax.Array) -> jax.Array:
        return (jnp.tanh(x @ w) ** 2).sum()

    w, x = jax.random.normal(key, (4,)), jax.random.normal(jax.random.fold_in(key, 1), (6, 4))
    yield "jit compiles a function, and the result is the same", jnp.allclose(jax.jit(loss)(w, x), loss(w, x))
    slope = jax.grad(loss)(w, x)
    yield "grad makes the function of the slopes, of w's shape", slope.shape == w.shape
    t = jnp.tanh(x @ w)
    yield "they are those of the chain rule", jnp.allclose(slope, (2 * t * (1 - t**2)) @ x, atol=1e-5)
    each = jax.vmap(jax.grad(loss), in_axes=(None, 0))(w, x)
    yield "vmap maps over an axis: a gradient for each example", each.shape == (6, 4)
    yield "which add up to the gradient of the sum", jnp.allclose(each.sum(0), slope, atol=1e-5)
    tree = {"layer": {"kernel": x, "bias": w}}
    doubled = jax.tree.map(lambda leaf: 2 * leaf, tree)
    yield "parameters are a tree of arrays, mapped at once", jnp.array_equal(doubled["layer"]["bias"], 2 * w)
    yield "an array knows where it lies", next(iter(x.devices())).platform == jax.default_backend()


def run(options: Options, seed: int, out: Path) -> Outcome:
    """Check and print every statement."""
    true = []
    for part in (arrays, keys, transformations):
        print(f"\n{part.__name__}")
        for statement, holds in part(jax.random.key(seed)):
            true.append(bool(holds))
            print(f"  {'ok   ' if holds else 'WRONG'} {statement}")
    return Outcome("arrays made here", [Figure("share of statements that hold", float(np.mean(true)), at_least=1.0)])


def main(arguments: Sequence[str] | None = None) -> None:
    chapter.main("tensors", Options, run, arguments)


if __name__ == "__main__":
    main()
