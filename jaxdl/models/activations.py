"""Activation functions by name, and functions as layers."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxdl.errors import InputError, nearest

Activation = Callable[[Array], Array]
"""Elementwise, of the dtype that it is given."""

NAMED: dict[str, Activation] = {
    "linear": lambda x: x,
    "sigmoid": jax.nn.sigmoid,
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "leaky_relu": partial(jax.nn.leaky_relu, negative_slope=0.1),
    "elu": jax.nn.elu,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "selu": jax.nn.selu,
    "softplus": jax.nn.softplus,
    "softsign": jax.nn.soft_sign,
    "mish": jax.nn.mish,
    "relu6": jax.nn.relu6,
    "hard_tanh": jax.nn.hard_tanh,
    "hard_sigmoid": jax.nn.hard_sigmoid,
    "hard_silu": jax.nn.hard_silu,
}
"""Activation functions by name.

"leaky_relu" has the slope 0.1 below 0, which is steeper than PyTorch's 0.01 and flatter than Keras's 0.2. "gelu" is the
exact one, as it is by default in both: x times the normal distribution function. "silu" is swish.
"""


def by_name(name: str) -> Activation:
    """The activation function of that name in `NAMED`.

    Raises:
      InputError: there is none; the nearest is named.
    """
    if name not in NAMED:
        raise InputError(f"there is no activation {name!r}{nearest(str(name), NAMED)}")
    return NAMED[name]


class Function(nn.Module):
    """A function without parameters as a layer, so that what it gives has a name (`models.layer_outputs`)."""

    function: Activation

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return self.function(x)


def activated(x: Array, layer: str, activation: str) -> Array:
    """What a layer gives, with its activation, called inside a model; that is the layer `LAYER_ACTIVATION`."""
    return Function(by_name(activation), name=f"{layer}_{activation}")(x)
