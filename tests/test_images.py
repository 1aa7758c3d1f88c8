import os

import numpy as np
import pytest
import skimage.data
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile

from jaxdl.data import BadImage, Preprocessing, decode
from jaxdl.errors import InputError
from tests.data import make_bad_images


def pixels(h, w, c=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (h, w, c), dtype=np.uint8)


def test_a_square_image_of_the_right_size_is_not_touched():
    image = pixels(16, 16)
    np.testing.assert_array_equal(Preprocessing(16).resize(image), image)


@given(st.integers(2, 40), st.integers(2, 40), st.sampled_from([0.5, 0.875, 1.0]))
def test_the_crop_is_the_centre_square(h, w, crop):
    image = pixels(h, w)
    side = max(1, int(crop * min(h, w)))
    top, left = round((h - side) / 2), round((w - side) / 2)
    expected = image[top : top + side, left : left + side]
    np.testing.assert_array_equal(Preprocessing(side, crop=crop).resize(image), expected)


def test_calling_it_resizes_and_normalizes():
    preprocessing = Preprocessing(8, mean=(127.0,) * 3, std=(128.0,) * 3)
    image = pixels(20, 12)
    x = preprocessing(image)
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, (preprocessing.resize(image).astype(float) - 127) / 128, rtol=1e-6)


def test_gray_networks_get_one_channel():
    assert Preprocessing(8, mean=(0.0,), std=(255.0,)).resize(pixels(9, 9)).shape == (8, 8, 1)


CASES = make_bad_images.cases()


def test_there_are_many_cases():
    assert len({case.name for case in CASES}) == len(CASES)
    assert sum(case.pixels is None for case in CASES) >= 36


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # what a decoder has to say before it fails
def test_every_file_gets_its_right_answer(case, tmp_path):
    path = tmp_path / case.name
    path.write_bytes(case.content)
    if case.pixels is None:
        with pytest.raises(BadImage, match=rf"{case.name}: .*{case.says}"):
            decode(path)
        with pytest.raises(BadImage, match=rf"the image: .*{case.says}"):
            decode(case.content)
    else:
        found = decode(path)
        assert (found.dtype, found.shape) == (np.uint8, case.pixels.shape)
        assert np.abs(found - case.pixels.astype(float)).max() <= case.off
        np.testing.assert_array_equal(decode(case.content), found)


@given(
    at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), kind=st.sampled_from(["PNG", "JPEG", "GIF", "TIFF"])
)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_flipped_bit_is_an_image_or_an_error(at, bit, kind):
    content = bytearray(make_bad_images.saved(pixels(16, 16), kind))
    content[int(at * len(content))] ^= 1 << bit
    try:
        found = decode(bytes(content))
    except BadImage:
        return
    if kind == "PNG":  # it has checksums
        np.testing.assert_array_equal(found, pixels(16, 16))
    assert (found.dtype, found.ndim) == (np.uint8, 3)


def test_truncated_images_are_refused_whatever_pillow_was_told(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(InputError, match="LOAD_TRUNCATED_IMAGES"):
        decode(make_bad_images.saved(pixels(4, 4), "PNG"))


def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "link.jpg").symlink_to("nowhere")
    for name, reason in {"pipe.jpg": "not a file", "folder.jpg": "not a file", "link.jpg": "no such image"}.items():
        with pytest.raises(BadImage, match=reason):
            decode(tmp_path / name)


PHOTOS = [skimage.data.astronaut(), skimage.data.coffee(), skimage.data.chelsea()]


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("ratio", [0.6, 0.9, 1.2, 1.7, 2.5, 4.0])
def test_sizes_are_changed_as_pillow_does(interpolation, ratio):
    """Over photographs, nearer to Pillow's filter than Pillow's neighbouring filters are to each other."""
    for photo in PHOTOS:
        side = min(photo.shape[:2])
        square = np.ascontiguousarray(photo[:side, :side])
        size = round(side / ratio)
        found = Preprocessing(size, interpolation=interpolation).resize(square).astype(float)

        def pillow(method, square=square, size=size):
            resampling = Image.Resampling[method.upper()]
            return np.asarray(Image.fromarray(square).resize((size, size), resampling)).astype(float)

        if interpolation == "nearest":
            assert (found == pillow("nearest")).all(-1).mean() > 0.95  # the rest lies between two pixels
            continue
        error = np.abs(found - pillow(interpolation)).mean()
        other = pillow("box" if interpolation == "bilinear" else "bilinear")
        assert error < max(1.0, np.abs(pillow(interpolation) - other).mean())


def test_a_large_photograph_keeps_its_look():
    """A JPEG may be decoded at a fraction of its size."""
    photo = np.asarray(Image.fromarray(skimage.data.coffee()).resize((2400, 1600), Image.Resampling.BICUBIC))
    content = make_bad_images.saved(photo, "JPEG", quality=95)
    preprocessing = Preprocessing(96, crop=0.875)
    small, exact = preprocessing.resize(content).astype(float), preprocessing.resize(photo).astype(float)
    assert np.abs(small - exact).mean() < 2


def test_a_missing_file_and_a_wrong_array():
    with pytest.raises(BadImage, match="no such image: nowhere"):
        decode("nowhere.png")
    with pytest.raises(InputError, match="uint8"):
        Preprocessing(8).resize(np.zeros((4, 4, 3), np.float32))


def test_a_png_may_end_anywhere():
    content = make_bad_images.saved(pixels(4, 4), "PNG")
    for length in range(len(content)):
        with pytest.raises(BadImage):
            decode(content[:length])
    np.testing.assert_array_equal(decode(content), pixels(4, 4))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"interpolation": "bicubik"}, "no interpolation is called 'bicubik'; the nearest: bicubic"),
        ({"mean": (0.0,)}, "a number for each channel"),
        ({"std": (1.0, 1.0)}, "a number for each channel"),
        ({"mean": (), "std": ()}, "a number for each channel"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
        ({"mean": (0.0,), "std": (float("nan"),)}, "above 0"),
    ],
)
def test_impossible_preprocessing(wrong, said):
    with pytest.raises(InputError, match=said):
        Preprocessing(8, **wrong)
