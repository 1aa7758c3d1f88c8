"""The 1x1 convolution against NumPy's matrix product."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.ops import pointwise


@given(st.lists(st.integers(1, 5), max_size=3), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_equals_numpy_forward_and_backward(axes, channels, features, seed):
    draw = np.random.default_rng(seed)
    x, kernel, dy = (draw.normal(size=shape) for shape in ((*axes, channels), (channels, features), (*axes, features)))
    y, pull = jax.vjp(pointwise, jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    dx, d_kernel = pull(jnp.asarray(dy, jnp.float32))
    np.testing.assert_allclose(y, x @ kernel, atol=1e-5)
    np.testing.assert_allclose(dx, dy @ kernel.T, atol=1e-5)
    np.testing.assert_allclose(
        d_kernel, np.einsum("ni,no->io", x.reshape(-1, channels), dy.reshape(-1, features)), atol=1e-4
    )


def test_bfloat16_stays_bfloat16():
    x, kernel = jnp.ones((2, 3, 4), jnp.bfloat16), jnp.ones((4, 5), jnp.bfloat16)
    y, pull = jax.vjp(pointwise, x, kernel)
    assert {array.dtype for array in (y, *pull(y))} == {jnp.dtype(jnp.bfloat16)}


def test_other_backends_take_the_plain_product(monkeypatch):
    x, kernel = jnp.ones((2, 4)), jnp.ones((4, 3))
    assert "custom_vjp" in str(jax.make_jaxpr(pointwise)(x, kernel))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "custom_vjp" not in str(jax.make_jaxpr(lambda x: pointwise(x, kernel))(x))
