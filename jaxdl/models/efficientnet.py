"""EfficientNet B0-B7 and Lite0-4.

Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), arXiv:1905.11946.
Lite: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite

Parameter paths: `stem`, `blocks_S_R` for repeat R (from 0) of stage S (1 to 7, as in Keras's `block1a`), each with
`expand`, `depthwise`, `se_reduce`, `se_expand`, `project`, then `top` and `head`. The batch normalisation that follows
a convolution has its name with `_bn` behind it.
"""

import dataclasses
import math

import jax
from flax import linen as nn
from jax import Array

from jaxdl.models.head import Head
from jaxdl.ops import depthwise_conv


@dataclasses.dataclass(frozen=True)
class Stage:
    """A row of the paper's table 1: `repeats` inverted bottlenecks, of which the first has the stride."""

    kernel: int
    stride: int
    expand: int
    channels: int
    repeats: int


@dataclasses.dataclass(frozen=True)
class Scale:
    """One member of the family: how much wider and deeper than the baseline it is, and what it was trained with."""

    width: float
    depth: float
    size: int  # input height and width in pixels
    dropout: float  # ahead of the head
    parameters: int  # published, with 1000 classes
    lite: bool = False


# Table 1 of the paper: stages 2 to 8, here 1 to 7.
STAGES = (
    Stage(kernel=3, stride=1, expand=1, channels=16, repeats=1),
    Stage(kernel=3, stride=2, expand=6, channels=24, repeats=2),
    Stage(kernel=5, stride=2, expand=6, channels=40, repeats=2),
    Stage(kernel=3, stride=2, expand=6, channels=80, repeats=3),
    Stage(kernel=5, stride=1, expand=6, channels=112, repeats=3),
    Stage(kernel=5, stride=2, expand=6, channels=192, repeats=4),
    Stage(kernel=3, stride=1, expand=6, channels=320, repeats=1),
)
STEM_CHANNELS, TOP_CHANNELS = 32, 1280

# https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/efficientnet_builder.py and
# .../lite/efficientnet_lite_builder.py
SCALES = {
    "efficientnet_b0": Scale(1.0, 1.0, 224, 0.2, 5_288_548),
    "efficientnet_b1": Scale(1.0, 1.1, 240, 0.2, 7_794_184),
    "efficientnet_b2": Scale(1.1, 1.2, 260, 0.3, 9_109_994),
    "efficientnet_b3": Scale(1.2, 1.4, 300, 0.3, 12_233_232),
    "efficientnet_b4": Scale(1.4, 1.8, 380, 0.4, 19_341_616),
    "efficientnet_b5": Scale(1.6, 2.2, 456, 0.4, 30_389_784),
    "efficientnet_b6": Scale(1.8, 2.6, 528, 0.5, 43_040_704),
    "efficientnet_b7": Scale(2.0, 3.1, 600, 0.5, 66_347_960),
    "efficientnet_lite0": Scale(1.0, 1.0, 224, 0.2, 4_652_008, lite=True),
    "efficientnet_lite1": Scale(1.0, 1.1, 240, 0.2, 5_416_680, lite=True),
    "efficientnet_lite2": Scale(1.1, 1.2, 260, 0.3, 6_092_072, lite=True),
    "efficientnet_lite3": Scale(1.2, 1.4, 280, 0.3, 8_197_096, lite=True),
    "efficientnet_lite4": Scale(1.4, 1.8, 300, 0.3, 13_006_568, lite=True),
}

# Same source. In Flax's convention the momentum is the share of the old average that is kept.
BN_MOMENTUM, BN_EPSILON = 0.99, 1e-3
SE_RATIO = 0.25
DROP_CONNECT = 0.2

conv_init = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def depthwise_init(key: Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = float) -> Array:
    """Normal with variance 2 / k²: each output sees one channel, so the fan-out is the filter's area."""
    return nn.initializers.normal(math.sqrt(2 / (shape[0] * shape[1])))(key, shape, dtype)


def round_channels(channels: float, width: float) -> int:
    """The scaled number of channels, rounded to a multiple of 8 but never down by more than a tenth."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * scaled else rounded


class Depthwise(nn.Module):
    """A depthwise convolution, `[B,H,W,C]` to `[B,H/stride,W/stride,C]`; kernel `[k,k,1,C]`."""

    size: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", depthwise_init, (self.size, self.size, 1, x.shape[-1]))
        return depthwise_conv(x, kernel, self.stride)


class Block(nn.Module):
    """An inverted bottleneck: expand, depthwise, squeeze-and-excite (not in Lite), project; a skip if shapes allow."""

    stage: Stage  # with the scaled number of channels
    stride: int
    drop: float  # probability that an example skips the block, where there is a skip
    lite: bool
    bn_momentum: float

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        def norm(x: Array, name: str) -> Array:
            return nn.BatchNorm(momentum=self.bn_momentum, epsilon=BN_EPSILON, name=name)(
                x, use_running_average=not train
            )

        activation = nn.relu6 if self.lite else nn.silu
        shortcut, channels = x, x.shape[-1]  # [B,H,W,C]
        if self.stage.expand != 1:
            # A 1x1 convolution is a matrix product over the channels; `Dense` says so and XLA runs it faster.
            x = nn.Dense(channels * self.stage.expand, use_bias=False, kernel_init=conv_init, name="expand")(x)
            x = activation(norm(x, "expand_bn"))  # [B,H,W,6C]
        x = Depthwise(self.stage.kernel, self.stride, name="depthwise")(x)
        x = activation(norm(x, "depthwise_bn"))  # [B,H/s,W/s,6C]
        if not self.lite:
            squeezed = x.mean((1, 2))  # [B,6C]
            squeezed = nn.Dense(max(1, int(channels * SE_RATIO)), kernel_init=conv_init, name="se_reduce")(squeezed)
            gate = nn.Dense(x.shape[-1], kernel_init=conv_init, name="se_expand")(activation(squeezed))
            x = x * nn.sigmoid(gate)[:, None, None, :]
        x = nn.Dense(self.stage.channels, use_bias=False, kernel_init=conv_init, name="project")(x)
        x = norm(x, "project_bn")  # [B,H/s,W/s,C']
        if self.stride == 1 and channels == self.stage.channels:
            x = nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), name="drop")(x, deterministic=not train)
            x = x + shortcut
        return x


class EfficientNet(nn.Module):
    """Images `[B,H,W,3]` to logits `[B,K]`, or to pooled features `[B,F]` where `num_classes` is None."""

    scale: Scale
    num_classes: int | None = 1000
    dropout: float | None = None  # ahead of the head; None: the published rate
    drop_connect: float = DROP_CONNECT  # stochastic depth, at the last block
    bn_momentum: float = BN_MOMENTUM  # 0.9 where training from scratch takes only a few hundred steps

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array:
        scale = self.scale

        def norm(x: Array, name: str) -> Array:
            return nn.BatchNorm(momentum=self.bn_momentum, epsilon=BN_EPSILON, name=name)(
                x, use_running_average=not train
            )

        activation = nn.relu6 if scale.lite else nn.silu
        stem = STEM_CHANNELS if scale.lite else round_channels(STEM_CHANNELS, scale.width)
        x = nn.Conv(stem, (3, 3), (2, 2), use_bias=False, kernel_init=conv_init, name="stem")(x)
        x = activation(norm(x, "stem_bn"))  # [B,H/2,W/2,32]

        repeats = [
            # Lite leaves the first and the last stage as they are.
            stage.repeats if scale.lite and s in (0, len(STAGES) - 1) else math.ceil(stage.repeats * scale.depth)
            for s, stage in enumerate(STAGES)
        ]
        block = 0
        for s, stage in enumerate(STAGES):
            stage = dataclasses.replace(stage, channels=round_channels(stage.channels, scale.width))
            for r in range(repeats[s]):
                drop = self.drop_connect * block / sum(repeats)
                stride = stage.stride if r == 0 else 1
                x = Block(stage, stride, drop, scale.lite, self.bn_momentum, name=f"blocks_{s + 1}_{r}")(x, train)
                block += 1

        top = TOP_CHANNELS if scale.lite else round_channels(TOP_CHANNELS, scale.width)
        x = nn.Dense(top, use_bias=False, kernel_init=conv_init, name="top")(x)
        x = activation(norm(x, "top_bn"))  # [B,H/32,W/32,F]
        x = x.mean((1, 2))  # [B,F]
        if self.num_classes is None:
            return x
        dropout = scale.dropout if self.dropout is None else self.dropout
        return Head(self.num_classes, dropout, name="head")(x, train)
