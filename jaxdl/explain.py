"""What a network does inside: what its layers give, how large their gradients are, and where in an image it looks.

For every model of this library, and for anybody's Flax module. `report` has the pictures.
"""

from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxdl import losses, models, train, trees
from jaxdl.data import check_labels
from jaxdl.errors import InputError, nearest
from jaxdl.losses import Loss
from jaxdl.train import Batch, Normalize


def layer_outputs(
    model: Any, variables: Mapping[str, Any], images: Any, normalize: Normalize | None = None
) -> dict[str, Array]:
    """What every layer gives in evaluation, by its path, in the order in which they end.

    A layer is a module of the network. The activation of a `Dense` or `CNN` is one of its own, such as `conv_0_0_relu`
    behind `conv_0_0`, and its pooling `pool_0`; in an EfficientNet `stem_bn` is with the activation, and a block, such
    as `blocks_3_0`, comes behind what it holds. See `models.layer_outputs`.

    Args:
      images: or other inputs, `[B,…]`.
      normalize: from pixels to the model's input, `preprocessing.normalize`.

    Returns:
      `{path: [B,…]}`, in the type that the network computes in.

    Raises:
      InputError: the inputs or the variables do not belong to this model.
    """
    layers = _layers(model, variables, images)
    found = _layer_outputs(model, variables, images, normalize)
    return {path: found[path] for path in layers}  # a compiled function sorts its dicts


def gradient_norms(
    model: Any,
    variables: Mapping[str, Any],
    batch: Batch,
    loss: Loss = losses.cross_entropy,
    normalize: Normalize | None = None,
) -> dict[str, float]:
    """The norm of the loss's gradient by each layer's own parameters, by its path, in the order in which layers end;
    those that `layer_outputs` does not see are last.

    The gradient is that of a training step, so batch normalisation goes by the batch. Norms that shrink from the last
    layer to the first are vanishing gradients.

    Args:
      batch: `{"image" | "features": [B,…], "label": [B], "weight": [B]}`, without "weight" where all count alike.
      loss: `(outputs, labels) -> [B]`; its mean over the weights is taken.
      normalize: from pixels to the model's input.

    Raises:
      InputError: the inputs or the variables do not belong to this model, or the labels not to this loss.
    """
    x, labels = train.inputs(batch), batch["label"]
    layers, outputs = _layers(model, variables, x), _outputs(model, x)
    if not isinstance(outputs, Mapping) and outputs.shape[-1] > 1 and _are_classes(labels, x):
        check_labels(np.asarray(labels), outputs.shape[-1])
    weights = batch.get("weight", np.ones(len(x), np.float32))
    norms = jax.device_get(_gradient_norms(model, variables, x, labels, weights, loss, normalize))
    order = [path for path in layers if path in norms]
    return {path: float(norms[path]) for path in dict.fromkeys([*order, *norms])}


def saliency(
    model: Any, variables: Mapping[str, Any], images: Any, labels: Any = None, normalize: Normalize | None = None
) -> Array:
    """How much each pixel moves the output of a class: the largest size of its gradient over the channels.

    Simonyan et al., "Deep Inside Convolutional Networks" (2013), arXiv:1312.6034, section 3.

    Args:
      images: `[B,H,W,C]`.
      labels: the classes, integers `[B]`; None for those that the network guesses. A single output speaks for 1 and
        against 0.
      normalize: from pixels to the model's input.

    Returns:
      float32 `[B,H,W]`, in logits per unit of the pixels.

    Raises:
      InputError: the images or the variables do not belong to this model, a label is none of its classes, or the model
        has several heads.
    """
    _check(model, variables, images, labels)
    return _saliency(model, variables, images, labels, normalize)


def grad_cam(
    model: Any,
    variables: Mapping[str, Any],
    images: Any,
    labels: Any = None,
    layer: str | None = None,
    normalize: Normalize | None = None,
) -> Array:
    """Where in an image a network sees a class: what a convolution's channels give, weighted by the mean gradient of
    the class's output by each of them, where the sum is above 0.

    Selvaraju et al., "Grad-CAM" (2016), arXiv:1610.02391, section 3.

    Args:
      images: `[B,H,W,C]`.
      labels: as `saliency` takes them.
      layer: the path of a layer whose output is `[B,H',W',C']` (`layer_outputs`); None for the last convolution, with
        the normalisation, activation and shortcut behind it.
      normalize: from pixels to the model's input.

    Returns:
      float32 `[B,H,W]`, from 0, resized bilinearly from the size of the layer.

    Raises:
      InputError: as `saliency`; or there is no such layer, or no convolution; the nearest layer is named.
    """
    _check(model, variables, images, labels)
    layers = _layers(model, variables, images)
    layer = _last_convolution(model, layers) if layer is None else layer
    if layer not in layers:
        raise InputError(f"{type(model).__name__} has no layer {layer!r}{nearest(layer, layers)}")
    shape = layers[layer].shape
    if len(shape) != 3:
        maps = [path for path in layers if len(layers[path].shape) == 3]
        raise InputError(f"an output of {layer!r} is {list(shape)}, and grad_cam needs [H,W,C]{nearest(layer, maps)}")
    return _grad_cam(model, variables, images, labels, layer, shape, normalize)


def _layers(model: Any, variables: Mapping[str, Any], x: Any) -> Mapping[str, models.Layer]:
    """The model's layers, once the inputs and the variables are known to fit it."""
    shape = tuple(np.shape(x)[1:])
    if not np.size(x):
        raise InputError(f"a network takes a batch of inputs [B,…] with at least one; got {list(np.shape(x))}")
    models.check_variables(model, variables, shape)
    return models.layers(model, shape)


def _check(model: Any, variables: Mapping[str, Any], images: Any, labels: Any) -> None:
    """Raise InputError unless these are images for this model, and labels for them."""
    if np.ndim(images) != 4:
        raise InputError(f"images are [B,H,W,C]; got {list(np.shape(images))}")
    _layers(model, variables, images)
    outputs = _outputs(model, images)
    if isinstance(outputs, Mapping):
        raise InputError(f"the outputs of one head can be explained, and this network has {', '.join(outputs)}")
    if labels is None:
        return
    if not _are_classes(labels, images):
        got = np.asarray(labels)
        raise InputError(f"labels are integers [{len(images)}], one for each image; got {got.dtype} {list(got.shape)}")
    check_labels(np.asarray(labels), max(2, outputs.shape[-1]))


def _are_classes(labels: Any, x: Any) -> bool:
    """Whether they are an integer for each input."""
    return np.shape(labels) == np.shape(x)[:1] and np.issubdtype(np.asarray(labels).dtype, np.integer)


def _outputs(model: Any, x: Any) -> Any:
    """The shape of the network's output, or of several by name."""
    return models.shapes(model, tuple(np.shape(x)[1:]))[1]


def _last_convolution(model: Any, layers: Mapping[str, models.Layer]) -> str:
    """The last layer that has the shape of the last convolution's output, so with all that is done to it."""
    convolutions = [path for path, layer in layers.items() if layer.convolution]
    if not convolutions:
        raise InputError(
            f"grad_cam needs a convolution, and {type(model).__name__} has none of Flax's; name the layer, "
            "or take saliency"
        )
    shape = layers[convolutions[-1]].shape
    return [path for path, layer in layers.items() if layer.shape == shape][-1]


def _scores(outputs: Array, labels: Any) -> Array:
    """The outputs of the classes, float32 `[B]`; a single output is that of class 1, and against class 0."""
    outputs = outputs.astype(jnp.float32)
    if outputs.shape[-1] == 1:
        outputs = jnp.concatenate([-outputs, outputs], -1)
    labels = outputs.argmax(-1) if labels is None else jnp.asarray(labels)
    return jnp.take_along_axis(outputs, labels[:, None], -1)[:, 0]


def _input(images: Any, normalize: Normalize | None) -> Array:
    return jnp.asarray(images, jnp.float32) if normalize is None else normalize(images)


@partial(jax.jit, static_argnums=(0, 3))
def _layer_outputs(model: Any, variables: Any, x: Any, normalize: Normalize | None) -> dict[str, Array]:
    return models.layer_outputs(model, variables, _input(x, normalize))[1]


@partial(jax.jit, static_argnums=(0, 5, 6))
def _gradient_norms(
    model: Any, variables: Any, x: Any, labels: Any, weights: Array, loss: Loss, normalize: Normalize | None
) -> dict[str, Array]:
    def objective(params: Any) -> Array:
        key = jax.random.key(0)  # of dropout
        outputs, _ = models.apply(model, {**variables, "params": params}, _input(x, normalize), key=key)
        return (loss(outputs, labels) * weights).sum() / weights.sum()

    squares: dict[str, Array] = defaultdict(lambda: jnp.zeros(()))
    for path, gradient in trees.paths(jax.grad(objective)(variables["params"])).items():
        squares[path.rpartition("/")[0]] += jnp.square(gradient).sum()
    return {path: jnp.sqrt(square) for path, square in squares.items()}


@partial(jax.jit, static_argnums=(0, 4))
def _saliency(model: Any, variables: Any, images: Any, labels: Any, normalize: Normalize | None) -> Array:
    def total(images: Array) -> Array:
        return _scores(model.apply(variables, _input(images, normalize), train=False), labels).sum()

    return jnp.abs(jax.grad(total)(jnp.asarray(images, jnp.float32))).max(-1)  # [B,H,W]


@partial(jax.jit, static_argnums=(0, 4, 5, 6))
def _grad_cam(
    model: Any,
    variables: Any,
    images: Any,
    labels: Any,
    layer: str,
    shape: tuple[int, ...],
    normalize: Normalize | None,
) -> Array:
    def total(change: Array) -> tuple[Array, Array]:
        x = _input(images, normalize)
        outputs, found = models.layer_outputs(model, variables, x, {layer: change})
        return _scores(outputs, labels).sum(), found[layer].astype(jnp.float32)

    gradient, maps = jax.grad(total, has_aux=True)(jnp.zeros((len(images), *shape)))  # [B,H',W',C']
    heat = jax.nn.relu(jnp.einsum("bhwc,bc->bhw", maps, gradient.mean((1, 2))))
    return jax.image.resize(heat, images.shape[:3], "bilinear")
