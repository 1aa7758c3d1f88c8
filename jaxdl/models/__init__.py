"""Networks as Flax modules, by name. The only package that knows Flax; the others see `init`, `apply` and nested dicts.

model = jaxdl.models.create("efficientnet_b0", num_classes=10)
variables = model.init(key, images)
logits = model.apply(variables, images, train=False)
"""

import dataclasses
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from jaxdl.errors import InputError, nearest
from jaxdl.models import activations
from jaxdl.models.capture import Layer, described, layer_outputs
from jaxdl.models.cnn import CNN
from jaxdl.models.dense import Dense
from jaxdl.models.efficientnet import ARCHITECTURES, EfficientNet, Padding, draw, keras_layers
from jaxdl.models.head import Classes, Dtype
from jaxdl.models.resnet import ResNet9
from jaxdl.models.tracing import Row, Summary, check_variables, evaluation, shapes, summary
from jaxdl.ops import platform

__all__ = [
    "ARCHITECTURES",
    "BatchStats",
    "Dtype",
    "Layer",
    "Row",
    "Summary",
    "activations",
    "apply",
    "check_variables",
    "create",
    "fold_batchnorm",
    "head_alone",
    "init",
    "input_size",
    "keras_layers",
    "layer_outputs",
    "layers",
    "loops",
    "names",
    "parameters",
    "shapes",
    "summary",
    "with_head",
    "without_head",
]

BatchStats = Literal["update", "frozen"]

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "neuron": partial(Dense, hidden=()),
    "dense": Dense,
    "cnn": CNN,
    "tiny_vgg": partial(CNN, filters=(10, 10), convolutions=2),
    "resnet9": ResNet9,
    **{name: partial(EfficientNet, spec) for name, spec in ARCHITECTURES.items()},
}


def _count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and bool(value >= 1)


def _counts(value: Any) -> bool:
    return isinstance(value, tuple | list) and all(map(_count, value))


def _share(value: Any) -> bool:
    return isinstance(value, int | float | np.floating) and bool(0 <= value < 1)


# Of the options, those whose mistakes would show late: whether a value is one, and what they are.
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "hidden": (_counts, "the widths of the hidden layers, such as (100,)"),
    "filters": (_counts, "the filters of each group of convolutions, such as (32, 64)"),
    "dropout": (_share, "a share from 0 up to 1"),
    "drop_connect": (_share, "a share from 0 up to 1"),
    "bn_groups": (_count, "a number of groups, from 1"),
    "padding": (get_args(Padding).__contains__, f"one of {', '.join(get_args(Padding))}"),
}


def names() -> tuple[str, ...]:
    """Every name that `create` knows."""
    return tuple(_MODELS)


def create(name: str, num_classes: int | Mapping[str, int] | None = None, **options: Any) -> nn.Module:
    """A network by name.

    Args:
      name: one of `names()`.
      num_classes: width of the output; several of them by name, for a network that returns a dict of outputs; None for
        the network without its head, which returns features `[B,F]`.
      **options: the module's own fields, such as `hidden=(100,)` for "dense", `dropout=0.3`, `activation="gelu"` (of
        `activations.NAMED`), or `dtype="bfloat16"` for what it computes in; parameters, statistics and outputs are
        float32 all the same.

    Returns:
      A Flax module: `model.init(key, x)` and `model.apply(variables, x, train=False)` with images `[B,H,W,C]`.

    Raises:
      InputError: the name or an option does not exist, and the nearest is named; or its value cannot be.
    """
    if name not in _MODELS:
        raise InputError(f"no model is called {name!r}{nearest(str(name), names())}")
    make = _MODELS[name]
    module: Any = make.func if isinstance(make, partial) else make
    hidden = ("parent", "name", "architecture", "num_classes")
    known = {field.name: field.default for field in dataclasses.fields(module) if field.name not in hidden}
    for option in options:
        if option not in known:
            raise InputError(f"{name} has no option {option!r}{nearest(option, known)}")
    if (dtype := options.get("dtype", "float32")) not in get_args(Dtype):
        raise InputError(f"{name} cannot compute in {dtype!r}{nearest(str(dtype), get_args(Dtype))}")
    if "activation" in options:
        activations.by_name(options["activation"])
    given = {option: value for option, value in options.items() if value is not None or known[option] is not None}
    for option, (valid, what) in _CHECKS.items():
        if option in given and not valid(given[option]):
            raise InputError(f"the option {option} of {name} is {what}; got {given[option]!r}")
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}  # hashable
    return make(num_classes=_classes(num_classes), **options)


def input_size(name: str) -> int | None:
    """Height and width in pixels that a network was designed for; None where any size will do."""
    return ARCHITECTURES[name].size if name in ARCHITECTURES else None


def parameters(name: str) -> int | None:
    """How many parameters a network has with 1000 classes; None where that depends on its input and options."""
    return ARCHITECTURES[name].parameters if name in ARCHITECTURES else None


def loops(model: nn.Module, variables: Mapping[str, Any]) -> bool:
    """Whether training is as fast inside a `lax.scan` as outside. On a CPU it is not with convolutions, whose gradients
    take XLA about five times as long there; but with those of `CNN`, which has its own (`ops.conv_3x3`)."""
    convolves = any(np.ndim(leaf) == 4 for leaf in jax.tree.leaves(variables["params"]))
    return platform() != "cpu" or isinstance(model, CNN) or not convolves


def without_head(model: nn.Module) -> nn.Module:
    """The same network up to its head; its parameters are the same tree without "head"."""
    return model.clone(num_classes=None)


def with_head(model: Any, num_classes: int | Mapping[str, int], dropout: float | None = None) -> nn.Module:
    """The same network with an output of another width, or several of them by name (see `create`).

    Args:
      dropout: ahead of it; None for what the network has.
    """
    more = {} if dropout is None else {"dropout": dropout}
    return model.clone(num_classes=_classes(num_classes), **more)


def head_alone(model: Any) -> nn.Module | None:
    """A network for the features `[B,F]` of `without_head` that does what the head of this one does, with the same
    parameters; None where the model is not one of this library's."""
    if not isinstance(model, Dense | CNN | ResNet9 | EfficientNet):
        return None
    dropout = model.dropout
    if isinstance(model, EfficientNet) and dropout is None:
        dropout = model.architecture.dropout
    return Dense(model.num_classes, hidden=(), dropout=dropout)


def init(model: nn.Module, key: Array, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Fresh variables for inputs of this shape, without the batch axis: `(H,W,C)` or `(F,)`; NumPy or JAX arrays.

    Raises: as `shapes`.
    """
    like, _ = shapes(model, input_shape)
    if isinstance(model, EfficientNet):
        return draw(like, np.asarray(jax.random.key_data(key)))
    return jax.jit(partial(model.init, **evaluation(model)))(key, jnp.zeros((1, *input_shape)))


def fold_batchnorm(model: nn.Module, variables: Mapping[str, Any]) -> tuple[nn.Module, dict[str, Any]]:
    """The network for inference alone: every batch normalisation folded into the convolution ahead of it.

    Args:
      model: an EfficientNet.
      variables: `{"params": …, "batch_stats": …}`.

    Returns:
      The network without batch normalisation, and its variables, NumPy arrays where they were; the same outputs in
      evaluation, to rounding.

    Raises:
      InputError: the network is not an EfficientNet, or is folded already.
    """
    if not isinstance(model, EfficientNet) or model.folded:
        raise InputError(f"only an EfficientNet that is not folded yet can be folded; this is {model!r:.60}")

    def fold(params: Mapping[str, Any], stats: Mapping[str, Any]) -> dict[str, Any]:
        folded: dict[str, Any] = {}
        for name, module in params.items():
            norm = f"{name}_bn"
            if name in stats and "mean" in stats[name]:  # a batch normalisation, done with its convolution
                continue
            if norm in params:
                factor = params[norm]["scale"] * (stats[norm]["var"] + model.bn_epsilon) ** -0.5  # [O]
                axes = (None,) * (module["kernel"].ndim - 1)
                folded[name] = {"kernel": module["kernel"] * factor[axes]}
                folded[norm] = {"bias": params[norm]["bias"] - stats[norm]["mean"] * factor}
            else:
                folded[name] = fold(module, stats[name]) if name in stats else module
        return folded

    return model.clone(folded=True), {"params": fold(variables["params"], variables["batch_stats"])}


def _classes(num_classes: int | Mapping[str, int] | None) -> Classes:
    """The module's field: hashable, and checked."""
    if num_classes is None:
        return None
    fields = dict(num_classes) if isinstance(num_classes, Mapping) else {"": num_classes}
    for head, width in fields.items():
        if not isinstance(width, int | np.integer) or not isinstance(head, str) or "/" in head:
            raise InputError(f"num_classes is a number, numbers by the names of heads, or None; got {num_classes!r}")
    if min(fields.values(), default=0) < 1:
        raise InputError(f"a model has at least one class, got num_classes={num_classes}")
    widths = {head: int(width) for head, width in fields.items()}
    return tuple(widths.items()) if isinstance(num_classes, Mapping) else widths[""]


@lru_cache(maxsize=32)
def layers(model: nn.Module, input_shape: tuple[int, ...]) -> Mapping[str, Layer]:
    """A network's layers by their paths (see `layer_outputs`), in the order in which they end; nothing is computed.

    Raises:
      InputError: the network cannot take inputs of this shape.
    """
    variables, _ = shapes(model, input_shape)
    return described(model, variables, jax.ShapeDtypeStruct((1, *input_shape), jnp.float32))


def apply(
    model: nn.Module,
    variables: Mapping[str, Any],
    x: Array,
    *,
    key: Array,
    frozen: frozenset[str] = frozenset(),
    batch_stats: BatchStats = "update",
    axis_name: str | None = None,
) -> tuple[Any, dict[str, Any]]:
    """Run a network in training mode, but for its frozen modules, which run as in evaluation.

    Works for any Flax module with `nn.BatchNorm` and `nn.Dropout` inside: their calls are intercepted.

    Args:
      variables: `{"params": …, "batch_stats": …}`.
      x: `[B,…]`.
      key: for dropout and stochastic depth.
      frozen: paths of modules (`trees.frozen_modules`) whose BatchNorm uses its running averages and leaves them as
        they are, and whose dropout is off.
      batch_stats: "frozen" does that to every BatchNorm.
      axis_name: the mapped axis over which statistics are averaged, under `pmap`.

    Returns:
      The output, and the new model state (all collections but "params").
    """

    def still(path: tuple[str, ...]) -> bool:
        """Whether a module or one that holds it is frozen; it may have no parameters of its own."""
        return any("/".join(path[:n]) in frozen for n in range(len(path) + 1))

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        if isinstance(module, nn.BatchNorm):
            off = batch_stats == "frozen" or still(module.path)
            field = "use_running_average"
        elif isinstance(module, nn.Dropout):
            off = still(module.path)
            field = "deterministic"
        else:
            return call(*args, **kwargs)
        # Linen takes these switches in the call or as a field of the module, and refuses both. The module is this
        # call's own copy, so setting the field reaches nothing else.
        if off and getattr(module, field) is not None:
            object.__setattr__(module, field, True)
        elif off:
            args, kwargs = args[:1], {**kwargs, field: True}
        if isinstance(module, nn.BatchNorm) and axis_name is not None:
            object.__setattr__(module, "axis_name", axis_name)
        return call(*args, **kwargs)

    state = [name for name in variables if name != "params"]
    with nn.intercept_methods(intercept):
        y, new_state = model.apply(variables, x, train=True, mutable=state, rngs={"dropout": key})
    return y, new_state
