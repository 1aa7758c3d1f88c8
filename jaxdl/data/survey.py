"""What is in a folder of images: how many of each class, how large, and what is wrong with it."""

from collections import Counter
from dataclasses import dataclass
from multiprocessing.pool import ThreadPool
from pathlib import Path

import numpy as np

from jaxdl.data.images import BadImage, decode
from jaxdl.data.sources import SPLITS, check_splits, class_folders, duplicates, files, workers
from jaxdl.errors import InputError


@dataclass(frozen=True)
class Survey:
    """The findings of `survey`."""

    counts: dict[str, dict[str, int]]
    """Images by split and class; the split is "all" where the folder has no splits."""
    sizes: dict[str, tuple[int, int]]
    """Height and width of the smallest, the median and the largest image, by area."""
    formats: dict[str, int]
    """Files by the ending of their names."""
    bad: dict[str, str]
    """Files that cannot be read, with the reason."""
    foreign: tuple[str, ...]
    """Files that are not images."""
    duplicates: tuple[tuple[str, ...], ...]
    """Groups of files with the same content."""
    images: tuple[tuple[str, Path], ...]
    """Class and path of every image that can be read."""


def survey(path: str | Path) -> Survey:
    """Look at every image of a folder that has a folder for each class, inside `train/` and `test/` or not.

    Raises:
      InputError: there is no such folder, or no image in it, or its folders are splits without one called train.
    """
    path = Path(path)
    if not path.is_dir():
        raise InputError(f"there is no folder {path}")
    check_splits(path)
    roots = {name: path / name for name in SPLITS.values() if (path / name).is_dir()} or {"all": path}
    counts: dict[str, dict[str, int]] = {}
    images: list[tuple[str, Path]] = []
    foreign: list[str] = []
    for name, root in roots.items():
        counts[name] = {}
        for folder in class_folders(root):
            found, others = files(folder)
            counts[name][folder.name] = len(found)
            images += [(folder.name, file) for file in found]
            foreign += map(str, others)
    if not images:
        raise InputError(f"there are no images in {path}: it needs a folder of them for each class")

    def shape(file: Path) -> tuple[int, ...] | str:
        try:
            return decode(file).shape[:2]
        except BadImage as error:
            return str(error)

    with ThreadPool(workers()) as pool:
        seen = pool.map(shape, [file for _, file in images])
    bad = {str(file): reason for (_, file), reason in zip(images, seen, strict=True) if isinstance(reason, str)}
    shapes = sorted((size for size in seen if not isinstance(size, str)), key=np.prod)
    places = {"smallest": 0, "median": len(shapes) // 2, "largest": -1}
    return Survey(
        counts,
        {name: (int(shapes[n][0]), int(shapes[n][1])) for name, n in places.items()} if shapes else {},
        dict(Counter(file.suffix.lower() for _, file in images).most_common()),
        bad,
        tuple(foreign),
        tuple(tuple(map(str, group)) for group in duplicates(file for _, file in images)),
        tuple((name, file) for name, file in images if str(file) not in bad),
    )
