"""The last layer of every model here, or the last layers side by side."""

from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from jaxdl.errors import InputError

Classes = int | tuple[tuple[str, int], ...] | None
"""The width of the output; the names and widths of several; None for the features alone."""

Dtype = Literal["float32", "bfloat16", "float16"]
"""What a network computes in. Parameters, statistics of batch normalisation, features and logits are float32 always."""


def check_images(x: Array) -> None:
    """Raise InputError unless there are four axes; a convolution takes others too, and what follows fails."""
    if x.ndim != 4:
        raise InputError("a convolutional network takes images [B,H,W,C]")


class Head(nn.Module):
    """Dropout and a dense layer, float32 `[B,F]` to logits `[B,K]`; the layer that transfer learning replaces.

    Its parameters lie directly under the module's name, so that in every model they are `head/kernel` and `head/bias`.
    """

    num_classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.num_classes))
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        return x @ kernel + bias[None, :]


def head(x: Array, num_classes: Classes, dropout: float, train: bool) -> Array | dict[str, Array]:
    """The end of a model, called inside it: `[B,F]` to logits `[B,K]` by `head`, to a dict of them by `head_NAME` for
    each of several, or the features themselves. Float32 from here on, whatever the network computes in: a softmax over
    many classes needs the bits."""
    x = x.astype(jnp.float32)
    if num_classes is None:
        return x
    if isinstance(num_classes, int):
        return Head(num_classes, dropout, name="head")(x, train)
    return {name: Head(width, dropout, name=f"head_{name}")(x, train) for name, width in num_classes}
