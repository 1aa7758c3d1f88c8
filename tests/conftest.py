"""Strictness for every test, and eight virtual devices on one CPU."""

from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import settings

from jaxdl import models, trees

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_num_cpu_devices", 8)

settings.register_profile("jaxdl", deadline=None, max_examples=25, derandomize=True)
settings.load_profile("jaxdl")


def fill(model: Any, input_shape: tuple[int, ...], seed: int = 0) -> dict[str, Any]:
    """Variables of a model from NumPy's generator: compiling an EfficientNet's own `init` takes ten seconds."""
    draw = np.random.default_rng(seed)

    def leaf(path: str, shape: tuple[int, ...]) -> np.ndarray:
        kind = path.rsplit("/", 1)[-1]
        if kind in ("var", "scale"):
            return draw.uniform(0.5, 1.5, shape).astype(np.float32)
        fan = max(1, int(np.prod(shape[:-1])))
        return (draw.normal(size=shape) / np.sqrt(fan)).astype(np.float32)

    shapes, _ = models.shapes(model, input_shape)
    return trees.from_paths({path: leaf(path, array.shape) for path, array in trees.paths(shapes).items()})


@pytest.fixture
def key() -> jax.Array:
    return jax.random.key(0)
