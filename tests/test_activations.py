"""Against their definitions, in NumPy and SciPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from scipy import special, stats

from jaxdl import models
from jaxdl.errors import InputError
from jaxdl.models import activations
from jaxdl.ops import max_pool_2x2

# Klambauer et al., "Self-Normalizing Neural Networks" (2017), arXiv:1706.02515.
LAMBDA, ALPHA = 1.0507009873554805, 1.6732632423543772

DEFINITIONS = {
    "linear": lambda x: x,
    "sigmoid": special.expit,
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0),
    "leaky_relu": lambda x: np.where(x > 0, x, 0.1 * x),
    "elu": lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))),
    "gelu": lambda x: x * stats.norm.cdf(x),
    "silu": lambda x: x * special.expit(x),
    "selu": lambda x: LAMBDA * np.where(x > 0, x, ALPHA * np.expm1(np.minimum(x, 0))),
    "softplus": lambda x: np.logaddexp(0, x),
    "softsign": lambda x: x / (1 + np.abs(x)),
    "mish": lambda x: x * np.tanh(np.logaddexp(0, x)),
    "relu6": lambda x: np.clip(x, 0, 6),
    "hard_tanh": lambda x: np.clip(x, -1, 1),
    "hard_sigmoid": lambda x: np.clip((x + 3) / 6, 0, 1),
    "hard_silu": lambda x: x * np.clip((x + 3) / 6, 0, 1),
}


def test_every_activation_is_known_here():
    assert activations.NAMED.keys() == DEFINITIONS.keys()


@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_activation_is_its_definition(name):
    x = np.concatenate([np.linspace(-8, 8, 161), [-1e4, 1e4]]).astype(np.float32)
    np.testing.assert_allclose(
        activations.by_name(name)(x), DEFINITIONS[name](x.astype(np.float64)), rtol=2e-6, atol=2e-6
    )
    # Away from the kinks the slope is the finite difference, and far out it is a number too.
    x = np.linspace(-7.95, 7.95, 160)
    slope = (DEFINITIONS[name](x + 1e-4) - DEFINITIONS[name](x - 1e-4)) / 2e-4
    ours = jax.vmap(jax.grad(activations.by_name(name)))
    np.testing.assert_allclose(ours(jnp.asarray(x, jnp.float32)), slope, rtol=1e-3, atol=1e-4)
    assert np.isfinite(ours(jnp.array([-1e4, 1e4]))).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_an_activation_keeps_the_type(name, dtype):
    assert jax.eval_shape(activations.by_name(name), jax.ShapeDtypeStruct((3,), dtype)).dtype == dtype


class Plain(nn.Module):
    """A CNN with a hidden layer, as it is written without names for activations."""

    @nn.compact
    def __call__(self, x, train=False):
        for n, filters in enumerate((16, 32)):
            x = max_pool_2x2(nn.relu(nn.Conv(filters, (3, 3), name=f"conv_{n}_0")(x)))
        x = nn.relu(nn.Dense(6, name="dense_0")(x.reshape(len(x), -1)))
        return nn.Dense(3, name="head")(x)


def test_relu_is_the_default_to_the_last_bit(key):
    x = jax.random.normal(key, (2, 8, 8, 1))
    model, variables = models.create("cnn", 3, filters=(16, 32), hidden=(6,)), models.init(Plain(), key, (8, 8, 1))
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x), jax.jit(Plain().apply)(variables, x))


@pytest.mark.parametrize("activation", ["linear", "leaky_relu", "mish"])
def test_networks_take_an_activation(activation, key):
    x = jax.random.normal(key, (2, 8, 8, 1))
    model = models.create("cnn", 3, filters=(4,), hidden=(5,), activation=activation)
    assert models.create("dense", 3, activation=activation).activation == activation
    variables = models.init(model, key, (8, 8, 1))
    _, outputs = models.layer_outputs(model, variables, x)
    for path in ("conv_0_0", "dense_0"):
        expected = DEFINITIONS[activation](np.asarray(outputs[path], np.float64))
        np.testing.assert_allclose(outputs[f"{path}_{activation}"], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        outputs["head"],
        outputs[f"dense_0_{activation}"] @ variables["params"]["head"]["kernel"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_an_unknown_activation_is_named():
    for name in ("dense", "cnn"):
        with pytest.raises(InputError, match="no activation 'reluu'; the nearest: relu"):
            models.create(name, 3, activation="reluu")
    with pytest.raises(InputError, match="there is no activation 3"):
        models.create("dense", 3, activation=3)
    with pytest.raises(InputError, match="efficientnet_b0 has no option 'activation'"):
        models.create("efficientnet_b0", 3, activation="relu")
