"""Image augmentation on the device: pure functions `(key, images) -> images`, part of the jitted step.

Each is a frozen dataclass that is called, so it can be printed, compared and kept beside results. All take images
`[B,H,W,C]`, uint8 or float on the scale 0 to 255, and return float32 on the same scale. All geometry is one warp, so
that each pixel is interpolated once, and all colour one matrix, however many changes are asked for. Other shapes are
an InputError, and so are other than 1 or 3 channels where colours are changed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxdl.errors import InputError, nearest


class Mixed(NamedTuple):
    """Images of which each is mixed with another of the batch, and so are their labels."""

    images: Array
    """float32 `[B,H,W,C]`"""
    partner: Array
    """int32 `[B]`: the row of the other image."""
    share: Array
    """float32 `[B]`: how much the image's own label counts, 0.5 to 1; the partner's counts the rest."""


Augmentation = Callable[[Array, Array], Array | Mixed]
"""`(key, images [B,H,W,C]) -> images [B,H,W,C]`, float32 on the scale of the input, or `Mixed`."""

Fill = Literal["reflection", "black"]
Paint = Literal["noise", "mean"]

LUMA = (0.299, 0.587, 0.114)  # of red, green and blue, ITU-R BT.601, as Pillow's mode "L"


def _check(owner: Any, low: float, high: float, *names: str) -> None:
    for name in names:
        value = getattr(owner, name)
        if not (low <= value <= high and math.isfinite(value)):
            span = f"a number of at least {low}" if high == math.inf else f"{low} to {high}"
            raise InputError(f"{name} of {type(owner).__name__} is {span}, got {value}")


def _check_fill(fill: str, known: tuple[str, ...]) -> None:
    if fill not in known:
        raise InputError(f"there is no fill {fill!r}{nearest(fill, known)}")


@dataclass(frozen=True)
class Affine:
    """Random mirroring, crop, rotation, zoom, shear and shift, drawn for each image, as one bilinear warp.

    With every strength at what it is by default, the identity.
    """

    flip: bool = False
    """Mirror half of the images left to right."""
    rotate: float = 0.0
    """Largest rotation, in degrees either way."""
    zoom: float = 0.0
    """Largest zoom, in or out; 0.3 is up to 1.3 times. Height and width change alike."""
    shift: float = 0.0
    """Largest shift in each direction, as a share of height and width."""
    vertical_flip: bool = False
    """Mirror half of the images top to bottom."""
    shear: float = 0.0
    """Largest shear along the rows, in degrees either way."""
    crop: float = 1.0
    """Smallest share of the area that a random crop keeps, before it is resized to the whole; 0.08 is usual for
    training on ImageNet (Szegedy et al., 2015, arXiv:1409.4842)."""
    aspect: float = 1.0
    """Largest change of the crop's ratio of width to height; 1.33 is from 3:4 to 4:3. Without a crop, nothing."""
    pad: int = 0
    """Pixels to pad each side with, before a random window of the old size is cut out; 4 is usual for CIFAR (He et al.,
    2015, arXiv:1512.03385)."""
    fill: Fill = "reflection"
    """What comes in from beyond the border: the image's own reflection, or black."""

    def __post_init__(self) -> None:
        _check(self, 0, math.inf, "rotate", "zoom", "pad")
        _check(self, 1, math.inf, "aspect")
        for name, high, what in (("shift", 1, "a share of the image"), ("shear", 90, "in degrees")):
            if not 0 <= getattr(self, name) < high:
                raise InputError(f"{name} is {what}, from 0 to under {high}; got {getattr(self, name)}")
        if not 0 < self.crop <= 1:
            raise InputError(f"crop is the smallest share of the area that is kept, above 0 to 1; got {self.crop}")
        _check_fill(self.fill, get_args(Fill))

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]` to float32 `[B,H,W,C]`."""
        b, h, w, _ = _shape(images)
        # Trained recipes go by what follows from these four keys; what came later draws from others.
        mirror_key, angle_key, size_key, move_key = jax.random.split(key, 4)
        more = _uniform(jax.random.fold_in(key, 4), (8, b))
        mirror = jnp.where(self.flip & jax.random.bernoulli(mirror_key, 0.5, (b,)), -1.0, 1.0)
        upend = jnp.where(self.vertical_flip & (more[0] < 0), -1.0, 1.0)
        angle = math.radians(self.rotate) * _uniform(angle_key, (b,))
        size = jnp.exp(math.log1p(self.zoom) * _uniform(size_key, (b,)))
        lean = jnp.tan(math.radians(self.shear) * more[1])
        move = jnp.array([[h, w]]) * self.shift * _uniform(move_key, (b, 2))
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        # Rows take (row, column) of an output pixel, from the window's middle, to where it is read.
        turn = [[upend * (cos + sin * lean), mirror * sin], [upend * (cos * lean - sin), mirror * cos]]
        matrix = _matrices(turn) / size[:, None, None]
        area = 1 - (1 - self.crop) * (more[6] + 1) / 2
        ratio = jnp.exp(jnp.minimum(math.log(self.aspect), -jnp.log(area)) * more[7])  # of the crops that fit
        side = jnp.sqrt(jnp.stack([area / ratio, area * ratio], -1))  # [B,2], shares of height and width
        place = (1 - side) / 2 * more[2:4].T
        padding = jnp.floor((more[4:6].T / 2 + 0.5) * (2 * self.pad + 1)) - self.pad
        move = side * move + place * jnp.array([[h, w]]) + padding
        return warp(images, side[:, :, None] * matrix, move, self.fill)


PHOTOS = Affine(flip=True, rotate=15, zoom=0.3, shift=0.1)
"""For photographs of things that may be seen from the left and the right."""


@dataclass(frozen=True)
class Color:
    """Random changes of colour, drawn for each image: one matrix and one offset on its pixels, then cut to 0 to 255.

    They are made in the order of the fields. With every strength at zero, the identity. Images of one channel have
    brightness and contrast only.
    """

    brightness: float = 0.0
    """Largest change of brightness; 0.2 is from 0.8 to 1.2 times."""
    contrast: float = 0.0
    """Largest change of the distance to the image's mean gray; 0.2 is from 0.8 to 1.2 times."""
    saturation: float = 0.0
    """Largest change of the distance to the pixel's gray; 0.2 is from 0.8 to 1.2 times."""
    hue: float = 0.0
    """Largest turn about the axis of the grays either way, as a share of the full circle, up to 0.5."""
    grayscale: float = 0.0
    """Share of the images that lose their colour."""

    def __post_init__(self) -> None:
        _check(self, 0, 1, "brightness", "contrast", "saturation", "grayscale")
        _check(self, 0, 0.5, "hue")

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]`, C of 1 or 3, to float32 `[B,H,W,C]`.

        Raises:
          InputError: there is another number of channels, or one, and a strength that needs three.
        """
        b, _, _, c = _shape(images)
        if c == 1 and (self.saturation or self.hue or self.grayscale):
            raise InputError("images of one channel have no colour; leave out saturation, hue and grayscale of Color")
        draws = _uniform(key, (5, b))[:, :, None, None]  # [5,B,1,1]
        brightness, contrast, saturation = (
            1 + strength * draw
            for strength, draw in zip((self.brightness, self.contrast, self.saturation), draws[:3], strict=True)
        )
        angle = 2 * math.pi * self.hue * draws[3]
        saturation = jnp.where((1 + draws[4]) / 2 < self.grayscale, 0.0, saturation)
        pixels = jnp.asarray(images, jnp.float32)
        identity = jnp.eye(c)[None]
        matrix = identity
        if c == 3:
            to_gray = jnp.array([[LUMA] * 3])
            # Rodrigues' rotation about (1,1,1)/√3; a third of a circle takes red to green.
            cross = jnp.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])[None] / math.sqrt(3)
            turn = jnp.cos(angle) * identity + (1 - jnp.cos(angle)) / 3 * jnp.ones((1, 3, 3)) + jnp.sin(angle) * cross
            matrix = turn @ (saturation * identity + (1 - saturation) * to_gray)
        matrix = brightness * contrast * matrix  # [B,C,C]
        offset = brightness * (1 - contrast) * _gray(_means(pixels))[:, :, None]  # [B,1,1]
        parts = (pixels[..., k : k + 1] * matrix[:, None, None, :, k] for k in range(c))
        return jnp.clip(sum(parts, start=offset[..., None]), 0, 255)


@dataclass(frozen=True)
class Erase:
    """Paint over a random rectangle of some images.

    By default, random erasing with its paper's values (Zhong et al., 2017, arXiv:1708.04896). `CUTOUT` is cutout. The
    rectangle's middle is anywhere in the image, and what lies beyond the border is cut off.
    """

    probability: float = 0.5
    """Share of the images that are changed."""
    smallest: float = 0.02
    """Smallest area, as a share of the image's."""
    largest: float = 0.4
    """Largest area."""
    aspect: float = 10 / 3
    """Largest ratio of the longer to the shorter side, both as shares of the image's."""
    fill: Paint = "noise"
    """With what: noise, which is drawn once for all images of a batch, or the image's mean colour."""

    def __post_init__(self) -> None:
        _check(self, 0, 1, "probability", "smallest", "largest")
        _check(self, 1, math.inf, "aspect")
        if self.smallest > self.largest:
            raise InputError(f"smallest is more than largest: {self.smallest} and {self.largest}")
        _check_fill(self.fill, get_args(Paint))

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]` to float32 `[B,H,W,C]`."""
        b, h, w, c = _shape(images)
        chosen_key, area_key, shape_key, place_key, noise_key = jax.random.split(key, 5)
        area = jax.random.uniform(area_key, (b,), minval=self.smallest, maxval=self.largest)
        area *= jax.random.bernoulli(chosen_key, self.probability, (b,))
        shape = jnp.exp(math.log(self.aspect) * _uniform(shape_key, (b,)))
        sides = jnp.sqrt(jnp.stack([area / shape, area * shape], -1))  # [B,2]
        inside = _rectangles(place_key, jnp.round(sides * jnp.array([[h, w]])).astype(jnp.int32), h, w)
        pixels = jnp.asarray(images, jnp.float32)
        if self.fill == "mean":
            paint = _means(pixels)[:, None, None]  # [B,1,1,C]
        else:
            paint = jax.random.uniform(noise_key, (1, h, w, c), maxval=255)
        return jnp.where(inside[..., None], paint, pixels)


CUTOUT = Erase(probability=1.0, smallest=0.25, largest=0.25, aspect=1.0, fill="mean")
"""A square of half the image's side in every image, as for CIFAR-10 (DeVries & Taylor, 2017, arXiv:1708.04552)."""


@dataclass(frozen=True)
class MixUp:
    """Blend every image with another of the batch (Zhang et al., 2017, arXiv:1710.09412)."""

    alpha: float = 0.2
    """Shares are drawn from Beta(alpha, alpha), and the image's own is the larger: near 0, hardly any change; 1, all
    alike. 0.1 to 0.4 is the paper's advice for ImageNet."""

    def __post_init__(self) -> None:
        _check(self, 0, math.inf, "alpha")

    def __call__(self, key: Array, images: Array) -> Mixed:
        """`images [B,H,W,C]` to images, partners and shares."""
        b = _shape(images)[0]
        partner_key, share_key = jax.random.split(key)
        partner, share = _partners(partner_key, b), _shares(share_key, self.alpha, b)
        own, pixels = share[:, None, None, None], jnp.asarray(images, jnp.float32)
        return Mixed(own * pixels + (1 - own) * pixels[partner], partner, share)


@dataclass(frozen=True)
class CutMix:
    """Paste a rectangle of another image of the batch into every image (Yun et al., 2019, arXiv:1905.04899)."""

    alpha: float = 1.0
    """The rectangle's area is drawn as the partner's share in `MixUp`; 1 is the paper's. Near the border it is cut off,
    and the share is that of the pixels that remain."""

    def __post_init__(self) -> None:
        _check(self, 0, math.inf, "alpha")

    def __call__(self, key: Array, images: Array) -> Mixed:
        """`images [B,H,W,C]` to images, partners and shares."""
        b, h, w, _ = _shape(images)
        partner_key, share_key, place_key = jax.random.split(key, 3)
        partner, area = _partners(partner_key, b), 1 - _shares(share_key, self.alpha, b)
        # Rounded down, so that the image's own share stays at least a half.
        sides = jnp.floor(jnp.sqrt(area)[:, None] * jnp.array([[h, w]])).astype(jnp.int32)  # [B,2]
        inside = _rectangles(place_key, sides, h, w)
        pixels = jnp.asarray(images, jnp.float32)
        return Mixed(jnp.where(inside[..., None], pixels[partner], pixels), partner, 1 - inside.mean((1, 2)))


@dataclass(frozen=True, init=False)
class Chain:
    """Augmentations one after the other, `Chain(PHOTOS, Color(contrast=0.2), MixUp())`, each with a key of its own.

    What comes after a mix acts on the mixed images. There can be one mix.
    """

    parts: tuple[Augmentation, ...]

    def __init__(self, *parts: Augmentation):
        object.__setattr__(self, "parts", parts)

    def __call__(self, key: Array, images: Array) -> Array | Mixed:
        """`images [B,H,W,C]` to float32 `[B,H,W,C]`, or to `Mixed` where one of the parts mixes.

        Raises:
          InputError: two of the parts mix.
        """
        mix: Mixed | None = None
        for n, part in enumerate(self.parts):
            result = part(jax.random.fold_in(key, n), images)
            if isinstance(result, Mixed):
                if mix is not None:
                    raise InputError(f"a chain can mix the images once; {part!r} does it again, try OneOf of the two")
                mix, images = result, result.images
            else:
                images = result
        images = jnp.asarray(images, jnp.float32)
        return images if mix is None else mix._replace(images=images)


@dataclass(frozen=True, init=False)
class OneOf:
    """One of several augmentations, drawn anew for each batch, each as likely: `OneOf(MixUp(), CutMix())`."""

    parts: tuple[Augmentation, ...]

    def __init__(self, *parts: Augmentation):
        if not parts:
            raise InputError("OneOf has nothing to choose from; give at least one augmentation")
        object.__setattr__(self, "parts", parts)

    def __call__(self, key: Array, images: Array) -> Array | Mixed:
        """`images [B,H,W,C]` to float32 `[B,H,W,C]`, or to `Mixed` where one of the parts can mix."""
        choice_key, key = jax.random.split(key)
        mixes = any(isinstance(jax.eval_shape(part, key, images), Mixed) for part in self.parts)

        def branch(part: Augmentation) -> Augmentation:
            def run(key: Array, images: Array) -> Array | Mixed:
                result = part(key, images)
                if isinstance(result, Mixed):
                    return result
                result, b = result.astype(jnp.float32), len(result)
                return Mixed(result, jnp.arange(b, dtype=jnp.int32), jnp.ones(b)) if mixes else result

            return run

        choice = jax.random.randint(choice_key, (), 0, len(self.parts))
        return lax.switch(choice, [branch(part) for part in self.parts], key, images)


# The operations that the policies below draw from, with the largest strength in each policy; None where it has not got
# the operation. Shears are tangents, translations shares of height and width, rotations degrees; brightness to
# sharpness are changes of a factor of 1, posterize is in bits that are dropped, solarize in levels, from the top, that
# are inverted. Autocontrast and equalize have no strength: they are applied where it is not zero.
# RandAugment and TrivialAugment as in torchvision's autoaugment.py; TrivialAugment's 32 pixels are taken of 224. AugMix
# as in its authors' code, but for posterize, which there begins at 4 bits.
# https://github.com/pytorch/vision/blob/v0.20.0/torchvision/transforms/autoaugment.py
# https://github.com/google-research/augmix/blob/master/augmentations.py
OPERATIONS: Mapping[str, tuple[float | None, float | None, float | None]] = {
    # RandAugment, TrivialAugment, AugMix
    "identity": (0.0, 0.0, None),
    "shear_x": (0.3, 0.99, 0.3),
    "shear_y": (0.3, 0.99, 0.3),
    "translate_x": (150 / 331, 32 / 224, 1 / 3),
    "translate_y": (150 / 331, 32 / 224, 1 / 3),
    "rotate": (30.0, 135.0, 30.0),
    "brightness": (0.9, 0.99, None),
    "contrast": (0.9, 0.99, None),
    "color": (0.9, 0.99, None),
    "sharpness": (0.9, 0.99, None),
    "posterize": (4.0, 6.0, 4.0),
    "solarize": (256.0, 256.0, 256.0),
    "autocontrast": (1.0, 1.0, 1.0),
    "equalize": (1.0, 1.0, 1.0),
}
RAND, TRIVIAL, MIX = range(3)  # the columns
NAMES = tuple(OPERATIONS)
GEOMETRY = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")
TONE = ("brightness", "contrast", "posterize", "solarize", "autocontrast", "equalize")
BLEND = ("color", "sharpness")


@dataclass(frozen=True)
class RandAugment:
    """Several operations of one strength on every image, drawn from `OPERATIONS` (Cubuk et al., 2019,
    arXiv:1909.13719)."""

    layers: int = 2
    """How many operations, one after the other."""
    magnitude: float = 9.0
    """Their strength, 0 to 30; 0 is the identity."""

    def __post_init__(self) -> None:
        _check(self, 0, math.inf, "layers")
        _check(self, 0, 30, "magnitude")

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]`, C of 1 or 3, to float32 `[B,H,W,C]`."""
        _luma(_shape(images)[-1])

        def layer(n: Array, images: Array) -> Array:
            operation, largest = _draw(jax.random.fold_in(key, n), RAND, len(images))
            return _operate(images, operation, self.magnitude / 30 * largest)

        return lax.fori_loop(0, self.layers, layer, jnp.asarray(images, jnp.float32))


@dataclass(frozen=True)
class TrivialAugment:
    """One operation of `OPERATIONS` on every image, of any strength (Müller & Hutter, 2021, arXiv:2103.10158)."""

    magnitude: float = 30.0
    """The largest strength that is drawn, 0 to 30; the paper's is 30, and 0 is the identity."""

    def __post_init__(self) -> None:
        _check(self, 0, 30, "magnitude")

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]`, C of 1 or 3, to float32 `[B,H,W,C]`."""
        b, _, _, c = _shape(images)
        _luma(c)
        drawn_key, strength_key = jax.random.split(key)
        operation, largest = _draw(drawn_key, TRIVIAL, b)
        strength = self.magnitude / 30 * jax.random.uniform(strength_key, (b,))
        return _operate(jnp.asarray(images, jnp.float32), operation, strength * largest)


@dataclass(frozen=True)
class AugMix:
    """Several chains of operations, blended with each other and with the image (Hendrycks et al., 2019,
    arXiv:1912.02781).

    The paper's loss, which compares the outputs for two such images, is not part of it.
    """

    severity: float = 3.0
    """The largest strength that is drawn, 0 to 10; 0 is the identity."""
    width: int = 3
    """How many chains."""
    depth: int = 3
    """The most operations in a chain; each has 1 to that many."""

    def __post_init__(self) -> None:
        _check(self, 0, 10, "severity")
        _check(self, 1, math.inf, "width", "depth")

    def __call__(self, key: Array, images: Array) -> Array:
        """`images [B,H,W,C]`, C of 1 or 3, to float32 `[B,H,W,C]`."""
        b, _, _, c = _shape(images)
        _luma(c)
        weights_key, blend_key, depth_key, chains_key = jax.random.split(key, 4)
        # Dirichlet and Beta with all parameters at 1, as in the paper.
        weights = jax.random.exponential(weights_key, (self.width, b))
        weights *= jax.random.uniform(blend_key, (1, b)) / weights.sum(0, keepdims=True)  # [width,B]
        depths = jax.random.randint(depth_key, (self.width, b), 1, self.depth + 1)
        original = jnp.asarray(images, jnp.float32)

        def layer(n: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
            current, total = state
            row, step = n // self.depth, n % self.depth
            drawn_key, strength_key = jax.random.split(jax.random.fold_in(chains_key, n))
            operation, largest = _draw(drawn_key, MIX, b)
            strength = self.severity / 10 * jax.random.uniform(strength_key, (b,)) * (step < depths[row])
            current = _operate(jnp.where(step == 0, original, current), operation, strength * largest)
            weight = jnp.where(step == self.depth - 1, weights[row], 0.0)[:, None, None, None]
            # Differences, so that chains that change nothing leave every bit.
            return current, total + weight * (current - original)

        return jnp.clip(lax.fori_loop(0, self.width * self.depth, layer, (original, original))[1], 0, 255)


def unmixed(augment: Augmentation, key: Array, images: Array) -> Array:
    """The augmented images, where nothing but the images can change.

    Raises:
      InputError: the augmentation mixes.
    """
    result = augment(key, images)
    if isinstance(result, Mixed):
        raise InputError(
            "an augmentation that mixes images (MixUp, CutMix) changes labels too, and is for training steps only; "
            "leave it out of views"
        )
    return result


def warp(images: Array, matrix: Array, move: Array, fill: Fill = "reflection") -> Array:
    """Read every image through its own affine map, bilinearly.

    Args:
      images: `[B,H,W,C]`, uint8 or float.
      matrix, move: `[B,2,2]` and `[B,2]`; output pixel p, counted from the middle, reads input pixel
        `matrix @ p + move`, counted from the middle too, in pixels (row, column).
      fill: what is read beyond the border, half a pixel from the outermost pixels' middles.

    Returns:
      float32 `[B,H,W,C]`.
    """
    b, h, w, c = images.shape
    rows = jnp.arange(h) - (h - 1) / 2
    columns = jnp.arange(w) - (w - 1) / 2
    grid = jnp.stack([*jnp.meshgrid(rows, columns, indexing="ij"), jnp.ones((h, w))])  # [3,H,W]
    start = move + jnp.array([[(h - 1) / 2, (w - 1) / 2]])
    # A product of matrices is computed once. As sums, XLA would compute it again for each use, rounded otherwise, and
    # a pixel's index and its fraction would not fit together.
    full = jnp.concatenate([matrix, start[:, :, None]], 2)  # [B,2,3]
    source = jnp.einsum("bij,jhw->bihw", full, grid, precision="highest")
    row, column = (_inside(source[:, axis], size, fill) for axis, size in enumerate((h, w)))  # [B,H,W]
    top, left = jnp.minimum(jnp.floor(row), max(h - 2, 0)), jnp.minimum(jnp.floor(column), max(w - 2, 0))
    down, right = (row - top)[..., None], (column - left)[..., None]
    flat, at = images.reshape(b, h * w, c), top.astype(jnp.int32) * w + left.astype(jnp.int32)
    below, beside = w * min(h - 1, 1), min(w - 1, 1)

    def read(at: Array) -> Array:
        pixels = jax.vmap(lambda image, at: image.at[at].get(mode="promise_in_bounds"))(flat, at)
        return pixels.astype(jnp.float32)  # [B,H,W,C]

    upper = read(at) * (1 - right) + read(at + beside) * right
    lower = read(at + below) * (1 - right) + read(at + below + beside) * right
    result = upper * (1 - down) + lower * down
    if fill == "reflection":
        return result
    within = (jnp.abs(source[:, 0] - row) <= 0.5) & (jnp.abs(source[:, 1] - column) <= 0.5)  # [B,H,W]
    return result * within[..., None]  # `where` would take twice as long on a CPU


def _inside(at: Array, size: int, fill: Fill) -> Array:
    """Positions within 0 to size-1: folded at the border, the outermost pixel counted twice, or cut."""
    if fill == "reflection":
        edge = at + 0.5  # from the border
        edge = edge - 2 * size * jnp.floor(edge / (2 * size))
        at = size - jnp.abs(edge - size) - 0.5
    return jnp.clip(at, 0, size - 1)


def _draw(key: Array, policy: int, count: int) -> tuple[Array, Array]:
    """For each image an operation of a policy, int32 `[B]`, and its largest strength, of either sign, `[B]`."""
    table = [(NAMES.index(name), most[policy]) for name, most in OPERATIONS.items() if most[policy] is not None]
    numbers, strengths = (jnp.array(column) for column in zip(*table, strict=True))
    choice_key, sign_key = jax.random.split(key)
    choice = jax.random.randint(choice_key, (count,), 0, len(table))
    return numbers[choice], strengths[choice] * jax.random.rademacher(sign_key, (count,), jnp.float32)


def _operate(images: Array, operation: Array, strength: Array) -> Array:
    """One operation on each image, as three passes over all of them.

    Args:
      images: float32 `[B,H,W,C]`, C of 1 or 3.
      operation: int32 `[B]`, indices into `NAMES`.
      strength: float32 `[B]`, in the unit of the operation; 0 is the identity.

    Returns:
      float32 `[B,H,W,C]`.
    """

    def among(names: tuple[str, ...]) -> Array:
        chosen = operation[:, None] == jnp.array([[NAMES.index(name) for name in names]])
        return chosen.any(1) & (strength != 0)

    for names, change in ((GEOMETRY, _geometry), (TONE, _tone), (BLEND, _blend)):
        drawn = among(names)

        def run(images: Array, change: Any = change, drawn: Array = drawn) -> Array:
            return jnp.where(drawn[:, None, None, None], change(images, operation, strength), images)

        # The branch saves the work where no image has drawn it, and keeps XLA from computing a pass again for each of
        # its readers in the next.
        images = lax.cond(drawn.any(), run, lambda images: images, images)
    return images


def _geometry(images: Array, operation: Array, strength: Array) -> Array:
    def of(name: str) -> Array:
        return jnp.where(operation == NAMES.index(name), strength, 0.0)  # [B]

    _, h, w, _ = images.shape
    angle = of("rotate") * (math.pi / 180)
    sin, cos = jnp.sin(angle), jnp.cos(angle)
    matrix = _matrices([[cos, sin + of("shear_y")], [of("shear_x") - sin, cos]])
    move = jnp.stack([of("translate_y") * h, of("translate_x") * w], -1)
    return warp(images, matrix, move, "black")


def _tone(images: Array, operation: Array, strength: Array) -> Array:
    """What maps the 256 levels of a channel, as a table for each image and channel."""
    b, h, w, c = images.shape
    levels = jnp.clip(jnp.round(images).astype(jnp.int32), 0, 255).reshape(b, h * w, c)
    pairs = levels + 256 * jnp.arange(c)[None, None]  # of channel and level
    count = jax.vmap(lambda at: jnp.zeros(c * 256, jnp.int32).at[at].add(1, mode="promise_in_bounds"))
    counts = count(pairs.reshape(b, -1)).reshape(b, c, 256)
    amount = strength[:, None, None]  # [B,1,1]
    v = jnp.arange(256)[None, None]  # [1,1,256]
    mean = _gray(_means(images))[:, :, None]  # [B,1,1]
    bits = 2 ** jnp.round(jnp.abs(amount)).astype(jnp.int32)
    present = counts > 0
    low, high = present.argmax(-1, keepdims=True), 255 - present[..., ::-1].argmax(-1, keepdims=True)  # [B,C,1]
    tables = {
        "brightness": v * (1 + amount),
        "contrast": mean + (v - mean) * (1 + amount),
        "posterize": v // bits * bits,
        "solarize": jnp.where(v >= 256 - jnp.abs(amount), 255 - v, v),
        "autocontrast": jnp.where(high > low, (v - low) * 255 // jnp.maximum(high - low, 1), v),
        "equalize": _equalizing(counts, high),
    }
    stacked = jnp.stack([jnp.broadcast_to(tables[name], (b, c, 256)).astype(jnp.float32) for name in TONE], 1)
    chosen = operation[:, None] == jnp.array([[NAMES.index(name) for name in TONE]])  # [B,6]
    # A product of matrices is written to memory; a choice would be made again for every pixel.
    table = jnp.einsum("bt,btcv->bcv", chosen.astype(jnp.float32), stacked, precision="highest")
    table = jnp.clip(table, 0, 255).reshape(b, c * 256)
    look_up = jax.vmap(lambda table, at: table.at[at].get(mode="promise_in_bounds"))
    return look_up(table, pairs).reshape(images.shape)


def _equalizing(counts: Array, high: Array) -> Array:
    """Tables that even a histogram out, as Pillow's `ImageOps.equalize` has them: `counts [B,C,256]`, the highest
    levels that occur `[B,C,1]`, to `[B,C,256]`."""
    total = counts.sum(-1, keepdims=True)
    step = (total - jnp.take_along_axis(counts, high, -1)) // 255  # [B,C,1]
    before = counts.cumsum(-1) - counts
    return jnp.where(step > 0, (before + step // 2) // jnp.maximum(step, 1), jnp.arange(256)[None, None])


def _blend(images: Array, operation: Array, strength: Array) -> Array:
    """Away from, or towards, an image without colour, or one without sharpness."""
    sharpness = (operation == NAMES.index("sharpness"))[:, None, None, None]
    detail = jnp.where(sharpness, _fine(images), images - _gray(images))
    return jnp.clip(images + strength[:, None, None, None] * detail, 0, 255)


def _fine(images: Array) -> Array:
    """What Pillow's `ImageFilter.SMOOTH` takes away: 3×3, all 1/13 but the middle's 5/13, and nothing at the border."""
    if min(images.shape[1:3]) < 3:
        return jnp.zeros_like(images)
    rows = images[:, :-2] + images[:, 1:-1] + images[:, 2:]
    box = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]  # [B,H-2,W-2,C]
    middle = images[:, 1:-1, 1:-1]
    return jnp.pad(middle - (box + 4 * middle) / 13, ((0, 0), (1, 1), (1, 1), (0, 0)))


def _gray(images: Array) -> Array:
    """The gray of every pixel, `[...,C]` to `[...,1]`. As a sum over the last axis, XLA takes ten times as long."""
    weights = _luma(images.shape[-1])
    return sum((images[..., k : k + 1] * weight for k, weight in enumerate(weights)), start=jnp.zeros(()))


def _partners(key: Array, count: int) -> Array:
    """For each of the batch's rows another, `[B]`: all are as far apart."""
    return (jnp.arange(count) + jax.random.randint(key, (), 1, max(count, 2))) % count


def _shares(key: Array, alpha: float, count: int) -> Array:
    """The larger of two shares from Beta(alpha, alpha), `[B]`; 1 where alpha is 0."""
    if alpha == 0:
        return jnp.ones(count)
    share = jax.random.beta(key, alpha, alpha, (count,))
    return jnp.maximum(share, 1 - share)


def _rectangles(key: Array, sides: Array, h: int, w: int) -> Array:
    """Where a rectangle about a random pixel is in each image: sides int32 `[B,2]` in pixels, to bool `[B,H,W]`."""
    size = jnp.array([[h, w]])
    low = jnp.floor(jax.random.uniform(key, sides.shape) * size).astype(jnp.int32) - sides // 2
    rows, columns = (
        (jnp.arange(n)[None] >= low[:, axis, None]) & (jnp.arange(n)[None] < (low + sides)[:, axis, None])
        for axis, n in enumerate((h, w))
    )
    return rows[:, :, None] & columns[:, None, :]


def _matrices(rows: list[list[Array]]) -> Array:
    """Matrices `[B,2,2]` from entries `[B]`."""
    return jnp.stack([jnp.stack(row, -1) for row in rows], 1)


def _means(images: Array) -> Array:
    """The mean of each channel of each image, `[B,C]`. XLA's reduction of both axes at once is four times slower on a
    CPU."""
    return images.mean(1).mean(1)


def _luma(channels: int) -> tuple[float, ...]:
    """The weights of the channels in a pixel's gray."""
    if channels not in (1, 3):
        raise InputError(f"colours are changed in images of 1 or 3 channels, got {channels}; Affine and Erase take any")
    return LUMA if channels == 3 else (1.0,)


def _uniform(key: Array, shape: tuple[int, ...]) -> Array:
    """Uniform between -1 and 1."""
    return jax.random.uniform(key, shape, minval=-1.0)


def _shape(images: Array) -> tuple[int, int, int, int]:
    if images.ndim != 4:
        raise InputError(f"augmentation takes images [B,H,W,C], got {list(images.shape)}; leave it out for features")
    b, h, w, c = images.shape
    return b, h, w, c
