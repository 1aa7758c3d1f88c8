import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl import data

sizes = {"count": st.integers(1, 40), "batch_size": st.integers(1, 17), "multiple": st.integers(1, 4)}


@given(**sizes, seed=st.none() | st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_example_counts_once_and_every_batch_has_one_shape(count, batch_size, multiple, seed, epoch):
    indices, weights = data.order(count, batch_size, seed=seed, epoch=epoch, multiple=multiple)
    assert indices.shape == weights.shape
    assert indices.shape[1] % multiple == 0
    assert sorted(indices[weights == 1]) == list(range(count))
    assert set(np.unique(weights)) <= {0.0, 1.0}
    if seed is None:
        assert (indices[weights == 1] == np.arange(count)).all()


def test_the_order_is_a_function_of_seed_and_epoch():
    def shuffled(seed, epoch):
        return data.order(100, 10, seed=seed, epoch=epoch)[0].tolist()

    assert shuffled(1, 2) == shuffled(1, 2)
    assert shuffled(1, 2) != shuffled(1, 3)
    assert shuffled(1, 2) != shuffled(2, 2)


def test_files_and_arrays_give_the_same_batches(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for n in range(7):
            Image.new("RGB", (4, 4), (n, len(name), 0)).save(tmp_path / name / f"{n}.png")
    folder = data.from_folder(tmp_path, data.Preprocessing(4), validation=0, test=0).train
    streamed = list(data.batches(folder, 4, seed=3, epoch=1))
    loaded = list(data.batches(data.decoded(folder), 4, seed=3, epoch=1))
    assert len(streamed) == len(loaded) == 4
    for a, b in zip(streamed, loaded, strict=True):
        assert a.keys() == b.keys() == {"image", "label", "weight"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def test_an_error_in_a_thread_reaches_the_caller(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "bad.jpg").write_bytes(b"text")
    folder = data.from_folder(tmp_path, data.Preprocessing(4), validation=0, test=0).train
    with pytest.raises(data.BadImage, match=r"bad\.jpg"):
        list(data.batches(folder, 2))
