import pytest
from PIL import Image

from jaxdl import data
from jaxdl.errors import InputError


def test_a_survey_counts_and_finds_what_is_wrong(tmp_path):
    for split, name, count in (("train", "b", 3), ("train", "a", 2), ("test", "a", 1)):
        (tmp_path / split / name).mkdir(parents=True)
        for n in range(count):
            image = Image.new("RGB", (10 + n, 20), (n, 50 * len(split), 10 * ord(name) % 256))
            image.save(tmp_path / split / name / f"{n}.png")
    (tmp_path / "test" / "a" / "again.png").write_bytes((tmp_path / "train" / "b" / "1.png").read_bytes())
    (tmp_path / "train" / "a" / "cut.jpg").write_bytes(b"text")
    (tmp_path / "train" / "a" / "notes.txt").write_bytes(b"text")
    (tmp_path / "train" / "a" / ".DS_Store").write_bytes(b"text")
    found = data.survey(tmp_path)
    assert found.counts == {"train": {"a": 3, "b": 3}, "test": {"a": 2}}
    assert found.sizes == {"smallest": (20, 10), "median": (20, 11), "largest": (20, 12)}
    assert found.formats == {".png": 7, ".jpg": 1}
    assert [path.rsplit("/", 1)[-1] for path in found.bad] == ["cut.jpg"]
    assert [path.rsplit("/", 1)[-1] for path in found.foreign] == ["notes.txt"]
    (same,) = found.duplicates
    assert [path.rsplit("/", 3)[1:] for path in same] == [["train", "b", "1.png"], ["test", "a", "again.png"]]
    assert [(name, file.name) for name, file in found.images][:3] == [("a", "0.png"), ("a", "1.png"), ("b", "0.png")]


def test_a_folder_without_splits_or_without_images(tmp_path):
    with pytest.raises(InputError, match="no images"):
        data.survey(tmp_path)
    with pytest.raises(InputError, match="no folder"):
        data.survey(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.png").write_bytes(b"")
    found = data.survey(tmp_path)
    assert (found.counts, found.sizes, len(found.bad), found.images) == ({"all": {"a": 1}}, {}, 1, ())


def test_what_cannot_be_opened_is_bad_and_splits_are_no_classes(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("0.png", "1.png"):
        (tmp_path / "a" / name).symlink_to("nowhere")
    found = data.survey(tmp_path)
    assert all("no such image" in reason for reason in found.bad.values())
    assert (len(found.bad), found.duplicates) == (2, ())
    for name in ("Train", "Test"):
        (tmp_path / "splits" / name / "a").mkdir(parents=True)
    with pytest.raises(InputError, match="rename Test to test, Train to train"):
        data.survey(tmp_path / "splits")
