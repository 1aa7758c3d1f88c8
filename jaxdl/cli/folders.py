"""`jaxdl data`: a look at a folder of images."""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import numpy as np
import tyro

from jaxdl import data, report, trees
from jaxdl.augment import PHOTOS, Affine
from jaxdl.cli.common import Folder, print_json, print_list
from jaxdl.errors import InputError


@dataclass(frozen=True)
class Look:
    """Count the images of a folder, measure them, find what is wrong with them, and draw some of them on a sheet."""

    folder: Folder
    """Images in a folder for each class, inside train/ and test/ or not."""
    out: Annotated[Path, tyro.conf.arg(metavar="PICTURE")] = Path("inspect.png")
    """The sheet of random images to make."""
    seed: int = 0
    """Another one draws other images."""
    json: bool = False
    """Print one JSON object and nothing else."""

    def run(self) -> None:
        found = data.survey(self.folder)
        data.check_seed(self.seed)
        if self.json:
            print_json({**dataclasses.asdict(found), "images": len(found.images)})
        else:
            _print_survey(found)
        shown = np.random.default_rng(self.seed).permutation(len(found.images))[:24]
        try:
            if len(shown):
                labels, files = zip(*(found.images[n] for n in np.sort(shown)), strict=True)
                report.sheet([data.decode(file) for file in files], labels).savefig(self.out, dpi=100)
        except InputError as error:  # there is no matplotlib
            print(f"no picture: {error}", file=sys.stderr)
            return
        if not self.json:
            print(f"picture: {self.out}" if len(shown) else "no image can be drawn")


def _print_survey(found: data.Survey) -> None:
    classes = sorted({name for split in found.counts.values() for name in split})
    rows = [("class", *found.counts)]
    rows += [(name, *(f"{split.get(name, 0):,}" for split in found.counts.values())) for name in classes]
    rows += [("", *(f"{sum(split.values()):,}" for split in found.counts.values()))]
    print(trees.columns(rows, right=tuple(range(1, len(rows[0])))), end="\n\n")
    print(", ".join(f"{count:,} {ending}" for ending, count in found.formats.items()))
    print("height × width: " + ", ".join(f"{name} {h} × {w}" for name, (h, w) in found.sizes.items()))
    print_list("files cannot be read", list(found.bad.values()))
    print_list("files are not images", found.foreign)
    print_list("groups of files have the same content", [" = ".join(group) for group in found.duplicates])


@dataclass(frozen=True)
class Augmented:
    """Draw images of a folder as they are, and as training sees them."""

    folder: Folder
    """Images in a folder for each class, inside train/ and test/ or not."""
    out: Annotated[Path, tyro.conf.arg(metavar="PICTURE")] = Path("augment.png")
    """The sheet to make."""
    size: Annotated[int, tyro.conf.arg(metavar="PIXELS")] = 224
    """Height and width."""
    seed: int = 0
    """Another one draws other images and other changes."""
    augment: Affine = PHOTOS

    def run(self) -> None:
        found = data.survey(self.folder).images
        if not found:
            raise InputError(f"no image of {self.folder} can be read; see `jaxdl data inspect {self.folder}`")
        data.check_seed(self.seed)
        pixels = data.Preprocessing(self.size)
        shown = np.random.default_rng(self.seed).permutation(len(found))[:4]
        images = np.stack([pixels.resize(found[n][1]) for n in shown])
        report.augmentations(images, self.augment, jax.random.key(self.seed)).savefig(self.out, dpi=100)
        print(f"picture: {self.out}")


@dataclass(frozen=True)
class DataTools:
    """Look at data: what is in a folder of images, and what augmentation makes of it."""

    command: Annotated[
        tyro.conf.OmitSubcommandPrefixes[
            Annotated[Look, tyro.conf.subcommand("inspect")] | Annotated[Augmented, tyro.conf.subcommand("augment")]
        ],
        tyro.conf.arg(name=""),
    ]

    def run(self) -> None:
        self.command.run()
