"""What a network is, found by tracing it: the shapes of its variables, and its layers with what they cost. Nothing is
computed or allocated."""

import contextlib
import inspect
import math
import operator
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any
from uuid import uuid4

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.errors import FlaxError
from jax.extend.core import jaxprs_in_params

from jaxdl import trees
from jaxdl.errors import InputError
from jaxdl.models.cnn import Conv
from jaxdl.models.efficientnet import Depthwise, pads
from jaxdl.ops import convolution, depthwise

MISTAKES = (TypeError, ValueError, IndexError, ZeroDivisionError, FlaxError)
"""What JAX and Flax raise where a layer cannot take its input."""


@dataclass(frozen=True)
class Row:
    """A layer, or a module with all that is in it."""

    path: str
    """As in the paths of parameters, `blocks_3_0/expand`; "" is the network itself."""
    kind: str
    """Its class: Dense, Conv, BatchNorm, …"""
    output: tuple[int, ...]
    """For a batch of one; of several outputs, that of the first, and of several calls, that of the last."""
    parameters: int
    statistics: int
    """The numbers in its other variables: the running averages of batch normalisation."""
    flops: int
    """Floating-point operations for one example, see `summary`."""


@dataclass(frozen=True)
class Summary:
    """A network layer by layer; `print` it."""

    input: tuple[int, ...]
    """For a batch of one."""
    rows: tuple[Row, ...]
    """In the order of computation."""
    bytes: int
    """Of the parameters and statistics."""

    @property
    def parameters(self) -> int:
        return sum(row.parameters for row in self.rows)

    @property
    def statistics(self) -> int:
        return sum(row.statistics for row in self.rows)

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    def table(self, trainable: trees.Tree | None = None) -> str:
        """A line for each row, and the sums.

        Args:
          trainable: a mask over the parameters, from `trees.mask` or `transfer.freeze`, to mark what is frozen.

        Raises:
          InputError: the mask is of another network.
        """
        states: dict[str, set[bool]] = {row.path: set() for row in self.rows}
        for path, on in trees.paths(trainable or {}).items():
            if (holder := _holder(path, states)) not in states:
                raise InputError(f"the mask belongs to another network: no layer of this one holds {path}")
            states[holder].add(on)
        lines = [["layer", "kind", "output", "parameters", "FLOPs", "statistics", ""]]
        lines += [["input", "", _axes(self.input), "", "", "", ""]]
        for row in self.rows:
            counts = (f"{row.parameters:,}", _short(row.flops).strip(), f"{row.statistics:,}")
            state = "frozen" if states[row.path] == {False} else "in part" if False in states[row.path] else ""
            cells = (row.path or "(all)", row.kind, _axes(row.output), *counts, state)
            lines.append(["" if cell == "0" else cell for cell in cells])
        statistics = f" and {self.statistics:,} statistics" if self.statistics else ""
        if not statistics:
            lines = [[*line[:5], *line[6:]] for line in lines]
        return (
            f"{trees.columns(lines, right=range(3, len(lines[0]) - 1))}\n"
            f"{self.parameters:,} parameters{statistics}, {_short(self.bytes)}B; "
            f"{_short(self.flops)}FLOPs for one example, a multiply-add being two"
        )

    def __str__(self) -> str:
        return self.table()


def shapes(model: Any, input_shape: Sequence[int]) -> tuple[dict[str, Any], Any]:
    """What `init` would return, and the output for a batch of one, both as shapes; nothing is computed.

    Args:
      model: a Flax module.
      input_shape: of one example, `(H,W,C)` or `(F,)`.

    Raises:
      InputError: the network cannot take inputs of this shape; the layer that cannot is named.
    """
    if not isinstance(model, nn.Module):
        what = f"the class {model.__name__}, not one of it" if isinstance(model, type) else repr(model)
        raise InputError(f"a model is a Flax Linen module, such as models.create makes; this is {what:.80}")
    try:
        sizes = tuple(map(operator.index, input_shape))
    except TypeError:
        sizes = (0,)
    if min(sizes, default=1) < 1:
        raise InputError(f"the shape of an input is sizes from 1, (H,W,C) or (F,); got {input_shape}")
    return (_shapes if _hashable(model) else _shapes.__wrapped__)(model, sizes)


@lru_cache(maxsize=32)
def _shapes(model: nn.Module, input_shape: tuple[int, ...]) -> tuple[dict[str, Any], Any]:
    calls = _Calls()

    def why(reason: str) -> InputError:
        """One line, without the address that Flax adds."""
        reason = reason.split("\n")[0].split(" (http")[0]
        return InputError(f"{type(model).__name__} cannot take inputs of shape {list(input_shape)}: {reason}")

    try:
        with nn.intercept_methods(calls):
            run = partial(model.init_with_output, **evaluation(model))
            outputs, variables = jax.eval_shape(run, jax.random.key(0), _one(input_shape))
    except InputError as error:
        raise why(str(error)) from None
    except MISTAKES as error:
        if calls.empty is not None:
            raise why(f"they are too small, nothing is left of them at {calls.empty}") from None
        where = f"{calls.failed}, given {_axes(calls.input)}: " if calls.failed else ""
        raise why(f"{where}{error}") from error
    if any(0 in leaf.shape for leaf in jax.tree.leaves((variables, outputs))):
        raise why("they are too small" + (f", nothing is left of them at {calls.empty}" if calls.empty else ""))
    return variables, outputs


def evaluation(model: nn.Module) -> dict[str, bool]:
    """What tells a network that it is not being trained: `train=False`, or nothing where its call takes no `train`."""
    taken = inspect.signature(model.__call__).parameters.values()
    any_name = not isinstance(model, nn.Sequential) and any(each.kind is each.VAR_KEYWORD for each in taken)
    return {"train": False} if any_name or any(each.name == "train" for each in taken) else {}


def check_variables(model: Any, variables: Mapping[str, Any], input_shape: Sequence[int]) -> None:
    """Raise InputError unless the network takes inputs of this shape with these variables; more of them do no harm.

    Only shapes are compared, which have been found once for each network and shape.
    """
    expected = trees.paths(shapes(model, input_shape)[0])
    if not evaluation(model):
        raise InputError(f"{type(model).__name__} takes no argument `train`; write: def __call__(self, x, train=False)")
    if not _hashable(model):
        raise InputError(f"{type(model).__name__} has a field that cannot be hashed; make its lists tuples")
    if not isinstance(variables, Mapping) or (expected and "params" not in variables):
        what = f"these have {', '.join(variables)}" if isinstance(variables, Mapping) else f"this is {variables!r:.40}"
        raise InputError(f"a network's variables are a dict with 'params'; {what}")
    given: dict[str, tuple[int, ...]] = {
        path: getattr(leaf, "shape", ()) for path, leaf in trees.paths(variables).items()
    }
    wrong = {path: leaf.shape for path, leaf in expected.items() if given.get(path) != leaf.shape}
    if not wrong:
        return
    # Kernels `[...,I,O]` that differ in I only are those of a network for other inputs.
    if all(path in given and _but_inputs(given[path]) == _but_inputs(shape) for path, shape in wrong.items()):
        calls = _Calls()
        with nn.intercept_methods(calls), contextlib.suppress(*MISTAKES):
            jax.eval_shape(partial(model.apply, train=False), variables, _one(input_shape))
        kernel = f"params/{calls.failed}/kernel"
        if kernel in wrong and calls.input:
            got = calls.input[-1]
            takes = got * given[kernel][-2] // wrong[kernel][-2]  # in groups, a kernel sees a part of it
            raise InputError(
                f"{calls.failed} takes inputs [..., {takes}], got [..., {got}], from examples {list(input_shape)}"
            )
    path, more = next(iter(wrong)), f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    found = f"{path} is {list(given[path])}" if path in given else f"there is no {path}"
    raise InputError(f"the variables do not belong to this model: {found}, expected {list(wrong[path])}{more}")


def summary(model: Any, input_shape: Sequence[int], depth: int | None = None) -> Summary:
    """A network layer by layer, as Keras's `model.summary()`: path, kind, shape of the output, parameters, FLOPs.

    FLOPs are those of the matrix products and convolutions in evaluation, for one example: two for each multiply-add,
    with those that meet padding. Papers often call half of it so. Activations, normalisation, pooling and additions
    count nothing; a loop whose length the program does not know counts once.

    Args:
      model: a Flax module, of this library or not.
      input_shape: of one example, `(H,W,C)` or `(F,)`.
      depth: how deep modules are taken apart: 1 for a row for each module at the top, such as a block; None for a row
        for each layer, which is a module that holds variables or products itself, or no other module.

    Raises:
      InputError: the network cannot take inputs of this shape, or `depth` is below 1.
    """
    if depth is not None and depth < 1:
        raise InputError(f"a summary goes at least 1 module deep, got depth={depth}")
    variables, _ = shapes(model, input_shape)
    calls: dict[str, tuple[str, tuple[int, ...]]] = {}  # kind and output, by path, in the order of their ends
    scopes: list[str] = []  # the path of each call
    mark = f"call-{uuid4().hex}-"  # JAX keeps what it has traced under `nn.jit`, with the marks of another time

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module, path = context.module, "/".join(context.module.path)
        scopes.append(path)
        with jax.named_scope(f"{mark}{len(scopes) - 1}-"):
            if isinstance(module, Depthwise):
                # A CPU's is written as a sum of products, which do not tell themselves from an activation's.
                kernel = module.get_variable("params", "kernel").astype(args[0].dtype)
                y = depthwise.reference(args[0], kernel, module.stride, pads(module.padding, module.size))
            elif isinstance(module, Conv):
                # And a small network's is done on blocks of pixels, with more multiplications than it needs.
                kernel = module.get_variable("params", "kernel").astype(module.dtype)
                y = convolution.reference(args[0].astype(module.dtype), kernel)
            else:
                y = call(*args, **kwargs)
        if outputs := [leaf.shape for leaf in jax.tree.leaves(y) if hasattr(leaf, "shape")]:
            calls[path] = _kind(module), outputs[0]
        return y

    def run(variables: Any, x: Any, key: jax.Array) -> Any:
        state = [name for name in variables if name != "params"]
        return model.apply(variables, x, rngs=key, mutable=state, **evaluation(model))

    with nn.intercept_methods(intercept):
        program = jax.make_jaxpr(run)(variables, _one(input_shape), jax.random.key(0))
    calls[""] = calls.pop("")  # it ends last, though another method of it may have ended before

    def row(path: str) -> str:
        """The row of what is at a path, or in it."""
        return "/".join(path.split("/")[:depth])

    numbers: dict[str, Counter[str]] = {name: Counter() for name in ("parameters", "statistics", "flops")}
    layers = set()
    for name, leaf in trees.paths(variables).items():
        collection, _, path = name.partition("/")
        layers.add(holder := _holder(path, calls))
        numbers["parameters" if collection == "params" else "statistics"][row(holder)] += leaf.size
    for scope, flops in _products(program):
        path = scopes[int(scope.rpartition(mark)[2].partition("-")[0])]
        layers.add(holder := _holder(f"{path}/", calls))
        numbers["flops"][row(holder)] += flops
    within = {_holder(path, calls) for path in calls if path}  # the modules that hold modules
    layers |= {path for path in calls if path not in within and not _holder(path, layers)}
    # A module that is not taken apart stands where its first layer does.
    rows = (
        Row(path, *calls.get(path, ("Module", calls[layer][1])), *(counts[path] for counts in numbers.values()))
        for path, layer in {row(layer): layer for layer in calls if layer in layers}.items()
    )
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(variables))
    return Summary((1, *input_shape), tuple(rows), size)


class _Calls:
    """Method interceptor that remembers which layer came first to an end with an error, and what it was given; and the
    first that was given an array without entries."""

    def __init__(self) -> None:
        self.failed: str | None = None
        self.input: tuple[int, ...] = ()
        self.empty: str | None = None

    def __call__(self, call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        shape = next((each.shape for each in args if hasattr(each, "shape")), ())
        if 0 in shape and self.empty is None:
            self.empty = path
        try:
            return call(*args, **kwargs)
        except Exception:  # noted, and raised again
            if self.failed is None:
                self.failed, self.input = path, shape
            raise


def _hashable(model: nn.Module) -> bool:
    """Whether what has been found for it can be kept: lists and dicts among its fields cannot be hashed."""
    try:
        return hash(model) is not None
    except TypeError:
        return False


def _one(input_shape: Sequence[int]) -> jax.ShapeDtypeStruct:
    """A batch of one."""
    return jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)


def _but_inputs(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a kernel without its second to last axis, along which it meets the channels of its input."""
    return (len(shape), *shape[:-2], *shape[-1:]) if len(shape) > 1 else shape


def _holder(path: str, known: Collection[str]) -> str:
    """The innermost known module that something at this path lies in; "" for none."""
    while path:
        path = path.rpartition("/")[0]
        if path in known:
            return path
    return ""


def _kind(module: nn.Module) -> str:
    """The class of a module, or the one of Flax's that it is made from."""
    names = [each.__name__ for each in type(module).__mro__ if each.__module__.startswith("flax.")]
    return type(module).__name__ if names[0] == "Module" else names[0]


def _products(program: Any, scope: str = "", times: int = 1) -> Iterator[tuple[str, int]]:
    """The matrix products and convolutions of a program: the scope in which each of them stands, and its FLOPs."""
    for equation in program.eqns:
        name, params = equation.primitive.name, equation.params
        inside = f"{scope}/{equation.source_info.name_stack}"
        if name in ("dot_general", "conv_general_dilated"):
            left, right = (operand.aval.shape for operand in equation.invars)
            if name == "dot_general":
                terms = math.prod(left[axis] for axis in params["dimension_numbers"][0][0])
            else:  # of a transposed convolution, most of the taps meet the zeros between the pixels
                terms = math.prod(right) // right[params["dimension_numbers"].rhs_spec[0]]
                terms /= math.prod(params["lhs_dilation"])
            yield inside, round(2 * times * equation.outvars[0].aval.size * terms)
        parts = list(jaxprs_in_params(params))
        if name == "cond":  # one of its branches is taken
            parts = [max(parts, key=lambda part: sum(flops for _, flops in _products(part)))]
        for part in parts:
            yield from _products(part, inside, times * params["length"] if name == "scan" else times)


def _axes(shape: Sequence[int]) -> str:
    """A shape for people: `[B,112,112,32]`, the batch being of one.

    >>> _axes((1, 112, 112, 32))
    '[B,112,112,32]'
    """
    return f"[{','.join('B' if n == 0 and size == 1 else str(size) for n, size in enumerate(shape))}]"


def _short(number: int) -> str:
    """A count ahead of its unit.

    >>> _short(21_676_032), _short(600)
    ('21.68 M', '600 ')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} "
