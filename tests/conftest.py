"""Strictness for every test, and eight virtual devices on one CPU."""

import jax
import pytest
from hypothesis import settings

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

settings.register_profile("jaxdl", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("jaxdl")


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
