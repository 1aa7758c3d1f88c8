"""The last layer of every model here."""

import jax.numpy as jnp
from flax import linen as nn
from jax import Array


class Head(nn.Module):
    """Dropout and a dense layer, `[B,F]` to logits `[B,K]`; the layer that transfer learning replaces.

    Its parameters lie directly under the module's name, so that in every model they are `head/kernel` and `head/bias`.
    """

    num_classes: int
    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.num_classes))
        bias = self.param("bias", nn.initializers.zeros, (self.num_classes,))
        x = nn.Dropout(self.dropout)(x, deterministic=not train)
        # Logits are float32 whatever the compute type: a softmax over many classes needs the bits.
        return x.astype(jnp.float32) @ kernel + bias[None, :]
