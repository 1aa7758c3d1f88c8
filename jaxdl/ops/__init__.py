"""Array operations that XLA does badly, each with its own gradient and a reference it is tested against."""

from jaxdl.ops.convolution import conv_3x3
from jaxdl.ops.depthwise import depthwise_conv
from jaxdl.ops.finite import all_finite
from jaxdl.ops.normalization import batch_norm
from jaxdl.ops.platform import platform
from jaxdl.ops.pointwise import pointwise
from jaxdl.ops.pooling import max_pool_2x2

__all__ = ["all_finite", "batch_norm", "conv_3x3", "depthwise_conv", "max_pool_2x2", "platform", "pointwise"]
