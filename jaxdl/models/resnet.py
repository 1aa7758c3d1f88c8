"""A residual network for small images.

ResNet-9 of Page, "How to train your ResNet" (2018), made for DAWNBench's race to 94 % on CIFAR-10:
https://github.com/davidcpage/cifar10-fast/blob/master/dawn.py (`net`).
"""

from functools import partial

from flax import linen as nn
from jax import Array

from jaxdl.models.efficientnet import Norm
from jaxdl.models.head import Classes, Dtype, head
from jaxdl.ops import max_pool_2x2

HEAD_SCALE = 0.125  # of the features, as published (there of the logits, without a bias): a fresh network is unsure


class Sum(nn.Module):
    """The sum behind a skip as a layer, so that what it gives has a name (`models.layer_outputs`)."""

    @nn.compact
    def __call__(self, x: Array, y: Array) -> Array:
        return x + y


class ResNet9(nn.Module):
    """Images `[B,H,W,C]`, of 8 pixels or more in height and width, to logits `[B,K]`.

    A stem and three groups. A group begins with a convolution that doubles the channels, and 2x2 max pooling; in the
    first and the last group two convolutions follow, around which there is a skip. All are 3x3, with batch
    normalisation and ReLU. Then the maximum over height and width, and the head. The published width is 64, with 6.57
    million parameters for ten classes.

    Parameter paths: `stem`, `blocks_G_N` for convolution N of group G, from 1 and from 0, and `head`; the batch
    normalisation of each convolution has its name with `_bn` behind it, and the sum of a skip is the layer
    `blocks_G_sum`. All but the head computes in `dtype`.
    """

    num_classes: Classes
    width: int = 64
    dropout: float = 0.0
    bn_momentum: float = 0.9
    bn_groups: int = 1  # see `EfficientNet`
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array | dict[str, Array]:
        norm = partial(
            Norm,
            use_running_average=not train,
            momentum=self.bn_momentum,
            epsilon=1e-5,
            dtype=self.dtype,
            activation=nn.relu,
            groups=self.bn_groups,
        )

        def convolution(x: Array, filters: int, name: str) -> Array:
            x = nn.Conv(filters, (3, 3), use_bias=False, dtype=self.dtype, name=name)(x)  # [B,H,W,filters]
            return norm(name=f"{name}_bn")(x)

        x = convolution(x, self.width, "stem")  # [B,H,W,width]
        for group, residual in enumerate((True, False, True), 1):
            name = f"blocks_{group}"
            x = max_pool_2x2(convolution(x, 2**group * self.width, f"{name}_0"))  # [B,H/2,W/2,2C]
            if residual:
                y = convolution(x, x.shape[-1], f"{name}_1")
                x = Sum(name=f"{name}_sum")(x, convolution(y, x.shape[-1], f"{name}_2"))
        x = HEAD_SCALE * x.max((1, 2))  # [B,8*width]
        return head(x, self.num_classes, self.dropout, train)
