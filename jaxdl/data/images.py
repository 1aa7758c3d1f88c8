"""From an image file to the pixels a network was trained on."""

import dataclasses
import io
import math
import stat
import zlib
from pathlib import Path
from typing import Any, Literal, get_args

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError

from jaxdl.errors import InputError, nearest

Interpolation = Literal["nearest", "bilinear", "bicubic"]

# What a folder of images is searched for.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
PIXELS = (
    89_478_485  # in one image; Pillow's own threshold, https://pillow.readthedocs.io/en/stable/reference/Image.html
)
PNG = b"\x89PNG\r\n\x1a\n"
# What makes each EXIF orientation upright: how many turns by 90 degrees to the left, and whether it is mirrored then.
# Exif 2.32, CIPA DC-008-2019, tag 274.
ORIENTATION = 0x0112
TURNS = {2: (0, True), 3: (2, False), 4: (2, True), 5: (3, True), 6: (3, False), 7: (1, True), 8: (1, False)}

cv2.setNumThreads(1)  # images are decoded side by side; OpenCV's own threads would only get in each other's way


class BadImage(InputError):
    """The file is not an image, is damaged, or has pixels that cannot be read faithfully."""


def decode(image: str | Path | bytes) -> np.ndarray:
    """The pixels of an image file, upright (EXIF orientation applied), uint8 `[H,W,3]`, RGB.

    Transparency is laid over white. 16 bits become 8 by the whole range of 16 bits; of 32 bits and floating point the
    range is told by the values: 0 to 1, 0 to 255, 0 to 65535, or else from the smallest to the largest. Of an
    animation, the first picture.

    Args:
      image: a path, or the contents of a file.

    Raises:
      BadImage: there is no such file, it is damaged or has too many pixels, or it is no image of a kind that is read;
        the message says which file and why.
    """
    return _decoded(image)


def _decoded(image: str | Path | bytes, least: int = 0) -> np.ndarray:
    """As `decode`; a JPEG may be decoded at a fraction of its size, as long as it is not smaller than `least`."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise InputError(
            "other code has set PIL.ImageFile.LOAD_TRUNCATED_IMAGES: damaged images would load black; set it to False"
        )
    name = "the image" if isinstance(image, bytes) else str(image)
    content = image if isinstance(image, bytes) else _content(Path(image))
    try:
        if content.startswith(PNG):
            _check_png(content)
        with Image.open(io.BytesIO(content)) as opened:
            if opened.width * opened.height > PIXELS:
                raise BadImage(
                    f"{name}: {opened.width} × {opened.height} pixels, more than {PIXELS:,}; make it smaller"
                )
            turns, mirrored = TURNS.get(opened.getexif().get(ORIENTATION, 1), (0, False))
            if opened.format in ("JPEG", "MPO") and opened.mode in ("RGB", "L"):
                pixels = simplejpeg.decode_jpeg(content, min_height=least, min_width=least)
            else:
                pixels = _rgb(opened)
    except BadImage as error:
        raise error if str(error).startswith(name) else BadImage(f"{name}: {error}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise BadImage(f"{name}: more than {PIXELS:,} pixels; make it smaller") from None
    except UnidentifiedImageError:
        raise BadImage(f"{name}: not an image of a kind that is read") from None
    except Exception as error:  # decoders raise whatever the bytes lead them to
        raise BadImage(f"{name}: damaged image ({error})") from None
    pixels = np.rot90(pixels, turns)
    return np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)


def _content(path: Path) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe would wait for ever
            raise BadImage(f"{path}: not a file")
        return path.read_bytes()
    except FileNotFoundError:
        raise BadImage(f"no such image: {path}") from None
    except OSError as error:
        raise BadImage(f"{path}: cannot be read ({error.strerror or error})") from None


def _check_png(content: bytes) -> None:
    """Raise BadImage unless the checksums of all chunks fit, up to the last: Pillow does not look at all of them.

    https://www.w3.org/TR/png-3/#5Chunk-layout
    """
    at, kind = len(PNG), b""
    while kind != b"IEND":
        if len(content) < at + 12:  # a length, a kind and a checksum
            raise BadImage("damaged image (it ends too early)")
        length, kind = int.from_bytes(content[at : at + 4], "big"), content[at + 4 : at + 8]
        end = at + 8 + length
        if zlib.crc32(content[at + 4 : end]) != int.from_bytes(content[end : end + 4] or b"\0", "big"):
            raise BadImage("damaged image (a checksum does not fit)")
        at = end + 4


def _rgb(image: Image.Image) -> np.ndarray:
    """uint8 `[H,W,3]` of any of Pillow's modes, by the range of the values."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        values = np.asarray(image).astype(np.float64)  # [H,W]
        if not np.isfinite(values).all():
            raise BadImage("it has pixels that are not numbers")
        low, high = float(np.min(values)), float(np.max(values))
        ranges = {"I": (255.0, 65535.0), "F": (1.0, 255.0, 65535.0)}.get(image.mode, (65535.0,))
        known = [top for top in ranges if low >= 0 and high <= top]
        low, high = (0.0, known[0]) if known else (low, max(high, low + 1e-300))
        gray = np.rint((values - low) * (255 / (high - low))).astype(np.uint8)
        return np.repeat(gray[:, :, None], 3, -1)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a network expects of its images, as plain data that is saved beside its weights.

    Calling it does all of it: an image or a path to `float32 [H,W,C]`. Training does it in two steps, with the
    augmentation between them: `resize` on the host, `normalize` on the device.
    """

    size: int
    """Height and width, in pixels, after the crop."""
    crop: float = 1.0
    """Side of the centre square that is kept, as a share of the shorter side."""
    interpolation: Interpolation = "bicubic"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Subtracted from each channel, on the scale 0 to 255; three channels are RGB, one is grayscale."""
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    """Each channel is divided by it afterwards."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.crop <= 1:
            raise InputError(f"size is at least 1 and crop within 0 and 1; got size={self.size}, crop={self.crop}")
        if self.interpolation not in (known := get_args(Interpolation)):
            raise InputError(f"no interpolation is called {self.interpolation!r}{nearest(self.interpolation, known)}")
        if not self.mean or len(self.mean) != len(self.std):
            raise InputError(
                "mean and std have a number for each channel, three for RGB and one for grayscale; "
                f"got mean={self.mean}, std={self.std}"
            )
        if not all(0 < std < math.inf for std in self.std):
            raise InputError(f"channels are divided by std, which is above 0; got {self.std}")

    def resize(self, image: Any) -> np.ndarray:
        """An image (a path, a file's contents, uint8 `[H,W]`, `[H,W,1]` or `[H,W,3]`, or Pillow's) to uint8
        `[size,size,C]`, with the channels of `mean`.

        Made smaller, it is smoothed first, as Pillow's filters do: the mean difference to Pillow's result is about 1 of
        255 for photographs, at several times the speed.

        Raises:
          BadImage: see `decode`.
          InputError: it is none of these.
        """
        if isinstance(image, str | Path | bytes):
            # At twice the size that is needed a fraction of a JPEG's detail is as good as all of it.
            pixels = _decoded(image, least=math.ceil(2 * self.size / self.crop))
        else:
            pixels = _rgb(image) if isinstance(image, Image.Image) else np.asarray(image)
            pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
            if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
                raise InputError(f"an image array is uint8 [H,W] or [H,W,3]; got {pixels.dtype} {list(pixels.shape)}")
        if pixels.shape[2] < len(self.mean):
            pixels = np.repeat(pixels, 3, -1)
        elif pixels.shape[2] > len(self.mean):
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[:, :, None]
        height, width = pixels.shape[:2]
        side = max(1, int(self.crop * min(height, width)))
        top, left = round((height - side) / 2), round((width - side) / 2)
        square = pixels[top : top + side, left : left + side]  # [side,side,C]
        return _scaled(square, self.size, self.interpolation).reshape(self.size, self.size, -1)

    def normalize(self, images: Any) -> Any:
        """Pixels on the scale 0 to 255, `[...,C]`, to the network's float32 input; NumPy and JAX arrays alike."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        axes = (None,) * (images.ndim - 1)  # [1,…,1,C]
        return (images.astype(np.float32) - mean[axes]) / std[axes]

    def __call__(self, image: Any) -> np.ndarray:
        """An image or a path to `float32 [H,W,C]`, ready for the network but for the batch axis."""
        return self.normalize(self.resize(image))


def _scaled(square: np.ndarray, size: int, interpolation: str) -> np.ndarray:
    """uint8 `[side,side,C]` to `[size,size,C]`; one channel may come back as `[size,size]`."""
    ratio = len(square) / size
    if ratio == 1:
        return square
    if interpolation == "nearest":
        return cv2.resize(square, (size, size), interpolation=cv2.INTER_NEAREST_EXACT)
    if ratio > 3:
        return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    # Nearest to Pillow's antialiased filters over photographs, for ratios of 1 to 3.
    sigma = 0.42 * math.sqrt(max(ratio**2 - 1, 0))
    if sigma > 0.2:  # below, the blur is nothing but time
        taps = 3 if sigma < 0.6 else 5 if sigma < 1.1 else 7
        square = cv2.GaussianBlur(square, (taps, taps), sigma)
    method = {"bilinear": cv2.INTER_LINEAR, "bicubic": cv2.INTER_CUBIC}[interpolation]
    return cv2.resize(square, (size, size), interpolation=method)
