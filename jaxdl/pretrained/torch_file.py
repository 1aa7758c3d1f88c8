"""Read the tensors of a PyTorch `.pth` file without torch, and without running a pickle.

The file's pickles are walked opcode by opcode (`pickletools` from the standard library only lists them); the few that
checkpoints are made of are understood, everything else is refused. Nothing in the file is ever imported or called: what
an unknown class or function would make is left as its name, and has no place in a state dict.

Two layouts. Since torch 1.6 (2020) a zip archive, not compressed: `NAME/data.pkl` is the pickle, `NAME/data/KEY` the
raw numbers of a storage, `NAME/byteorder` their byte order (little where there is none). Before it, one stream: a magic
number, a protocol number, some system facts, the pickle, the storage keys, and for each storage its length and its raw
little-endian numbers. Source: `_save`, `_load`, `_legacy_save` and `_legacy_load` in
https://github.com/pytorch/pytorch/blob/main/torch/serialization.py
"""

import io
import math
import pickletools
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from jaxdl.errors import BadFile

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
DTYPES: dict[str, Any] = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
}
STORAGES = {f"torch {name}": np.dtype(dtype) for name, dtype in DTYPES.items()}
# Where training scripts put the weights among other things, averaged ones first; "module." is put ahead of their names
# by PyTorch's data parallelism. Source: `load_state_dict` and `clean_state_dict`,
# https://github.com/huggingface/pytorch-image-models/blob/main/timm/models/_helpers.py
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIX = "module."
ORDERED_DICT, REBUILD = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"


@dataclass(frozen=True)
class Storage:
    key: str
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class Global:
    """A class or a function, by "module name"; or what one that is not known would make."""

    name: str


@dataclass(frozen=True)
class Tensor:
    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a state dict by name, as it lies in the file.

    A checkpoint with the state dict under one of `WRAPPERS` is understood; what else it holds is left alone, but for
    tensors that are not of `DTYPES`, which are refused.

    Raises:
      BadFile: the file is missing, is not a PyTorch file, is damaged, or holds what no checkpoint of tensors does.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
        return _read_zip(data) if data[:4] == b"PK\x03\x04" else _read_stream(data)
    except OSError as error:
        raise BadFile(f"{path} cannot be read: {error.strerror}") from None
    except BadFile as error:
        raise BadFile(f"{path}: {error}") from None
    except Exception as error:  # whatever pickletools and zipfile make of bytes that are no pickle or archive
        raise BadFile(f"{path}: damaged, or not a PyTorch weight file ({error})") from None


def _read_zip(data: bytes) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise BadFile("has two entries of one name")
        roots = [
            name.removesuffix("data.pkl") for name in entries if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(roots) != 1:
            raise BadFile("a zip archive, but not PyTorch's: it has no data.pkl")

        def content(name: str) -> bytes:
            if (entry := entries.get(f"{roots[0]}{name}")) is None:
                raise BadFile(f"has no entry {name}")
            # PyTorch never compresses; so an entry is never larger than the file.
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
                raise BadFile(f"its entry {name} is compressed or damaged")
            return archive.read(entry)  # checks the CRC

        if f"{roots[0]}byteorder" in entries and content("byteorder") != b"little":
            raise BadFile("written on a big-endian machine, or damaged")
        state, _ = _state_dict(io.BytesIO(content("data.pkl")))
        storages = {tensor.storage.key: tensor.storage for tensor in state.values()}
        arrays = {}
        for key, storage in storages.items():
            raw = content(f"data/{key}")
            if len(raw) != storage.length * storage.dtype.itemsize:
                raise BadFile(f"storage {key} has {len(raw)} bytes, not {storage.length * storage.dtype.itemsize}")
            arrays[key] = np.frombuffer(raw, storage.dtype)
    return {name: _array(name, tensor, arrays[tensor.storage.key]) for name, tensor in state.items()}


def _read_stream(data: bytes) -> dict[str, np.ndarray]:
    stream = io.BytesIO(data)
    if _load(stream, {}) != MAGIC:
        raise BadFile("not a PyTorch weight file")
    if _load(stream, {}) != PROTOCOL:
        raise BadFile(f"its protocol is not {PROTOCOL}")
    system = _load(stream, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise BadFile("written on a big-endian machine, or damaged")
    state, storages = _state_dict(stream)
    keys = _load(stream, {})
    strings = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not strings or set(keys) != set(storages) or len(keys) != len(storages):
        raise BadFile("its list of storages does not belong to its tensors")
    arrays = {}
    for key in keys:
        storage = storages[key]
        length = int.from_bytes(stream.read(8), "little")
        raw = stream.read(storage.length * storage.dtype.itemsize)
        if length != storage.length or len(raw) != storage.length * storage.dtype.itemsize:
            raise BadFile(f"ends, or is damaged, in the numbers of storage {key}")
        arrays[key] = np.frombuffer(raw, storage.dtype)
    if stream.read(1):
        raise BadFile("has bytes behind its last storage")
    return {name: _array(name, tensor, arrays[tensor.storage.key]) for name, tensor in state.items()}


def _state_dict(stream: BinaryIO) -> tuple[dict[str, Tensor], dict[str, Storage]]:
    """The tensors by name that a pickle holds, and every storage that it speaks of."""
    storages: dict[str, Storage] = {}
    state = _load(stream, storages)
    if isinstance(state, dict):
        state = next((state[key] for key in WRAPPERS if isinstance(state.get(key), dict)), state)
    for value in state.values() if isinstance(state, dict) else [state]:
        if isinstance(value, Global):
            raise BadFile(f"refers to {value.name.replace(' ', '.')}, which is not part of a state dict")
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise BadFile("holds something else than a state dict of tensors")
    if not all(isinstance(name, str) for name in state):
        raise BadFile("has a tensor whose name is no string")
    if state and all(name.startswith(PREFIX) for name in state):
        state = {name.removeprefix(PREFIX): tensor for name, tensor in state.items()}
    return state, storages


def _array(name: str, tensor: Tensor, numbers: np.ndarray) -> np.ndarray:
    """The tensor as a view of its storage, checked to lie inside it (strides count numbers, not bytes)."""
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if 0 in tensor.shape:
        return np.zeros(tensor.shape, numbers.dtype)
    if math.prod(tensor.shape) > len(numbers):
        raise BadFile(f"{name} repeats its numbers")
    if last >= len(numbers):
        raise BadFile(f"{name} reaches past the end of its storage")
    strides = [stride * numbers.itemsize for stride in tensor.strides]
    return np.lib.stride_tricks.as_strided(numbers[tensor.offset :], tensor.shape, strides, writeable=False)


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple) and all(type(n) is int and n >= 0 for n in value)


def _call(function: Any, arguments: Any) -> Any:
    """What the two calls in a state dict make; of others their name."""
    match function, arguments:
        case Global(name), () if name == ORDERED_DICT:
            return {}
        case Global(name), (Storage() as storage, int(offset), shape, strides, *_) if name == REBUILD:
            if offset >= 0 and _is_size(shape) and _is_size(strides) and len(shape) == len(strides):
                return Tensor(storage, offset, shape, strides)
        case Global(name), _ if name not in (ORDERED_DICT, REBUILD):
            return function
    raise BadFile("makes a call that is not part of a state dict")


def _add(container: Any, values: list[Any]) -> None:
    """Values at the end of a list, or keys and values in turn into a dict. Keys are strings or whole numbers: a tuple
    that holds itself over and over takes for ever to hash."""
    if isinstance(container, list):
        container.extend(values)
    elif isinstance(container, dict):
        if not all(type(key) in (str, int) for key in values[::2]):
            raise BadFile("has a key that is neither a string nor a whole number")
        container.update(zip(values[::2], values[1::2], strict=True))
    elif not isinstance(container, Global):
        raise BadFile("adds to something that is neither a list nor a dict")


def _storage(reference: Any, storages: dict[str, Storage]) -> Storage:
    match reference:  # the stream has a sixth part, which is None
        case ("storage", Global(kind), str(key), str(), int(length), *view) if kind in STORAGES and length >= 0:
            storage = Storage(key, STORAGES[kind], length)
            if view in ([], [None]) and storages.setdefault(key, storage) == storage:
                return storage
    raise BadFile("holds a storage of an unknown kind")


def _load(stream: BinaryIO, storages: dict[str, Storage]) -> Any:
    """One pickle's value, by a stack machine that knows the opcodes of a state dict; adds the storages it meets."""
    stack: list[Any] = []
    marks: list[int] = []  # heights of the stack
    memo: dict[int, Any] = {}

    def pop_to_mark() -> list[Any]:
        at = marks.pop()
        values = stack[at:]
        del stack[at:]
        return values

    argument: Any
    for opcode, argument, _ in pickletools.genops(stream):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(opcode.name == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_TUPLE":
                stack.append({"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}[opcode.name]())
            case "TUPLE":
                stack.append(tuple(pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(stack[-n:])]
            case "APPEND" | "SETITEM":
                n = 1 if opcode.name == "APPEND" else 2
                values = stack[-n:]
                del stack[-n:]
                _add(stack[-1], values)
            case "APPENDS" | "SETITEMS":
                values = pop_to_mark()
                _add(stack[-1], values)
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(Global(argument))
            case "BINPERSID":
                stack.append(_storage(stack.pop(), storages))
            case "REDUCE" | "NEWOBJ":
                arguments = stack.pop()
                stack.append(_call(stack.pop(), arguments))
            case "BUILD":
                # torch hangs version numbers on the dict; they are not needed.
                state = stack.pop()
                if not isinstance(state, Mapping) and not isinstance(stack[-1], Global):
                    raise BadFile("sets the state of something that is not a dict")
            case _:
                raise BadFile(f"contains the pickle instruction {opcode.name}, which is not part of a state dict")
    raise BadFile("ends in the middle")
