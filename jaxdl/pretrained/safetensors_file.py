"""Read and write `.safetensors` files; ours carry a digest of the whole file.

The format, https://github.com/huggingface/safetensors#format, is the length of a JSON header, the header, and the raw
numbers. It has no checksum: a flipped bit loads as another number. In our files the header's metadata has `sha256`, the
digest of the file as it is with those 64 digits set to 0, and `jaxdl`, a JSON object of what belongs to the tensors.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from jaxdl.errors import BadFile, InputError

# https://github.com/huggingface/safetensors/blob/main/safetensors/src/tensor.rs (Dtype), as far as weights have them.
DTYPES: dict[str, Any] = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": ml_dtypes.bfloat16,
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
VERSION = 1
BLANK = "0" * 64


def read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any] | None]:
    """Every tensor by name, as it lies in the file, and what our files say of them; None for the files of others.

    Raises:
      BadFile: the file cannot be read, is damaged, or is one of ours and its digest does not fit.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        parts = safetensors.deserialize(data)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None
    except safetensors.SafetensorError as error:
        raise BadFile(f"{path}: damaged, or not a safetensors file ({error})") from None
    header = data[8 : 8 + int.from_bytes(data[:8], "little")]
    metadata = json.loads(header).get("__metadata__") or {}
    about = None
    if "jaxdl" in metadata or "sha256" in metadata or any(name.startswith("params/") for name, _ in parts):
        about = _verified(path, data, header, metadata)
    tensors = {}
    for name, part in parts:
        if part["dtype"] not in DTYPES:
            raise BadFile(f"{path}: {name} has numbers of kind {part['dtype']}, which are not read")
        tensors[name] = np.frombuffer(part["data"], DTYPES[part["dtype"]]).reshape(part["shape"])
    return tensors, about


def write(path: str | Path, tensors: Mapping[str, np.ndarray], about: Mapping[str, Any] | None = None) -> None:
    """Write tensors to a file that is there complete or not at all.

    Args:
      about: plain data that belongs to them; the file is then one of ours, with a digest. None for a plain file.

    Raises:
      InputError: the file cannot be written.
    """
    path = Path(path)
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    if about is None:
        data = safetensors.numpy.save(arrays, {"format": "pt"})
    else:
        said = json.dumps({"version": VERSION, **about}, ensure_ascii=False)
        blank = safetensors.numpy.save(arrays, {"jaxdl": said, "sha256": BLANK})
        digest = hashlib.sha256(blank).hexdigest()
        data = blank.replace(_field(BLANK), _field(digest), 1)
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as draft:
            try:
                draft.write(data)
                draft.flush()
                os.fsync(draft.fileno())
                os.chmod(draft.name, 0o666 & ~_umask())  # a temporary file is its owner's alone
                os.replace(draft.name, path)
            except BaseException:
                os.unlink(draft.name)
                raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _verified(path: Path, data: bytes, header: bytes, metadata: Mapping[str, str]) -> dict[str, Any]:
    """What one of our files says of its tensors, if its digest fits."""
    digest = metadata.get("sha256", "")
    if "jaxdl" not in metadata or not re.fullmatch("[0-9a-f]{64}", digest) or header.count(_field(digest)) != 1:
        raise BadFile(f"{path} is damaged: it has the tensors of a jaxdl file, but not its description and digest")
    if hashlib.sha256(data.replace(_field(digest), _field(BLANK), 1)).hexdigest() != digest:
        raise BadFile(f"{path} is damaged: its sha256 is not the one written in it; get it again")
    about = json.loads(metadata["jaxdl"])
    if about["version"] != VERSION:
        raise BadFile(f"{path} has version {about['version']} of jaxdl's format; this jaxdl reads {VERSION}: update it")
    return dict(about)


def _field(digest: str) -> bytes:
    # Inside a JSON string the quotes would be escaped, so this is found in the header's own place only.
    return f'"sha256":"{digest}"'.encode()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
