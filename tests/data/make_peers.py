"""Write peers.json.gz: names, shapes and logits of other libraries' EfficientNets, with weights from a formula.

Run by hand where torch, torchvision, timm, efficientnet_pytorch and Keras on JAX are installed:
KERAS_BACKEND=jax python tests/data/make_peers.py
"""

import gzip
import json
import zlib
from pathlib import Path

import numpy as np

CLASSES, SIZE = 4, 64
# Ours for each: the architecture and its options.
PYTORCH = {"padding": "symmetric", "bn_epsilon": 1e-5}
PEERS = {
    "timm/tf_efficientnetv2_b0": ("efficientnet_v2_b0", {}),
    "timm/efficientnet_lite0": ("efficientnet_lite0", PYTORCH),
    "torchvision/efficientnet_b0": ("efficientnet_b0", PYTORCH),
    "torchvision/efficientnet_v2_s": ("efficientnet_v2_s", {"padding": "symmetric"}),
    "efficientnet-pytorch/efficientnet-b0": ("efficientnet_b0", {}),
    "Keras/EfficientNetB0": ("efficientnet_b0", {}),
    "Keras/EfficientNetV2B0": ("efficientnet_v2_b0", {}),
}


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A float32 tensor that follows from its name and shape."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) == 1 and name.endswith(("weight", "var", "gamma", "variance")):
        return draw.uniform(0.5, 1.5, shape).astype(np.float32)
    if len(shape) == 1:
        return (0.2 * draw.normal(size=shape)).astype(np.float32)
    depthwise = "/" in name and "dwconv" in name
    fan = np.prod(shape) / (shape[2] if depthwise else shape[-1] if "/" in name else shape[0])
    return (draw.normal(size=shape) / np.sqrt(fan)).astype(np.float32)


def images() -> np.ndarray:
    """`[2,S,S,3]`, around 0."""
    return np.random.default_rng(0).uniform(-1, 1, (2, SIZE, SIZE, 3)).astype(np.float32)


def of_torch(model):
    import torch

    state = {name: t for name, t in model.state_dict().items() if t.ndim}
    model.load_state_dict({name: torch.from_numpy(tensor(name, t.shape)) for name, t in state.items()}, strict=False)
    with torch.no_grad():
        logits = model.eval()(torch.from_numpy(images()).permute(0, 3, 1, 2))
    return {name: list(t.shape) for name, t in model.state_dict().items()}, logits.numpy()


def of_keras(model):
    shapes = {w.path: list(w.shape) for w in model.weights}
    for w in model.weights:
        if not w.path.startswith("normalization"):
            w.assign(tensor(w.path, tuple(w.shape)))
    x = images() * (255 if any(name.startswith("normalization") for name in shapes) else 1)  # undoes its Rescaling
    return shapes, np.asarray(model(x, training=False))


def main() -> None:
    import efficientnet_pytorch
    import keras
    import timm
    import torchvision

    made = {}
    for peer in PEERS:
        library, name = peer.split("/")
        if library == "timm":
            made[peer] = of_torch(timm.create_model(name, num_classes=CLASSES))
        elif library == "torchvision":
            made[peer] = of_torch(torchvision.models.get_model(name, num_classes=CLASSES))
        elif library == "Keras":
            keras.backend.clear_session()
            options = {"include_preprocessing": False} if "V2" in name else {}
            options |= {"weights": None, "classes": CLASSES, "input_shape": (SIZE, SIZE, 3)}
            made[peer] = of_keras(getattr(keras.applications, name)(classifier_activation=None, **options))
        else:
            model = efficientnet_pytorch.EfficientNet.from_name(name, num_classes=CLASSES, image_size=SIZE)
            made[peer] = of_torch(model)
    plain = {peer: {"shapes": shapes, "logits": logits.tolist()} for peer, (shapes, logits) in made.items()}
    data = gzip.compress(json.dumps(plain).encode(), mtime=0)
    Path(__file__).with_name("peers.json.gz").write_bytes(data)


if __name__ == "__main__":
    main()
