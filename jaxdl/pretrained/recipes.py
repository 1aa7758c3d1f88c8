"""What belongs to published weights besides the numbers: padding, epsilon, and the preprocessing of the images."""

import re
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np

from jaxdl.data.images import Preprocessing
from jaxdl.errors import BadFile, InputError, nearest
from jaxdl.models.efficientnet import ARCHITECTURES, BN_EPSILON

Flavour = Literal["tensorflow", "pytorch"]
Interpolation = Literal["nearest", "bilinear", "bicubic"]

# Per channel, on the scale 0 to 1. https://github.com/pytorch/vision/blob/main/torchvision/transforms/_presets.py
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# "Inception": -1 to 1. https://github.com/huggingface/pytorch-image-models/blob/main/timm/data/constants.py
INCEPTION = ((0.5,) * 3, (0.5,) * 3)
# https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/lite/efficientnet_lite_builder.py: MEAN_RGB
# and STDDEV_RGB.
LITE = ((127 / 255,) * 3, (128 / 255,) * 3)
# What V2-S/M/L have in themselves, "Rescaling":
# https://github.com/keras-team/keras/blob/master/keras/src/applications/efficientnet_v2.py
KERAS_V2 = ((128 / 255,) * 3, (128 / 255,) * 3)

# Size after the crop, size of the shorter side ahead of it, interpolation, of the default weights of
# https://github.com/pytorch/vision/blob/main/torchvision/models/efficientnet.py (EfficientNet_*_Weights)
TORCHVISION: dict[str, tuple[int, int, Any]] = {
    "efficientnet_b0": (224, 256, "bicubic"),
    "efficientnet_b1": (240, 255, "bilinear"),
    "efficientnet_b2": (288, 288, "bicubic"),
    "efficientnet_b3": (300, 320, "bicubic"),
    "efficientnet_b4": (380, 384, "bicubic"),
    "efficientnet_b5": (456, 456, "bicubic"),
    "efficientnet_b6": (528, 528, "bicubic"),
    "efficientnet_b7": (600, 600, "bicubic"),
    "efficientnet_v2_s": (384, 384, "bilinear"),
    "efficientnet_v2_m": (480, 480, "bilinear"),
    "efficientnet_v2_l": (480, 480, "bicubic"),
}
# The same file's `norm_layer` of B5-B7 and V2; PyTorch's own epsilon elsewhere.
TORCHVISION_EPSILON_1E3 = ("b5", "b6", "b7", "v2_s", "v2_m", "v2_l")
PYTORCH: dict[str, Any] = {"padding": "symmetric", "bn_epsilon": 1e-5}

# Size and crop at which the networks that timm trained itself are tested, where they are not TensorFlow's:
# https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/efficientnet.py (default_cfgs)
TIMM: dict[str, tuple[int, float]] = {
    "efficientnet_b1": (256, 1.0),
    "efficientnet_b2": (288, 1.0),
    "efficientnet_b3": (320, 1.0),
    "efficientnet_b4": (384, 1.0),
    "efficientnet_b5": (448, 1.0),
    "efficientnet_v2_m": (416, 1.0),
}
# timm's names; those of V2 differ from ours.
NAME = re.compile(r"(tf_)?efficientnet(?:_(b[0-7]|lite[0-4])|v2_(b[0-3]|s|m|l))(?![a-z0-9])")


def of_file(
    layout: str, architecture: str, flavour: Flavour | None, stem: str, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], Preprocessing] | None:
    """The model's options and the preprocessing of a publisher's weights, or None if timm's flavour is not known.

    Args:
      layout: the publisher, a name from `layouts`.
      flavour: "tensorflow" or "pytorch", ahead of what the publisher and the file's name say.
      stem: the file's name.
      tensors: of which Keras's normalisation is read.

    Raises:
      BadFile: the normalisation in a Keras file is not one of three channels.
    """
    v2, size = architecture.removeprefix("efficientnet_").startswith("v2_"), ARCHITECTURES[architecture].size
    # The centre crop of https://github.com/tensorflow/tpu/blob/master/models/official/efficientnet/preprocessing.py (32
    # pixels of padding). V2-S/M/L are shown the whole image: timm's `default_cfgs`, as above.
    whole = architecture.endswith(("v2_s", "v2_m", "v2_l"))
    crop = 1.0 if whole else size / (size + 32)
    if flavour is None and layout == "timm" and (found := NAME.match(stem)):
        flavour = "tensorflow" if found[1] else "pytorch"
    elif flavour is None and layout != "timm":
        flavour = "pytorch" if layout == "torchvision" else "tensorflow"
    if flavour is None:
        return None
    options: dict[str, Any] = {} if flavour == "tensorflow" else PYTORCH
    if layout == "torchvision" and architecture in TORCHVISION:
        if flavour == "pytorch" and architecture.endswith(TORCHVISION_EPSILON_1E3):
            options = {"padding": "symmetric"}
        size, side, interpolation = TORCHVISION[architecture]
        scale = INCEPTION if architecture == "efficientnet_v2_l" else IMAGENET
        return options, _preprocessing(size, size / side, interpolation, *scale)
    if layout == "Keras":
        scale = _keras_scale(tensors) or (KERAS_V2 if whole else IMAGENET)
        return options, _preprocessing(size, crop, "bicubic", *scale)
    if flavour == "pytorch":
        size, crop = TIMM.get(architecture, (size, crop))
        return options, _preprocessing(size, crop, "bicubic", *IMAGENET)
    if architecture.startswith("efficientnet_lite"):
        interpolation = "bilinear" if architecture.endswith(("3", "4")) else "bicubic"  # timm's `default_cfgs`
        return options, _preprocessing(size, crop, interpolation, *LITE)
    # Weights trained with adversarial examples, "AdvProp", have their own scale; so says their publishers' README, and
    # the file is called adv-efficientnet-b0-….pth or tf_efficientnet_b0_ap-….pth.
    adversarial = stem.startswith("adv-") or re.search(r"[._]ap[-_]", stem) is not None
    if layout == "efficientnet-pytorch":
        crop = 1.0  # https://github.com/lukemelas/EfficientNet-PyTorch/blob/master/examples/imagenet/main.py
    scale = INCEPTION if adversarial or (v2 and whole) else IMAGENET
    return options, _preprocessing(size, crop, "bicubic", *scale)


def of_timm_config(config: Any, origin: str) -> tuple[str, dict[str, Any], Preprocessing]:
    """The architecture, the model's options and the preprocessing that timm's `config.json` speaks of.

    Source: https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_hub.py (save_config_for_hf)

    Raises:
      InputError: it is another network.
      BadFile: something is missing or senseless in it.
    """
    try:
        name, spec = config["architecture"], config["pretrained_cfg"]
        if not (found := NAME.fullmatch(name)):
            known = [re.sub("^efficientnet_v2", "efficientnetv2", known) for known in ARCHITECTURES]
            known += [f"tf_{name}" for name in known]
            raise InputError(f"{origin} holds {name!r}, which is not an EfficientNet of jaxdl's{nearest(name, known)}")
        architecture = f"efficientnet_{found[2]}" if found[2] else f"efficientnet_v2_{found[3]}"
        channels, height, width = spec.get("test_input_size") or spec["input_size"]
        crop = spec.get("test_crop_pct") or spec["crop_pct"]
        if (channels, height) != (3, width):
            raise BadFile(f"{origin} is for images of {height}×{width}×{channels}, which jaxdl does not prepare")
        preprocessing = _preprocessing(height, crop, spec["interpolation"], spec["mean"], spec["std"])
        if preprocessing.interpolation not in get_args(Interpolation):
            raise ValueError(f"interpolation {preprocessing.interpolation!r}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, InputError) and str(error).startswith(origin):
            raise
        raise BadFile(f"{origin}: its config.json is not timm's ({error!r})") from None
    return architecture, {} if found[1] else PYTORCH, preprocessing


def timm_call(name: str, num_classes: int | None, options: Mapping[str, Any]) -> str:
    """The Python that makes a network of ours in timm, but for its weights.

    >>> timm_call("efficientnet_v2_s", 10, {})
    "timm.create_model('tf_efficientnetv2_s', num_classes=10)"
    """
    symmetric = options.get("padding") == "symmetric"
    theirs = ("" if symmetric else "tf_") + name.replace("_v2_", "v2_")
    epsilon = options.get("bn_epsilon", BN_EPSILON)
    default = PYTORCH["bn_epsilon"] if symmetric else BN_EPSILON
    more = "" if epsilon == default else f", bn_eps={epsilon}"
    return f"timm.create_model({theirs!r}, num_classes={num_classes or 0}{more})"


def _preprocessing(size: int, crop: float, interpolation: Any, mean: Any, std: Any) -> Preprocessing:
    """From mean and standard deviation on the scale 0 to 1."""
    mean, std = (tuple(round(255 * float(value), 4) for value in values) for values in (mean, std))
    return Preprocessing(size, crop, interpolation, mean, std)


def _keras_scale(tensors: Mapping[str, np.ndarray]) -> tuple[Any, Any] | None:
    """Mean and standard deviation, on the scale 0 to 1, that a Keras V1 network has in its Normalization layer."""
    named = {
        leaf: array.reshape(-1)
        for name, array in tensors.items()
        for leaf in ("mean", "variance")
        if re.fullmatch(rf"normalization(_\d+)?/{leaf}(:0)?", name)
    }
    if not named:
        return None
    if set(named) != {"mean", "variance"} or any(a.shape != (3,) or a.dtype.kind != "f" for a in named.values()):
        raise BadFile("its Normalization layer is not one of three channels")
    mean, variance = named["mean"], named["variance"]
    if np.allclose(variance, IMAGENET[1], atol=1e-4):
        # In the published files the variance is the standard deviation, and Keras divides by its root once more:
        # https://github.com/tensorflow/tensorflow/issues/49930
        return mean, variance
    return mean, np.sqrt(variance)
