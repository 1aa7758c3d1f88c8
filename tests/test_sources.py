import re

import jax.numpy as jnp
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


def test_what_is_in_two_splits_is_warned_about(tmp_path):
    photos(tmp_path, {"a": 6, "b": 6}, "train")
    photos(tmp_path, {"a": 2, "b": 2}, "test")
    content = (tmp_path / "train" / "a" / "3.png").read_bytes()
    (tmp_path / "test" / "a" / "again.png").write_bytes(content)
    with pytest.warns(UserWarning, match=r"1 images .* more than one split, such as .*3\.png .* and .*again\.png"):
        data.from_folder(tmp_path, PREPROCESSING, validation=0)


@given(contents=st.lists(st.sampled_from([b"", b"x", b"y", b"z" * 5000, b"z" * 4999 + b"y", b"z" * 4999 + b"q"])))
def test_duplicates_are_the_files_with_the_same_content(contents, tmp_path_factory):
    root = tmp_path_factory.mktemp("files")
    files = [root / str(n) for n in range(len(contents))]
    for file, content in zip(files, contents, strict=True):
        file.write_bytes(content)
    expected = {tuple(f for f, c in zip(files, contents, strict=True) if c == same) for same in contents}
    assert {tuple(group) for group in data.duplicates(files)} == {group for group in expected if len(group) > 1}


@given(
    counts=st.lists(st.integers(2, 30), min_size=2, max_size=4),
    share=st.floats(0.01, 0.5),
    seed=st.integers(0, 9),
)
def test_any_source_can_be_split_class_by_class(counts, share, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    source = data.from_arrays(np.arange(len(labels))[:, None], labels)
    rest, part = data.split(source, share, seed)
    assert sorted([*rest.inputs[:, 0], *part.inputs[:, 0]]) == list(range(len(labels)))
    assert np.bincount(part.labels).tolist() == [max(1, round(share * count)) for count in counts]
    assert (np.diff(part.inputs[:, 0]) > 0).all()
    with pytest.raises(InputError, match="between 0 and 1"):
        data.split(source, 1.0)


@given(count=st.integers(2, 40), share=st.floats(0.01, 0.5), kind=st.sampled_from(["numbers", "targets", "heads"]))
def test_where_there_are_no_classes_all_examples_are_split_together(count, share, kind):
    numbers = np.linspace(0, 1, count)
    labels = {"numbers": numbers, "targets": np.stack([numbers] * 2, 1), "heads": {"a": numbers, "b": [0] * count}}
    source = data.from_arrays(np.arange(count)[:, None], labels[kind])
    rest, part = data.split(source, share)
    assert len(part) == max(1, round(share * count))
    assert sorted([*rest.inputs[:, 0], *part.inputs[:, 0]]) == list(range(count))
    with pytest.raises(InputError, match="classes are resampled"):
        data.oversample(source)
    with pytest.raises(InputError, match="the source has one example left"):
        data.split(source.subset(np.arange(1)), share)


def test_classes_without_examples_are_left_out():
    source = data.from_arrays(np.arange(9)[:, None], [0, 2, 2] * 3)
    assert np.bincount(data.split(source, 0.3)[1].labels).tolist() == [1, 0, 2]
    assert np.bincount(data.oversample(source).labels).tolist() == [6, 0, 6]


@given(counts=st.lists(st.integers(1, 30), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_classes_are_resampled_to_one_size(counts, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    source = data.from_arrays(np.arange(len(labels))[:, None], labels)
    for resample, size in ((data.oversample, max(counts)), (data.undersample, min(counts))):
        part = resample(source, seed)
        assert np.bincount(part.labels).tolist() == [size] * len(counts)
        rows = part.inputs[:, 0]
        np.testing.assert_array_equal(part.labels, labels[rows])
        np.testing.assert_array_equal(rows, resample(source, seed).inputs[:, 0])
        often = np.bincount(rows, minlength=len(labels))
        for label, count in enumerate(counts):
            assert set(often[labels == label]) <= {size // count, -(-size // count)}
    assert set(data.oversample(source, seed).inputs[:, 0]) == set(range(len(labels)))


def test_a_selection_reads_what_is_asked_for():
    read = []

    class Items:
        def __len__(self):
            return 10

        def __getitem__(self, index):
            read.append(index)
            return bytes([index])

    source = data.Images(Items(), np.arange(10) % 2, ("a", "b"), PREPROCESSING)
    part = source.subset(np.array([7, 2, 5])).subset(np.array([2, 0]))
    assert (len(part), read) == (2, [])
    assert [part.items[0], part.items[1], read] == [b"\x05", b"\x07", [5, 7]]


def test_bad_files_stop_everything_or_are_left_out_and_told(tmp_path):
    photos(tmp_path, {"a": 10, "b": 10})
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "notes.txt").write_text("hello")
    (tmp_path / "b" / "gone.jpg").symlink_to("nowhere")
    with pytest.raises(InputError, match=r"notes\.txt is not an image"):
        data.from_folder(tmp_path, PREPROCESSING)
    with pytest.raises(InputError, match="3 of 23 files .* cannot be read, more than 10%; the first: .*cut"):
        data.from_folder(tmp_path, PREPROCESSING, on_bad="skip")
    (tmp_path / "b" / "notes.txt").unlink()
    with pytest.raises(data.BadImage, match=r"no such image: .*gone\.jpg"):
        data.from_folder(tmp_path, PREPROCESSING)
    (tmp_path / "b" / "gone.jpg").unlink()
    (tmp_path / "b" / "notes.txt").write_text("hello")
    splits = data.from_folder(tmp_path, PREPROCESSING, on_bad="skip")
    assert [len(part) for part in splits] == [14, 2, 4]
    assert ["cut.png" in splits.train.skipped[0], "notes.txt" in splits.train.skipped[1]] == [True, True]
    assert splits.test.skipped == splits.train.skipped


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
    photos(tmp_path / "a", {".thumbnails": 2, "more/.ipynb_checkpoints": 2})
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
    for names, said in (
        (("Train", "Test"), "rename Test to test, Train to train$"),
        (("Training", "val"), "rename Training to train$"),
        (("test", "val"), "belongs into a folder train$"),
    ):
        splits = photos(tmp_path / "-".join(names), {f"{name}/{kind}": 3 for name in names for kind in "ab"})
        with pytest.raises(InputError, match=said):
            data.from_folder(splits, PREPROCESSING)
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
        splits.train.take(np.arange(len(splits.train)))


@pytest.mark.parametrize(
    ("inputs", "labels", "reason"),
    [
        (np.zeros((3, 2)), [0, 1], "3 examples but 2 labels"),
        (np.zeros((0, 2)), np.zeros(0, int), "no examples"),
        (np.zeros(3), [0, 1, 2], r"inputs are \[N,F\]"),
        (np.zeros((2, 2)), ["a", "b"], "labels are integers"),
        (np.zeros((2, 2)), [0, -1], "label -1 of example 1 is out of range: .* from 0; for regression give floats"),
        (np.zeros((2, 2)), [0, 250_000], "label 250000 of example 1 is out of range: .*; for regression give floats"),
    ],
)
def test_arrays_that_do_not_belong_together(inputs, labels, reason):
    with pytest.raises(InputError, match=reason):
        data.from_arrays(inputs, labels)


@given(
    shape=st.sampled_from([(6, 3), (6, 4, 5), (6, 4, 5, 2)]),
    dtype=st.sampled_from(["float16", "float32", "float64", "bfloat16"]),
    bad=st.sampled_from([np.nan, np.inf, -np.inf]),
    place=st.integers(0, 17),
)
def test_what_is_no_number_is_found(shape, dtype, bad, place):
    inputs = np.ones(shape, jnp.dtype(dtype))
    assert len(data.from_arrays(inputs, np.zeros(6, int))) == 6
    inputs.flat[place] = bad
    row, *at = map(int, np.unravel_index(place, shape))
    at += [0] if len(shape) == 3 else []  # the channel
    with pytest.raises(InputError, match=f"inputs of example {row} have {bad} at {re.escape(str(at))};"):
        data.from_arrays(inputs, np.zeros(6, int))
    labels = np.where(np.arange(6) == row, bad, 1.0)
    with pytest.raises(InputError, match=f"labels of example {row} have {bad};"):
        data.from_arrays(np.ones((6, 3)), labels)


@pytest.mark.parametrize("inputs", [np.array([["a"], ["b"]]), np.array([[None], [1]])])
def test_inputs_are_numbers(inputs):
    with pytest.raises(InputError, match=r"inputs are numbers, got .* \[2, 1\]"):
        data.from_arrays(inputs, [0, 1])


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
