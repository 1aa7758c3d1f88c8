import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.ops import max_pool_2x2


@settings(max_examples=8)
@given(st.integers(2, 7), st.integers(2, 7), st.sampled_from([3, 16]), st.integers(0, 99))
def test_equals_reduce_window_with_its_gradient(h, w, channels, seed):
    values = np.random.default_rng(seed).permutation(2 * h * w * channels)  # no ties
    x = jnp.asarray(values.reshape(2, h, w, channels), jnp.float32)
    np.testing.assert_array_equal(max_pool_2x2(x), nn.max_pool(x, (2, 2), (2, 2)))
    ours = jax.grad(lambda x: jnp.sin(max_pool_2x2(x)).sum())(x)
    theirs = jax.grad(lambda x: jnp.sin(nn.max_pool(x, (2, 2), (2, 2))).sum())(x)
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("channels", [1, 16])
def test_ties_share_the_gradient(channels):
    gradient = jax.grad(lambda x: max_pool_2x2(x).sum())(jnp.ones((1, 2, 2, channels)))
    np.testing.assert_allclose(gradient, 0.25)
