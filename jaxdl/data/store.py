"""Arrays in files that are made once: there complete or not at all, and found again by what they were made of."""

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from jaxdl.errors import InputError


def keep(path: Path, shape: tuple[int, ...], dtype: DTypeLike, parts: Iterable[np.ndarray]) -> np.ndarray:
    """Write an array to a `.npy` file, part after part along the first axis, and map it into memory.

    Raises:
      InputError: the file cannot be written.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    dtype = np.dtype(dtype).newbyteorder("<")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as file:
            header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_2_0(file, header)
            for part in parts:
                file.write(np.ascontiguousarray(part, dtype).data)
        draft.replace(path)
    except OSError as error:
        raise InputError(f"cannot keep files in {path.parent}: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()
    return read(path)


def read(path: Path) -> np.ndarray:
    """The array in a file of `keep`, mapped into memory.

    Raises:
      InputError: the file is damaged.
    """
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path} is damaged ({error}); remove it, and it is made again") from None
