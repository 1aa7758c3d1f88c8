"""Read the weights of a Keras file: `.h5` of Keras 2 or 3, `.weights.h5` and `.keras` of Keras 3. h5py is needed.

No model is built and no config is run. Three layouts:
- `.h5`: a group for each layer, whose attribute `weight_names` lists its datasets, in the root or in `model_weights`;
  https://github.com/keras-team/keras/blob/master/keras/src/legacy/saving/legacy_h5_format.py
- `.weights.h5`: `layers/CLASS_N/vars/0`, …, named by class and number; the layer's own name is the attribute `name` of
  `vars`. https://github.com/keras-team/keras/blob/master/keras/src/saving/saving_lib.py
- `.keras`: a zip archive with a `model.weights.h5` in it.
"""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from jaxdl.errors import BadFile, InputError

ARCHIVED = "model.weights.h5"
# The variables of the layers that an EfficientNet has, in the order in which Keras numbers them, by how many they are:
# convolutions and Dense, Normalization, BatchNormalization.
VARIABLES = {
    1: ("kernel",),
    2: ("kernel", "bias"),
    3: ("mean", "variance", "count"),
    4: ("gamma", "beta", "moving_mean", "moving_variance"),
}


def is_archive(path: Path) -> bool:
    """Whether a zip archive is a `.keras` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            return ARCHIVED in archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Every weight by its layer's and its own name, such as `stem_conv/kernel`, as it lies in the file.

    Raises:
      InputError: h5py is not installed.
      BadFile: the file cannot be read, is damaged, or is no Keras file of these layouts.
    """
    path = Path(path)
    try:
        import h5py
    except ImportError:
        raise InputError(f"{path}: to read Keras files run: pip install 'jaxdl[keras]'") from None
    try:
        data = path.read_bytes()
        if data[:4] == b"PK\x03\x04":
            with zipfile.ZipFile(io.BytesIO(data)) as archive:
                entry = archive.getinfo(ARCHIVED)
                if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                    raise BadFile(f"its {ARCHIVED} is compressed or damaged")  # Keras does not compress
                data = archive.read(entry)  # checks the CRC
        with h5py.File(io.BytesIO(data), "r") as file:
            weights = _of_layers(file) if "layers" in file else _of_names(file)
            return {name: _array(name, file.get(place, getlink=True), file[place]) for name, place in weights.items()}
    except OSError as error:
        reason = error.strerror or f"damaged, or not a Keras file ({error})"
        raise BadFile(f"{path}: {reason}") from None
    except BadFile as error:
        raise BadFile(f"{path}: {error}") from None
    except Exception as error:  # whatever h5py makes of a damaged file
        raise BadFile(f"{path}: damaged, or not a Keras file ({error})") from None


def _of_layers(file: Any) -> dict[str, str]:
    """The places of the weights in a `.weights.h5` file, by name."""
    weights: dict[str, str] = {}
    for group in file["layers"]:
        place = f"layers/{group}/vars"
        variables = file.get(place)
        if variables is None or not len(variables):
            continue
        layer = variables.attrs.get("name")
        if layer is None:
            raise BadFile("the names of its layers are missing; load and save it with a newer Keras 3")
        if len(variables) not in VARIABLES or set(variables) != {str(n) for n in range(len(variables))}:
            raise BadFile(f"its layer {_text(layer)} is none of an EfficientNet")
        weights |= {f"{_text(layer)}/{leaf}": f"{place}/{n}" for n, leaf in enumerate(VARIABLES[len(variables)])}
    return weights


def _of_names(file: Any) -> dict[str, str]:
    """The places of the weights in an `.h5` file, by name: the last two parts, as models may lie inside models."""
    root = "model_weights" if "model_weights" in file else ""
    weights = {}
    for group in file[root or "/"]:
        for name in file[f"{root}/{group}"].attrs.get("weight_names", ()):
            weights["/".join(_text(name).split("/")[-2:])] = f"{root}/{group}/{_text(name)}"
    if not weights:
        raise BadFile("an HDF5 file, but not of Keras weights")
    return weights


def _array(name: str, link: Any, dataset: Any) -> np.ndarray:
    """The numbers of a dataset that lie in this file, in full."""
    import h5py

    inside = isinstance(link, h5py.HardLink) and isinstance(dataset, h5py.Dataset) and not dataset.external
    # Keras writes them unpacked, so there are never more than the file has bytes.
    if not inside or dataset.id.get_storage_size() != dataset.nbytes:
        raise BadFile(f"{name} is not stored in the file in full")
    return np.asarray(dataset[()])


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name
