"""The shifted form against XLA's grouped convolution, and its gradients against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxdl.ops.depthwise import _pads, depthwise_conv, reference, shifted


def arrays(h, w, k, seed, dtype=jnp.float32):
    draw = np.random.default_rng(seed)
    return jnp.asarray(draw.normal(size=(2, h, w, 3)), dtype), jnp.asarray(draw.normal(size=(k, k, 1, 3)), dtype)


@settings(max_examples=15)
@given(
    st.integers(1, 20),
    st.integers(1, 9),
    st.sampled_from([1, 2, 3, 5, 7]),
    st.integers(1, 3),
    st.sampled_from(["SAME", "VALID", "symmetric", ((0, 3), (2, 1))]),
    st.integers(0, 99),
)
def test_equals_xla_forward_and_backward(h, w, k, stride, padding, seed):
    if padding == "symmetric":
        padding = ((k // 2, k // 2),) * 2
    pads = _pads((2, h, w, 3), (k, k), stride, padding)
    assume(all(size + sum(pad) >= k for size, pad in zip((h, w), pads, strict=True)))
    x, kernel = arrays(h, w, k, seed)

    def value_and_gradients(convolve):
        y, pull = jax.vjp(lambda x, kernel: convolve(x, kernel, stride, pads), x, kernel)
        return y, *pull(jnp.cos(y))

    ours = jax.jit(lambda: value_and_gradients(shifted))()
    theirs = jax.jit(lambda: value_and_gradients(reference))()
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (5, 2)])
def test_gradients_equal_finite_differences(k, stride):
    x, kernel = arrays(6, 5, k, 0)
    check_grads(
        lambda x, kernel: depthwise_conv(x, kernel, stride), (x, kernel), order=1, modes=["rev"], atol=1e-2, rtol=1e-2
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_bfloat16_stays_bfloat16_and_close(stride):
    x, kernel = arrays(8, 8, 3, 1, jnp.bfloat16)
    y = depthwise_conv(x, kernel.astype(jnp.float32), stride)  # parameters may be wider
    assert y.dtype == jnp.bfloat16
    exact = reference(x.astype(jnp.float32), kernel.astype(jnp.float32), stride, "SAME")
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.1, rtol=0.05)


def test_other_backends_take_the_native_convolution(monkeypatch):
    x, kernel = arrays(4, 4, 3, 2)
    on_cpu = str(jax.make_jaxpr(lambda x: depthwise_conv(x, kernel))(x))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = str(jax.make_jaxpr(lambda x: depthwise_conv(x, kernel, 1))(x))
    assert "conv_general_dilated" in on_gpu
    assert "conv_general_dilated" not in on_cpu
