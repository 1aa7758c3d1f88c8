"""Narrow and direct convolutions against XLA's with JAX's gradients, and against finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxdl.models.cnn import Conv
from jaxdl.ops import conv_3x3
from jaxdl.ops.convolution import blocked, direct, joined, narrow, phases, reference

sizes = st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9))


def arrays(shape, channels, filters, seed, dtype=jnp.float32):
    draw = np.random.default_rng(seed)
    shapes = (*shape, channels), (3, 3, channels, filters), (filters,)
    return [jnp.asarray(draw.normal(size=shape), dtype) for shape in shapes]


def through_blocks(x, kernel, bias):
    return joined(blocked(phases(x), kernel, bias), *x.shape[1:3])


def through_direct(x, kernel, bias):
    return direct(x, kernel) + bias[None, None, None, :]


def through_xla(x, kernel, bias):
    return reference(x, kernel) + bias[None, None, None, :]


@settings(max_examples=20)
@given(sizes, st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_equals_xla_forward_and_backward(shape, channels, filters, seed):
    operands = arrays(shape, channels, filters, seed)

    def value_and_gradients(convolve):
        y, pull = jax.vjp(convolve, *operands)
        return y, *pull(jnp.cos(y))

    theirs = jax.jit(lambda: value_and_gradients(through_xla))()
    for ours in (through_blocks, through_direct):
        for a, b in zip(jax.jit(lambda ours=ours: value_and_gradients(ours))(), theirs, strict=True):
            np.testing.assert_allclose(a, b, atol=5e-5, rtol=1e-5)


@pytest.mark.parametrize("convolve", [through_blocks, through_direct])
@pytest.mark.parametrize(("channels", "filters"), [(2, 3), (3, 2)])
def test_gradients_equal_finite_differences(convolve, channels, filters):
    with jax.enable_x64(True):
        operands = arrays((2, 5, 4), channels, filters, 0, jnp.float64)
        check_grads(convolve, operands, order=1, modes=["rev"], atol=1e-6, rtol=1e-6)


@settings(max_examples=8)
@given(sizes, st.integers(1, 3))
def test_phases_are_every_other_pixel(shape, channels):
    x = np.random.default_rng(0).normal(size=(*shape, channels)).astype(np.float32)
    apart = phases(jnp.asarray(x))
    for p in range(2):
        for q in range(2):
            place = x[:, p::2, q::2]
            np.testing.assert_array_equal(
                apart[p, q].transpose(3, 1, 2, 0)[:, : place.shape[1], : place.shape[2]], place
            )
    np.testing.assert_array_equal(joined(apart, *shape[1:]), x)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("filters", [10, 16])
def test_the_layer_is_flaxs(filters, dtype, key):
    x = jax.random.normal(key, (2, 7, 6, 3))
    ours, theirs = Conv(filters, dtype), nn.Conv(filters, (3, 3), dtype=dtype)
    variables = ours.init(key, x)
    jax.tree.map(np.testing.assert_array_equal, variables, theirs.init(key, x))
    a, b = ours.apply(variables, x), theirs.apply(variables, x)
    assert (a.dtype, a.shape) == (b.dtype, b.shape)
    np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), atol=4 * jnp.finfo(dtype).eps)


def test_other_backends_take_the_native_convolution(monkeypatch):
    x, kernel, bias = arrays((1, 4, 4), 3, 10, 2)
    assert narrow(10)
    assert not narrow(16)
    on_cpu = str(jax.make_jaxpr(lambda x: conv_3x3(x, kernel, bias))(x))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    on_gpu = str(jax.make_jaxpr(lambda x, kernel: conv_3x3(x, kernel, bias))(x, kernel))
    assert "conv_general_dilated" in on_gpu
    assert "conv_general_dilated" not in on_cpu
    assert "custom_vjp" not in on_gpu
