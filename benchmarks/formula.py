"""Weights and images from a formula, the same bits everywhere: what the golden outputs were computed from.

NumPy's generators are free to give other numbers in another release; integer arithmetic is not.
"""

import re
import zlib
from typing import Any

import numpy as np

from jaxdl import models, trees


def uniform(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Numbers in [-1, 1) of 24 bits, float64 that float32 holds exactly: the hash of the name and of the position.

    The finalizer of MurmurHash3, https://github.com/aappleby/smhasher/blob/master/src/MurmurHash3.cpp (fmix32).
    """
    h = np.arange(int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B9) + np.uint32(zlib.crc32(name.encode()))
    h = (h ^ (h >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    h = (h ^ (h >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return ((h >> np.uint32(8)) / 2.0**23 - 1).reshape(shape)


def weights(path: str, shape: tuple[int, ...]) -> np.ndarray:
    """One tensor of an EfficientNet as it might be after training, float32.

    The variance of kernels is 2 / inputs (He et al., arXiv:1502.01852). What a repeated block adds to its input is a
    tenth: otherwise, in evaluation, where nothing is normalised by what it is, logits of deep networks grow to 1e14 and
    amplify rounding a thousandfold.
    """
    u = uniform(path, shape)
    leaf = path.rsplit("/", 1)[-1]
    if leaf == "kernel":
        u *= np.sqrt(6 / np.prod(shape[:-1]))
    else:
        u = 1 + u / 2 if leaf in ("scale", "var") else u / 2
    if re.fullmatch(r"params/blocks_\d+_[1-9]\d*/project_bn/scale", path):
        u /= 10
    return u.astype(np.float32)


def variables(model: Any) -> dict[str, Any]:
    """All variables of an EfficientNet."""
    shapes = trees.paths(models.shapes(model, (64, 64, 3))[0])
    return trees.from_paths({path: weights(path, leaf.shape) for path, leaf in shapes.items()})


def images(count: int, height: int, width: int) -> np.ndarray:
    """`[count,height,width,3]`, float32, with the variance of normalised photographs."""
    return (uniform("images", (count, height, width, 3)) * np.sqrt(3)).astype(np.float32)


def labels(count: int) -> np.ndarray:
    """`[count]` of 1000 classes."""
    return np.arange(count) * 7


def probe(path: str, array: np.ndarray) -> float:
    """One number to which every element of a tensor contributes, each in its own way: the product with the formula."""
    return float(np.vdot(uniform(f"probe/{path}", array.shape), array))
