"""Sources of labelled examples: arrays, and folders of images."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol, Self

import jax
import numpy as np

from jaxdl.data.images import SUFFIXES, BadImage, Preprocessing
from jaxdl.errors import InputError, nearest

Batch = dict[str, Any]
"""`{"image" | "features": [B,…], "label": [B], "weight": float32 [B]}`"""
OnBad = Literal["error", "skip"]

DECODERS = ("jaxdl", "opencv-python-headless", "simplejpeg", "pillow")  # what pixels depend on, beside the files
IGNORED = {"thumbs.db", "desktop.ini"}  # and everything that begins with a dot: what systems leave in folders
# Names of splits in any case, with what they are called here.
SPLITS = {name: name for name in ("train", "validation", "valid", "val", "test")} | {
    "training": "train",
    "testing": "test",
}
BAD_SHARE = 0.1  # of a folder's files; where more are unreadable, something else is wrong than a few files
MANY = 10_000  # classes without names; integers from here on are more likely prices or the like


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

    def subset(self, rows: np.ndarray) -> Self:
        """The examples at these indices, as a source."""
        ...

    def digest(self) -> str:
        """A SHA-256 of the inputs, equal only where all of them are."""
        ...

    def fingerprint(self) -> str:
        """A SHA-256 of which examples these are, with their labels, without reading files."""
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

    def subset(self, rows: np.ndarray) -> "Arrays":
        return Arrays(self.inputs[rows], jax.tree.map(lambda labels: labels[rows], self.labels), self.classes)

    def digest(self) -> str:
        """Of the inputs, whatever their labels."""
        about = f"{self.inputs.dtype} {self.inputs.shape}".encode()
        return hashlib.sha256(about + np.ascontiguousarray(self.inputs).tobytes()).hexdigest()

    def fingerprint(self) -> str:
        digest = hashlib.sha256(self.digest().encode())
        for labels in jax.tree.leaves(self.labels):
            digest.update(labels.tobytes())
        return digest.hexdigest()

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
    skipped: tuple[str, ...] = ()
    """What is wrong with the files that were left out."""

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": self.preprocessing.resize(self.items[index]), "label": self.labels[index]}

    def take(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        images = np.empty((len(rows), *self.shape), np.uint8)
        for image, row in zip(images, rows, strict=True):
            image[...] = self.preprocessing.resize(self.items[row])
        return {"image": images, "label": self.labels[rows]}

    @property
    def shape(self) -> tuple[int, int, int]:
        """[H,W,C] of each image once it is resized."""
        return self.preprocessing.size, self.preprocessing.size, len(self.preprocessing.mean)

    def digest(self) -> str:
        """Of the files' contents and what is made of them and by what, whatever their names and labels."""
        by = {package: version(package) for package in DECODERS}
        digest = hashlib.sha256(f"{self.preprocessing!r} {by}".encode())
        for item in self.items:
            content = item.read_bytes() if isinstance(item, Path) else item
            digest.update(hashlib.sha256(content).digest())
        return digest.hexdigest()

    def fingerprint(self) -> str:
        """Of the files' names, classes and sizes, wherever the folder lies; of contents where there are no files."""
        digest = hashlib.sha256()
        for item, label in zip(self.items, self.labels, strict=True):
            name, size = (item.name, item.stat().st_size) if isinstance(item, Path) else (_sha256(item), len(item))
            digest.update(f"{self.classes[label]}/{name} {size}\n".encode())
        return digest.hexdigest()

    def subset(self, rows: np.ndarray) -> "Images":
        return replace(self, items=Selection(self.items, rows), labels=self.labels[rows])


@dataclass(frozen=True, eq=False)
class Selection(Sequence):
    """Some entries of a sequence, which are not read before they are asked for."""

    items: Sequence[Any]
    rows: np.ndarray

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        return self.items[int(self.rows[index])]


def from_arrays(inputs: Any, labels: Any, classes: Sequence[str] | None = None) -> Arrays:
    """Examples that are already arrays.

    Args:
      inputs: features `[N,F]`, or images `[N,H,W]` or `[N,H,W,C]` (uint8, or float on the scale 0 to 255).
      labels: integers `[N]`, from 0; for regression, numbers `[N]` or `[N,K]`; for a network with several heads, a
        dict of such arrays by the heads' names.
      classes: the name of each label; None for "0", "1", …, and where the labels are no classes.

    Raises:
      InputError: the shapes do not belong together, there is nothing, an input or label is no number, or a label has no
        class.
    """
    inputs = np.asarray(inputs)
    if inputs.ndim == 3:
        inputs = inputs[..., None]  # [N,H,W,1]
    if inputs.ndim not in (2, 4):
        raise InputError(f"inputs are [N,F], [N,H,W] or [N,H,W,C]; got {list(inputs.shape)}")
    if not len(inputs):
        raise InputError("there are no examples")
    _check_numbers("inputs", inputs)
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
        _check_numbers("labels", labels)
        return Arrays(inputs, labels.astype(np.float32), tuple(classes or ()))
    if classes is None:
        _check_plausible(labels)
    names = tuple(map(str, range(int(labels.max()) + 1))) if classes is None else tuple(classes)
    check_labels(labels, len(names))
    return Arrays(inputs, labels.astype(np.int32), names)


def _check_plausible(labels: np.ndarray) -> None:
    """Raise InputError where integers without names of classes look like numbers that are to be predicted."""
    if labels.min() < 0:
        row, why = int(np.argmin(labels)), "classes are numbered from 0"
    elif labels.max() >= max(MANY, 2 * len(labels)):
        row, why = int(np.argmax(labels)), f"for {len(labels)} examples; if these are classes, give classes"
    else:
        return
    hint = "for regression give floats: labels.astype('float32')"
    raise InputError(f"label {labels[row]} of example {row} is out of range: {why}; {hint}")


def _check_numbers(what: str, array: np.ndarray) -> None:
    """Raise InputError unless all of an array `[N,…]` are numbers: one NaN makes every loss and every weight NaN."""
    if not (jax.numpy.issubdtype(array.dtype, np.number) or array.dtype == bool):
        raise InputError(f"{what} are numbers, got {array.dtype} {list(array.shape)}; text is read by data.from_csv")
    if not array.size or not jax.numpy.issubdtype(array.dtype, np.inexact):
        return
    with np.errstate(invalid="ignore"):
        extremes = [array.min(), array.max()]  # NaN where anything is; `isfinite` of all takes memory
    if not np.isfinite(extremes).all():
        row, *place = map(int, np.argwhere(~np.isfinite(array))[0])
        at = f" at {place}" if place else ""
        raise InputError(f"the {what} of example {row} have {array[row, *place]}{at}; leave it out, or fill it in")


def check_source(source: Source | None) -> None:
    """Raise InputError unless this is a source with examples."""
    if source is None:
        raise InputError("there are no examples: this split is None, as its share was 0")
    if not hasattr(source, "labels") or not hasattr(source, "take"):
        what = type(source).__name__
        raise InputError(f"examples come as a source, such as data.from_arrays(inputs, labels); this is a {what}")
    if not len(source):
        raise InputError("there are no examples: the source is empty")


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
    on_bad: OnBad = "error",
) -> Splits:
    """A folder of images with a folder for each class, inside `train/` and `test/` or not.

    What is missing of `validation/` and `test/` is split off the training images: the given share of each class, by a
    seeded shuffle. Classes are sorted by name. Warns of files whose content is in two of the splits.

    Args:
      validation, test: shares between 0 and 1, of validation of what the test leaves; 0 leaves that split empty (None).
      on_bad: what happens to files that are no images or damaged. "error": the first stops everything, foreign ones
        and dangling links here, damaged ones when they are decoded. "skip": all files are decoded here, and those that
        cannot be are left out; `skipped` of each split says why.

    Returns:
      `(train, validation, test)`, each an `Images` or None.

    Raises:
      InputError: there is no such folder, or it has fewer than two classes, an empty class or one too small to split,
        different classes in its splits, or splits of which none is called train; a file is no image, or more than a
        tenth of them would be skipped; a share or the seed is out of range.
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
    check_splits(path)
    root = path / "train" if (path / "train").is_dir() else path
    train = scan(root, preprocessing, on_bad=on_bad)

    def beside_train(*names: str) -> Images | None:
        found = (path / name for name in names if root != path and (path / name).is_dir())
        return next((scan(folder, preprocessing, train.classes, on_bad) for folder in found), None)

    held, tested = beside_train("validation", "valid", "val"), beside_train("test")
    if tested is None and test:
        train, tested = split(train, test, seed)
    if held is None and validation:
        train, held = split(train, validation, seed + 1)
    splits = Splits(train, held, tested)
    _warn_of_duplicates(path, splits)
    return splits


def split(source: Source, share: float, seed: int = 0) -> tuple[Any, Any]:
    """Take a share of the examples away from the rest, the same share of every class, by a seeded shuffle.

    Args:
      source: of each class that has examples at least one is taken, and at least one is left; where labels are no
        classes, so it is with all examples together.
      share: between 0 and 1; `split(train, 0.1)[1]` is a tenth of the training data.

    Returns:
      `(rest, part)`, sources of the same kind, both in the order of the source.

    Raises:
      InputError: the share is not between 0 and 1, or a class has too few examples.
    """
    if not 0 < share < 1:
        raise InputError(f"a share lies between 0 and 1, got {share}")
    check_seed(seed)
    order = np.random.default_rng(seed).permutation(len(source))
    taken = []
    for label, rows in (_by_class(source, order) or {-1: order}).items():
        count = max(1, round(share * len(rows)))
        if count >= len(rows):
            what = "the source" if label < 0 else f"the class {source.classes[label]!r}"
            left = "one example left" if len(rows) == 1 else f"{len(rows)} examples"
            raise InputError(f"{what} has {left}; splitting {share:g} off needs at least two, or a smaller share")
        taken.append(rows[:count])
    chosen = np.sort(np.concatenate(taken))
    return source.subset(np.setdiff1d(np.arange(len(source)), chosen)), source.subset(chosen)


def oversample(source: Source, seed: int = 0) -> Any:
    """The source with its rarer classes repeated until each has as many examples as the commonest.

    Examples of a class are there equally often, but for one time more or less, which the seed draws. Resample what is
    trained on and nothing else: what is measured on copies of training examples is too good.

    Args:
      source: with integer labels.

    Raises:
      InputError: the labels are no classes.
    """
    return _resampled(source, max, seed)


def undersample(source: Source, seed: int = 0) -> Any:
    """The source with as many examples of each class as the rarest has, chosen by a seeded shuffle; for training data,
    as `oversample`."""
    return _resampled(source, min, seed)


def _resampled(source: Source, size: Callable[[np.ndarray], int], seed: int) -> Any:
    check_seed(seed)
    order = np.random.default_rng(seed).permutation(len(source))
    classes = _by_class(source, order)
    if classes is None:
        raise InputError("classes are resampled, and these labels are none: they are numbers, or of several heads")
    count = size(np.array([len(rows) for rows in classes.values()]))
    return source.subset(np.sort(np.concatenate([np.resize(rows, count) for rows in classes.values()])))


def _by_class(source: Source, order: np.ndarray) -> dict[int, np.ndarray] | None:
    """The rows of each class that has any, in that order; None where the labels are no classes."""
    labels = source.labels
    if not source.classes or isinstance(labels, Mapping) or not np.issubdtype(labels.dtype, np.integer):
        return None
    return {label: order[labels[order] == label] for label in np.unique(labels).tolist()}


def fingerprint(*sources: Source | None) -> str:
    """A digest of the fingerprints of all these sources."""
    return _sha256("\n".join(source.fingerprint() if source else "none" for source in sources).encode())


def scan(
    path: str | Path, preprocessing: Preprocessing, known: tuple[str, ...] | None = None, on_bad: OnBad = "error"
) -> Images:
    """All images of a folder that has a folder for each class; see `from_folder`.

    Args:
      known: the classes that there must be, where that is known.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"there is no folder {path}")
    folders = class_folders(path)
    classes = tuple(folder.name for folder in folders)
    if known is not None and classes != known:
        strange, missing = sorted(set(classes) - set(known)), sorted(set(known) - set(classes))
        parts = [f"has {', '.join(strange)} which the training images do not have"] if strange else []
        parts += [f"lacks {', '.join(missing)}"] if missing else []
        raise InputError(f"the classes of {path} differ: it {' and '.join(parts)}")
    if known is None and len(classes) < 2:
        found = f"only one, {classes[0]!r}" if classes else "none"
        raise InputError(f"{path} needs a folder of images for each of at least two classes; there is {found}")
    items: list[Path] = []
    labels: list[int] = []
    skipped: list[str] = []
    for label, folder in enumerate(folders):
        images, foreign = files(folder)
        if foreign and on_bad == "error":
            raise InputError(f"{foreign[0]} is not an image file; move it away ({len(foreign)} such in {folder})")
        skipped += [f"{file}: not an image file" for file in foreign]
        if on_bad == "error" and (gone := [file for file in images if not file.exists()]):
            raise BadImage(f"no such image: {gone[0]}")
        if on_bad == "skip":
            reasons = problems(images, preprocessing)
            skipped += reasons.values()
            images = [file for file in images if file not in reasons]
        if not images:
            raise InputError(f"the class {folder.name!r} is empty: no images in {folder}")
        items += images
        labels += [label] * len(images)
    if len(skipped) > BAD_SHARE * (len(items) + len(skipped)):
        raise InputError(
            f"{len(skipped)} of {len(items) + len(skipped)} files of {path} cannot be read, more than {BAD_SHARE:.0%}; "
            f"the first: {skipped[0]}"
        )
    return Images(items, np.array(labels, np.int32), classes, preprocessing, tuple(skipped))


def check_splits(path: Path) -> None:
    """Raise InputError where a folder has splits, but none to train on: they would be taken for classes."""
    names = [folder.name for folder in class_folders(path)]
    if not names or "train" in names or not all(name.lower() in SPLITS for name in names):
        return
    renamed = [f"{name} to {SPLITS[name.lower()]}" for name in names if name not in SPLITS.values()]
    todo = f"rename {', '.join(renamed)}" if renamed else "what is trained on belongs into a folder train"
    found = ", ".join(names)
    raise InputError(f"the folders of {path} are splits, not classes ({found}), and there is no train: {todo}")


def class_folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted by name, without what systems leave there."""
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and _kept(entry.name))


def files(folder: Path) -> tuple[list[Path], list[Path]]:
    """The image files anywhere in a folder, and those of other kinds, sorted, without what systems leave there."""
    entries = (entry for entry in folder.rglob("*") if all(map(_kept, entry.relative_to(folder).parts)))
    found = sorted(entry for entry in entries if entry.is_file() or (entry.is_symlink() and not entry.exists()))
    return [f for f in found if f.suffix.lower() in SUFFIXES], [f for f in found if f.suffix.lower() not in SUFFIXES]


def problems(images: Sequence[Path], preprocessing: Preprocessing) -> dict[Path, str]:
    """What is wrong with each of the files that cannot be decoded."""

    def problem(file: Path) -> str | None:
        try:
            preprocessing.resize(file)
        except BadImage as error:
            return str(error)
        return None

    with ThreadPool(workers()) as pool:
        found = pool.imap(problem, images)
        return {file: reason for file, reason in zip(images, found, strict=True) if reason is not None}


def duplicates(images: Iterable[Path]) -> list[list[Path]]:
    """The files that have the same content as another, in groups; what cannot be opened is in none."""
    groups = [[file for file in images if os.access(file, os.R_OK)]]
    # Few files are read whole: most differ in size, or at the beginning.
    for key in (lambda file: file.stat().st_size, lambda file: _head(file), lambda file: _sha256(file.read_bytes())):
        groups = [same for group in groups for same in _grouped(group, key) if len(same) > 1]
    return groups


def workers() -> int:
    """How many threads decode images: one for each CPU that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_seed(seed: int) -> None:
    """Raise InputError unless the seed is one that NumPy takes."""
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"a seed is 0 or more, got {seed!r}")


def _warn_of_duplicates(path: Path, splits: Splits) -> None:
    where = {file: name for name, part in splits._asdict().items() if part is not None for file in part.items}
    across = [group for group in duplicates(where) if len({where[file] for file in group}) > 1]
    if across:
        first, second = across[0][0], next(file for file in across[0] if where[file] != where[across[0][0]])
        warnings.warn(
            f"{len(across)} images of {path} are in more than one split, such as {first} ({where[first]}) and {second} "
            f"({where[second]}): what is measured on them is too good; `jaxdl data inspect` lists them",
            stacklevel=3,
        )


def _grouped(items: Iterable[Path], key: Any) -> Iterator[list[Path]]:
    groups = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    yield from groups.values()


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(4096)


def _kept(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in IGNORED


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
