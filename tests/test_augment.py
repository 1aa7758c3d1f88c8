import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform

from jaxdl import augment
from jaxdl.errors import InputError

WARP = jax.jit(augment.warp)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 9, 12, 3), dtype=np.uint8)


def test_no_strength_is_the_identity(key):
    np.testing.assert_allclose(augment.Affine()(key, IMAGES), IMAGES, atol=1e-3)


def test_a_flip_mirrors_some_images_and_leaves_the_others(key):
    out = np.asarray(augment.Affine(flip=True)(key, np.repeat(IMAGES, 16, 0)))
    kept = [np.allclose(a, b, atol=1e-3) for a, b in zip(out, np.repeat(IMAGES, 16, 0), strict=True)]
    mirrored = [np.allclose(a, b[:, ::-1], atol=1e-3) for a, b in zip(out, np.repeat(IMAGES, 16, 0), strict=True)]
    assert all(a != b for a, b in zip(kept, mirrored, strict=True))
    assert 16 < sum(kept) < 48


@settings(max_examples=10)
@given(st.floats(-3, 3), st.floats(0.5, 2), st.floats(-5, 5), st.floats(-5, 5))
def test_the_warp_is_scipys(angle, size, down, right):
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * size
    move = np.array([down, right])
    out = WARP(IMAGES[:1], matrix[None].astype(np.float32), move[None].astype(np.float32))[0]
    middle = (np.array(IMAGES.shape[1:3]) - 1) / 2
    for c in range(3):
        channel = IMAGES[0, :, :, c].astype(float)
        expected = affine_transform(channel, matrix, middle + move - matrix @ middle, order=1, mode="reflect")
        np.testing.assert_allclose(out[:, :, c], expected, atol=0.05)


def test_it_is_a_pure_function_of_the_key_and_differs_between_images():
    change = jax.jit(augment.Affine(flip=True, rotate=30, zoom=0.3, shift=0.2))
    same = np.repeat(IMAGES[:1], 4, 0)
    first = change(jax.random.key(1), same)
    np.testing.assert_array_equal(first, change(jax.random.key(1), same))
    assert not np.array_equal(first, change(jax.random.key(2), same))
    assert not np.allclose(first[0], first[1])
    assert first.dtype == jnp.float32
    assert first.min() >= 0
    assert first.max() <= 255


@pytest.mark.parametrize("wrong", [{"rotate": -1}, {"zoom": -0.1}, {"shift": 1.0}])
def test_impossible_strengths(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        augment.Affine(**wrong)
