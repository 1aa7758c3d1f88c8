"""What the layers of a network give, for anybody's Flax module: their calls are intercepted."""

from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, NamedTuple

import jax
from flax import linen as nn
from flax.traverse_util import flatten_dict
from jax import Array

from jaxdl.models.cnn import Conv
from jaxdl.models.efficientnet import Depthwise, Pointwise

CONVOLUTIONS = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, Conv, Depthwise, Pointwise)
OUTPUTS = "layer_outputs"  # a collection of variables; unlike a dict of ours, it goes through `nn.jit` and `nn.remat`


class Layer(NamedTuple):
    """What is known of a layer without running it."""

    kind: str
    """The name of its class."""
    shape: tuple[int, ...]
    """Of its output, without the batch axis."""
    convolution: bool


def described(model: nn.Module, variables: Mapping[str, Any], x: jax.ShapeDtypeStruct) -> dict[str, Layer]:
    """Every layer by its path (`layer_outputs`), in the order in which they end; of shapes, and nothing is computed."""
    found: dict[str, Layer] = {}

    def describe(module: nn.Module, path: str, y: Any) -> Any:
        if path and hasattr(y, "shape") and module.sow(OUTPUTS, "__call__", y):
            found[path] = Layer(type(module).__name__, y.shape[1:], isinstance(module, CONVOLUTIONS))
        return y

    with _each_output(describe):
        jax.eval_shape(partial(model.apply, train=False, mutable=[OUTPUTS]), variables, x)
    return found


def layer_outputs(
    model: nn.Module, variables: Mapping[str, Any], x: Array, add: Mapping[str, Array] | None = None
) -> tuple[Any, dict[str, Array]]:
    """Run a network in evaluation, and keep what every layer gives.

    A layer is a Flax module inside the network, by its path; where it is called again, that is `PATH:2`. One that holds
    others is a layer too, and comes behind them. The activation of this library's networks is seen: in `Dense` and
    `CNN` it is a layer of its own, such as `conv_0_0_relu`, and in an EfficientNet a part of the batch normalisation.
    Of other networks a function that is called between the layers is not.

    Args:
      x: `[B,…]`.
      add: arrays to add to the outputs of layers, by path, so that one can differentiate by these outputs.

    Returns:
      The output of the network, and those of its layers, by path; such as are not a single array are left out, and so
      are those inside `nn.scan` and `nn.vmap`.
    """

    def keep(module: nn.Module, path: str, y: Any) -> Any:
        y = y + add[path].astype(y.dtype) if add and path in add else y
        module.sow(OUTPUTS, "__call__", y)
        return y

    with _each_output(keep):
        y, kept = model.apply(variables, x, train=False, mutable=[OUTPUTS])
    calls = flatten_dict(kept.get(OUTPUTS, {}), sep="/")
    found = {}
    for path, outputs in calls.items():
        module = path.rpartition("/")[0]
        for n, output in enumerate(outputs, 1):
            if module and hasattr(output, "shape"):
                found[_call(module, n)] = output
    return y, found


def _each_output(change: Callable[[nn.Module, str, Any], Any]) -> AbstractContextManager[None]:
    """Inside it, what a layer gives goes through `change(module, path, output)`; the path of the network is ""."""
    counts: Counter[str] = Counter()
    running: list[str] = []

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        path = "/".join(context.module.path)
        if context.method_name != "__call__" or path in running:  # a class may call the class that it is made from
            return call(*args, **kwargs)
        running.append(path)
        y = call(*args, **kwargs)
        running.remove(path)
        counts[path] += 1
        return change(context.module, _call(path, counts[path]), y)

    return nn.intercept_methods(intercept)


def _call(path: str, n: int) -> str:
    return path if n == 1 else f"{path}:{n}"
