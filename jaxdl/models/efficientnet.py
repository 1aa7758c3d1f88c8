"""EfficientNet B0-B7, Lite0-4, V2-B0-B3 and V2-S/M/L.

B0-B7: Tan & Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019), arXiv:1905.11946.
Lite: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
V2: Tan & Le, "EfficientNetV2: Smaller Models and Faster Training" (2021), arXiv:2104.00298.

Parameter paths: `stem`, `blocks_S_R` for repeat R (from 0) of stage S (1 to 7, as in Keras's `block1a`), each with
`expand`, `depthwise`, `se_reduce`, `se_expand`, `project`, then `top` and `head`. The batch normalisation that follows
a convolution has its name with `_bn` behind it.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import Array

from jaxdl.errors import InputError
from jaxdl.models.head import Classes, Dtype, check_images, head
from jaxdl.ops import batch_norm, depthwise_conv, pointwise
from jaxdl.ops.normalization import Activation, silu

Padding = Literal["same", "symmetric"]


@dataclasses.dataclass(frozen=True)
class Stage:
    """`repeats` inverted bottlenecks, of which the first has the stride."""

    kernel: int
    stride: int
    expand: int
    channels: int
    repeats: int
    fused: bool = False  # one full convolution in place of the 1x1 and the depthwise one (V2, figure 2)
    squeeze: bool = True  # squeeze-and-excite, to a quarter of the block's input channels


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One member of the family: its stages, how much wider and deeper than them it is, and what it was trained with."""

    stages: tuple[Stage, ...]
    width: float
    depth: float
    size: int  # input height and width in pixels
    dropout: float  # ahead of the head
    parameters: int  # published, with 1000 classes
    stem: int = 32  # channels; scaled by the width, but in Lite
    top: int = 1280  # the same
    bn_momentum: float = 0.99  # Flax's convention: the share of the old average that is kept
    lite: bool = False  # ReLU6; stem, top, first and last stage are not scaled
    shrink: float = 0.9  # rounding never leaves less than this share of the scaled channels


# Table 1 of the paper: stages 2 to 8, here 1 to 7.
B = (
    Stage(kernel=3, stride=1, expand=1, channels=16, repeats=1),
    Stage(kernel=3, stride=2, expand=6, channels=24, repeats=2),
    Stage(kernel=5, stride=2, expand=6, channels=40, repeats=2),
    Stage(kernel=3, stride=2, expand=6, channels=80, repeats=3),
    Stage(kernel=5, stride=1, expand=6, channels=112, repeats=3),
    Stage(kernel=5, stride=2, expand=6, channels=192, repeats=4),
    Stage(kernel=3, stride=1, expand=6, channels=320, repeats=1),
)
LITE = tuple(dataclasses.replace(stage, squeeze=False) for stage in B)


def v2(stem: int, *rows: tuple[int, int, int, int]) -> partial[Architecture]:
    """V2 from its rows of stride, expansion, channels, repeats: 3x3 filters, the first three stages fused."""
    stages = tuple(Stage(3, *row, fused=s < 3, squeeze=s >= 3) for s, row in enumerate(rows))
    return partial(Architecture, stages, stem=stem, bn_momentum=0.9, shrink=0.0)


lite = partial(Architecture, LITE, lite=True)
# https://github.com/google/automl/blob/master/efficientnetv2/effnetv2_configs.py; S is also table 4 of the paper.
v2_b = v2(32, (1, 1, 16, 1), (2, 4, 32, 2), (2, 4, 48, 2), (2, 4, 96, 3), (1, 6, 112, 5), (2, 6, 192, 8))
v2_s = v2(24, (1, 1, 24, 2), (2, 4, 48, 4), (2, 4, 64, 4), (2, 4, 128, 6), (1, 6, 160, 9), (2, 6, 256, 15))
# fmt: off
v2_m = v2(24, (1, 1, 24, 3), (2, 4, 48, 5), (2, 4, 80, 5), (2, 4, 160, 7), (1, 6, 176, 14), (2, 6, 304, 18),
          (1, 6, 512, 5))
v2_l = v2(32, (1, 1, 32, 4), (2, 4, 64, 7), (2, 4, 96, 7), (2, 4, 192, 10), (1, 6, 224, 19), (2, 6, 384, 25),
          (1, 6, 640, 7))
# fmt: on

# B and Lite: https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/efficientnet_builder.py and
# .../lite/efficientnet_lite_builder.py. V2: effnetv2_configs.py, as above; the size is the one it is evaluated at.
# Parameters of V2: https://github.com/huggingface/pytorch-image-models/blob/main/results/model_metadata-in1k.csv
ARCHITECTURES = {
    "efficientnet_b0": Architecture(B, 1.0, 1.0, 224, 0.2, 5_288_548),
    "efficientnet_b1": Architecture(B, 1.0, 1.1, 240, 0.2, 7_794_184),
    "efficientnet_b2": Architecture(B, 1.1, 1.2, 260, 0.3, 9_109_994),
    "efficientnet_b3": Architecture(B, 1.2, 1.4, 300, 0.3, 12_233_232),
    "efficientnet_b4": Architecture(B, 1.4, 1.8, 380, 0.4, 19_341_616),
    "efficientnet_b5": Architecture(B, 1.6, 2.2, 456, 0.4, 30_389_784),
    "efficientnet_b6": Architecture(B, 1.8, 2.6, 528, 0.5, 43_040_704),
    "efficientnet_b7": Architecture(B, 2.0, 3.1, 600, 0.5, 66_347_960),
    "efficientnet_lite0": lite(1.0, 1.0, 224, 0.2, 4_652_008),
    "efficientnet_lite1": lite(1.0, 1.1, 240, 0.2, 5_416_680),
    "efficientnet_lite2": lite(1.1, 1.2, 260, 0.3, 6_092_072),
    "efficientnet_lite3": lite(1.2, 1.4, 280, 0.3, 8_197_096),
    "efficientnet_lite4": lite(1.4, 1.8, 300, 0.3, 13_006_568),
    "efficientnet_v2_b0": v2_b(1.0, 1.0, 224, 0.2, 7_139_704),
    "efficientnet_v2_b1": v2_b(1.0, 1.1, 240, 0.2, 8_141_052),
    "efficientnet_v2_b2": v2_b(1.1, 1.2, 260, 0.3, 10_096_086),
    "efficientnet_v2_b3": v2_b(1.2, 1.4, 300, 0.3, 14_358_406),
    "efficientnet_v2_s": v2_s(1.0, 1.0, 384, 0.2, 21_458_488),
    "efficientnet_v2_m": v2_m(1.0, 1.0, 480, 0.3, 54_139_356),
    "efficientnet_v2_l": v2_l(1.0, 1.0, 480, 0.4, 118_515_272),
}

# Same sources.
BN_EPSILON = 1e-3
SE_RATIO = 0.25
DROP_CONNECT = 0.2


def kernel_std(shape: Sequence[int]) -> float:
    """The spread of a fresh kernel `[...,I,O]`: He's, for its fan-out; that of a depthwise one is its area."""
    *area, fan_in, fan_out = shape
    return math.sqrt(2 / (math.prod(area) * (1 if area and fan_in == 1 else fan_out)))


def kernel_init(key: Array, shape: Sequence[int], dtype: jax.typing.DTypeLike = float) -> Array:
    return kernel_std(shape) * jax.random.normal(key, tuple(shape), dtype)


def draw(shapes: Mapping[str, Any], seed: Any) -> dict[str, Any]:
    """Fresh variables like those of `EfficientNet.init`, drawn by NumPy: compiling that takes ten seconds.

    Args:
      shapes: what is to be filled, as shapes.
      seed: of `numpy.random.default_rng`.
    """
    generator = np.random.default_rng(seed)

    def leaf(path: tuple[Any, ...], like: jax.ShapeDtypeStruct) -> np.ndarray:
        module, name = (key.key for key in path[-2:])
        if name == "kernel":
            # Like `Head`, whose kernel keeps the variance of its input.
            std = math.sqrt(1 / like.shape[0]) if module.startswith("head") else kernel_std(like.shape)
            return std * generator.standard_normal(like.shape, np.float32)
        return np.full(like.shape, name in ("scale", "var"), np.float32)

    return jax.tree_util.tree_map_with_path(leaf, dict(shapes))


def keras_layers(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """The layers that `keras.applications` builds for a network without its top, in its order, and which of our modules
    each of them is: `("block7a_project_bn", "blocks_7_0/project_bn")`; "" where it has no parameters.

    The counts of Keras's tutorials ("unfreeze the last 10 layers") are of these; B0 has 237. Lite, which Keras does not
    have, is counted as if it were a B without squeeze-and-excite.

    https://github.com/keras-team/keras/blob/master/keras/src/applications/efficientnet.py and .../efficientnet_v2.py

    Args:
      params: `variables["params"]` of an EfficientNet: arrays or shapes.
    """
    v2, channels = "depthwise" not in params["blocks_1_0"], params["stem"]["kernel"].shape[-1]
    found = [(name, "") for name in ("input", "rescaling", "normalization")]
    # V2 pads inside its convolutions, and its larger members scale the images in one layer, not two.
    if v2 and (channels == 24 or "blocks_7_0" in params):
        found.pop()
    found += [] if v2 else [("stem_conv_pad", "")]
    found += [("stem_conv", "stem"), ("stem_bn", "stem_bn"), ("stem_activation", "")]
    places = [tuple(map(int, name.split("_")[1:])) for name in params if name.startswith("blocks_")]
    for stage, repeat in sorted(places):
        block = f"blocks_{stage}_{repeat}"
        module, name = params[block], f"block{stage}{chr(ord('a') + repeat)}_"

        def add(*layers: tuple[str, str], block: str = block, name: str = name) -> None:
            found.extend((name + layer, part and f"{block}/{part}") for layer, part in layers)

        if "expand" in module:
            add(("expand_conv", "expand"), ("expand_bn", "expand_bn"), ("expand_activation", ""))
        if "depthwise" in module:
            if not v2 and repeat == 0 and B[stage - 1].stride == 2:
                add(("dwconv_pad", ""))
            add(("dwconv2" if v2 else "dwconv", "depthwise"), ("bn", "depthwise_bn"), ("activation", ""))
        if "se_reduce" in module:
            add(("se_squeeze", ""), ("se_reshape", ""), ("se_reduce", "se_reduce"), ("se_expand", "se_expand"))
            add(("se_excite", ""))
        add(("project_conv", "project"), ("project_bn", "project_bn"))
        if "expand" not in module and "depthwise" not in module:
            add(("project_activation", ""))
        width = module["project"]["kernel"].shape[-1]
        if repeat > 0:
            add(("drop", ""), ("add", ""))
        elif stage == 1 and width == channels:  # never dropped: the first block of all
            add(("add", ""))
        channels = width
    found += [("top_conv", "top"), ("top_bn", "top_bn"), ("top_activation", "")]
    return tuple(found)


def round_channels(channels: float, width: float, shrink: float = 0.9) -> int:
    """The scaled number of channels, rounded to a multiple of 8, but not to less than the share `shrink` of it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded + 8 if rounded < shrink * scaled else rounded


def pads(padding: Padding, kernel: int) -> str | tuple[tuple[int, int], ...]:
    """The padding of a convolution, as `lax` takes it: TensorFlow's "SAME", or k//2 on every side, as in PyTorch."""
    return "SAME" if padding == "same" else ((kernel // 2, kernel // 2),) * 2


class Depthwise(nn.Module):
    """A depthwise convolution, `[B,H,W,C]` to `[B,H/stride,W/stride,C]`; kernel `[k,k,1,C]`."""

    size: int
    stride: int
    padding: Padding

    @nn.compact
    def __call__(self, x: Array) -> Array:
        kernel = self.param("kernel", kernel_init, (self.size, self.size, 1, x.shape[-1]))
        return depthwise_conv(x, kernel, self.stride, pads(self.padding, self.size))


def identity(x: Array) -> Array:
    return x


class Norm(nn.BatchNorm):
    """Batch normalisation and the activation behind it, by the statistics of the batch or of each of its groups.

    Folded, only its shift is left (see `models.fold_batchnorm`).
    """

    activation: Activation = identity
    folded: bool = False
    groups: int = 1

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.folded:
            bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
            return self.activation(x + bias[(None,) * (x.ndim - 1)].astype(x.dtype))
        if self.use_running_average or self.axis_name is not None:
            if not self.use_running_average and self.groups != 1:
                raise InputError("batch normalisation in groups and pmap do not go together; use jit over a mesh")
            return self.activation(super().__call__(x))
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        y, new_mean, new_var = batch_norm(x, scale, bias, self.epsilon, self.activation, self.groups)
        if not self.is_initializing():
            mean.value = self.momentum * mean.value + (1 - self.momentum) * new_mean
            var.value = self.momentum * var.value + (1 - self.momentum) * new_var
        return y


class Pointwise(nn.Module):
    """A 1x1 convolution, `[B,H,W,I]` to `[B,H,W,O]`; kernel `[I,O]`."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        return pointwise(x, self.param("kernel", kernel_init, (x.shape[-1], self.features)))


class Block(nn.Module):
    """An inverted bottleneck: expand, depthwise, squeeze-and-excite, project; a skip if shapes allow.

    Where the stage is fused, `expand` is a full convolution and takes the depthwise one's place; where it does not
    expand either, there is that convolution alone, called `project` and followed by the activation.
    """

    stage: Stage  # with the scaled number of channels
    stride: int
    drop: float  # probability that an example skips the block, where there is a skip
    lite: bool
    padding: Padding
    norm: partial[Norm]

    @nn.compact
    def __call__(self, x: Array, train: bool) -> Array:
        stage, norm = self.stage, self.norm
        activation = nn.relu6 if self.lite else silu
        shortcut, channels = x, x.shape[-1]  # [B,H,W,C]
        wide = channels * stage.expand

        def full(features: int, name: str) -> nn.Conv:
            kernel, strides = (stage.kernel, stage.kernel), (self.stride, self.stride)
            padding = pads(self.padding, stage.kernel)
            same: Any = {"use_bias": False, "kernel_init": kernel_init, "dtype": x.dtype}
            return nn.Conv(features, kernel, strides, padding, **same, name=name)

        if stage.fused and stage.expand == 1:
            x = norm(activation=activation, name="project_bn")(full(stage.channels, "project")(x))  # [B,H/s,W/s,C']
        else:
            if stage.fused:
                x = norm(activation=activation, name="expand_bn")(full(wide, "expand")(x))  # [B,H/s,W/s,eC]
            else:
                if stage.expand != 1:
                    x = norm(activation=activation, name="expand_bn")(Pointwise(wide, name="expand")(x))  # [B,H,W,eC]
                x = Depthwise(stage.kernel, self.stride, self.padding, name="depthwise")(x)
                x = norm(activation=activation, name="depthwise_bn")(x)  # [B,H/s,W/s,eC]
            if stage.squeeze:
                squeezed = x.mean((1, 2))  # [B,eC]
                dense = partial(nn.Dense, kernel_init=kernel_init, dtype=x.dtype)
                squeezed = dense(max(1, int(channels * SE_RATIO)), name="se_reduce")(squeezed)
                gate = dense(wide, name="se_expand")(activation(squeezed))
                x = x * nn.sigmoid(gate)[:, None, None, :]
            x = norm(name="project_bn")(Pointwise(stage.channels, name="project")(x))  # [B,H/s,W/s,C']
        if self.stride == 1 and channels == stage.channels:
            x = nn.Dropout(self.drop, broadcast_dims=(1, 2, 3), name="drop")(x, deterministic=not train)
            x = x + shortcut
        return x


class EfficientNet(nn.Module):
    """Images `[B,H,W,3]` to logits `[B,K]`, or to pooled features `[B,F]` where `num_classes` is None.

    As it stands it is Google's network. Weights trained in PyTorch from scratch want `padding="symmetric"`, and most of
    them `bn_epsilon=1e-5`. All from the stem to the top computes in `dtype`.
    """

    architecture: Architecture
    num_classes: Classes = 1000
    dropout: float | None = None  # ahead of the head; None: the published rate
    drop_connect: float = DROP_CONNECT  # stochastic depth, at the last block
    bn_momentum: float | None = None  # None: the published one; 0.9 for training from scratch in a few hundred steps
    bn_epsilon: float = BN_EPSILON
    padding: Padding = "same"
    folded: bool = False  # no batch normalisation: `models.fold_batchnorm`
    # Of the batch, for each of which batch normalisation is done by itself: a group for each device needs no word
    # between them. Goyal et al., "Accurate, Large Minibatch SGD" (2017), arXiv:1706.02677, section 3.
    bn_groups: int = 1
    remat: bool = False  # training keeps the inputs of the blocks alone, and computes what is inside them again
    dtype: Dtype = "float32"

    @nn.compact
    def __call__(self, x: Array, train: bool = False) -> Array | dict[str, Array]:
        check_images(x)
        spec = self.architecture
        momentum = spec.bn_momentum if self.bn_momentum is None else self.bn_momentum
        norm = partial(
            Norm,
            use_running_average=not train,
            momentum=momentum,
            epsilon=self.bn_epsilon,
            dtype=self.dtype,
            folded=self.folded,
            groups=self.bn_groups,
        )
        activation = nn.relu6 if spec.lite else silu

        def scaled(channels: int) -> int:
            return round_channels(channels, spec.width, spec.shrink)

        stem, top = (spec.stem, spec.top) if spec.lite else (scaled(spec.stem), scaled(spec.top))
        same: Any = {"use_bias": False, "kernel_init": kernel_init, "dtype": self.dtype}
        x = nn.Conv(stem, (3, 3), (2, 2), pads(self.padding, 3), **same, name="stem")(x)
        x = norm(activation=activation, name="stem_bn")(x)  # [B,H/2,W/2,32]

        repeats = [
            stage.repeats if spec.lite and s in (0, len(spec.stages) - 1) else math.ceil(stage.repeats * spec.depth)
            for s, stage in enumerate(spec.stages)
        ]
        make_block = nn.remat(Block, static_argnums=(2,)) if self.remat and train else Block  # of (self, x, train)
        block = 0
        for s, stage in enumerate(spec.stages):
            stage = dataclasses.replace(stage, channels=scaled(stage.channels))
            for r in range(repeats[s]):
                drop = self.drop_connect * block / sum(repeats)
                stride = stage.stride if r == 0 else 1
                name = f"blocks_{s + 1}_{r}"
                x = make_block(stage, stride, drop, spec.lite, self.padding, norm, name=name)(x, train)
                block += 1

        x = Pointwise(top, name="top")(x)
        x = norm(activation=activation, name="top_bn")(x)  # [B,H/32,W/32,F]
        x = x.mean((1, 2), dtype=jnp.float32)  # [B,F]
        return head(x, self.num_classes, spec.dropout if self.dropout is None else self.dropout, train)
