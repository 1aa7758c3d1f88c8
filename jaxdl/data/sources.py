"""Sources of labelled examples: arrays, and folders of images."""

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from jaxdl.data.images import SUFFIXES, Preprocessing
from jaxdl.errors import InputError, nearest

Batch = dict[str, Any]
"""`{"image" | "features": [B,…], "label": [B], "weight": float32 [B]}`"""

IGNORED = {"thumbs.db", "desktop.ini"}  # and everything that begins with a dot: what systems leave in folders


class Source(Protocol):
    """A sequence of examples that knows its classes."""

    @property
    def labels(self) -> Any: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One example: `{"image" | "features": …, "label": …}`."""
        ...

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        """The examples at these indices, stacked."""
        ...

    def digest(self) -> str:
        """A SHA-256 of the inputs, equal only where all of them are."""
        ...


class Splits(NamedTuple):
    """What training sees, what the choices made during training see, and what neither sees."""

    train: Any
    validation: Any
    test: Any


@dataclass(frozen=True, eq=False)
class Arrays:
    """Examples in memory; see `from_arrays`."""

    inputs: np.ndarray
    labels: Any
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {self.kind: self.inputs[index], "label": jax.tree.map(lambda labels: labels[index], self.labels)}

    def take(self, rows: np.ndarray) -> dict[str, Any]:
        return {self.kind: self.inputs[rows], "label": jax.tree.map(lambda labels: labels[rows], self.labels)}

    def digest(self) -> str:
        """Of the inputs, whatever their labels."""
        about = f"{self.inputs.dtype} {self.inputs.shape}".encode()
        return hashlib.sha256(about + np.ascontiguousarray(self.inputs).tobytes()).hexdigest()

    @property
    def kind(self) -> str:
        return "image" if self.inputs.ndim == 4 else "features"


@dataclass(frozen=True, eq=False)
class Images:
    """Encoded images, decoded when they are asked for; see `from_folder`."""

    items: Sequence[Path | bytes]
    """Files, or their contents."""
    labels: np.ndarray
    classes: tuple[str, ...]
    preprocessing: Preprocessing

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.preprocessing.resize(self.items[index]), "label": self.labels[index]}

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        images = [self.preprocessing.resize(self.items[row]) for row in rows]
        return {"image": np.stack(images), "label": self.labels[rows]}

    def digest(self) -> str:
        """Of the files' contents and what is made of them, whatever their names and labels."""
        digest = hashlib.sha256(repr(self.preprocessing).encode())
        for item in self.items:
            content = item.read_bytes() if isinstance(item, Path) else item
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def subset(self, rows: np.ndarray) -> "Images":
        return replace(self, items=[self.items[row] for row in rows], labels=self.labels[rows])

    def load(self, workers: int = 4, limit: int = 4 << 30) -> "Arrays | Images":
        """Everything decoded once and kept in memory, or the folder itself where that would pass `limit` bytes.

        Raises:
          BadImage: a file cannot be decoded.
        """
        size = len(self.preprocessing.mean) * self.preprocessing.size**2
        if len(self) * size > limit:
            return self
        with ThreadPoolExecutor(workers) as pool:
            images = list(pool.map(self.preprocessing.resize, self.items))
        return Arrays(np.stack(images), self.labels, self.classes)


def from_arrays(inputs: Any, labels: Any, classes: Sequence[str] | None = None) -> Arrays:
    """Examples that are already arrays.

    Args:
      inputs: features `[N,F]`, or images `[N,H,W]` or `[N,H,W,C]` (uint8, or float on the scale 0 to 255).
      labels: integers `[N]`, from 0; for regression, numbers `[N]` or `[N,K]`; for a network with several heads, a
        dict of such arrays by the heads' names.
      classes: the name of each label; None for "0", "1", …, and where the labels are no classes.

    Raises:
      InputError: the shapes do not belong together, there is nothing, or a label has no class.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim == 3:
        inputs = inputs[..., None]  # [N,H,W,1]
    if inputs.ndim not in (2, 4):
        raise InputError(f"inputs are [N,F], [N,H,W] or [N,H,W,C]; got {list(inputs.shape)}")
    if not len(inputs):
        raise InputError("there are no examples")
    if isinstance(labels, Mapping):
        parts = {name: from_arrays(inputs, part).labels for name, part in labels.items()}
        return Arrays(inputs, parts, tuple(classes or ()))
    labels = np.asarray(labels)
    numbers = np.issubdtype(labels.dtype, np.floating)
    if labels.ndim not in ((1, 2) if numbers else (1,)) or not (numbers or np.issubdtype(labels.dtype, np.integer)):
        raise InputError(
            "labels are integers [N], one for each example, or numbers [N] or [N,K] for regression; got "
            f"{labels.dtype} {list(labels.shape)}"
        )
    if len(inputs) != len(labels):
        raise InputError(f"there are {len(inputs)} examples but {len(labels)} labels")
    if numbers:
        return Arrays(inputs, labels.astype(np.float32), tuple(classes or ()))
    names = tuple(map(str, range(int(labels.max()) + 1))) if classes is None else tuple(classes)
    check_labels(labels, len(names))
    return Arrays(inputs, labels.astype(np.int32), names)


def check_labels(labels: np.ndarray, num_classes: int) -> None:
    """Raise InputError unless every label is an index into that many classes.

    JAX does not: -1 gives a finite loss, and one that is too large a NaN.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        raise InputError(
            f"label {labels[wrong[0]]} of example {wrong[0]} is out of range: "
            f"labels of {num_classes} classes run from 0 to {num_classes - 1}"
        )


def from_folder(
    path: str | Path,
    preprocessing: Preprocessing,
    *,
    validation: float = 0.1,
    test: float = 0.2,
    seed: int = 0,
) -> Splits:
    """A folder of images with a folder for each class, inside `train/` and `test/` or not.

    What is missing of `validation/` and `test/` is split off the training images: the given share of each class, by a
    seeded shuffle. Classes are sorted by name. Files are not decoded yet.

    Args:
      validation, test: shares between 0 and 1; 0 leaves that split empty (None).

    Returns:
      `(train, validation, test)`, each an `Images` or None.

    Raises:
      InputError: there is no such folder, or it has fewer than two classes, an empty class, or different classes in
        its splits.
    """
    path = Path(path)
    for name, share in (("validation", validation), ("test", test)):
        if not 0 <= share < 1:
            raise InputError(f"{name} is a share of the images, from 0 up to 1; got {share}")
    check_seed(seed)
    if not path.is_dir():
        beside = path.parent.iterdir() if path.parent.is_dir() else ()
        folders = [entry.name for entry in beside if entry.is_dir() and not entry.name.startswith(".")]
        raise InputError(f"there is no folder {path}{nearest(path.name, folders)}")
    root = path / "train" if (path / "train").is_dir() else path
    train = _scan(root, preprocessing)

    def beside_train(*names: str) -> Images | None:
        found = (path / name for name in names if root != path and (path / name).is_dir())
        return next((_scan(folder, preprocessing, train.classes) for folder in found), None)

    held, tested = beside_train("validation", "valid", "val"), beside_train("test")
    if tested is None and test:
        train, tested = _part(train, test, seed, path)
    if held is None and validation:
        train, held = _part(train, validation, seed + 1, path)
    return Splits(train, held, tested)


def check_seed(seed: int) -> None:
    """Raise InputError unless the seed is one that NumPy takes."""
    if seed < 0:
        raise InputError(f"a seed is 0 or more, got {seed}")


def fingerprint(*sources: Images | None) -> str:
    """A digest of the files' names and sizes, the same wherever the folder lies."""
    digest = hashlib.sha256()
    for source in sources:
        for file, label in zip(source.items, source.labels, strict=True) if source else ():
            digest.update(f"{source.classes[label] if source else ''}/{file.name} {file.stat().st_size}\n".encode())
    return digest.hexdigest()


def scan(path: str | Path, preprocessing: Preprocessing, classes: tuple[str, ...]) -> Images:
    """All images of a folder that has a folder for each class, for a network that knows these classes already."""
    if not Path(path).is_dir():
        raise InputError(f"there is no folder {path}")
    return _scan(Path(path), preprocessing, classes)


def _scan(path: Path, preprocessing: Preprocessing, known: tuple[str, ...] | None = None) -> Images:
    def kept(entry: Path) -> bool:
        return not entry.name.startswith(".") and entry.name.lower() not in IGNORED

    folders = sorted(entry for entry in path.iterdir() if entry.is_dir() and kept(entry))
    classes = tuple(folder.name for folder in folders)
    if known is not None and classes != known:
        strange, missing = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
        parts = [f"has {', '.join(strange)} which the training images do not have"] if strange else []
        parts += [f"lacks {', '.join(missing)}"] if missing else []
        raise InputError(f"the classes of {path} differ: it {' and '.join(parts)}")
    if known is None and len(classes) < 2:
        found = f"only one, {classes[0]!r}" if classes else "none"
        raise InputError(f"{path} needs a folder of images for each of at least two classes; there is {found}")
    files: list[Path] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        images = sorted(entry for entry in folder.rglob("*") if entry.is_file() and kept(entry))
        foreign = [entry for entry in images if entry.suffix.lower() not in SUFFIXES]
        if foreign:
            raise InputError(f"{foreign[0]} is not an image file; move it away ({len(foreign)} such in {folder})")
        if not images:
            raise InputError(f"the class {folder.name!r} is empty: no images in {folder}")
        files += images
        labels += [label] * len(images)
    return Images(files, np.array(labels, np.int32), classes, preprocessing)


def _part(source: Images, share: float, seed: int, path: Path) -> tuple[Images, Images]:
    """Split a share off every class, at least one image of it."""
    order = np.random.default_rng(seed).permutation(len(source))
    split = []
    for label, name in enumerate(source.classes):
        rows = order[source.labels[order] == label]
        if len(rows) < 2:
            raise InputError(f"the class {name!r} of {path} has one image left; a split needs at least two")
        split.append(rows[: max(1, round(share * len(rows)))])
    chosen = np.sort(np.concatenate(split))
    rest = np.setdiff1d(np.arange(len(source)), chosen)
    if len(np.unique(source.labels[rest])) < len(source.classes):
        raise InputError(f"a class of {path} has too few images to be split; take a smaller share")
    return source.subset(rest), source.subset(chosen)
