import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl import data
from jaxdl.errors import InputError

PREPROCESSING = data.Preprocessing(4)


def photos(root, counts, split=""):
    for name, count in counts.items():
        folder = root / split / name
        folder.mkdir(parents=True)
        for n in range(count):
            Image.new("RGB", (5, 5), (n, len(split), sum(map(ord, name)) % 256)).save(folder / f"{n}.png")
    return root


def test_train_and_test_folders_are_taken_as_they_are(tmp_path):
    photos(tmp_path, {"b": 10, "a": 20}, "train")
    photos(tmp_path, {"b": 3, "a": 4}, "test")
    splits = data.from_folder(tmp_path, PREPROCESSING, validation=0.1)
    assert splits.train.classes == ("a", "b")
    assert [len(part) for part in splits] == [27, 3, 7]
    assert np.bincount(splits.validation.labels).tolist() == [2, 1]


@given(counts=st.lists(st.integers(5, 30), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_a_single_folder_is_split_evenly_and_without_overlap(counts, seed, tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    photos(root, {f"class{n}": count for n, count in enumerate(counts)})
    splits = data.from_folder(root, PREPROCESSING, validation=0.2, test=0.2, seed=seed)
    files = [file for part in splits for file in part.items]
    assert len(files) == len(set(files)) == sum(counts)
    for label, count in enumerate(counts):
        assert (splits.test.labels == label).sum() == max(1, round(0.2 * count))
    again = data.from_folder(root, PREPROCESSING, validation=0.2, test=0.2, seed=seed)
    assert all(list(a.items) == list(b.items) for a, b in zip(splits, again, strict=True))


def test_loading_decodes_the_same_pixels(tmp_path):
    splits = data.from_folder(photos(tmp_path, {"a": 5, "b": 6}), PREPROCESSING, validation=0, test=0.3)
    assert splits.validation is None
    loaded = data.decoded(splits.train)
    assert isinstance(loaded, data.Arrays)
    np.testing.assert_array_equal(loaded.inputs[3], splits.train[3]["image"])
    np.testing.assert_array_equal(loaded.take(np.array([1, 0]))["label"], splits.train.labels[[1, 0]])


def test_the_fingerprint_moves_with_the_folder_and_changes_with_the_files(tmp_path):
    first, second = photos(tmp_path / "x", {"a": 5, "b": 6}), photos(tmp_path / "y", {"a": 5, "b": 6})
    digest = data.fingerprint(*data.from_folder(first, PREPROCESSING))
    assert digest == data.fingerprint(*data.from_folder(second, PREPROCESSING))
    assert digest != data.fingerprint(*data.from_folder(second, PREPROCESSING, seed=5))
    (second / "a" / "0.png").unlink()
    assert digest != data.fingerprint(*data.from_folder(second, PREPROCESSING))


def test_what_systems_leave_behind_is_ignored(tmp_path):
    photos(tmp_path, {"a": 3, "b": 3})
    (tmp_path / ".git").mkdir()
    for name in (".DS_Store", "Thumbs.db", "._0.png"):
        (tmp_path / "a" / name).write_bytes(b"x")
    assert len(data.from_folder(tmp_path, PREPROCESSING, validation=0, test=0).train) == 6


def test_folders_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match="no folder .*fotos; the nearest: photos"):
        (tmp_path / "photos").mkdir()
        data.from_folder(tmp_path / "fotos", PREPROCESSING)
    with pytest.raises(InputError, match="there is none"):
        data.from_folder(tmp_path / "photos", PREPROCESSING)
    with pytest.raises(InputError, match="only one, 'a'"):
        data.from_folder(photos(tmp_path / "one", {"a": 3}), PREPROCESSING)
    with pytest.raises(InputError, match="'b' is empty"):
        data.from_folder(photos(tmp_path / "empty", {"a": 3, "b": 0}), PREPROCESSING)
    with pytest.raises(InputError, match="at least two"):
        data.from_folder(photos(tmp_path / "few", {"a": 3, "b": 1}), PREPROCESSING)
    with pytest.raises(InputError, match="share"):
        data.from_folder(photos(tmp_path / "share", {"a": 3, "b": 3}), PREPROCESSING, test=1.5)
    mixed = photos(photos(tmp_path / "mixed", {"a": 3, "b": 3}, "train"), {"a": 3, "c": 1}, "test")
    with pytest.raises(InputError, match="has c which the training images do not have and lacks b"):
        data.from_folder(mixed, PREPROCESSING)
    (tmp_path / "share" / "a" / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"notes\.txt is not an image"):
        data.from_folder(tmp_path / "share", PREPROCESSING)
    (tmp_path / "share" / "a" / "notes.txt").rename(tmp_path / "share" / "a" / "notes.jpg")
    splits = data.from_folder(tmp_path / "share", PREPROCESSING, validation=0, test=0)
    with pytest.raises(data.BadImage, match=r"notes\.jpg: not an image"):
        data.decoded(splits.train)


@pytest.mark.parametrize(
    ("inputs", "labels", "reason"),
    [
        (np.zeros((3, 2)), [0, 1], "3 examples but 2 labels"),
        (np.zeros((0, 2)), np.zeros(0, int), "no examples"),
        (np.zeros(3), [0, 1, 2], r"inputs are \[N,F\]"),
        (np.zeros((2, 2)), ["a", "b"], "labels are integers"),
        (np.zeros((2, 2)), [0, -1], "label -1 of example 1 is out of range"),
    ],
)
def test_arrays_that_do_not_belong_together(inputs, labels, reason):
    with pytest.raises(InputError, match=reason):
        data.from_arrays(inputs, labels)


def test_labels_have_classes():
    with pytest.raises(InputError, match="label 7 of example 1.*3 classes run from 0 to 2"):
        data.from_arrays(np.zeros((2, 2)), [0, 7], classes=("a", "b", "c"))
    assert data.from_arrays(np.zeros((2, 8, 8)), [0, 1])[0]["image"].shape == (8, 8, 1)


def test_labels_may_be_numbers_or_several():
    x = np.ones((3, 2))
    for labels in ([0.5, 1.5, 2.5], [[0.5, 1.0]] * 3):
        source = data.from_arrays(x, labels)
        assert source.labels.dtype == np.float32
        assert source.classes == ()
    several = data.from_arrays(x, {"kind": [0, 1, 1], "size": [0.5, 1.5, 2.5]})
    taken = several.take(np.array([2, 0]))
    assert taken["label"]["kind"].tolist() == [1, 0]
    assert several[1]["label"]["size"] == 1.5
    assert len(several) == 3
    with pytest.raises(InputError, match="3 examples but 2 labels"):
        data.from_arrays(x, {"kind": [0, 1]})


def test_a_digest_is_that_of_the_inputs():
    x = np.arange(6.0).reshape(3, 2)
    digest = data.from_arrays(x, [0, 1, 1]).digest()
    assert data.from_arrays(x, [1, 1, 0]).digest() == digest
    assert data.from_arrays(x.astype(np.float32), [0, 1, 1]).digest() != digest
    assert data.from_arrays(x[:, ::-1], [0, 1, 1]).digest() != digest
