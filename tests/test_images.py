import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl.data import BadImage, Preprocessing, decode
from jaxdl.errors import InputError


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


def test_exif_orientation_is_applied(tmp_path):
    image = Image.fromarray(pixels(4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 270 degrees to see it upright
    image.save(tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(decode(tmp_path / "turned.png"), np.rot90(np.asarray(image), -1))


def test_transparency_lies_over_white(tmp_path):
    Image.new("RGBA", (2, 2), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert (np.asarray(decode(tmp_path / "clear.png")) == 255).all()


def jpeg():
    stream = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(stream, "JPEG")
    return stream.getvalue()


def sixteen_bits():
    stream = io.BytesIO()
    Image.fromarray(np.full((4, 4), 1000, np.uint16)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not an image", "not an image"),
        (b"", "not an image"),
        (jpeg()[: len(jpeg()) // 2], "damaged image"),
        (sixteen_bits(), "16 bits"),
    ],
)
def test_bad_files_say_which_and_why(tmp_path, data, reason):
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    with pytest.raises(BadImage, match=rf"photo\.jpg.*{reason}"):
        decode(path)


def test_a_missing_file_and_a_wrong_array():
    with pytest.raises(BadImage, match="no such image: nowhere"):
        decode("nowhere.png")
    with pytest.raises(InputError, match="uint8"):
        Preprocessing(8).resize(np.zeros((4, 4, 3), np.float32))
