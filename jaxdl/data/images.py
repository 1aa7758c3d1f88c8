"""From an image file to the pixels a network was trained on."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from jaxdl.errors import InputError

# What a folder of images is searched for.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
# Pillow's modes with 8 bits a channel. Its conversion of the others (16-bit, float) saturates, so they are refused.
MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV"}


class BadImage(InputError):
    """The file is not an image, is damaged, or has pixels that cannot be read faithfully."""


def decode(path: str | Path) -> Image.Image:
    """The image in a file, upright (EXIF orientation applied) and RGB, transparency laid over white.

    Raises:
      BadImage: there is no such file, or it cannot be read as an image; the message says why.
    """
    try:
        with Image.open(path) as image:
            if image.mode not in MODES:
                raise BadImage(
                    f"{path}: pixels of kind {image.mode} (16 bits or float) are not read; save it with 8 bits"
                )
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                upright = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright)
            return upright.convert("RGB")
    except FileNotFoundError:
        raise BadImage(f"no such image: {path}") from None
    except BadImage:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else f"damaged image ({error})"
        raise BadImage(f"{path}: {reason}") from None


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
    interpolation: Literal["nearest", "bilinear", "bicubic"] = "bicubic"
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Subtracted from each channel, on the scale 0 to 255; three channels are RGB, one is grayscale."""
    std: tuple[float, ...] = (255.0, 255.0, 255.0)
    """Each channel is divided by it afterwards."""

    def __post_init__(self) -> None:
        if self.size < 1 or not 0 < self.crop <= 1:
            raise InputError(f"size is at least 1 and crop within 0 and 1; got size={self.size}, crop={self.crop}")

    def resize(self, image: Any) -> np.ndarray:
        """An image (Pillow, uint8 `[H,W]` or `[H,W,C]`, or a path) to uint8 `[size,size,C]`."""
        if isinstance(image, str | Path):
            image = decode(image)
        elif not isinstance(image, Image.Image):
            image = np.asarray(image)
            if (
                image.dtype != np.uint8
                or image.ndim not in (2, 3)
                or (image.ndim == 3 and image.shape[2] not in (1, 3))
            ):
                raise InputError(f"an image array is uint8 [H,W] or [H,W,3]; got {image.dtype} {list(image.shape)}")
            image = Image.fromarray(image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image)
        image = image.convert("L" if len(self.mean) == 1 else "RGB")
        side = max(1, int(self.crop * min(image.size)))
        left, top = (image.width - side) / 2, (image.height - side) / 2
        left, top = round(left), round(top)
        box = (left, top, left + side, top + side)
        method = Image.Resampling[self.interpolation.upper()]
        pixels = np.asarray(image.resize((self.size, self.size), method, box=box))  # [S,S] or [S,S,3]
        return pixels.reshape(self.size, self.size, len(self.mean))

    def normalize(self, images: Any) -> Any:
        """Pixels on the scale 0 to 255, `[...,C]`, to the network's float32 input; NumPy and JAX arrays alike."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        axes = (None,) * (images.ndim - 1)  # [1,…,1,C]
        return (images.astype(np.float32) - mean[axes]) / std[axes]

    def __call__(self, image: Any) -> np.ndarray:
        """An image or a path to `float32 [H,W,C]`, ready for the network but for the batch axis."""
        return self.normalize(self.resize(image))
