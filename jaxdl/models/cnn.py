"""Small convolutional networks."""

from flax import linen as nn
from jax import Array

from jaxdl.models.head import Classes, Dtype, head
from jaxdl.ops import max_pool_2x2


class CNN(nn.Module):
    """Images `[B,H,W,C]` to logits `[B,K]`: groups of 3x3 convolutions with ReLU, each group halved by max pooling.

    With `filters=(10, 10), convolutions=2` it is TinyVGG, the network of https://poloclub.github.io/cnn-explainer/
    Parameter paths: `conv_G_N` for convolution N of group G, `dense_N` and `head`. All but the head compute in
    `dtype`.
    """

    num_classes: Classes
    filters: tuple[int, ...] = (32, 64)
    convolutions: int = 1
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array | dict[str, Array]:
        for group, filters in enumerate(self.filters):
            for n in range(self.convolutions):
                x = nn.relu(nn.Conv(filters, (3, 3), dtype=self.dtype, name=f"conv_{group}_{n}")(x))  # [B,H,W,filters]
            x = max_pool_2x2(x)  # [B,H/2,W/2,filters]
        x = x.reshape(x.shape[0], -1)  # [B,F]
        for n, width in enumerate(self.hidden):
            x = nn.relu(nn.Dense(width, dtype=self.dtype, name=f"dense_{n}")(x))  # [B,width]
        return head(x, self.num_classes, self.dropout, train)
