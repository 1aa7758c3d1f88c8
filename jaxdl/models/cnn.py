"""Small convolutional networks."""

from flax import linen as nn
from jax import Array

from jaxdl.models.activations import Function, activated
from jaxdl.models.head import Classes, Dtype, check_images, head
from jaxdl.ops import conv_3x3, max_pool_2x2


class Conv(nn.Module):
    """`nn.Conv` with 3x3 filters, its parameters and its results, faster on a CPU: `[B,H,W,I]` to `[B,H,W,filters]`."""

    filters: int
    dtype: Dtype

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, x.shape[-1], self.filters))
        bias = self.param("bias", nn.initializers.zeros, (self.filters,))
        return conv_3x3(x.astype(self.dtype), kernel, bias)


class CNN(nn.Module):
    """Images `[B,H,W,C]` to logits `[B,K]`: groups of 3x3 convolutions, each group halved by max pooling, or not.

    With `filters=(10, 10), convolutions=2` it is TinyVGG, the network of https://poloclub.github.io/cnn-explainer/
    Parameter paths: `conv_G_N` for convolution N of group G, `dense_N` and `head`. All but the head have the
    `activation` (`activations.NAMED`) and compute in `dtype`.
    """

    num_classes: Classes
    filters: tuple[int, ...] = (32, 64)
    convolutions: int = 1
    pooling: bool = True
    hidden: tuple[int, ...] = ()
    dropout: float = 0.0
    dtype: Dtype = "float32"
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array | dict[str, Array]:
        check_images(x)
        for group, filters in enumerate(self.filters):
            for n in range(self.convolutions):
                name = f"conv_{group}_{n}"
                x = Conv(filters, self.dtype, name=name)(x)  # [B,H,W,filters]
                x = activated(x, name, self.activation)
            if self.pooling:
                x = Function(max_pool_2x2, name=f"pool_{group}")(x)  # [B,H/2,W/2,filters]
        x = x.reshape(x.shape[0], -1)  # [B,F]
        for n, width in enumerate(self.hidden):
            name = f"dense_{n}"
            x = activated(nn.Dense(width, dtype=self.dtype, name=name)(x), name, self.activation)  # [B,width]
        return head(x, self.num_classes, self.dropout, train)
