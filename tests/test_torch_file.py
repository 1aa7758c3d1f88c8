"""The reader of `.pth` files, on files written here with pickle as torch writes them."""

import argparse
import collections
import contextlib
import io
import os
import pathlib
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.pretrained import torch_file
from jaxdl.pretrained.torch_file import BadFile


def stand_in(module, name):
    """A global that pickle writes as `module.name`."""
    function = type(name, (), {"__module__": module, "__qualname__": name})
    setattr(sys.modules[module], name, function)
    return function


@contextlib.contextmanager
def a_torch_to_refer_to():
    """pickle writes a global only if it can import it; other libraries must not find this one."""
    names = ("torch", "torch._utils")
    sys.modules.update({name: types.ModuleType(name) for name in names})
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


class Tensor:
    def __init__(self, array, **changes):
        self.array, self.changes = array, changes

    def __reduce__(self):
        a = self.array
        base = a if a.base is None else a.base
        strides = tuple(s // a.itemsize for s in a.strides)
        storage = types.SimpleNamespace(array=base)
        parts = {"storage": storage, "offset": 0, "shape": a.shape, "strides": strides} | self.changes
        rebuild = stand_in("torch._utils", "_rebuild_tensor_v2")
        return rebuild, (*parts.values(), False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, types.SimpleNamespace):
            name = {"f": "FloatStorage", "i": "LongStorage"}[value.array.dtype.kind]
            parts = ("storage", stand_in("torch", name), str(id(value.array)), "cpu", value.array.size)
            return parts if self.zip else (*parts, None)
        return None

    zip = False


def write_zip(state, *, change=lambda name, content: content, compression=zipfile.ZIP_STORED):
    """As torch writes since 1.6."""
    pickled = io.BytesIO()
    with a_torch_to_refer_to():
        pickler = Pickler(pickled, protocol=2)
        pickler.zip = True
        pickler.dump(state)
    entries = {"data.pkl": pickled.getvalue(), "byteorder": b"little", "version": b"3\n"}
    tensors = state.get("state_dict", state)
    for tensor in tensors.values() if isinstance(tensors, dict) else ():
        if isinstance(tensor, Tensor):
            array = tensor.array if tensor.array.base is None else tensor.array.base
            entries[f"data/{id(array)}"] = array.tobytes()
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries.items():
            if (content := change(name, content)) is not None:
                archive.writestr(f"archive/{name}", content)
    return stream.getvalue()


def write(state, *, magic=torch_file.MAGIC, protocol=torch_file.PROTOCOL):
    stream = io.BytesIO()
    for value in (magic, protocol, {"little_endian": True}):
        pickle.dump(value, stream, protocol=2)
    with a_torch_to_refer_to():
        Pickler(stream, protocol=2).dump(state)
    arrays = [tensor.array if tensor.array.base is None else tensor.array.base for tensor in state.values()]
    pickle.dump([str(id(array)) for array in arrays], stream, protocol=2)
    for array in arrays:
        stream.write(array.size.to_bytes(8, "little") + array.tobytes())
    return stream.getvalue()


def state():
    weight = np.arange(12, dtype=np.float32).reshape(3, 4)
    return collections.OrderedDict(
        a=Tensor(weight), b=Tensor(np.array(7)), c=Tensor(np.arange(6.0, dtype="f4").reshape(2, 3).T)
    )


@pytest.fixture
def file(tmp_path):
    def make(data):
        path = tmp_path / "weights.pth"
        path.write_bytes(data)
        return path

    return make


@pytest.mark.parametrize("write", [write, write_zip])
def test_reads_values_shapes_and_strides(file, write):
    tensors = torch_file.read(file(write(state())))
    assert list(tensors) == ["a", "b", "c"]
    np.testing.assert_array_equal(tensors["a"], np.arange(12).reshape(3, 4))
    assert tensors["b"] == 7
    np.testing.assert_array_equal(tensors["c"], np.arange(6).reshape(2, 3).T)


@pytest.mark.parametrize("write", [write, write_zip])
@given(data=st.data())
def test_every_cut_is_an_error(write, data, tmp_path_factory):
    whole = write(state())
    path = tmp_path_factory.mktemp("cut") / "weights.pth"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(BadFile, match=r"weights\.pth"):
        torch_file.read(path)


@given(data=st.data())
def test_a_flipped_bit_never_ends_in_another_error(data, tmp_path_factory):
    whole = bytearray(write(state()))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "weights.pth"
    path.write_bytes(whole)
    try:
        torch_file.read(path)  # a flip in the numbers is for the digest to find
    except BadFile as error:
        assert str(path) in str(error)


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@given(data=st.data())
def test_a_flipped_bit_in_a_zip_leaves_the_numbers_alone(data, tmp_path_factory):
    whole = bytearray(write_zip(state()))
    bit = data.draw(st.integers(0, 8 * len(whole) - 1))
    whole[bit // 8] ^= 1 << bit % 8
    path = tmp_path_factory.mktemp("flip") / "weights.pth"
    path.write_bytes(whole)
    try:
        tensors = torch_file.read(path)  # a date in the archive, or the name of an entry that is not needed
    except BadFile as error:
        assert str(path) in str(error)
    else:
        np.testing.assert_array_equal(tensors["a"], np.arange(12).reshape(3, 4))
        np.testing.assert_array_equal(tensors["c"], np.arange(6).reshape(2, 3).T)


def test_a_checkpoint_is_unwrapped(file):
    inner = {f"module.{name}": tensor for name, tensor in state().items()}
    whole = {"epoch": 3, "best": 0.5, "arch": "b0", "state_dict": inner}
    assert list(torch_file.read(file(write_zip(whole)))) == ["a", "b", "c"]
    with pytest.raises(BadFile, match="something else"):
        torch_file.read(file(write_zip({"epoch": 3})))


def test_what_else_a_checkpoint_holds_is_left_alone(file, tmp_path):
    mark = tmp_path / "was-here"
    others = {
        "args": argparse.Namespace(lr=0.1, sizes=[1, 2], folder=pathlib.PurePosixPath("runs"), seen={1, 2}),
        "metric": np.float64(0.5),
        "counts": collections.defaultdict(int, a=1),
        "optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]},
        "hostile": Hostile(mark),
    }
    tensors = torch_file.read(file(write_zip({**others, "state_dict": state()})))
    np.testing.assert_array_equal(tensors["a"], np.arange(12).reshape(3, 4))
    for value in (others["args"], others["counts"], others["metric"], others["hostile"]):
        with pytest.raises(BadFile, match=r"refers to \w+(\.\w+)+, which is not part of a state dict"):
            torch_file.read(file(write_zip({"epoch": 3, "state_dict": {**state(), "b": value}})))
    whole = pickle.dumps(others["args"], 2)
    with pytest.raises(BadFile, match=r"refers to argparse\.Namespace"):
        torch_file.read(file(write_zip({}, change=lambda name, content: whole if name == "data.pkl" else content)))
    assert not mark.exists()


# An empty tuple, and sixty times a pair of what there is: 2**60 to look at, for whoever hashes or prints it.
PAIRS = b"\x80\x02)" + 60 * b"q\x00h\x00\x86"
LEGACY = b"".join(pickle.dumps(value, 2) for value in (torch_file.MAGIC, torch_file.PROTOCOL, {"little_endian": True}))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (LEGACY + b"\x80\x02}" + PAIRS[2:] + b"Ns.", "a key that is neither"),
        (LEGACY + b"\x80\x02}(" + PAIRS[2:] + b"Nu.", "a key that is neither"),
        (LEGACY + PAIRS + b")R.", "makes a call"),
        (LEGACY + PAIRS + b"Q.", "a storage of an unknown kind"),
        (LEGACY + b"\x80\x02}." + b"\x80\x02]" + PAIRS[2:] + b"a.", "its list of storages"),
        (LEGACY + PAIRS + b"Na.", "neither a list nor a dict"),
        (pickle.dumps(torch_file.MAGIC, 2) + PAIRS + b".", "its protocol is not 1001"),
    ],
)
def test_a_tuple_that_holds_itself_over_and_over_takes_no_time(file, content, reason):
    with pytest.raises(BadFile, match=reason):
        torch_file.read(file(content))


def test_nothing_in_a_zip_is_run(file, tmp_path):
    mark = tmp_path / "was-here"
    with pytest.raises(BadFile, match="system.*not part of a state dict"):
        torch_file.read(file(write_zip({"a": Tensor(np.zeros(2, "f4")), "b": Hostile(mark)})))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda name, content: None if name == "data.pkl" else content, "no data.pkl"),
        (lambda name, content: None if name.startswith("data/") else content, "has no entry data/"),
        (lambda name, content: content + b"x" if name.startswith("data/") else content, "bytes, not"),
        (lambda name, content: b"big" if name == "byteorder" else content, "big-endian"),
    ],
)
def test_a_zip_that_lies_is_refused(file, change, reason):
    with pytest.raises(BadFile, match=reason):
        torch_file.read(file(write_zip(state(), change=change)))


def test_a_compressed_zip_is_refused(file):
    with pytest.raises(BadFile, match="compressed"):
        torch_file.read(file(write_zip(state(), compression=zipfile.ZIP_DEFLATED)))


def test_nothing_in_a_file_is_run(file, tmp_path):
    mark = tmp_path / "was-here"
    hostile = collections.OrderedDict(a=Tensor(np.zeros(2, "f4")), b=Tensor(np.zeros(2, "f4")))
    stream = io.BytesIO()
    with a_torch_to_refer_to():
        for value in (torch_file.MAGIC, torch_file.PROTOCOL, {"little_endian": True}, {**hostile, "c": Hostile(mark)}):
            Pickler(stream, protocol=2).dump(value)
    with pytest.raises(BadFile, match="system.*not part of a state dict"):
        torch_file.read(file(stream.getvalue()))
    assert not mark.exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "damaged, or not"),
        (b"just some text", "not a PyTorch weight file"),
        (b"PK\x03\x04" + bytes(64), "zip file"),
        (pickle.dumps(42, protocol=2), "not a PyTorch weight file"),
        (write(state(), protocol=9), "its protocol is not 1001"),
        (write(state()) + b"x", "behind its last storage"),
        (write({"a": Tensor(np.zeros(2, "f4"), shape=(2,), offset=1, strides=(1,))}), "past the end"),
        (write({"a": Tensor(np.zeros(2, "f4"), offset=-1)}), "not part of a state dict"),
        (write({"a": Tensor(np.zeros(2, "f4"), strides=(-1,))}), "not part of a state dict"),
        (write({"a": Tensor(np.zeros(2, "f4"), shape=(1 << 40,), strides=(0,))}), "repeats"),
    ],
)
def test_damage_is_named(file, data, reason):
    with pytest.raises(BadFile, match=reason):
        torch_file.read(file(data))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(BadFile, match=r"no\.pth cannot be read"):
        torch_file.read(tmp_path / "no.pth")
