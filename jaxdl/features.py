"""The features of a frozen network, computed once: what its head is trained on.

Where only the head learns, everything before it gives the same numbers in every epoch. `extract` runs it once for each
augmented view of the images, in memory or into a file that is found again by what it was made of.
"""

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxdl import models, parallel, train, trees
from jaxdl.augment import Augmentation, Chain, OneOf, unmixed
from jaxdl.data import Arrays, Source, batches, store
from jaxdl.errors import InputError
from jaxdl.optim import Phase
from jaxdl.train import Normalize, TrainState


def extract(
    model: Any,
    variables: Mapping[str, Any],
    source: Source,
    *,
    views: int = 0,
    augment: Augmentation | None = None,
    normalize: Normalize | None = None,
    seed: int = 0,
    batch_size: int = 32,
    mesh: Mesh | None = None,
    folder: str | Path | None = None,
) -> np.ndarray:
    """What a network's head would be given, for every example of a source.

    Args:
      model: one of this library's, with or without its head.
      variables: of the model.
      views: how many augmented views of each example to add to the example itself.
      augment: `(key, images) -> images`, drawn anew for each view.
      normalize: from pixels to the model's input.
      seed: of the augmentation.
      folder: keep the features there, in a file named by a digest of the weights, the data, the preprocessing, the
        augmentation and the seed, and read them back where that file exists. None: memory only.

    Returns:
      float32 `[1+views,N,F]`, memory-mapped where they are kept.

    Raises:
      InputError: the examples or the variables do not fit the model, `augment` mixes images, or features are to be
        kept, and `augment` or `normalize` is a function that cannot be told from another; those of `jaxdl.augment` and
        `Preprocessing.normalize` can.
    """
    trunk = models.without_head(model)
    variables = {**variables, "params": {k: v for k, v in variables["params"].items() if not k.startswith("head")}}
    path = None
    if folder is not None:
        recipe = {"views": views, "normalize": _plain(normalize)}
        if views:  # the keys of the augmentation go by batches
            recipe |= {"augment": _plain(augment), "seed": seed, "batch_size": batch_size}
        path = Path(folder) / f"{_digest(trunk, variables, source, recipe)}.npy"
        if not parallel.most(not path.exists()):
            return store.read(path)
    forward = train.make_predict_step(trunk, normalize=normalize)

    def augmented(variables: Any, batch: Any, key: jax.Array) -> jax.Array:
        if augment is not None:
            batch = {"image": unmixed(augment, key, train.inputs(batch))}
        return forward(variables, batch)

    whole = parallel.whole(mesh)
    plain = jax.jit(forward, out_shardings=whole)
    drawn_anew = parallel.undivided(mesh, augmented, min(batch_size, len(source)))
    compiled = jax.jit(drawn_anew, out_shardings=whole)
    # Whole on every device, however they lay: the same program, and bits, where training goes on.
    variables = jax.device_put(variables) if mesh is None else parallel.place(mesh, variables)
    key = jax.random.key(seed)
    example = source.take(np.arange(1))
    input_shape = train.input_shape(example, normalize)
    models.check_variables(trunk, variables, input_shape)
    width = models.shapes(trunk, input_shape)[1].shape[-1]
    if views:
        jax.eval_shape(augmented, variables, example, key)  # an augmentation that cannot be used raises here
    shape = (1 + views, len(source), width)

    def rows() -> Iterator[np.ndarray]:
        waiting: deque[tuple[jax.Array, int]] = deque()  # the device works on a batch while the host makes the next
        for view in range(1 + views):
            fed = parallel.feed(mesh, batches(source, batch_size, **parallel.division(mesh)))
            for n, batch in enumerate(fed):
                drawn = jax.random.fold_in(jax.random.fold_in(key, view), n)
                out = compiled(variables, batch, drawn) if view else plain(variables, batch)
                waiting.append((out, min(batch_size, len(source) - n * batch_size)))
                while len(waiting) > 1:
                    features, count = waiting.popleft()
                    yield np.asarray(features)[:count]
        features, count = waiting.popleft()
        yield np.asarray(features)[:count]

    if path is None or not parallel.first():
        return np.concatenate(list(rows())).reshape(shape)
    return store.keep(path, shape, np.float32, rows())


@dataclass(frozen=True)
class Stage:
    """What a phase of training runs on: the network and its data, or the head alone and their features."""

    model: Any
    variables: Mapping[str, Any]
    mask: trees.Tree
    sources: tuple[Source, ...]
    """The training data; epoch n takes number n modulo their count."""
    validation: Source | None
    augment: Augmentation | None
    normalize: Normalize | None
    trunk: Mapping[str, Any] = field(default_factory=dict)
    """The variables that are not among those above."""

    def make_train_step(self, phase: Phase, optimizer: Any, **options: Any) -> train.TrainStep:
        """The step of a phase on these; `**options` are its `loss`, `metrics` and `skip`."""
        return train.make_train_step(
            self.model,
            optimizer,
            trainable=self.mask,
            batch_stats=phase.batch_stats,
            ema=phase.ema,
            augment=self.augment,
            normalize=self.normalize,
            **options,
        )

    def joined(self, variables: Mapping[str, Any]) -> dict[str, Any]:
        """The variables of the whole network."""
        return {**variables, **self.trunk, "params": {**self.trunk.get("params", {}), **variables["params"]}}

    def whole(self, state: TrainState) -> TrainState:
        """The state of the whole network."""
        model_state = self.joined({**state.model_state, "params": state.params})
        return replace(state, params=model_state.pop("params"), model_state=model_state)

    def part(self, whole: TrainState) -> TrainState:
        """The inverse of `whole`."""
        params = {name: tree for name, tree in whole.params.items() if name not in self.trunk.get("params", {})}
        model_state = {name: tree for name, tree in whole.model_state.items() if name not in self.trunk}
        return replace(whole, params=params, model_state=model_state)


def checked_mask(model: Any, phase: Phase, params: trees.Tree) -> dict[str, Any]:
    """What a phase trains, as a mask.

    Raises:
      InputError: a pattern of the phase matches nothing, or it has `views` and trains more than the head.
    """
    mask = trees.mask(params, phase.trainable)
    trees.mask(params, [pattern for pattern, _ in phase.factors])
    more = [path for path, on in trees.paths(mask).items() if on and not path.startswith("head")]
    if phase.views is not None and more:
        raise InputError(
            f"phase {phase.name!r} trains {more[0]}, but features can be computed once only where nothing but the head "
            "is trained; leave out its views"
        )
    if phase.views is not None and models.head_alone(model) is None:
        raise InputError(f"phase {phase.name!r}: the head of a {type(model).__name__} is not known; leave out views")
    return mask


def prepare(
    model: Any,
    variables: Mapping[str, Any],
    phase: Phase,
    train_data: Source,
    validation: Source | None = None,
    *,
    augment: Augmentation | None = None,
    normalize: Normalize | None = None,
    **options: Any,
) -> Stage:
    """What a phase runs on: the features, computed here, where it has `views` (none but the images themselves, without
    augmentation); else the network and the data.

    Args:
      **options: of `extract`.

    Raises:
      InputError: see `checked_mask` and `extract`.
    """
    mask, params = checked_mask(model, phase, variables["params"]), variables["params"]
    if phase.views is None:
        return Stage(model, variables, mask, (train_data,), validation, augment, normalize)

    def features(source: Source, views: int) -> tuple[Source, ...]:
        kept = extract(model, variables, source, views=views, augment=augment, normalize=normalize, **options)
        return tuple(Arrays(view, source.labels, source.classes) for view in kept)

    sources = features(train_data, 0 if augment is None else phase.views)
    held = None if validation is None else features(validation, 0)[0]
    head = {name: tree for name, tree in params.items() if name.startswith("head")}
    trunk = {**variables, "params": {name: tree for name, tree in params.items() if name not in head}}
    mask = {name: mask[name] for name in head}
    return Stage(models.head_alone(model), {"params": head}, mask, sources, held, None, None, trunk)


def _plain(function: Callable[..., Any] | None) -> str:
    """What a function does, if it is data: a frozen dataclass that is called, or the method of one."""
    owner = getattr(function, "__self__", function)
    if function is None:
        return "none"
    if isinstance(owner, Chain | OneOf):
        return f"{type(owner).__name__}({', '.join(_plain(part) for part in owner.parts)})"
    if not is_dataclass(owner) or isinstance(owner, type):
        raise InputError(
            f"features are kept by what they were made with, and {function!r} does not tell what it does; use "
            "those of jaxdl.augment and Preprocessing.normalize, or keep the features in memory only"
        )
    return f"{owner!r}.{getattr(function, '__name__', '')}"


def _digest(trunk: Any, variables: Mapping[str, Any], source: Source, recipe: Mapping[str, Any]) -> str:
    """Of all that the features follow from."""
    digest = hashlib.sha256()
    versions = {package: version(package) for package in ("jaxdl", "jax", "flax")}
    said = {"recipe": recipe, "model": repr(trunk), "data": source.digest(), "versions": versions}
    digest.update(json.dumps(said, sort_keys=True).encode())
    for path, leaf in sorted(trees.paths(variables).items()):
        array = parallel.fetch(leaf)
        digest.update(f"{path} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
