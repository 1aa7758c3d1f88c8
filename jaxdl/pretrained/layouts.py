"""How each publisher of EfficientNets names and lays out the same tensors, as data: one table of names for each.

A tensor has our path, such as `params/blocks_3_0/expand/kernel`, and its publisher's name, such as
`blocks.2.0.conv_pw.weight`. Both directions, reading and writing, go by the same table.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

from jaxdl import trees
from jaxdl.errors import InputError
from jaxdl.models.efficientnet import ARCHITECTURES, Architecture, round_channels


@dataclass(frozen=True)
class Layout:
    """One publisher's names: a module's own, behind a block's prefix where it is in one, then the leaf's.

    Prefixes and names may hold {stage} (from 1), {before} (the same from 0), {after} (behind the last stage), {repeat}
    (from 0), {letter} (a, b, …) and {index} (of the block in the network, from 0).
    """

    name: str
    outer: Mapping[str, str]
    block: str
    inner: Mapping[str, Mapping[str, str]]  # by the block's kind, see `_kind`
    leaves: Mapping[str, str]
    norm_leaves: Mapping[str, str]
    torch: bool = True  # [O,I,k,k] and [O,I]; else Keras's [k,k,I,O], depthwise [k,k,C,1], and [I,O]
    unused: str = ""  # the names of tensors that are no weights, as a regular expression
    synonyms: Mapping[str, str] = field(default_factory=dict)  # parts of names with what the tables have for them


TORCH: dict[str, Any] = {
    "leaves": {"kernel": ".weight", "bias": ".bias"},
    "norm_leaves": {"scale": ".weight", "bias": ".bias", "mean": ".running_mean", "var": ".running_var"},
    "unused": r".*\.num_batches_tracked",
}

# https://github.com/lukemelas/EfficientNet-PyTorch/blob/master/efficientnet_pytorch/model.py (MBConvBlock)
_lukemelas_block = {
    "expand": "_expand_conv",
    "expand_bn": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_bn": "_bn1",
    "se_reduce": "_se_reduce",
    "se_expand": "_se_expand",
    "project": "_project_conv",
    "project_bn": "_bn2",
}
LUKEMELAS = Layout(
    name="efficientnet-pytorch",
    outer={"stem": "_conv_stem", "stem_bn": "_bn0", "top": "_conv_head", "top_bn": "_bn1", "head": "_fc"},
    block="_blocks.{index}.",
    inner={"bottleneck": _lukemelas_block, "separable": _lukemelas_block},
    **TORCH,
)

# https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_efficientnet_blocks.py: InvertedResidual,
# DepthwiseSeparableConv, EdgeResidual, ConvBnAct. geffnet, its ancestor, has the same names.
TIMM = Layout(
    name="timm",
    outer={"stem": "conv_stem", "stem_bn": "bn1", "top": "conv_head", "top_bn": "bn2", "head": "classifier"},
    block="blocks.{before}.{repeat}.",
    inner={
        "bottleneck": {
            "expand": "conv_pw",
            "expand_bn": "bn1",
            "depthwise": "conv_dw",
            "depthwise_bn": "bn2",
            "se_reduce": "se.conv_reduce",
            "se_expand": "se.conv_expand",
            "project": "conv_pwl",
            "project_bn": "bn3",
        },
        "separable": {
            "depthwise": "conv_dw",
            "depthwise_bn": "bn1",
            "se_reduce": "se.conv_reduce",
            "se_expand": "se.conv_expand",
            "project": "conv_pw",
            "project_bn": "bn2",
        },
        "fused": {"expand": "conv_exp", "expand_bn": "bn1", "project": "conv_pwl", "project_bn": "bn2"},
        "convolution": {"project": "conv", "project_bn": "bn1"},
    },
    **TORCH,
)

# https://github.com/pytorch/vision/blob/main/torchvision/models/efficientnet.py (MBConv, FusedMBConv): the parts of a
# block are numbered in the order in which they run.
TORCHVISION = Layout(
    name="torchvision",
    outer={
        "stem": "features.0.0",
        "stem_bn": "features.0.1",
        "top": "features.{after}.0",
        "top_bn": "features.{after}.1",
        "head": "classifier.1",
    },
    block="features.{stage}.{repeat}.block.",
    inner={
        "bottleneck": {
            "expand": "0.0",
            "expand_bn": "0.1",
            "depthwise": "1.0",
            "depthwise_bn": "1.1",
            "se_reduce": "2.fc1",
            "se_expand": "2.fc2",
            "project": "3.0",
            "project_bn": "3.1",
        },
        "separable": {
            "depthwise": "0.0",
            "depthwise_bn": "0.1",
            "se_reduce": "1.fc1",
            "se_expand": "1.fc2",
            "project": "2.0",
            "project_bn": "2.1",
        },
        "fused": {"expand": "0.0", "expand_bn": "0.1", "project": "1.0", "project_bn": "1.1"},
        "convolution": {"project": "0.0", "project_bn": "0.1"},
    },
    **TORCH,
)

# https://github.com/keras-team/keras/blob/master/keras/src/applications/efficientnet.py (block)
_keras_block = {
    "expand": "expand_conv",
    "expand_bn": "expand_bn",
    "depthwise": "dwconv",
    "depthwise_bn": "bn",
    "se_reduce": "se_reduce",
    "se_expand": "se_expand",
    "project": "project_conv",
    "project_bn": "project_bn",
}
KERAS = Layout(
    name="Keras",
    outer={"stem": "stem_conv", "stem_bn": "stem_bn", "top": "top_conv", "top_bn": "top_bn", "head": "predictions"},
    block="block{stage}{letter}_",
    inner=dict.fromkeys(("bottleneck", "separable", "fused", "convolution"), _keras_block),
    leaves={"kernel": "/kernel", "bias": "/bias"},
    norm_leaves={"scale": "/gamma", "bias": "/beta", "mean": "/moving_mean", "var": "/moving_variance"},
    torch=False,
    # V2's depthwise convolutions (.../efficientnet_v2.py); those of Keras 2; TensorFlow's variables.
    synonyms={"_dwconv2/": "_dwconv/", "/depthwise_kernel": "/kernel", ":0": ""},
    unused=r"normalization(_\d+)?/(mean|variance|count)",  # of V1's Normalization layer: they belong to preprocessing
)
LAYOUTS = (LUKEMELAS, TIMM, TORCHVISION, KERAS)
MOST = 8  # tensors named in an error, of each kind


@dataclass(frozen=True)
class Contents:
    """What a file of tensors holds, by their names and shapes."""

    layout: str
    """The publisher whose names these are."""
    architecture: str
    """For `models.create`: the one with as many parameters, or with nearly as many where none has."""
    num_classes: int | None
    """Outputs of the head; None where there is no head."""
    parameters: int
    """How many there are, without the statistics of batch normalisation."""


def from_layout(tensors: Mapping[str, np.ndarray], like: Mapping[str, Any], origin: object) -> dict[str, Any]:
    """A publisher's tensors under our paths, in our axes and as float32. They are matched by name and shape only.

    Args:
      tensors: arrays by name; the names tell the publisher.
      like: the variables to fill, as arrays or shapes: `models.shapes(model, (H,W,C))[0]`.
      origin: the file they come from, for errors.

    Raises:
      InputError: a tensor is missing, left over, of another shape or not of floating point; the message lists them.
    """
    layout, tensors = _recognise(tensors, origin)
    wanted = trees.paths(like)
    names = _names(layout, wanted)
    filled = {
        p: _to_ours(layout, tensors[n], wanted[p].shape) for p, n in names.items() if n is not None and n in tensors
    }
    used = set(names.values())
    problems = {
        "missing": [f"{p} ({names[p] or 'without a name there'})" for p in wanted if p not in filled],
        "left over": [name for name in tensors if name not in used and not _is_unused(layout, name)],
        "another shape:": [
            f"{p} is {_size(array.shape)} where {_size(wanted[p].shape)} is expected"
            for p, array in filled.items()
            if array.shape != tuple(wanted[p].shape)
        ],
        "not of floating point:": [f"{p} is {array.dtype}" for p, array in filled.items() if not _is_floating(array)],
    }
    if said := "; ".join(f"{what} {_some(which)}" for what, which in problems.items() if which):
        raise InputError(f"{origin} holds another architecture: {said}")
    return trees.from_paths({path: np.ascontiguousarray(filled[path], np.float32) for path in wanted})


def to_timm(variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """An EfficientNet's variables as timm's state dict, complete for `load_state_dict(strict=True)`.

    Args:
      variables: `{"params": …, "batch_stats": …}`.

    Returns:
      Arrays by timm's names: convolutions `[O,I,k,k]`, the head `[K,F]`, and for each batch normalisation the number
      of batches that PyTorch keeps, which is 0.

    Raises:
      InputError: these are not an EfficientNet's variables, or its batch normalisation is folded.
    """
    flat = trees.paths(variables)
    if (stem := "batch_stats/stem_bn/mean") not in flat:
        raise InputError(f"only an EfficientNet that is not folded can be written for timm; there is no {stem}")
    state: dict[str, np.ndarray] = {}
    for path, name in _names(TIMM, flat).items():
        if name is None:
            raise InputError(f"timm's EfficientNet has no name for {path}")
        array = np.asarray(flat[path])
        if array.ndim == 2 and path != "params/head/kernel":
            array = array[None, None]  # [1,1,I,O]: timm has 1x1 convolutions where we have matrices
        if path.endswith("/kernel"):
            array = array.transpose((3, 2, 0, 1) if array.ndim == 4 else (1, 0))
        state[name] = np.ascontiguousarray(array)
        if path.endswith("/var"):
            state[name.replace(".running_var", ".num_batches_tracked")] = np.zeros((), np.int64)
    return state


def identify(tensors: Mapping[str, np.ndarray], origin: object) -> Contents:
    """Which network tensors belong to, by their number, which is unique in the family. `from_layout` is the proof.

    Raises:
      InputError: these are not an EfficientNet's names.
    """
    layout, tensors = _recognise(tensors, origin)
    statistics = layout.norm_leaves["mean"], layout.norm_leaves["var"]
    weights = {n: a for n, a in tensors.items() if not n.endswith(statistics) and not _is_unused(layout, n)}
    head = [weights.get(f"{layout.outer['head']}{layout.leaves[leaf]}") for leaf in ("kernel", "bias")]
    parameters, of_head = (sum(a.size for a in arrays if a is not None) for arrays in (weights.values(), head))
    # The published numbers count a head of 1000 classes.
    trunks = {name: spec.parameters - 1000 * (_features(spec) + 1) for name, spec in ARCHITECTURES.items()}
    architecture = min(trunks, key=lambda name: abs(trunks[name] - (parameters - of_head)))
    return Contents(layout.name, architecture, None if head[1] is None else head[1].size, parameters)


def _features(spec: Architecture) -> int:
    """How many numbers the head is given."""
    return spec.top if spec.lite else round_channels(spec.top, spec.width, spec.shrink)


def _recognise(tensors: Mapping[str, np.ndarray], origin: object) -> tuple[Layout, dict[str, np.ndarray]]:
    """The layout that names most of the modules at the network's two ends as they are, and the tensors by its names."""

    def renamed(layout: Layout) -> dict[str, np.ndarray]:
        names = list(tensors)
        for old, new in layout.synonyms.items():
            names = [name.replace(old, new) for name in names]
        return dict(zip(names, tensors.values(), strict=True))

    def ends(layout: Layout) -> int:
        given = renamed(layout)
        leaves = {
            "stem": layout.leaves["kernel"],
            "stem_bn": layout.norm_leaves["scale"],
            "head": layout.leaves["bias"],
        }
        return sum(f"{layout.outer[module]}{leaf}" in given for module, leaf in leaves.items())

    layout = max(LAYOUTS, key=ends)
    if not ends(layout):
        known = ", ".join(layout.name for layout in LAYOUTS)
        there = _some(sorted(tensors)) or "nothing"
        raise InputError(f"{origin} holds no EfficientNet as {known} name it; its tensors are {there}")
    return layout, renamed(layout)


def _names(layout: Layout, paths: Iterable[str]) -> dict[str, str | None]:
    """Each of our paths with its name in a layout, None where the layout has nothing of the kind."""
    split = {path: path.split("/") for path in paths}
    inside: dict[str, set[str]] = {}
    for _, *modules, _ in split.values():
        if len(modules) == 2:
            inside.setdefault(modules[0], set()).add(modules[1])
    places = {block: tuple(int(n) for n in block.split("_")[1:]) for block in inside}  # stage and repeat
    order = sorted(places, key=places.__getitem__)
    after = max((stage for stage, _ in places.values()), default=0) + 1

    def name(modules: list[str], leaf: str) -> str | None:
        if len(modules) == 2:
            block, module = modules
            stage, repeat = places[block]
            prefix = layout.block.format(
                stage=stage, before=stage - 1, repeat=repeat, letter=chr(ord("a") + repeat), index=order.index(block)
            )
            found = layout.inner.get(_kind(inside[block]), {}).get(module)
        else:
            module, prefix, found = modules[0], "", layout.outer.get(modules[0])
        leaves = layout.norm_leaves if module.endswith("_bn") else layout.leaves
        if found is None or leaf not in leaves:
            return None
        return prefix + found.format(after=after) + leaves[leaf]

    return {path: name(modules, leaf) for path, (_, *modules, leaf) in split.items()}


def _kind(modules: set[str]) -> str:
    """What a block with these modules is, in the words of the tables above."""
    if "depthwise" in modules:
        return "bottleneck" if "expand" in modules else "separable"
    return "fused" if "expand" in modules else "convolution"


def _to_ours(layout: Layout, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor in our axes; what does not come out in our shape is for the caller to report."""
    if layout.torch and array.ndim == 4:
        array = array.transpose(2, 3, 1, 0)
    elif layout.torch and array.ndim == 2:
        array = array.transpose()
    elif not layout.torch and array.ndim == 4 and array.shape[3] == 1 != shape[-1]:
        array = array.transpose(0, 1, 3, 2)  # depthwise
    return array[0, 0] if array.shape == (1, 1, *shape) else array


def _is_unused(layout: Layout, name: str) -> bool:
    return re.fullmatch(layout.unused, name) is not None


def _is_floating(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" or array.dtype == ml_dtypes.bfloat16


def _size(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "a scalar"


def _some(words: Sequence[str]) -> str:
    return ", ".join(words[:MOST]) + (f" and {len(words) - MOST} more" if len(words) > MOST else "")
