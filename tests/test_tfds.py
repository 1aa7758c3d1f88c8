"""Each builder's own code runs, on a tiny archive in the layout of the real one."""

import gzip
import hashlib
import http.server
import importlib
import io
import itertools
import json
import resource
import socket
import sys
import tarfile
import threading
import types
import urllib.parse
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from scipy.io import savemat

from jaxdl.data import tfds
from jaxdl.data.images import Preprocessing
from jaxdl.errors import BadFile, InputError

DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where the package dataset-fashion-mnist puts it
PREPROCESSING = Preprocessing(8)
DRAW = np.random.default_rng(0)


def jpeg(seed, mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 10, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(file, "jpeg")
    return file.getvalue()


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def mat(**values):
    file = io.BytesIO()
    savemat(file, values)
    return file.getvalue()


def tar(members, mode="w:gz"):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def packed(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def idx(array):
    """The format of MNIST: two zeros, the type (8 for bytes), the number of dimensions, the dimensions, the data."""
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.tobytes()


@pytest.fixture
def publish(monkeypatch, tmp_path):
    """Puts files into a folder, and their checksums in the place of the registered ones, by addresses."""

    def publish(files):
        folder = tmp_path / "manual"
        folder.mkdir(exist_ok=True)
        known = {}
        for url, content in files.items():
            name = Path(urllib.parse.urlsplit(url).path).name
            (folder / name).write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            known[url] = tensorflow_datasets.download.checksums.UrlInfo(len(content), digest, name)
        monkeypatch.setattr(tfds, "_registered", lambda _: known)
        return {"manual_dir": folder, "data_dir": tmp_path / "data"}

    return publish


def contents(source):
    """The images of a source and the names of their classes; tensorflow-datasets shuffles them by their keys."""
    return sorted((item, source.classes[label]) for item, label in zip(source.items, source.labels, strict=True))


def by_pixels(images, labels):
    return sorted((image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True))


def files_below(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


MNIST = {"mnist": "https://storage.googleapis.com/cvdf-datasets/mnist/"}
MNIST["fashion_mnist"] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"


def mnist(monkeypatch, base, train=30, test=20, pack=gzip.compress):
    module = importlib.import_module("tensorflow_datasets.image_classification.mnist")
    monkeypatch.setattr(module, "_TRAIN_EXAMPLES", train)
    monkeypatch.setattr(module, "_TEST_EXAMPLES", test)
    files, arrays = {}, {}
    for split, count in (("train", train), ("t10k", test)):
        images = DRAW.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        files[f"{base}{split}-images-idx3-ubyte.gz"] = pack(idx(images))
        files[f"{base}{split}-labels-idx1-ubyte.gz"] = pack(idx(labels))
        arrays[split] = images[..., None], labels
    return files, arrays


@pytest.mark.parametrize("name", list(MNIST))
def test_mnist_and_fashion_mnist(name, publish, monkeypatch):
    files, arrays = mnist(monkeypatch, MNIST[name])
    train, test = tfds.load(name, split=("train", "test"), **publish(files))
    for source, (images, labels) in ((train, arrays["train"]), (test, arrays["t10k"])):
        assert source.inputs.shape == images.shape
        assert source.inputs.dtype == np.uint8
        assert source.labels.dtype == np.int32
        assert by_pixels(source.inputs, source.labels) == by_pixels(images, labels)
    assert train.classes[9] == ("9" if name == "mnist" else "Ankle boot")


def cifar(count, label_bytes):
    images = DRAW.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = DRAW.integers(0, 10, (count, label_bytes), np.uint8)
    records = np.concatenate([labels, images.transpose(0, 3, 1, 2).reshape(count, -1)], axis=1)
    return images, labels[:, -1], records.tobytes()


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar(name, publish):
    if name == "cifar10":
        train = [cifar(4, 1) for _ in range(5)]
        test = cifar(6, 1)
        classes = [f"thing{n}" for n in range(10)]
        members = {f"data_batch_{n}.bin": records for n, (_, _, records) in enumerate(train, 1)}
        members |= {"test_batch.bin": test[2], "batches.meta.txt": "\n".join(classes).encode()}
        folder = "cifar-10-batches-bin"
    else:
        train, test = [cifar(20, 2)], cifar(6, 2)
        classes = [f"thing{n}" for n in range(100)]
        members = {"train.bin": train[0][2], "test.bin": test[2], "fine_label_names.txt": "\n".join(classes).encode()}
        members["coarse_label_names.txt"] = "\n".join(f"kind{n}" for n in range(20)).encode()
        folder = "cifar-100-binary"
    archive = tar({f"{folder}/{member}": content for member, content in members.items()})
    url = f"https://www.cs.toronto.edu/~kriz/{name.replace('cifar', 'cifar-')}-binary.tar.gz"
    both = tfds.load(name, split=("train", "test"), **publish({url: archive}))
    images, labels = (np.concatenate([part[n] for part in train]) for n in (0, 1))
    assert by_pixels(both[0].inputs, both[0].labels) == by_pixels(images, labels)
    assert by_pixels(both[1].inputs, both[1].labels) == by_pixels(*test[:2])
    assert both[0].classes == tuple(classes)


def food101(per_class=2):
    photos = {f"{label}/{n}": jpeg(n) for label in ("pizza", "sushi") for n in range(per_class + 1)}
    members = {f"food-101/images/{name}.jpg": content for name, content in photos.items()}
    lists = {"train": [], "test": []}
    for name in photos:
        lists["test" if name.endswith(f"/{per_class}") else "train"].append(name)
    for split, names in lists.items():
        listed = {label: [name for name in names if name.startswith(label)] for label in ("pizza", "sushi")}
        members[f"food-101/meta/{split}.json"] = json.dumps(listed).encode()
    expected = {split: sorted((photos[name], name.split("/")[0]) for name in names) for split, names in lists.items()}
    return {"http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz": tar(members)}, expected


def test_food101(publish):
    files, expected = food101()
    train, test = tfds.load("food101", PREPROCESSING, split=("train", "validation"), **publish(files))
    assert contents(train) == expected["train"]
    assert contents(test) == expected["test"]
    assert len(train.classes) == 101


def test_tf_flowers(publish):
    photos = {f"flower_photos/{label}/{n}.jpg": jpeg(n) for label in ("roses", "tulips") for n in range(3)}
    archive = tar(photos | {"flower_photos/LICENSE.txt": b"none"})
    url = "http://download.tensorflow.org/example_images/flower_photos.tgz"
    source = tfds.load("tf_flowers", PREPROCESSING, **publish({url: archive}))
    assert contents(source) == sorted((content, name.split("/")[1]) for name, content in photos.items())


def test_oxford_flowers102(publish):
    photos = {n: jpeg(n) for n in range(1, 7)}
    base = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
    source = {
        base + "102flowers.tgz": tar({f"jpg/image_{n:05d}.jpg": content for n, content in photos.items()}),
        base + "imagelabels.mat": mat(labels=np.array([[1, 2, 3, 1, 2, 102]])),
        base + "setid.mat": mat(trnid=np.array([[1, 2]]), valid=np.array([[3]]), tstid=np.array([[4, 5, 6]])),
    }
    splits = tfds.load("oxford_flowers102", PREPROCESSING, split=("train", "validation", "test"), **publish(source))
    names = splits[0].classes
    assert [contents(split) for split in splits] == [
        sorted([(photos[1], names[0]), (photos[2], names[1])]),
        [(photos[3], names[2])],
        sorted([(photos[4], names[0]), (photos[5], names[1]), (photos[6], names[101])]),
    ]


def test_oxford_iiit_pet(publish):
    photos = {"Abyssinian_100": jpeg(1), "beagle_1": jpeg(2), "pug_1": jpeg(3)}
    gray = np.full((16, 16, 4), 128, np.uint8)
    members = {f"images/{name}.jpg": content for name, content in photos.items()}
    members["images/beagle_116.jpg"] = png(gray)  # one of those that the builder encodes again
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    xml = f"<annotation><size><width>10</width><height>12</height></size><object>{box}</object></annotation>"
    annotations = {
        "annotations/trainval.txt": b"Abyssinian_100 1 1 1\nbeagle_1 5 2 1\nbeagle_116 5 2 1\n",
        "annotations/test.txt": b"pug_1 26 2 1\n",
        "annotations/xmls/Abyssinian_100.xml": xml.encode(),
    }
    annotations |= {f"annotations/trimaps/{name}.png": png(gray[..., 0]) for name in (*photos, "beagle_116")}
    base = "https://thor.robots.ox.ac.uk/~vgg/data/pets/"
    # Both are called .tar.gz, but are not compressed.
    given = {base + "images.tar.gz": tar(members, "w"), base + "annotations.tar.gz": tar(annotations, "w")}
    train, test = tfds.load("oxford_iiit_pet", PREPROCESSING, split=("train", "test"), **publish(given))
    assert contents(test) == [(photos["pug_1"], "pug")]
    (again,) = set(contents(train)) - {(photos["Abyssinian_100"], "Abyssinian"), (photos["beagle_1"], "beagle")}
    assert again[1] == "beagle"
    with Image.open(io.BytesIO(again[0])) as image:  # even gray survives JPEG as it is, and alpha is dropped
        assert (image.format, image.mode) == ("JPEG", "RGB")
        np.testing.assert_array_equal(image, gray[..., :3])


def test_stanford_dogs(publish):
    breeds = [f"n{n:08d}-Breed{n}" for n in range(120)]
    photos = {f"{breeds[n]}/{breeds[n][:9]}_{n}.jpg": jpeg(n) for n in range(4)}
    box = "<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3</xmax><ymax>4</ymax></bndbox>"
    xml = f"<annotation><size><width>10</width><height>12</height></size><object>{box}</object></annotation>"
    train = [*list(photos)[:3], *(f"{breed}/{breed[:9]}_9.jpg" for breed in breeds[3:])]
    base = "http://vision.stanford.edu/aditya86/ImageNetDogs/"
    lists = {"train_list.mat": train, "test_list.mat": [*list(photos)[3:], f"{breeds[7]}/{breeds[7][:9]}_8.jpg"]}
    source = {
        base + "images.tar": tar({f"Images/{name}": content for name, content in photos.items()}, "w"),
        base + "annotation.tar": tar({f"Annotation/{name[:-4]}": xml.encode() for name in photos}, "w"),
        base + "lists.tar": tar(
            {name: mat(file_list=np.array(names, object)[:, None]) for name, names in lists.items()}, "w"
        ),
    }
    splits = tfds.load("stanford_dogs", PREPROCESSING, split=("train", "test"), **publish(source))
    found = [(content, name.split("/")[0].lower()) for name, content in photos.items()]
    assert [contents(split) for split in splits] == [sorted(found[:3]), found[3:]]


def test_cats_vs_dogs(publish, monkeypatch):
    module = importlib.import_module("tensorflow_datasets.image_classification.cats_vs_dogs")
    monkeypatch.setattr(module, "_NUM_CORRUPT_IMAGES", 1)
    gray = {}
    for name, level in (("Cat/0", 16), ("Cat/1", 200), ("Dog/0", 64), ("Dog/1", 128)):
        file = io.BytesIO()
        Image.fromarray(np.full((16, 24, 3), level, np.uint8)).save(file, "jpeg")
        gray[f"PetImages/{name}.jpg"] = file.getvalue()
    archive = packed(gray | {"PetImages/Dog/2.jpg": b"no image", "readme[1].txt": b""})
    source = tfds.load("cats_vs_dogs", PREPROCESSING, **publish({module._URL: archive}))
    found = []
    for content, name in contents(source):  # the builder encodes them again; even gray survives that as it is
        with Image.open(io.BytesIO(content)) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (24, 16))
            found.append((name, *np.unique(image)))
    assert sorted(found) == [("cat", 16), ("cat", 200), ("dog", 64), ("dog", 128)]


def eurosat():
    photos = {f"2750/{label}/{label}_{n}.jpg": jpeg(n) for label in ("River", "Forest") for n in range(3)}
    expected = sorted((content, name.split("/")[1]) for name, content in photos.items())
    return "http://madm.dfki.de/files/sentinel/EuroSAT.zip", photos, expected


def test_eurosat(publish):
    url, photos, expected = eurosat()
    assert contents(tfds.load("eurosat", PREPROCESSING, **publish({url: packed(photos)}))) == expected


def beans(base="https://storage.googleapis.com/ibeans/"):
    photos = {}
    for seed, split in enumerate(("train", "validation", "test")):
        names = [f"{split}/{label}/{n}.jpg" for label in ("healthy", "bean_rust") for n in range(2)]
        photos[split] = {name: jpeg(10 * seed + n) for n, name in enumerate(names)}
    files = {f"{base}{split}.zip": packed(members) for split, members in photos.items()}
    return files, {s: sorted((c, name.split("/")[1]) for name, c in members.items()) for s, members in photos.items()}


def test_beans(publish):
    files, expected = beans()
    splits = tfds.load("beans", PREPROCESSING, split=("train", "validation", "test"), **publish(files))
    assert [contents(split) for split in splits] == list(expected.values())


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_real_fashion_mnist(tmp_path):
    def read(name, header):
        return np.frombuffer(gzip.decompress((DEBIAN / name).read_bytes()), np.uint8, offset=header)

    train, test = tfds.load("fashion_mnist", split=("train", "test"), data_dir=tmp_path, manual_dir=DEBIAN)
    for source, split, count in ((train, "train", 60000), (test, "t10k", 10000)):
        images = read(f"{split}-images-idx3-ubyte.gz", 16).reshape(count, 28, 28, 1)
        labels = read(f"{split}-labels-idx1-ubyte.gz", 8)
        assert source.inputs.shape == images.shape
        assert by_pixels(source.inputs, source.labels) == by_pixels(images, labels)


def test_a_header_that_a_distribution_has_emptied_is_made_again(publish, monkeypatch):
    def pack(content, name="", time=0):
        file = io.BytesIO()
        with gzip.GzipFile(name, "wb", fileobj=file, mtime=time) as compressed:
            compressed.write(content)
        return file.getvalue()

    files, arrays = mnist(monkeypatch, MNIST["fashion_mnist"])
    plain = {url: gzip.decompress(content) for url, content in files.items()}
    times = {"t10k": 1504176627, "train": 1504176606}
    named = {url: (Path(url).name, times[Path(url).name.split("-")[0]]) for url in files}
    where = publish({url: pack(plain[url], name, time) for url, (name, time) in named.items()})
    for url, (name, _) in named.items():
        (where["manual_dir"] / name).write_bytes(pack(plain[url]))
    source = tfds.load("fashion_mnist", **where)
    assert by_pixels(source.inputs, source.labels) == by_pixels(*arrays["train"])

    labels = where["manual_dir"] / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(pack(bytes(len(plain[f"{MNIST['fashion_mnist']}{labels.name}"]))))
    with pytest.raises(BadFile, match="train-labels-idx1-ubyte.gz is not the file that fashion_mnist is made of"):
        tfds.load("fashion_mnist", manual_dir=where["manual_dir"], data_dir=labels.parent.parent / "other")
    assert not list((labels.parent.parent / "other").rglob(labels.name))


def test_a_wrong_or_missing_file_is_named_and_nothing_is_prepared(publish, tmp_path):
    files, expected = beans()
    where = publish(files)
    right = (where["manual_dir"] / "test.zip").read_bytes()

    def message():
        with pytest.raises(BadFile) as caught:
            tfds.load("beans", PREPROCESSING, **where)
        assert "\n" not in str(caught.value)
        assert files_below(tmp_path / "data") == []
        return str(caught.value)

    (where["manual_dir"] / "test.zip").write_bytes(right[:-1])
    assert f"test.zip is not the file that beans is made of: it has {len(right) - 1} bytes" in message()
    assert f"should have {len(right)}" in message()
    (where["manual_dir"] / "test.zip").write_bytes(right[:-1] + b"!")
    assert hashlib.sha256(right).hexdigest() in message()
    assert hashlib.sha256(right[:-1] + b"!").hexdigest() in message()
    (where["manual_dir"] / "test.zip").unlink()
    assert "there is no" in message()
    assert "test.zip, train.zip, validation.zip" in message()
    (where["manual_dir"] / "test.zip").write_bytes(right)
    assert contents(tfds.load("beans", PREPROCESSING, **where)) == expected["train"]


def test_what_lies_outside_of_an_archive_is_not_written(publish, tmp_path):
    url, photos, expected = eurosat()
    outside = str(tmp_path / "absolute.jpg")
    where = publish({url: packed(photos | {"../../../relative.jpg": b"x", outside: b"x", "2750/../../up.jpg": b"x"})})
    assert contents(tfds.load("eurosat", PREPROCESSING, **where)) == expected
    assert not [path for path in tmp_path.rglob("*") if path.name in ("relative.jpg", "absolute.jpg", "up.jpg")]


def test_links_in_an_archive_lead_nowhere(publish, tmp_path):
    files, expected = food101()
    ((url, archive),) = files.items()
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as hostile, tarfile.open(fileobj=io.BytesIO(archive)) as harmless:
        link = tarfile.TarInfo("food-101/out")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        hostile.addfile(link)
        for member in harmless:
            hostile.addfile(member, harmless.extractfile(member))
        through = tarfile.TarInfo("food-101/out/through.jpg")
        through.size = 1
        hostile.addfile(through, io.BytesIO(b"x"))
    source = tfds.load("food101", PREPROCESSING, **publish({url: file.getvalue()}))
    assert contents(source) == expected["train"]
    assert not (tmp_path / "through.jpg").exists()


@pytest.fixture
def server(monkeypatch):
    """Serves contents by path on this machine, and beans come from there."""
    answers = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path in answers else 404)
            self.end_headers()
            self.wfile.write(answers.get(self.path, b""))

        def log_message(self, *_):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    module = importlib.import_module("tensorflow_datasets.datasets.beans.beans_dataset_builder")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        base = f"http://127.0.0.1:{listening.server_port}/"
        for name in ("train", "validation", "test"):
            monkeypatch.setattr(module, f"_{name.upper()}_URL", f"{base}{name}.zip")
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield base, answers
        listening.shutdown()


def test_downloads_are_verified_and_kept(publish, server, tmp_path):
    base, answers = server
    files, expected = beans(base)
    publish(files)
    answers |= {urllib.parse.urlsplit(url).path: content for url, content in files.items()}
    right = answers["/test.zip"]
    for wrong in (right[:-1], right[:-1] + b"!", right + b"!" * (3 << 20)):
        answers["/test.zip"] = wrong
        with pytest.raises(
            BadFile, match=r"test.zip is no longer the file that is registered: it has .* should have"
        ) as e:
            tfds.load("beans", PREPROCESSING, data_dir=tmp_path / "data")
        assert {Path(name).name for name in files_below(tmp_path / "data")} == {"train.zip", "validation.zip"}
    assert "it has 1048576 bytes" in str(e.value)  # what is too long is not read to its end
    del answers["/test.zip"]
    with pytest.raises(InputError, match=r"127.0.0.1 does not send it \(HTTP Error 404: Not Found\)"):
        tfds.load("beans", PREPROCESSING, data_dir=tmp_path / "data")
    answers.clear()  # what has been downloaded is not asked for again
    answers["/test.zip"] = right
    assert contents(tfds.load("beans", PREPROCESSING, data_dir=tmp_path / "data")) == expected["train"]


def test_offline_it_says_which_files_are_needed(monkeypatch, tmp_path):
    def nobody(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    with pytest.raises(InputError) as caught:
        tfds.load("stanford_dogs", PREPROCESSING, data_dir=tmp_path)
    assert str(caught.value) == (
        "stanford_dogs is not on this machine, and vision.stanford.edu does not send it (Name or service not known); "
        "put these files into a folder and give it as manual_dir: annotation.tar, images.tar, lists.tar"
    )
    assert files_below(tmp_path) == []


def test_a_name_server_that_does_not_answer_is_not_waited_for(monkeypatch, tmp_path):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait() and [])
    monkeypatch.setattr(tfds, "PATIENCE", 0.1)
    with pytest.raises(InputError, match=r"does not send it \(no answer in 0.1 s\)"):
        tfds.load("food101", PREPROCESSING, data_dir=tmp_path)
    over.set()


def test_what_is_prepared_needs_no_network_and_no_files(publish, monkeypatch):
    files, expected = beans()
    where = publish(files)
    first = tfds.load("beans", PREPROCESSING, **where)

    def refuse(*_, **__):
        raise AssertionError("there is no network")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    again = tfds.load("beans", PREPROCESSING, data_dir=where["data_dir"], manual_dir="nowhere")
    assert list(again.items) == list(first.items)
    assert contents(again) == expected["train"]
    np.testing.assert_array_equal(again.labels, first.labels)
    assert again.labels.dtype == np.int32


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_is_interrupted_leaves_nothing(publish, monkeypatch, error):
    url, photos, expected = eurosat()
    where = publish({url: packed(photos)})
    builder = tensorflow_datasets.builder_cls("eurosat")
    whole = builder._generate_examples

    def half(self, **arguments):
        yield next(iter(whole(self, **arguments)))
        raise error("an example: " + "0" * 5000 + ", in the\nmiddle")

    with monkeypatch.context() as patch:
        patch.setattr(builder, "_generate_examples", half)
        with pytest.raises(InputError if error is RuntimeError else error) as caught:
            tfds.load("eurosat", PREPROCESSING, **where)
    if error is RuntimeError:
        assert str(caught.value).startswith("eurosat cannot be prepared: … 000")
        assert str(caught.value).endswith("000, in the middle")
        assert len(str(caught.value)) < 500
    left = [name for name in files_below(where["data_dir"]) if not name.endswith("metadata.json")]
    assert left == []  # tensorflow-datasets notes which configuration is the default
    assert contents(tfds.load("eurosat", PREPROCESSING, **where)) == expected


def test_a_damaged_set_is_named(publish):
    files, _ = beans()
    where = publish(files)
    tfds.load("beans", PREPROCESSING, **where)
    for path in where["data_dir"].rglob("beans-train*"):
        path.unlink()
    for path in where["data_dir"].rglob("*.npy"):
        path.unlink()
    with pytest.raises(InputError, match=r"cannot be read; remove it, and it is prepared again"):
        tfds.load("beans", PREPROCESSING, data_dir=where["data_dir"])


def test_a_set_prepared_in_another_format_is_named(publish):
    files, _ = beans()
    where = publish(files)
    tfds.load("beans", PREPROCESSING, **where)
    (info,) = where["data_dir"].rglob("dataset_info.json")
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(InputError) as caught:
        tfds.load("beans", PREPROCESSING, data_dir=where["data_dir"])
    assert "cannot be read" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_of_the_process_is_changed(publish, monkeypatch, capsys):
    module = importlib.import_module("tensorflow_datasets.image_classification.eurosat")
    builder = tensorflow_datasets.builder_cls("eurosat")
    whole = builder._generate_examples

    def careless(self, **arguments):
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        assert module.tf.io.gfile.exists("/")
        yield from whole(self, **arguments)

    url, photos, _ = eurosat()
    monkeypatch.setattr(builder, "_generate_examples", careless)
    tfds.load("eurosat", PREPROCESSING, **publish({url: packed(photos)}))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    assert "_module" not in vars(module.tf)
    assert not {"tensorflow", "torch"} & set(sys.modules)
    assert capsys.readouterr().out == ""


def test_a_tensorflow_that_somebody_has_imported_stays(publish, monkeypatch):
    module = importlib.import_module("tensorflow_datasets.image_classification.eurosat")
    builder = tensorflow_datasets.builder_cls("eurosat")
    whole, seen = builder._generate_examples, []

    def looking(self, **arguments):
        seen.append(module.tf.io)
        yield from whole(self, **arguments)

    theirs = types.ModuleType("tensorflow")
    theirs.io, theirs.compat, theirs.dtypes = tfds.TENSORFLOW.io, tfds.TENSORFLOW.compat, types.SimpleNamespace()
    theirs.dtypes.DType = theirs.Tensor = type("Theirs", (), {})
    monkeypatch.setitem(sys.modules, "tensorflow", theirs)
    monkeypatch.setitem(vars(module.tf), "_module", theirs)
    monkeypatch.setattr(builder, "_generate_examples", looking)
    monkeypatch.setattr(tfds, "TENSORFLOW", None)
    url, photos, expected = eurosat()
    assert contents(tfds.load("eurosat", PREPROCESSING, **publish({url: packed(photos)}))) == expected
    assert seen == [theirs.io]


def test_a_builder_may_say_how_a_file_is_packed(publish, monkeypatch):
    _, photos, expected = eurosat()
    url = "http://example.org/download?id=1"
    download = tensorflow_datasets.download
    builder = tensorflow_datasets.builder_cls("eurosat")

    def splits(self, files):
        zipped = download.resource.ExtractMethod.ZIP
        folder = files.download_and_extract(download.Resource(url=url, extract_method=zipped))
        archive = files.download(download.Resource(url=url))
        assert {name for name, _ in files.iter_archive(download.Resource(path=archive, extract_method=zipped))} == {
            *photos
        }
        assert files.extract(str(archive)) == archive
        return {"train": self._generate_examples(path=str(folder / "2750"), selection="rgb")}

    monkeypatch.setattr(builder, "_split_generators", splits)
    assert contents(tfds.load("eurosat", PREPROCESSING, **publish({url: packed(photos)}))) == expected


def test_a_split_without_labels_is_refused(publish, monkeypatch):
    url, photos, _ = eurosat()
    builder = tensorflow_datasets.builder_cls("eurosat")
    whole = builder._generate_examples

    def unknown(self, **arguments):
        yield from ((key, {**example, "label": -1}) for key, example in whole(self, **arguments))

    monkeypatch.setattr(builder, "_generate_examples", unknown)
    with pytest.raises(InputError, match="the split 'train' of eurosat has no labels"):
        tfds.load("eurosat", PREPROCESSING, **publish({url: packed(photos)}))


def test_what_has_no_checksum_is_refused(publish):
    with pytest.raises(InputError, match=r"tf_flowers needs http://.*flower_photos.tgz, for which no checksum is reg"):
        tfds.load("tf_flowers", PREPROCESSING, **publish({}))


def test_what_the_stand_in_lacks_is_named(publish, monkeypatch):
    module = importlib.import_module("tensorflow_datasets.image_classification.eurosat")
    url, photos, _ = eurosat()

    def demanding(self, **_):
        yield 0, module.tf.data.TFRecordDataset("file")

    monkeypatch.setattr(tensorflow_datasets.builder_cls("eurosat"), "_generate_examples", demanding)
    with pytest.raises(InputError) as caught:
        tfds.load("eurosat", PREPROCESSING, **publish({url: packed(photos)}))
    assert str(caught.value) == "it takes TensorFlow to prepare this data set (tf.data)"


def test_a_set_too_large_for_memory_is_sorted_in_files(publish, monkeypatch):
    shuffle = importlib.import_module("tensorflow_datasets.core.shuffle")
    files, _ = food101(per_class=200)
    where = publish(files)
    inside = tfds.load("food101", PREPROCESSING, **where)
    monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 0)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # what macOS allows
    try:
        outside = tfds.load("food101", PREPROCESSING, **where | {"data_dir": where["data_dir"] / "other"})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert list(outside.items) == list(inside.items)


def test_slices(publish):
    files, _ = food101(per_class=10)
    where = publish(files)
    splits = ("train", "train[:5]", "train[-5:]", "train[3:7]", "train[:20%]", "train[20%:]", "train[90%:]+validation")
    whole, *parts = tfds.load("food101", PREPROCESSING, split=splits, **where)
    items = list(whole.items)
    assert [list(part.items) for part in parts[:3]] == [items[:5], items[-5:], items[3:7]]
    assert sorted(np.bincount(parts[3].labels).nonzero()[0].tolist()) == np.unique(whole.labels).tolist()
    assert np.bincount(parts[3].labels)[np.unique(whole.labels)].tolist() == [2, 2]  # of ten each
    assert sorted([*parts[3].items, *parts[4].items]) == sorted(items)
    (validation,) = tfds.load("food101", PREPROCESSING, split=["validation"], **where)
    (rest,) = tfds.load("food101", PREPROCESSING, split=["train[90%:]"], **where)
    assert list(parts[5].items) == [*rest.items, *validation.items]
    assert parts[5].items[2] == validation.items[0]
    assert list(parts[5].items[1:3]) == [rest.items[1], validation.items[0]]
    np.testing.assert_array_equal(parts[5].labels, [*rest.labels, *validation.labels])


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6),
    bounds=st.lists(st.integers(0, 1000).map(lambda n: n / 10), max_size=4),
    seed=st.integers(0, 9),
)
@example(counts=[10] * 6, bounds=[5.0], seed=0)
def test_slices_in_percent_partition_a_split_and_every_class(counts, bounds, seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    marks = ["", *(f"{bound}%" for bound in sorted(bounds)), ""]
    slices = [tfds.Slice("train", *pair) for pair in itertools.pairwise(marks)]
    parts = [tfds._rows(labels, part) for part in slices]
    assert all((np.diff(part) > 0).all() for part in parts)
    np.testing.assert_array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    for bound in bounds:
        rows = tfds._rows(labels, tfds.Slice("train", "", f"{bound}%"))
        assert len(rows) == round(len(labels) * bound / 100)
        taken, whole = np.bincount(labels[rows], minlength=len(counts)), np.array(counts)
        if len(set(counts)) == 1:
            assert np.ptp(taken) <= 1
        shares = whole * bound / 100
        if (shares == shares.round()).all():
            np.testing.assert_array_equal(taken, shares)


def test_mock_data_needs_no_data():
    with tensorflow_datasets.testing.mock_data(num_examples=20):
        digits = tfds.load("mnist", split="train[:50%]")
        photos = {name: tfds.load(name, PREPROCESSING, split="train+test") for name in ("food101", "oxford_iiit_pet")}
    assert not (
        Path(tensorflow_datasets.__file__).parent / "testing" / "metadata"
    ).exists()  # where they are looked for
    assert digits.inputs.shape == (10, 28, 28, 1)
    for name, classes in (("food101", 101), ("oxford_iiit_pet", 37)):
        source = photos[name]
        assert len(source) == len(source.items) == 40
        assert len(source.classes) == classes
        assert source.labels.max() < classes
        for content in source.items:
            with Image.open(io.BytesIO(content)) as image:
                image.load()


def test_records_are_read_by_many_threads(publish):
    files, _ = food101(per_class=30)
    items = tfds.load("food101", PREPROCESSING, **publish(files)).items
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(items.__getitem__, range(len(items)))) == list(items)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("fashion_mnst", "there is no data set 'fashion_mnst'; the nearest: fashion_mnist"),
        ("eurosat/rbg", "eurosat has no configuration 'rbg'; the nearest: rgb"),
        ("mnist:9.9.9", "mnist:9.9.9 cannot be loaded: .* only: 3.0.1"),
        ("huggingface:mnist", "'huggingface:mnist' is no name of a data set"),
        ("", "'' is no name of a data set"),
        ("imdb_reviews", "imdb_reviews is not for image classification"),
        ("voc", "voc is not for image classification: an example has 1 images and 0 labels"),
        ("coco", "it takes TensorFlow"),
    ],
)
def test_names_that_cannot_be_loaded(name, told, tmp_path):
    with pytest.raises(InputError, match=told) as caught:
        tfds.load(name, PREPROCESSING, data_dir=tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("split", "told"),
    [
        ("trian", "beans has no split 'trian'; the nearest: train"),
        ("train[:10%", "'train[:10%' is no split"),
        ("train[5]", "'train[5]' is no split"),
        ("", "'' is no split"),
        ("train[1:50%]", "begins and ends in different units"),
        ("train[:101%]", "101% reaches beyond the 4 examples of train"),
        ("train[:5]", "5 reaches beyond the 4 examples of train"),
        ("train[-5:]", "-5 reaches beyond the 4 examples of train"),
        ("train[2:2]", "the split 'train[2:2]' of beans is empty"),
    ],
)
def test_splits_that_there_are_not(split, told, publish):
    files, _ = beans()
    where = publish(files)
    with pytest.raises(InputError) as caught:
        tfds.load("beans", PREPROCESSING, split=split, **where)
    assert told in str(caught.value)


def test_images_of_different_sizes_need_a_preprocessing(publish, tmp_path):
    with pytest.raises(InputError, match="the images of food101 differ in size; give a preprocessing"):
        tfds.load("food101", data_dir=tmp_path)
    files, _ = beans()
    with pytest.raises(InputError, match=r"image 0 is \[12, 10, 3\], not \[500, 500, 3\]; give a preprocessing"):
        tfds.load("beans", **publish(files))


def test_a_set_that_has_to_be_got_by_hand_says_so(tmp_path):
    with pytest.raises(InputError, match="imagenet2012 has to be downloaded by hand; give the folder as manual_dir: "):
        tfds.load("imagenet2012", PREPROCESSING, data_dir=tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        tfds.load("mnist", data_dir=tmp_path, manual_dir=tmp_path / "nowhere")
