"""Every augmentation against Pillow, SciPy or NumPy, and what all of them have in common."""

import math
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from scipy import stats
from scipy.ndimage import affine_transform
from scipy.spatial.transform import Rotation

from jaxdl import augment, data, features, models, parallel
from jaxdl.augment import (
    CUTOUT,
    PHOTOS,
    Affine,
    AugMix,
    Chain,
    Color,
    CutMix,
    Erase,
    Mixed,
    MixUp,
    OneOf,
    RandAugment,
    TrivialAugment,
)
from jaxdl.errors import InputError

IMAGES = np.random.default_rng(0).integers(0, 256, (8, 9, 12, 3), dtype=np.uint8)
# Neighbours are alike, as in photographs, and no channel has all levels.
SMOOTH = (np.linspace(40, 200, 9 * 12 * 3).reshape(9, 12, 3) + IMAGES * 0.1).astype(np.uint8)

# Everything at a strength that shows.
ALL = {
    "affine": Affine(flip=True, rotate=30, zoom=0.3, shift=0.2, vertical_flip=True, shear=20, crop=0.3, aspect=1.5),
    "black": Affine(rotate=30, pad=3, fill="black"),
    "color": Color(0.3, 0.3, 0.3, 0.2, 0.2),
    "erase": Erase(probability=0.8),
    "cutout": CUTOUT,
    "mixup": MixUp(1.0),
    "cutmix": CutMix(1.0),
    "chain": Chain(Affine(flip=True), Color(contrast=0.3)),
    "randaugment": RandAugment(magnitude=20),
    "trivial": TrivialAugment(),
    "augmix": AugMix(),
}

# Nothing of each; the first has several in one program, which compiles faster.
NOTHING = {
    "chain": Chain(Affine(), Affine(aspect=2.0, fill="black"), Color(), Erase(probability=0.0), Chain(), MixUp(0.0)),
    "erase": Erase(probability=1.0, smallest=0.0, largest=0.0),
    "cutmix": CutMix(0.0),
    "one of": OneOf(lambda key, images: images, CutMix(0.0)),
    "randaugment": RandAugment(magnitude=0.0),
    "trivial": TrivialAugment(magnitude=0.0),
    "augmix": AugMix(severity=0.0),
}


@lru_cache
def compiled(change):
    return jax.jit(change)


def pixels(result):
    return np.asarray(result.images if isinstance(result, Mixed) else result)


@pytest.mark.parametrize("name", NOTHING)
def test_no_strength_is_the_identity_bit_for_bit(name):
    images = np.random.default_rng(1).uniform(0, 255, IMAGES.shape).astype(np.float32)
    for seed in range(3):
        result = compiled(NOTHING[name])(jax.random.key(seed), images)
        np.testing.assert_array_equal(pixels(result), images)
        assert not isinstance(result, Mixed) or (np.asarray(result.share) == 1).all()


@pytest.mark.parametrize("name", ALL)
def test_a_pure_function_of_the_key_that_differs_between_images(name):
    change, same = compiled(ALL[name]), np.repeat(IMAGES[:1], 8, 0)
    same[4:] = 255 - same[4:]  # mixes need two kinds
    first, again, other = (change(jax.random.key(seed), same) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    out = pixels(first)
    assert not np.array_equal(out, pixels(other))
    assert not all(np.allclose(out[0], each) for each in out[1:4])
    assert out.dtype == np.float32
    assert out.shape == same.shape
    assert out.min() >= 0
    assert out.max() <= 255


@pytest.mark.parametrize("name", ["affine", "randaugment"])
def test_bytes_and_floats_give_the_same(name, key):
    change = compiled(ALL[name])
    np.testing.assert_allclose(pixels(change(key, IMAGES)), pixels(change(key, IMAGES.astype(np.float32))), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("color", "black", "cutout", "chain")])
def test_one_image_of_one_channel(name, key):
    out = pixels(compiled(ALL[name])(key, IMAGES[:1, ..., :1]))
    assert out.shape == (1, 9, 12, 1)
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("name", "size"),
    [("affine", (1, 5)), ("affine", (2, 2)), ("erase", (1, 1)), ("cutmix", (1, 1)), ("trivial", (2, 1))],
)
def test_the_smallest_images(name, size, key):
    images = IMAGES[:, : size[0], : size[1]]
    out = pixels(compiled(ALL[name])(key, images))
    assert out.shape == images.shape
    assert np.isfinite(out).all()
    assert out.max() <= 255


@pytest.mark.parametrize("name", ["affine", "randaugment"])
def test_a_mesh_of_eight_gives_the_same(name, key):
    change, mesh = compiled(ALL[name]), parallel.make_mesh()
    one, eight = change(key, IMAGES), change(key, parallel.shard_batch(mesh, IMAGES))
    np.testing.assert_allclose(pixels(one), pixels(eight), atol=1e-3)


# Geometry

WARP = jax.jit(augment.warp, static_argnames="fill")


@settings(max_examples=15)
@given(st.floats(-3, 3), st.floats(0.5, 2), st.floats(-30, 30), st.floats(-30, 30))
def test_the_warp_is_scipys(angle, size, down, right):
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * size
    move = np.array([down, right])
    out = WARP(IMAGES[:1], matrix[None].astype(np.float32), move[None].astype(np.float32))[0]
    np.testing.assert_allclose(out, by_scipy(IMAGES[0], matrix, move), atol=0.05)


@settings(max_examples=15)
@given(st.floats(-3, 3), st.floats(0.5, 2), st.floats(-5, 5), st.floats(-5, 5))
def test_black_beyond_the_border_is_pillows(angle, size, down, right):
    matrix = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]]) * size
    move = np.array([down, right])
    out = WARP(IMAGES[:1], matrix[None].astype(np.float32), move[None].astype(np.float32), "black")[0]
    # Pillow counts (column, row) from the corner.
    middle = np.array(IMAGES.shape[1:3]) / 2
    start = middle + move - matrix @ middle
    rows = [*matrix[1, ::-1], start[1], *matrix[0, ::-1], start[0]]
    for c in range(3):
        channel = Image.fromarray(IMAGES[0, :, :, c].astype(np.float32))
        expected = channel.transform(channel.size, Image.Transform.AFFINE, rows, Image.Resampling.BILINEAR)
        # Where a position is at the border to the last bits, either is right.
        at = start[:, None, None] + np.einsum("ij,jhw->ihw", matrix, np.mgrid[:9, :12] + 0.5)
        clear = (np.abs(at) > 1e-3).all(0) & (np.abs(at - 2 * middle[:, None, None]) > 1e-3).all(0)
        np.testing.assert_allclose(out[:, :, c][clear], np.asarray(expected)[clear], atol=0.05)


def by_scipy(image, matrix, move, mode="reflect"):
    """The same warp of `[H,W,C]` in float64."""
    middle = (np.array(image.shape[:2]) - 1) / 2
    start = middle + move - matrix @ middle
    channels = [affine_transform(c.astype(float), matrix, start, order=1, mode=mode) for c in np.moveaxis(image, -1, 0)]
    return np.stack(channels, -1)


def test_recipes_keep_their_draws(key):
    """`PHOTOS` drew from four keys before there was more to draw, and trained recipes go by it."""
    keys, b = jax.random.split(key, 4), len(IMAGES)
    mirror = np.where(jax.random.bernoulli(keys[0], 0.5, (b,)), -1, 1)
    angle = np.radians(15) * np.asarray(jax.random.uniform(keys[1], (b,), minval=-1.0), np.float64)
    size = 1.3 ** np.asarray(jax.random.uniform(keys[2], (b,), minval=-1.0), np.float64)
    move = 0.1 * np.array([9, 12]) * np.asarray(jax.random.uniform(keys[3], (b, 2), minval=-1.0), np.float64)
    out = compiled(PHOTOS)(key, IMAGES)
    assert set(mirror) == {-1, 1}
    for n in range(b):
        turn = np.array([[np.cos(angle[n]), np.sin(angle[n])], [-np.sin(angle[n]), np.cos(angle[n])]]) / size[n]
        np.testing.assert_allclose(out[n], by_scipy(IMAGES[n], turn * [1, mirror[n]], move[n]), atol=0.05)


@pytest.mark.parametrize(("field", "axis"), [("flip", 1), ("vertical_flip", 0)])
def test_a_flip_mirrors_some_images_and_leaves_the_others(field, axis, key):
    images = np.repeat(IMAGES, 8, 0)
    out = np.asarray(compiled(Affine(**{field: True}))(key, images))
    kept = np.array([np.array_equal(a, b) for a, b in zip(out, images, strict=True)])
    mirrored = np.array([np.array_equal(a, np.flip(b, axis)) for a, b in zip(out, images, strict=True)])
    assert (kept ^ mirrored).all()
    assert 16 < kept.sum() < 48


def ramps(h, w):
    """An image whose two channels are its rows and columns, counted from the middle: it shows where it was read."""
    return np.stack(np.meshgrid(np.arange(h) - (h - 1) / 2, np.arange(w) - (w - 1) / 2, indexing="ij"), -1)


def test_a_crop_has_the_area_and_the_ratio_asked_for_and_lies_within(key):
    h, w = 60, 60
    image = ramps(h, w)[None].astype(np.float32).repeat(200, 0)
    out = np.asarray(compiled(Affine(crop=0.2, aspect=1.5))(key, image))[
        :, 10:-10, 10:-10
    ]  # not the border, which is clamped
    sides = np.stack([out[:, 1, 1, 0] - out[:, 0, 1, 0], out[:, 1, 1, 1] - out[:, 1, 0, 1]], -1)
    area, ratio = sides.prod(-1), sides[:, 1] / sides[:, 0]
    assert area.min() > 0.2 - 1e-4
    assert area.max() < 1 + 1e-4
    assert ratio.min() > 1 / 1.5 - 1e-4
    assert ratio.max() < 1.5 + 1e-4
    assert stats.kstest(area, stats.uniform(0.2, 0.8).cdf).pvalue > 1e-3
    # Reading positions of the crop's edges, half a pixel beyond the outermost pixels.
    middle = out.mean((1, 2))
    assert (np.abs(middle) + sides * h / 2 <= h / 2 + 1e-3).all()
    assert np.abs(middle).max() > 5


def test_padding_shifts_by_whole_pixels(key):
    images = np.repeat(IMAGES[:1], 64, 0)
    out = np.asarray(compiled(Affine(pad=2, fill="black"))(key, images))
    padded = np.pad(IMAGES[0], ((2, 2), (2, 2), (0, 0)))
    windows = [padded[i : i + 9, j : j + 12] for i in range(5) for j in range(5)]
    found = {next(n for n, window in enumerate(windows) if np.array_equal(window, each)) for each in out}
    assert len(found) > 15


def test_a_shear_leans_the_columns_and_keeps_the_rows(key):
    image = ramps(40, 40)[None].astype(np.float32).repeat(50, 0)
    out = np.asarray(compiled(Affine(shear=30))(key, image))[:, 18:22, 18:22]
    np.testing.assert_allclose(out[..., 0], image[:, 18:22, 18:22, 0], atol=1e-4)
    lean = np.degrees(np.arctan(out[:, 1, 0, 1] - out[:, 0, 0, 1]))
    assert np.abs(lean).max() <= 30.01
    assert lean.min() < -20 < 20 < lean.max()


# Colour


@settings(max_examples=15)
@given(st.integers(0, 99))
def test_hue_is_a_turn_about_the_grays(seed):
    image = SMOOTH[:1] // 2 + 60  # so that nothing is cut at 0 or 255
    out = np.asarray(compiled(Color(hue=0.1))(jax.random.key(seed), image), np.float64)
    turn, rest = Rotation.align_vectors(out.reshape(-1, 3), image.reshape(-1, 3).astype(np.float64))
    axis = turn.as_rotvec()
    assert rest < 0.01
    np.testing.assert_allclose(axis, axis.mean(), atol=1e-4)
    assert np.linalg.norm(axis) <= 0.2 * np.pi + 1e-4


def test_colour_is_a_matrix_and_an_offset_in_the_order_of_the_fields(key):
    """All at once, in float64, from the same draws."""
    color = Color(0.4, 0.4, 0.4, 0.3, 0.3)
    draws = np.asarray(jax.random.uniform(key, (5, len(SMOOTH)), minval=-1.0), np.float64)
    out = np.asarray(compiled(color)(key, SMOOTH))
    luma = np.array([0.299, 0.587, 0.114])
    gray = draws[4] < 2 * 0.3 - 1
    assert 0 < gray.sum() < len(gray)
    for n, image in enumerate(SMOOTH.astype(np.float64)):
        x = image * (1 + 0.4 * draws[0, n])
        x = (1 + 0.4 * draws[1, n]) * x - 0.4 * draws[1, n] * (x @ luma).mean()
        amount = 0 if gray[n] else 1 + 0.4 * draws[2, n]
        x = amount * x + (1 - amount) * (x @ luma)[..., None]
        turn = Rotation.from_rotvec(np.ones(3) / np.sqrt(3) * 2 * np.pi * 0.3 * draws[3, n])
        x = turn.apply(x.reshape(-1, 3)).reshape(x.shape)
        np.testing.assert_allclose(out[n], x.clip(0, 255), atol=0.01)


# Erasing


def test_what_is_erased_is_a_rectangle_of_the_area_and_ratio_asked_for(key):
    images = np.zeros((200, 50, 50, 1), np.float32)
    out = np.asarray(compiled(Erase(probability=0.7, smallest=0.1, largest=0.2, aspect=2.0))(key, images))[..., 0] != 0
    rows, columns = out.any(2), out.any(1)
    np.testing.assert_array_equal(out, rows[:, :, None] & columns[:, None, :])
    erased = out.any((1, 2))
    assert 100 < erased.sum() < 175
    whole = erased & ~rows[:, [0, -1]].any(1) & ~columns[:, [0, -1]].any(1)
    assert whole.sum() > 20
    high, wide = rows[whole].sum(1), columns[whole].sum(1)
    # Sides are rounded to pixels.
    assert ((high - 0.5) * (wide - 0.5) <= 0.2 * 2500).all()
    assert ((high + 0.5) * (wide + 0.5) >= 0.1 * 2500).all()
    assert ((high - 0.5) / (wide + 0.5) <= 2).all()
    assert ((wide - 0.5) / (high + 0.5) <= 2).all()


def test_cutout_paints_with_the_mean(key):
    out = np.asarray(compiled(CUTOUT)(key, SMOOTH))
    changed = (out != SMOOTH).any(-1)
    assert changed.any((1, 2)).all()
    for image, new, where in zip(SMOOTH, out, changed, strict=True):
        np.testing.assert_allclose(new[where], np.broadcast_to(image.mean((0, 1)), new[where].shape), rtol=1e-4)


# Mixing


@pytest.mark.parametrize("change", [MixUp(1.0), CutMix(1.0)], ids=["mixup", "cutmix"])
@settings(max_examples=10)
@given(seed=st.integers(0, 99))
def test_mixes_are_what_partner_and_share_say(change, seed):
    out = compiled(change)(jax.random.key(seed), IMAGES)
    partner, share = np.asarray(out.partner), np.asarray(out.share, np.float64)
    assert sorted(partner) == list(range(8))
    assert (partner != np.arange(8)).all()
    assert (share >= 0.5).all()
    assert (share <= 1).all()
    own, other = IMAGES.astype(np.float64), IMAGES[partner].astype(np.float64)
    if isinstance(change, MixUp):
        part = share[:, None, None, None]
        np.testing.assert_allclose(out.images, part * own + (1 - part) * other, atol=1e-3)
    else:
        pasted = (np.asarray(out.images) == other).all(-1) & (other != own).any(-1)
        np.testing.assert_allclose(share, 1 - pasted.mean((1, 2)), atol=1e-6)
        np.testing.assert_array_equal(out.images, np.where(pasted[..., None], other, own))
        np.testing.assert_array_equal(pasted, pasted.any(2)[:, :, None] & pasted.any(1)[:, None, :])


def test_shares_are_the_larger_of_two_from_beta(key):
    share = compiled(MixUp(0.2))(key, np.zeros((500, 1, 1, 1), np.uint8)).share
    law = stats.beta(0.2, 0.2)
    assert stats.kstest(share, lambda x: law.cdf(x) - law.cdf(1 - x)).pvalue > 1e-3


def invert(key, images):
    return 255 - images


def shade(key, images):
    return images * jax.random.uniform(key)


def pair(key, images):
    return Mixed(images * 1.0, jnp.arange(len(images))[::-1], jax.random.uniform(key, (len(images),), minval=0.5))


def test_a_chain_keeps_the_mix_and_changes_the_images(key):
    out = Chain(invert, pair, invert, shade)(key, IMAGES)
    keys = [jax.random.fold_in(key, n) for n in range(4)]
    np.testing.assert_array_equal(out.partner, np.arange(8)[::-1])
    np.testing.assert_array_equal(out.share, pair(keys[1], IMAGES).share)
    np.testing.assert_array_equal(out.images, shade(keys[3], IMAGES))
    with pytest.raises(InputError, match=r"mix the images once; CutMix\(alpha=1.0\) does it again"):
        Chain(pair, invert, CutMix())(key, IMAGES)


def test_one_of_takes_each_of_its_parts_as_often():
    choose, seen = compiled(OneOf(invert, pair, lambda key, images: pair(key, invert(key, images)))), []
    for seed in range(60):
        out = choose(jax.random.key(seed), IMAGES)
        inverted = np.array_equal(out.images, 255 - IMAGES)
        assert inverted or np.array_equal(out.images, IMAGES)
        whole = (np.asarray(out.share) == 1).all()
        np.testing.assert_array_equal(out.partner, np.arange(8) if whole else np.arange(8)[::-1])
        seen.append((inverted, whole))
    counts = [seen.count(each) for each in ((True, True), (False, False), (True, False))]
    assert sum(counts) == 60
    assert stats.chisquare(counts).pvalue > 1e-3


def test_where_labels_cannot_change_mixing_is_refused(key):
    np.testing.assert_array_equal(augment.unmixed(invert, key, IMAGES), 255 - IMAGES)
    for mixing in (MixUp(), Chain(PHOTOS, OneOf(PHOTOS, CutMix()))):
        with pytest.raises(InputError, match="for training steps only"):
            jax.eval_shape(partial(augment.unmixed, mixing), key, IMAGES)
    model = models.create("cnn", 2, filters=(2,))
    variables, source = fill(model, (9, 12, 3)), data.from_arrays(IMAGES, np.arange(8) % 2)
    with pytest.raises(InputError, match="for training steps only"):
        features.extract(model, variables, source, views=1, augment=MixUp())
    assert features.extract(model, variables, source, augment=MixUp()).shape[:2] == (1, 8)


def test_features_tell_chains_apart_and_not_functions_in_them(tmp_path):
    model = models.create("cnn", 2, filters=(2,))
    variables, source = fill(model, (9, 12, 3)), data.from_arrays(IMAGES, np.arange(8) % 2)
    for change in (Chain(Color(brightness=0.1)), Chain(Color(contrast=0.1)), Chain(Color(contrast=0.1))):
        features.extract(model, variables, source, views=1, augment=change, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(InputError, match="does not tell what it does"):
        features.extract(model, variables, source, views=1, augment=Chain(PHOTOS, invert), folder=tmp_path)


# The operations of the policies

OPERATE = jax.jit(augment._operate)


def operate(image, name, strength):
    """One operation on one image, the others of the batch being changed otherwise."""
    number = augment.NAMES.index(name)
    images = np.stack([image, 255 - image]).astype(np.float32)
    out = OPERATE(images, jnp.array([number, augment.NAMES.index("solarize")]), jnp.array([strength, 256.0]))
    np.testing.assert_array_equal(out[1], image)  # what it inverts is the image
    return np.asarray(out[0])


@given(st.integers(0, 7), st.integers(0, 8))
def test_posterize_is_pillows(n, bits):
    expected = ImageOps.posterize(Image.fromarray(SMOOTH[n]), 8 - bits) if bits < 8 else np.zeros_like(SMOOTH[n])
    np.testing.assert_array_equal(operate(SMOOTH[n], "posterize", bits), expected)


@given(st.integers(0, 7), st.integers(0, 256))
def test_solarize_is_pillows(n, levels):
    expected = ImageOps.solarize(Image.fromarray(SMOOTH[n]), 256 - levels)
    np.testing.assert_array_equal(operate(SMOOTH[n], "solarize", levels), expected)


@given(st.integers(0, 9999), st.integers(0, 255), st.integers(0, 255))
def test_autocontrast_and_equalize_are_pillows(seed, low, high):
    low, high = min(low, high), max(low, high)
    # Large enough that there is something to even out.
    image = np.random.default_rng(seed).triangular(low - 1, low, high + 1, (40, 40, 3)).clip(low, high).astype(np.uint8)
    # Pillow goes over floats, and may end one below.
    expected = np.asarray(ImageOps.autocontrast(Image.fromarray(image))).astype(int)
    np.testing.assert_allclose(operate(image, "autocontrast", 1.0), expected, atol=1)
    np.testing.assert_array_equal(
        operate(image, "equalize", 1.0), np.asarray(ImageOps.equalize(Image.fromarray(image)))
    )


@pytest.mark.parametrize(
    ("name", "enhance", "most"),
    [
        ("brightness", ImageEnhance.Brightness, 1),
        ("color", ImageEnhance.Color, 2),  # its gray is rounded
        ("contrast", ImageEnhance.Contrast, 2),  # its mean is rounded twice
        ("sharpness", ImageEnhance.Sharpness, 2),  # its blur is rounded
    ],
)
@given(n=st.integers(0, 7), strength=st.floats(-0.99, 0.99))
def test_enhancements_are_pillows(name, enhance, most, n, strength):
    expected = np.asarray(enhance(Image.fromarray(SMOOTH[n])).enhance(1 + strength)).astype(float)
    # Pillow cuts off what is behind the point.
    np.testing.assert_allclose(operate(SMOOTH[n], name, strength), expected, atol=most)


@pytest.mark.parametrize(
    ("name", "matrix", "move"),
    [
        ("rotate", lambda s: [[math.cos(math.radians(s)), math.sin(math.radians(s))]], lambda s: [0, 0]),
        ("shear_x", lambda s: [[1, 0], [s, 1]], lambda s: [0, 0]),
        ("shear_y", lambda s: [[1, s], [0, 1]], lambda s: [0, 0]),
        ("translate_x", lambda s: [[1, 0], [0, 1]], lambda s: [0, 12 * s]),
        ("translate_y", lambda s: [[1, 0], [0, 1]], lambda s: [9 * s, 0]),
    ],
)
@settings(max_examples=10)
@given(strength=st.floats(-0.9, 0.9))
def test_movements_are_scipys(name, matrix, move, strength):
    strength = strength * 100 if name == "rotate" else strength
    m = matrix(strength)
    m = np.array(m if len(m) == 2 else [m[0], [-m[0][1], m[0][0]]])
    expected = by_scipy(SMOOTH[0], m, np.array(move(strength)), mode="nearest")
    out = operate(SMOOTH[0], name, strength)
    at = np.einsum("ij,hwj->hwi", m, ramps(9, 12)) + np.array(move(strength)) + [4, 5.5]
    border = np.array([9, 12]) - 0.5
    inside = ((at > -0.499) & (at < border - 0.001)).all(-1)
    outside = ((at < -0.501) | (at > border + 0.001)).any(-1)
    np.testing.assert_allclose(out[inside], expected[inside], atol=0.05)
    assert (out[outside] == 0).all()


@pytest.mark.parametrize(("column", "count"), [(augment.RAND, 14), (augment.TRIVIAL, 14), (augment.MIX, 9)])
def test_a_policy_draws_all_of_its_operations_with_either_sign(column, count, key):
    operation, strength = map(np.asarray, jax.jit(augment._draw, static_argnums=(1, 2))(key, column, 2000))
    table = {name: most[column] for name, most in augment.OPERATIONS.items() if most[column] is not None}
    drawn = np.bincount(operation, minlength=len(augment.NAMES))
    assert {augment.NAMES[n] for n in np.flatnonzero(drawn)} == table.keys()
    assert stats.chisquare(drawn[drawn > 0]).pvalue > 1e-3
    assert len(table) == count
    for n, each in zip(operation, strength, strict=True):
        assert abs(each) == np.float32(table[augment.NAMES[n]])
    assert stats.binomtest(int((strength > 0).sum()), int((strength != 0).sum())).pvalue > 1e-3


def test_randaugment_is_its_layers_one_after_the_other(key):
    images = IMAGES.astype(np.float32)
    for n in range(2):
        operation, most = augment._draw(jax.random.fold_in(key, n), augment.RAND, 8)
        images = OPERATE(images, operation, most * 20 / 30)
    np.testing.assert_allclose(compiled(ALL["randaugment"])(key, IMAGES), images, atol=1e-3)


def test_augmix_of_one_operation_blends_it_with_the_image(key):
    out = np.asarray(compiled(AugMix(severity=10.0, width=1, depth=1))(key, IMAGES), np.float64)
    drawn_key = jax.random.split(jax.random.fold_in(jax.random.split(key, 4)[3], 0))
    operation, most = augment._draw(drawn_key[0], augment.MIX, 8)
    changed = np.asarray(OPERATE(IMAGES.astype(np.float32), operation, most * jax.random.uniform(drawn_key[1], (8,))))
    for image, chain, mixed in zip(IMAGES.astype(np.float64), changed, out, strict=True):
        way = chain - image
        share = ((mixed - image) * way).sum() / max((way * way).sum(), 1)
        assert 0 <= share <= 1
        np.testing.assert_allclose(mixed, image + share * way, atol=0.01)


# Mistakes


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Affine(rotate=-1), "rotate"),
        (lambda: Affine(rotate=math.inf), "rotate"),
        (lambda: Affine(zoom=-0.1), "zoom"),
        (lambda: Affine(zoom=math.nan), "zoom"),
        (lambda: Affine(shift=1.0), "shift"),
        (lambda: Affine(shear=90), "shear"),
        (lambda: Affine(crop=0), "crop"),
        (lambda: Affine(aspect=0.5), "aspect"),
        (lambda: Affine(pad=-1), "pad"),
        (lambda: Affine(fill="reflect"), "no fill 'reflect'; the nearest: reflection"),
        (lambda: Color(brightness=2), "brightness of Color is 0 to 1, got 2"),
        (lambda: Color(hue=0.6), "hue"),
        (lambda: Erase(probability=2), "probability"),
        (lambda: Erase(smallest=0.5), "smallest is more than largest"),
        (lambda: Erase(fill="black"), "there are: mean, noise"),
        (lambda: MixUp(-1), "alpha of MixUp"),
        (lambda: CutMix(math.nan), "alpha of CutMix"),
        (lambda: OneOf(), "nothing to choose from"),
        (lambda: RandAugment(magnitude=31), "magnitude of RandAugment is 0 to 30"),
        (lambda: TrivialAugment(magnitude=-1), "magnitude"),
        (lambda: AugMix(severity=11), "severity"),
        (lambda: AugMix(width=0), "width"),
    ],
)
def test_impossible_strengths(make, reason):
    with pytest.raises(InputError, match=reason) as error:
        make()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", [name for name in ALL if name != "chain"])
def test_what_is_no_image(name, key):
    with pytest.raises(InputError, match=r"takes images \[B,H,W,C\], got \[8, 108\]"):
        ALL[name](key, IMAGES.reshape(8, -1)[:, :108])


@pytest.mark.parametrize("name", ["color", "randaugment", "trivial", "augmix"])
def test_colours_of_four_channels(name, key):
    with pytest.raises(InputError, match="1 or 3 channels, got 4"):
        ALL[name](key, np.zeros((2, 4, 4, 4), np.uint8))


def test_colour_of_one_channel(key):
    gray = IMAGES[..., :1]
    with pytest.raises(InputError, match="no colour"):
        Color(hue=0.1)(key, gray)
    both = Color(brightness=0.3, contrast=0.3)
    np.testing.assert_allclose(both(key, gray), both(key, gray.repeat(3, -1))[..., :1], atol=0.01)
