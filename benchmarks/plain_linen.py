"""EfficientNet-B0 as one would write it in Flax Linen, with nothing done for speed: what jaxdl is measured against."""

import jax
from flax import linen as nn

# Filter, stride, expansion, channels, repeats: table 1 of arXiv:1905.11946.
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class PlainB0(nn.Module):
    """Images `[B,H,W,3]` to logits `[B,K]`."""

    num_classes: int = 1000

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        def conv(x: jax.Array, features: int, k: int = 1, stride: int = 1, groups: int = 1) -> jax.Array:
            x = nn.Conv(features, (k, k), stride, use_bias=False, feature_group_count=groups)(x)
            return nn.BatchNorm(use_running_average=not train, momentum=0.99, epsilon=1e-3)(x)

        x = nn.silu(conv(x, 32, 3, 2))
        block, blocks = 0, sum(stage[-1] for stage in STAGES)
        for k, first_stride, expand, channels, repeats in STAGES:
            for r in range(repeats):
                stride, shortcut, inputs = first_stride if r == 0 else 1, x, x.shape[-1]
                wide = inputs * expand
                if expand != 1:
                    x = nn.silu(conv(x, wide))
                x = nn.silu(conv(x, wide, k, stride, groups=wide))
                gate = nn.silu(nn.Conv(inputs // 4, (1, 1))(x.mean((1, 2), keepdims=True)))
                x = x * nn.sigmoid(nn.Conv(wide, (1, 1))(gate))
                x = conv(x, channels)
                if stride == 1 and inputs == channels:
                    drop = nn.Dropout(0.2 * block / blocks, broadcast_dims=(1, 2, 3), deterministic=not train)
                    x = drop(x) + shortcut
                block += 1
        x = nn.silu(conv(x, 1280)).mean((1, 2))
        return nn.Dense(self.num_classes)(nn.Dropout(0.2, deterministic=not train)(x))
