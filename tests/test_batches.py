import os
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl import data
from jaxdl.errors import InputError

module = sys.modules["jaxdl.data.batches"]
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


@pytest.fixture
def folder(tmp_path):
    """14 photographs, 7 of each class."""
    for value, name in enumerate(("a", "b")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for n in range(7):
            Image.new("RGB", (4, 4), (n, value, 0)).save(tmp_path / "photos" / name / f"{n}.png")
    return data.from_folder(tmp_path / "photos", data.Preprocessing(4), validation=0, test=0).train


def assert_same(some, others):
    for a, b in zip(some, others, strict=True):
        assert a.keys() == b.keys() == {"image", "label", "weight"}
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("threads", [1, 3])
def test_files_arrays_and_kept_files_give_the_same_batches(folder, tmp_path, threads, monkeypatch):
    monkeypatch.setattr(module, "workers", lambda: threads)
    streamed = list(data.batches(folder, 4, seed=3, epoch=1))
    assert len(streamed) == 4
    kept = data.decoded(folder, tmp_path / "cache")
    assert isinstance(kept.inputs, np.memmap)
    for source in (data.decoded(folder), kept, data.decoded(folder, tmp_path / "cache")):
        assert_same(streamed, data.batches(source, 4, seed=3, epoch=1))
    assert len(list((tmp_path / "cache").iterdir())) == 1


@given(**sizes, start=st.integers(0, 9), parts=st.integers(1, 3))
def test_an_epoch_goes_on_anywhere_and_is_shared_by_processes(count, batch_size, multiple, start, parts):
    source = data.from_arrays(np.arange(count)[:, None], np.arange(count))
    options = {"seed": 1, "epoch": 2, "multiple": multiple * parts}
    whole = list(data.batches(source, batch_size, **options))[start:]
    shards = [list(data.batches(source, batch_size, start=start, shard=(n, parts), **options)) for n in range(parts)]
    assert {len(shard) for shard in shards} == {len(whole)}
    for n, batch in enumerate(whole):
        for name in batch:
            np.testing.assert_array_equal(batch[name], np.concatenate([shard[n][name] for shard in shards]))


def test_processes_share_batches_evenly():
    with pytest.raises(InputError, match="multiple of 3 rows cannot be shared by 2"):
        next(data.batches(data.from_arrays(np.zeros((4, 1)), [0] * 4), 3, multiple=3, shard=(0, 2)))


def test_large_images_are_decoded_in_every_epoch(folder, monkeypatch):
    monkeypatch.setattr(module, "MEMORY", 10)
    assert data.decoded(folder) is folder


def test_a_changed_file_is_decoded_again(folder, tmp_path):
    before = data.decoded(folder, tmp_path / "cache")
    Image.new("RGB", (4, 4), (255, 255, 255)).save(folder.items[3])
    after = data.decoded(folder, tmp_path / "cache")
    assert (before.inputs[3] == [3, 0, 0]).all()
    assert (after.inputs[3] == 255).all()
    assert len(list((tmp_path / "cache").iterdir())) == 2


@pytest.mark.parametrize("package", ["jaxdl", "opencv-python-headless", "simplejpeg", "pillow"])
def test_images_are_decoded_again_by_other_decoders(package, folder, tmp_path, monkeypatch):
    fingerprint, version = folder.fingerprint(), sys.modules["jaxdl.data.sources"].version
    data.decoded(folder, tmp_path / "cache")
    monkeypatch.setattr("jaxdl.data.sources.version", lambda name: version(name) + "+1" * (name == package))
    data.decoded(folder, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert folder.fingerprint() == fingerprint


def test_a_file_that_vanishes_is_an_error_and_leaves_nothing_half_done(folder, tmp_path):
    epoch = data.batches(folder, 2, seed=0)
    next(epoch)
    for file in folder.items:
        file.unlink()
    with pytest.raises(data.BadImage, match=r"no such image: .*\.png"):
        list(epoch)


def test_an_error_in_a_thread_reaches_the_caller(folder, tmp_path):
    folder.items[5].write_bytes(b"text")
    with pytest.raises(data.BadImage, match=r"5\.png"):
        list(data.batches(folder, 2))
    with pytest.raises(data.BadImage, match=r"5\.png"):
        data.decoded(folder, tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_waiting_for_a_file_ends(folder, monkeypatch):
    folder.items[2].unlink()
    os.mkfifo(folder.items[2])  # opening it waits for somebody who writes
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    with pytest.raises(InputError, match=r"takes more than 0\.5 s|not a file"):
        list(data.batches(folder, 2))
