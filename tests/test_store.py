import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl.data import store
from jaxdl.errors import InputError


@given(parts=st.lists(st.integers(0, 4), min_size=1, max_size=5), dtype=st.sampled_from(["uint8", "float32", ">f4"]))
def test_what_is_kept_is_what_was_given(parts, dtype, tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "deep" / "array.npy"
    arrays = [np.random.default_rng(n).integers(0, 255, (rows, 3)).astype(dtype) for n, rows in enumerate(parts)]
    if sum(parts) == 0:
        return
    kept = store.keep(path, (sum(parts), 3), dtype, arrays)
    np.testing.assert_array_equal(kept, np.concatenate(arrays))
    np.testing.assert_array_equal(np.load(path), kept)
    assert [file.name for file in path.parent.iterdir()] == ["array.npy"]


def test_a_failure_leaves_nothing(tmp_path):
    def parts():
        yield np.zeros((1, 3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.keep(tmp_path / "array.npy", (2, 3), "float32", parts())
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot keep files in .*file"):
        store.keep(tmp_path / "file" / "array.npy", (0, 3), "float32", [])


@pytest.mark.parametrize("content", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_damage_is_told(tmp_path, content):
    path = tmp_path / "array.npy"
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged .* remove it, and it is made again"):
        store.read(path)
    whole = store.keep(path, (2, 3), "float32", [np.zeros((2, 3))])
    assert whole.shape == (2, 3)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(InputError, match="is damaged"):
        store.read(path)
