import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdl.ops import all_finite

# Large enough that sums of them are infinite, which they are not.
VALUES = st.sampled_from([0.0, -1.5, 3e38, -3e38, np.nan, np.inf, -np.inf])
SHAPES = st.lists(st.lists(st.integers(1, 4), min_size=0, max_size=4).map(tuple), min_size=1, max_size=3)


@settings(max_examples=25)
@given(SHAPES, st.data())
def test_is_what_numpy_says(shapes, data):
    arrays = []
    for shape in shapes:
        array = np.ones(shape, np.float32)
        for _ in range(data.draw(st.integers(0, 3))):
            array[tuple(data.draw(st.integers(0, side - 1)) for side in shape)] = data.draw(VALUES)
        arrays.append(array)
    expected = [np.isfinite(array).all() for array in arrays]
    np.testing.assert_array_equal(all_finite(arrays := list(map(jnp.asarray, arrays))), expected)
    np.testing.assert_array_equal(jax.jit(all_finite)(arrays), expected)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_one_that_is_none_is_told(dtype):
    good, bad = jnp.ones((3, 3, 5, 700), dtype), jnp.ones((700, 3), dtype).at[699, 2].set(jnp.nan)
    assert all_finite([good, bad, good[0, 0, 0]]).tolist() == [True, False, True]
    assert all_finite([good * 60000 if dtype == "float16" else good * 3e38]).tolist() == [True]
