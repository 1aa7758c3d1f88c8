"""Dense networks: a single neuron, a single layer, or a stack of them."""

from flax import linen as nn
from jax import Array

from jaxdl.models.activations import activated
from jaxdl.models.head import Classes, Dtype, head


class Hidden(nn.Dense):
    """Dropout and a dense layer, as `Head`: what is dropped ahead of a layer is frozen with it."""

    dropout: float = 0.0

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        x = nn.Dropout(self.dropout)(x, deterministic=not train) if self.dropout else x
        return super().__call__(x)  # [B,features]


class Dense(nn.Module):
    """Features `[B,F]`, or images `[B,H,W,C]` laid flat, to logits `[B,K]`.

    Without hidden layers and with one class it is a single neuron: a weighted sum and a bias.
    Parameter paths: `dense_0`, `dense_1`, … and `head`. The hidden layers have the `activation`
    (`activations.NAMED`) and compute in `dtype`. Dropout is ahead of each but the first, and ahead of the head.
    """

    num_classes: Classes
    hidden: tuple[int, ...] = (100,)
    dropout: float = 0.0
    dtype: Dtype = "float32"
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array | dict[str, Array]:
        x = x.reshape(x.shape[0], -1)  # [B,F]
        for n, width in enumerate(self.hidden):
            name = f"dense_{n}"
            layer = Hidden(width, dtype=self.dtype, dropout=self.dropout if n else 0.0, name=name)
            x = activated(layer(x, train), name, self.activation)  # [B,width]
        return head(x, self.num_classes, self.dropout, train)
