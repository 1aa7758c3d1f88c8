"""The one operation against Flax's batch normalisation followed by the activation, differentiated by JAX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from jaxdl.errors import InputError
from jaxdl.ops import normalization
from jaxdl.ops.normalization import batch_norm, fused, silu

EPSILON = 1e-3
ACTIVATIONS = (silu, nn.relu6, jnp.tanh, lambda x: x)


def arrays(shape, seed, dtype=jnp.float32):
    draw = np.random.default_rng(seed)
    x = jnp.asarray(draw.normal(draw.normal(size=shape[-1]), 2.0, shape), dtype)
    return (
        x,
        jnp.asarray(draw.uniform(0.5, 1.5, shape[-1]), jnp.float32),
        jnp.asarray(draw.normal(size=shape[-1]), "f4"),
    )


def flaxs(x, scale, bias, activation):
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": {"mean": bias * 0, "var": scale * 0 + 1}}
    norm = nn.BatchNorm(use_running_average=False, momentum=0.0, epsilon=EPSILON)
    y, state = norm.apply(variables, x, mutable=["batch_stats"])
    return activation(y), state["batch_stats"]["mean"], state["batch_stats"]["var"]


@pytest.mark.parametrize("ours", [fused, normalization.reference])
@settings(max_examples=12)
@given(
    st.sampled_from([(2,), (7,), (3, 5), (1, 2, 4), (4, 3, 3)]),
    st.sampled_from([1, 3]),
    st.sampled_from(ACTIVATIONS),
    st.integers(0, 99),
)
def test_equals_flax_forward_and_backward(ours, axes, channels, activation, seed):
    x, scale, bias = arrays((*axes, channels), seed)

    def value_and_gradients(norm):
        (y, mean, var), pull = jax.vjp(norm, x, scale, bias)
        return y, mean, var, *pull((jnp.cos(y), jnp.zeros_like(mean), jnp.zeros_like(var)))

    # One program each: leaf by leaf, compiling takes longer.
    found = jax.jit(lambda: value_and_gradients(lambda *operands: ours(*operands, EPSILON, activation)))()
    theirs = jax.jit(lambda: value_and_gradients(lambda *operands: flaxs(*operands, activation)))()
    for a, b in zip(found, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_gradients_equal_finite_differences(activation):
    operands = arrays((4, 3, 2, 3), 0)
    norm = lambda *operands: batch_norm(*operands, EPSILON, activation)[0]  # noqa: E731
    check_grads(norm, operands, order=1, modes=["rev"], atol=1e-2, rtol=1e-2)


def test_bfloat16_stays_bfloat16_with_float32_statistics():
    x, scale, bias = arrays((8, 4, 4, 3), 1, jnp.bfloat16)
    y, mean, var = batch_norm(x, scale, bias, EPSILON, silu)
    exact = flaxs(x.astype(jnp.float32), scale, bias, silu)
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    np.testing.assert_allclose(y.astype(jnp.float32), exact[0], atol=0.05, rtol=0.05)
    np.testing.assert_allclose(mean, exact[1], atol=1e-5)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(("shape", "groups"), [((6, 3), 3), ((6, 5, 2), 2), ((4, 2, 3, 2), 4), ((4, 3), 1)])
def test_each_group_has_statistics_of_its_own(platform, shape, groups, monkeypatch):
    monkeypatch.setattr(normalization, "platform", lambda: platform)
    x, scale, bias = arrays(shape, 2)

    def alone(x, scale, bias):
        """Flax's on each part."""
        parts = [flaxs(part, scale, bias, silu) for part in jnp.split(x, groups)]
        ys, means, variances = zip(*parts, strict=True)
        return jnp.concatenate(ys), sum(means) / groups, sum(variances) / groups

    def value_and_gradients(norm):
        (y, mean, var), pull = jax.vjp(norm, x, scale, bias)
        return y, mean, var, *pull((jnp.cos(y), jnp.zeros_like(mean), jnp.zeros_like(var)))

    ours = jax.jit(lambda: value_and_gradients(lambda *operands: batch_norm(*operands, EPSILON, silu, groups)))()
    for a, b in zip(ours, jax.jit(lambda: value_and_gradients(alone))(), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-4, rtol=1e-4)
    with pytest.raises(InputError, match="cannot be divided into 7 groups"):
        batch_norm(x, scale, bias, EPSILON, silu, groups=7)


@given(st.floats(-1e4, 1e4, width=32))
def test_silu_is_jaxs_everywhere(x):
    ours, theirs = (jax.value_and_grad(f)(jnp.float32(x)) for f in (silu, jax.nn.silu))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
