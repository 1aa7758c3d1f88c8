"""Data sets of tensorflow-datasets, prepared and read without TensorFlow; the only file that knows that library."""

import contextlib
import functools
import glob
import hashlib
import http.client
import io
import os
import queue
import re
import shutil
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import cv2
import jax
import numpy as np
from PIL import ImageFile
from rich.console import Console
from rich.progress import wrap_file

from jaxdl.data import store
from jaxdl.data.images import Preprocessing
from jaxdl.data.sources import Arrays, Images
from jaxdl.errors import BadFile, InputError, nearest

PATIENCE = 10.0
"""Seconds in which a server has to begin its answer, and then to send more of it."""
NAME = re.compile(r"(\w+)(?:/([\w.-]+))?(?::[\d.*]+)?")
"""A data set's name, and its configuration if it has several."""
SPLIT = re.compile(r"([\w-]+)(?:\[(-?\d+(?:\.\d+)?%|-?\d+)?:(-?\d+(?:\.\d+)?%|-?\d+)?\])?")
"""A split's name, and where the slice of it begins and ends: "train", "train[:10%]", "train[100:]"."""

# When the files of Fashion-MNIST were packed, which gzip keeps in their headers (seconds since 1970). Debian's package
# dataset-fashion-mnist has them without times and names, and all else is the same.
# https://github.com/zalandoresearch/fashion-mnist/tree/master/data/fashion
PACKED = {
    "t10k-images-idx3-ubyte.gz": 1504176627,
    "t10k-labels-idx1-ubyte.gz": 1504176627,
    "train-images-idx3-ubyte.gz": 1504176606,
    "train-labels-idx1-ubyte.gz": 1504176606,
}


class Slice(NamedTuple):
    """Some examples of a split; a boundary is a number, a share such as "10%", or empty."""

    split: str
    start: str
    stop: str


@dataclass(frozen=True, eq=False)
class Records(Sequence[bytes]):
    """Encoded images, read from the files of a prepared data set when they are asked for."""

    parts: tuple[Any, ...]
    """Serialized examples: a sequence for each part of a split such as "train+test"."""
    rows: np.ndarray
    """Which of `parts`, and which example of it: int64 `[N,2]`."""
    feature: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        """The contents of an image file; for a slice, such records."""
        if isinstance(index, slice):
            return replace(self, rows=self.rows[index])
        part, row = self.rows[index].tolist()
        return _value(self.parts[part][row], self.feature).bytes_list.value[0]

    def __iter__(self) -> Iterator[bytes]:
        """All of them, which is several times faster than one by one."""
        for rows in np.split(self.rows, np.flatnonzero(np.diff(self.rows[:, 0])) + 1):
            for record in _records(self.parts[rows[0, 0]], rows[:, 1].tolist()):
                yield _value(record, self.feature).bytes_list.value[0]


def load(
    name: str,
    preprocessing: Preprocessing | None = None,
    *,
    split: str | Sequence[str] = "train",
    data_dir: str | Path | None = None,
    manual_dir: str | Path | None = None,
) -> Any:
    """An image classification set of tensorflow-datasets, downloaded and prepared if that has not been done.

    What has been prepared is read without a network. What is downloaded, or was downloaded by hand, has to have the
    size and the SHA-256 that tensorflow-datasets has registered for it.

    Args:
      name: as in its catalogue: "food101", "eurosat/rgb", "mnist:3.0.1".
      preprocessing: None for the images as they are, which then have to be of one size.
      split: "train", "train[:500]", "train[10%:]", "train+test", or several of these. A slice in percent takes that
        share of every class, its first examples first; slices that meet have nothing in common and leave nothing out.
      data_dir: where prepared sets are; None for `~/tensorflow_datasets`, or the variable `TFDS_DATA_DIR`.
      manual_dir: a folder with the files that would be downloaded, under their own names; nothing is downloaded then.

    Returns:
      An `Arrays` of uint8 `[N,H,W,C]`, or with a preprocessing an `Images` that reads and decodes an example when it
      is asked for; a tuple of them for several splits. Labels are int32 `[N]`.

    Raises:
      InputError: there is no such data set, configuration or split, it is not for image classification, it cannot be
        downloaded, or it needs TensorFlow to be prepared.
      BadFile: a file is missing from `manual_dir`, or is not the registered one.
    """
    splits = (split,) if isinstance(split, str) else tuple(split)
    wanted = {text: [_slice(part) for part in text.split("+")] for text in splits}
    with _without_tensorflow():
        builder = _builder(name, data_dir)
        image, label = _supervised(builder)
        feature = builder.info.features[image]
        if feature.np_dtype != np.uint8:
            raise InputError(f"the images of {name} are {feature.np_dtype}; only those with 8 bits are read")
        if preprocessing is None and None in feature.shape:
            raise InputError(f"the images of {name} differ in size; give a preprocessing")
        if not builder.data_path.exists():
            _prepare(builder, manual_dir)
        with _explained(f"{builder.data_dir} cannot be read; remove it, and it is prepared again"):
            examples = {part.split: _examples(builder, part.split, image, label) for part in sum(wanted.values(), [])}
            classes = tuple(builder.info.features[label].names)
            sources: dict[str, Arrays | Images] = {}
            for text, parts in wanted.items():
                known = [examples[part.split] for part in parts]
                rows = [_rows(labels, part) for (_, labels), part in zip(known, parts, strict=True)]
                chosen = np.concatenate([labels[row] for (_, labels), row in zip(known, rows, strict=True)])
                if not len(chosen):
                    raise InputError(f"the split {text!r} of {name} is empty")
                where = np.concatenate([np.stack([np.full_like(row, n), row], axis=1) for n, row in enumerate(rows)])
                records = Records(tuple(serialized for serialized, _ in known), where, image)
                if preprocessing is None:
                    sources[text] = Arrays(_decode(records, feature), chosen, classes)
                else:
                    sources[text] = Images(records, chosen, classes, preprocessing)
    return sources[split] if isinstance(split, str) else tuple(sources[text] for text in splits)


def _slice(text: str) -> Slice:
    match = SPLIT.fullmatch(text.strip())
    if not match:
        raise InputError(f"{text!r} is no split; such are: train, train[:10%], train[100:], train+test")
    part = Slice(*match.groups(default=""))
    if part.start and part.stop and part.start.endswith("%") != part.stop.endswith("%"):
        raise InputError(f"the split {text!r} begins and ends in different units; take percent for both or for none")
    return part


def _rows(labels: np.ndarray, part: Slice) -> np.ndarray:
    """The examples in a slice, in the order of the file: int64 `[N]`."""
    count = len(labels)

    def place(boundary: str, default: int) -> int:
        if not boundary:
            return default
        share = boundary.endswith("%")
        value, whole = float(boundary.rstrip("%")), 100 if share else count
        value += whole if boundary.startswith("-") else 0
        if not 0 <= value <= whole:
            raise InputError(f"{boundary} reaches beyond the {count} examples of {part.split}")
        return round(value * count / 100) if share else int(value)

    rows = np.arange(count)
    if "%" in part.start + part.stop:
        # The order in which the classes fill up evenly: any piece of it has as much of each as whole examples allow.
        filled = np.empty(count)
        for label in np.unique(labels):
            members = np.flatnonzero(labels == label)
            filled[members] = (np.arange(len(members)) + 0.5) / len(members)
        rows = np.argsort(filled, kind="stable")
    return np.sort(rows[place(part.start, 0) : place(part.stop, count)])


def _builder(name: str, data_dir: str | Path | None) -> Any:
    """What tensorflow-datasets knows of a set, with a way to encode images that needs no TensorFlow."""
    import tensorflow_datasets as tfds

    match = NAME.fullmatch(name)
    if not match:
        raise InputError(f"{name!r} is no name of a data set; such are: mnist, eurosat/rgb, mnist:3.0.1")
    base, config = match.groups()
    with _explained(f"{name} cannot be loaded"):
        try:
            builder = tfds.builder(name, data_dir=None if data_dir is None else Path(data_dir).expanduser())
        except tfds.core.registered.DatasetNotFoundError:
            known = tfds.list_builders(with_community_datasets=False)
            raise InputError(f"there is no data set {base!r}{nearest(base, known)}") from None
        except ValueError:
            configs = tfds.builder_cls(base).builder_configs
            if config is None or config in configs:
                raise
            raise InputError(f"{base} has no configuration {config!r}{nearest(config, configs)}") from None
    for feature in _features(builder).values():
        if isinstance(feature, tfds.features.Image):
            encoder = feature._image_encoder
            encoder._encode_image = functools.partial(_encode, encoder.encoding_format)
    return builder


def _features(builder: Any) -> dict[str, Any]:
    import tensorflow_datasets as tfds

    features = builder.info.features
    return dict(features) if isinstance(features, tfds.features.FeaturesDict) else {}


def _supervised(builder: Any) -> tuple[str, str]:
    """The names of the features that are the image and its class."""
    import tensorflow_datasets as tfds

    features = _features(builder)
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    match builder.info.supervised_keys:
        case (image, label) if image in images and label in labels:
            return image, label
    if len(images) == 1 and len(labels) == 1:
        return images[0], labels[0]
    raise InputError(
        f"{builder.name} is not for image classification: an example has {len(images)} images and {len(labels)} labels"
    )


def _examples(builder: Any, split: str, image: str, label: str) -> tuple[Any, np.ndarray]:
    """A split's serialized examples, and their labels: int32 `[N]`."""
    import tensorflow_datasets as tfds

    if builder.info.splits and split not in builder.info.splits:  # tfds.testing.mock_data knows of no splits
        raise InputError(f"{builder.name} has no split {split!r}{nearest(split, builder.info.splits)}")
    # tfds.testing.mock_data makes up all features, and fails at boxes; no others are read.
    builder.info._features = tfds.features.FeaturesDict({key: builder.info.features[key] for key in (image, label)})
    records = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
    kept = Path(builder.data_dir, f"{label}-{split}.npy")
    if kept.exists():
        return records, np.array(store.read(kept))
    values = (_value(record, label).int64_list.value[0] for record in _records(records, range(len(records))))
    labels = np.fromiter(values, np.int32, len(records))
    if (labels < 0).any():
        raise InputError(f"the split {split!r} of {builder.name} has no labels")
    if kept.parent.exists():  # the images are between the labels, so reading them takes long
        with contextlib.suppress(InputError):  # the folder may be somebody else's
            store.keep(kept, labels.shape, labels.dtype, [labels])
    return records, labels


def _records(examples: Any, rows: Sequence[int]) -> Iterator[bytes]:
    """These examples, by as many at a time as are read fast and held easily."""
    for block in (rows[first : first + 256] for first in range(0, len(rows), 256)):
        try:
            found = examples.__getitems__(block)
        except TypeError:  # tfds.testing.mock_data forgets an argument here
            found = [examples[row] for row in block]
        yield from found


def _value(record: bytes, feature: str) -> Any:
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example.FromString(record).features.feature[feature]


def _decode(records: Records, feature: Any) -> np.ndarray:
    """All images: uint8 `[N,H,W,C]`."""
    images = np.empty((len(records), *feature.shape), np.uint8)
    for row, record in enumerate(records):
        image = feature.decode_example_np(record)
        if image.shape != feature.shape:
            raise InputError(f"image {row} is {list(image.shape)}, not {list(feature.shape)}; give a preprocessing")
        images[row] = image
    return images


def _prepare(builder: Any, manual_dir: str | Path | None) -> None:
    """Make the files of a data set, all of them or none."""
    import tensorflow_datasets as tfds

    manual = None if manual_dir is None else Path(manual_dir).expanduser()
    if manual is not None and not manual.is_dir():
        raise InputError(f"there is no folder {manual}")
    told = contextlib.redirect_stdout(io.StringIO())  # that it begins and that it ends; bars are on stderr
    with _explained(f"{builder.name} cannot be prepared"), told, contextlib.ExitStack() as extracted:
        files = Files(builder, manual, extracted)
        builder._make_download_manager = lambda **_: files
        config = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(file_format="array_record", download_config=config)


class Files:
    """What a builder asks for the files that it is made of, in the place of tensorflow-datasets' `DownloadManager`."""

    def __init__(self, builder: Any, manual: Path | None, extracted: contextlib.ExitStack) -> None:
        self.builder, self.manual, self.extracted = builder, manual, extracted
        self.registered = _registered(builder)
        self.download_dir = builder.data_dir_root / "downloads"
        self.downloaded_size = 0

    @property
    def manual_dir(self) -> Any:
        """The folder with what its publisher lets nobody download without an account."""
        if self.manual is None:
            how = _one_line(self.builder.MANUAL_DOWNLOAD_INSTRUCTIONS)
            raise InputError(f"{self.builder.name} has to be downloaded by hand; give the folder as manual_dir: {how}")
        return _path(self.manual)

    def download(self, urls: Any) -> Any:
        """Verified files, nested as their addresses are."""
        return jax.tree.map(lambda item: self._file(item if isinstance(item, str) else item.url), urls)

    def extract(self, paths: Any) -> Any:
        """Folders with what is in archives, or files with what is in compressed files."""
        return jax.tree.map(self._extract, paths)

    def download_and_extract(self, urls: Any) -> Any:
        """Both."""
        return jax.tree.map(lambda item: self._extract(self.download(item), _method(item)), urls)

    def iter_archive(self, archive: Any) -> Iterator[tuple[str, Any]]:
        """The names and the opened files in an archive, but for the hidden ones and those that lie outside of it."""
        from tensorflow_datasets.core.download import extractor

        path = _path(getattr(archive, "path", archive))
        return extractor.iter_archive(path, _method(archive) or _method_by_name(path))

    def _extract(self, archive: Any, method: Any = None) -> Any:
        from tensorflow_datasets.core.download import extractor

        path = _path(getattr(archive, "path", archive))
        method = method or _method(archive) or _method_by_name(path)
        if method.name == "NO_EXTRACT":
            return path
        self.download_dir.mkdir(parents=True, exist_ok=True)
        folder = self.extracted.enter_context(tempfile.TemporaryDirectory(prefix="extracted-", dir=self.download_dir))
        content = Path(folder)
        size = os.path.getsize(path)
        with path.open("rb") as file, _shown(file, size, f"unpacking {path.name}") as source:
            for name, member in extractor.iter_archive(source, method):
                target = Path(folder, name or "content")
                if not name:  # a compressed file, and no archive
                    content = target
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("wb") as copy:
                    shutil.copyfileobj(member, copy)
        return _path(content)

    def _file(self, url: str) -> Any:
        expected = self.registered.get(url)
        if expected is None:
            raise InputError(f"{self.builder.name} needs {url}, for which no checksum is registered")
        name = _name(url, expected)
        self.downloaded_size += expected.size
        path = Path(self.download_dir, expected.checksum[:16], name)
        if path.is_file() and not _difference(path, expected):
            return _path(path)
        if self.manual is not None:
            return _path(self._by_hand(name, expected, path))
        try:
            _download(url, expected, path)
        except ConnectionError as error:
            raise InputError(
                f"{self.builder.name} is not on this machine, and {urlsplit(url).hostname} does not send it ({error}); "
                f"put these files into a folder and give it as manual_dir: {self._names(name)}"
            ) from None
        return _path(path)

    def _by_hand(self, name: str, expected: Any, rebuilt: Path) -> Path:
        assert self.manual is not None
        path = self.manual / name
        if not path.is_file():
            raise BadFile(f"there is no {path}; {self.builder.name} is made of these files: {self._names(name)}")
        difference = _difference(path, expected)
        if not difference:
            return path
        if name in PACKED:
            _repack(path, PACKED[name], rebuilt)
            if not _difference(rebuilt, expected):
                return rebuilt
            rebuilt.unlink()
        raise BadFile(f"{path} is not the file that {self.builder.name} is made of: {difference}")

    def _names(self, name: str) -> str:
        """The files of the data set, as far as it can tell: what is registered may be of several configurations."""
        registered = {} if self.builder.builder_configs else self.builder.url_infos or {}
        names = sorted({name, *(_name(*item) for item in registered.items())})
        return ", ".join(names[:16]) + (f" … ({len(names)})" if len(names) > 16 else "")


def _registered(builder: Any) -> dict[str, Any]:
    """For each address, the size in bytes, the SHA-256 and perhaps the name of its file."""
    from tensorflow_datasets.core.download import checksums

    return {**checksums.get_all_url_infos(), **(builder.url_infos or {})}


def _name(url: str, expected: Any) -> str:
    return expected.filename or Path(unquote(urlsplit(url).path)).name


def _path(path: Any) -> Any:
    """The kind of path that builders are written for."""
    from etils import epath

    return epath.Path(path)


def _method(item: Any) -> Any:
    """How a `tfds.download.Resource` says that it is packed; None for anything else."""
    return getattr(item, "_extract_method", None)


def _method_by_name(path: Any) -> Any:
    from tensorflow_datasets.core.download import resource

    return resource.guess_extract_method(path.name)


def _difference(path: Path, expected: Any) -> str:
    """How a file differs from the registered one; empty if it does not."""
    size = path.stat().st_size
    with path.open("rb") as file:
        digest = "" if size != expected.size else hashlib.file_digest(file, "sha256").hexdigest()
    if digest == expected.checksum:
        return ""
    found = f"the SHA-256 {digest}" if digest else f"{size} bytes"
    wanted = f"the SHA-256 {expected.checksum}" if digest else f"{int(expected.size)}"
    return f"it has {found}, and should have {wanted}"


def _repack(path: Path, time: int, target: Path) -> None:
    """A gzip file with another header, which tells its name and when it was packed; RFC 1952."""
    content = path.read_bytes()
    header = b"\x1f\x8b\x08\x08" + time.to_bytes(4, "little") + content[8:10] + path.stem.encode() + b"\0"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(header + content[10:])


def _download(url: str, expected: Any, path: Path) -> None:
    """A file from the network, complete and verified or not at all.

    Raises:
      ConnectionError: it cannot be had.
      BadFile: it is not the registered one.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with _open(url) as answer, _shown(answer, expected.size, path.name) as source:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as file:
                while block := _block(source):
                    file.write(block)
                    if file.tell() > expected.size:
                        break
        if difference := _difference(draft, expected):
            raise BadFile(f"{url} is no longer the file that is registered: {difference}")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _open(url: str) -> Any:
    """The answer of a server, which begins within `PATIENCE`; looking up its name has no time limit of its own."""
    answers: queue.Queue[Any] = queue.Queue()

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "jaxdl"})
        try:
            answers.put(urllib.request.urlopen(request, timeout=PATIENCE))
        except Exception as error:  # whatever it is, it is raised where the answer is awaited
            if isinstance(error, urllib.error.HTTPError):  # which is an answer, too
                error.close()
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=PATIENCE)
    except queue.Empty:
        raise ConnectionError(f"no answer in {PATIENCE:g} s") from None
    if isinstance(answer, Exception):
        reason = answer.reason if type(answer) is urllib.error.URLError else answer
        raise ConnectionError(getattr(reason, "strerror", None) or _one_line(reason))
    return answer


def _block(source: Any) -> bytes:
    try:
        return source.read(1 << 20)
    except (OSError, http.client.HTTPException) as error:
        raise ConnectionError(_one_line(error)) from None


def _shown(file: Any, size: int, what: str) -> Any:
    """A file that shows how much of it has been read, on a terminal."""
    console = Console(stderr=True)
    return wrap_file(file, int(size), description=what, console=console, disable=not console.is_terminal)


def _one_line(error: Any) -> str:
    """What it says, without what tensorflow-datasets tells before it: how a builder was called."""
    return " ".join(str(error).split()).rpartition('}": ')[2] or type(error).__name__


@contextlib.contextmanager
def _explained(what: str) -> Iterator[None]:
    """Anything that goes wrong in the code of a data set, which is not ours, is an InputError."""
    try:
        yield
    except InputError as error:
        raise type(error)(_one_line(error)) from None
    except Exception as error:  # of any kind, as the code is anybody's
        reason = _one_line(error)  # it may begin with a whole example; what is wrong with it comes last
        raise InputError(f"{what}: {reason if len(reason) <= 400 else f'… {reason[-400:]}'}") from error


class StandIn(SimpleNamespace):
    """A part of TensorFlow, with what builders of images use of it."""

    def __getattr__(self, name: str) -> Any:
        raise InputError(f"it takes TensorFlow to prepare this data set ({vars(self)['path']}.{name})")


class Encoded(bytes):
    """The contents of an image file, as TensorFlow hands them out."""

    def numpy(self) -> bytes:
        return bytes(self)


def _encode(kind: str, image: np.ndarray) -> Encoded:
    """An image `[H,W,C]` as a "png" or "jpeg"; OpenCV and TensorFlow agree on a JPEG's quality, 95, and 4:2:0."""
    return Encoded(cv2.imencode(f".{kind}", _channels_turned(image))[1].tobytes())


def _decode_image(content: bytes) -> np.ndarray:
    """An image file to `[H,W,C]`, with the channels that it has."""
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise ValueError("an image is damaged")
    return _channels_turned(image[..., None] if image.ndim == 2 else image)


def _channels_turned(image: np.ndarray) -> np.ndarray:
    """RGB for BGR, which is the order of OpenCV, and the other way round; alpha and gray stay."""
    return image if image.shape[2] < 3 else np.ascontiguousarray(image[:, :, [2, 1, 0, 3][: image.shape[2]]])


def _gfile_open(name: Any, mode: str = "r") -> Any:
    return open(name, mode, encoding=None if "b" in mode else "utf-8")


TENSORFLOW = StandIn(
    path="tf",
    io=StandIn(
        path="tf.io",
        encode_jpeg=functools.partial(_encode, "jpeg"),
        gfile=StandIn(
            path="tf.io.gfile",
            GFile=_gfile_open,
            exists=os.path.exists,
            glob=glob.glob,
            isdir=os.path.isdir,
            listdir=os.listdir,
            remove=os.remove,
            walk=os.walk,
        ),
    ),
    image=StandIn(path="tf.image", decode_image=_decode_image),
    compat=StandIn(path="tf.compat", as_bytes=str.encode),
    # What tensorflow-datasets looks for when a write fails; the system's own error is not of this kind and passes.
    errors=StandIn(path="tf.errors", ResourceExhaustedError=type("ResourceExhaustedError", (Exception,), {})),
    shape=np.shape,
)
_one_at_a_time = threading.Lock()


@contextlib.contextmanager
def _without_tensorflow() -> Iterator[None]:
    """What tensorflow-datasets does inside needs no TensorFlow, and leaves nothing changed in this process."""
    from tensorflow_datasets.core import shuffle
    from tensorflow_datasets.core.utils import lazy_imports_utils, tqdm_utils

    imported = "tensorflow" in sys.modules  # by somebody else; tensorflow-datasets then uses types of it
    with (
        _one_at_a_time,
        _swapped(lazy_imports_utils.tensorflow, **({} if imported else {"_module": TENSORFLOW})),
        # A large set is sorted in files that are all open at once, 1000 of them; systems allow as few as 256.
        _swapped(shuffle, BUCKETS_NUMBER=100),
        _swapped(tqdm_utils, _active=sys.stderr.isatty()),
        _swapped(ImageFile, LOAD_TRUNCATED_IMAGES=ImageFile.LOAD_TRUNCATED_IMAGES),
    ):
        yield


@contextlib.contextmanager
def _swapped(module: Any, **values: Any) -> Iterator[None]:
    """Other values for attributes of a module, or for none where there are none."""
    names = vars(module)
    before = {name: names[name] for name in values if name in names}
    names.update(values)
    try:
        yield
    finally:
        for name in values:
            del names[name]
        names.update(before)
