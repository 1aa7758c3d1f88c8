"""Save and restore. The only file that imports orbax.

A checkpoint holds arrays as orbax writes them, the small ones of an item and a type as one, and `manifest.json`: plain
data of where the training stands and with what, where each array is, and a SHA-256 of it, of every file, and of itself.
What is read is compared with them, so a flipped bit is an error and not a number. Orbax alone loads one in silence, and
prints tracebacks of others.
"""

import concurrent.futures
import hashlib
import json
import logging
import math
import os
import platform
import re
import shutil
import sys
import threading
import time
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import parallel, trees
from jaxdl.errors import BadFile, InputError
from jaxdl.train import TrainState

PACKAGES = ("jaxdl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")
MANIFEST = "manifest.json"
QUARANTINE = "quarantine"  # the folder beside the steps for those that are damaged
GONE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # what is damage; other errors pass
SMALL = 1 << 18  # elements up to which arrays are kept together; a larger one is worth its time
LEFTOVER = re.compile(r"\d{8,}\..*tmp.*")  # what orbax, or we, had begun to write or to delete

T = TypeVar("T")


class Saver:
    """Writes checkpoints in the background, one after the other, while training goes on. Where several processes train,
    they write together, each its parts, and go on then: all of them have to call `save`, for the same folder.

    As a context, or by `close`, it waits for the last; where nobody does, the process does not end before it is
    written. What went wrong is raised by the next call.

    Args:
      directory: of the checkpoints. What is left there of saves that were killed is removed.
      config: plain data to keep with each of them: what the network is, its classes, its preprocessing.
    """

    def __init__(self, directory: str | Path, config: Mapping[str, Any] | None = None):
        self.directory = Path(directory).resolve()
        self._config = config
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._pending: deque[Future[None]] = deque()
        self.saves, self.seconds = 0, 0.0  # how many were written, and how long they took together
        self._pool.submit(_orbax)  # takes more than half a second, while the first step is compiled
        wait(directory)  # for what was saved there before, whose files it would remove
        if self.directory.is_dir() and parallel.first():
            _clean(self.directory)

    def save(
        self,
        state: TrainState,
        *,
        best: Mapping[str, Any] | None = None,
        place: Mapping[str, Any] | None = None,
        keep: Collection[int] | None = None,
    ) -> Path:
        """Copy the state, and write it to `directory/STEP`, in one move: a checkpoint is there complete or not at all.

        Params, model_state and opt_state are separate items, so that each can be read without the others.

        Args:
          best: other variables to keep with it, `{"params": …}`.
          place: plain data to keep with it, which `place` reads.
          keep: once these steps are all there, the other ones are removed; None keeps all.

        Raises:
          InputError: of an earlier save: the disk is full or cannot be written, or that step is saved already.
        """
        while self._pending and (self._pending[0].done() or len(self._pending) > 1):
            self._pending.popleft().result()
        path = self.directory / f"{int(state.step):08d}"
        items: dict[str, Any] = {
            "params": state.params,
            "model_state": state.model_state,
            "opt_state": state.opt_state,
            "average": state.average,
            "best": dict(best or {}),
            "progress": {"step": state.step, "key": state.key},
        }
        # The next step takes the memory of the state, so these are copies, unless they are written before it.
        copy = _shared if parallel.several() else np.array
        items = {name: jax.tree.map(copy, _keyless(item)) for name, item in items.items() if jax.tree.leaves(item)}
        manifest = {
            "place": dict(place or {}),
            "config": self._config,
            "versions": versions(),
            "topology": topology(),
        }

        def write() -> None:
            begun = time.monotonic()
            _write(path, items, manifest, keep)
            self.seconds += time.monotonic() - begun
            self.saves += 1

        if parallel.several():  # orbax talks with the other processes, which would get between the steps
            write()
            return path
        _unfinished.add(self)
        self._pending.append(self._pool.submit(write))
        return path

    def close(self) -> None:
        """Wait until everything is written.

        Raises:
          InputError: as `save`.
        """
        self._pool.shutdown()
        _unfinished.discard(self)
        while self._pending:
            self._pending.popleft().result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_unfinished: set[Saver] = set()


def wait(directory: str | Path) -> None:
    """Wait until what this process saves there is written, or has failed."""
    for saver in list(_unfinished):
        if saver.directory == Path(directory).resolve():
            concurrent.futures.wait(list(saver._pending))


def _end() -> None:
    for saver in list(_unfinished):
        try:
            saver.close()
        except Exception as error:  # nobody is left to raise it to, and the other savers have theirs to write
            print(f"jaxdl: {error}", file=sys.stderr)


# Ahead of the end of all thread pools, which orbax needs to write; what `atexit` registers comes after it, and so does
# waiting for threads. Python has no public hook as early; types know public names only.
threading._register_atexit(_end)  # type: ignore[attr-defined]
if sys.platform != "win32":  # which has no fork
    os.register_at_fork(after_in_child=_unfinished.clear)  # the threads that write are the parent's


_copied = jax.jit(jnp.copy)  # compiled, as for a key it takes a tenth of the time


def copied(state: TrainState) -> TrainState:
    """A state on the host, which no step can take the memory of; what other processes hold parts of stays there."""

    def copy(leaf: Any) -> Any:
        stays = _is_key(leaf) or not getattr(leaf, "is_fully_addressable", True)
        return _copied(leaf) if stays else np.array(leaf)

    whole: TrainState = jax.tree.map(copy, state)
    return whole


def save(
    directory: str | Path,
    state: TrainState,
    *,
    best: Mapping[str, Any] | None = None,
    place: Mapping[str, Any] | None = None,
) -> Path:
    """Write the whole state to `directory/STEP`, and wait for it; see `Saver.save`."""
    with Saver(directory) as saver:
        return saver.save(state, best=best, place=place)


def _write(path: Path, items: Mapping[str, Any], manifest: Mapping[str, Any], keep: Collection[int] | None) -> None:
    if parallel.most(path.exists()):
        raise InputError(f"{path} is saved already")
    draft = path.with_name(f"{path.name}.draft-tmp")
    with _loops_closed():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            packed = {item: _packed(tree) for item, tree in items.items()}
            memory = _orbax().options.MemoryOptions(deepcopy_host_arrays=False)  # they are copies, which nobody changes
            with _orbax().Context(memory_options=memory):
                _orbax().save_checkpointables(draft, {item: stored for item, (stored, _) in packed.items()})
            arrays = {
                f"{item}/{name}": _described(leaf) | starts.get(name, {})
                for item, (_, starts) in packed.items()
                for name, leaf in _named(items[item]).items()
            }
            if parallel.first():
                _finish(draft, path, {**manifest, "arrays": arrays})
        except Exception as error:  # orbax lets through whatever its backends raise
            for _ in range(20):  # threads of orbax may still be writing
                _clean(path.parent)
                time.sleep(0.05)
            if "No space left" in str(error):
                raise InputError(f"the disk is full: cannot save {path}; free some space") from None
            of_system = re.search(r"([^:]+) \[(os_error_code|OS error)", str(error))  # by way of tensorstore
            if isinstance(error, OSError) or of_system is not None:
                reason = of_system[1].strip() if of_system else getattr(error, "strerror", None) or error
                raise InputError(f"cannot save {path}: {reason}") from None
            raise
    saved = set(steps(path.parent))
    aside = {
        int(name) for each in (path.parent / QUARANTINE).glob("*") if _is_step(name := each.name.partition("-")[0])
    }
    if keep is not None and saved.union(aside).issuperset(keep) and parallel.first():
        for step in saved.difference(keep):
            with suppress(OSError):  # it was moved meanwhile, or will be removed the next time
                delete(path.parent, step)
    parallel.most(0)  # until it is there for all


def _finish(draft: Path, path: Path, manifest: Mapping[str, Any]) -> None:
    """Make a checkpoint of what orbax has written."""
    files = {file.relative_to(draft).as_posix(): _file_digest(file) for file in _files(draft)}
    manifest = {**manifest, "files": files}
    text = json.dumps(manifest)
    (draft / MANIFEST).write_text(f'{{"sha256": "{_digest(text.encode())}", "manifest": {text}}}\n')
    _sync(*draft.rglob("*"), draft)
    draft.rename(path)
    _sync(path.parent)


def _packed(tree: Any) -> tuple[Any, dict[str, dict[str, int]]]:
    """The small arrays of the host end to end, as one `[N]` for each type, and where in it each of them starts; large
    ones, and those that several processes hold, stay as they are. Orbax takes most of a millisecond for an array,
    however small, and a network has hundreds."""
    parts, ends = defaultdict[str, list[np.ndarray]](list), Counter[str]()
    starts, rest = dict[str, dict[str, int]](), dict[str, Any]()
    for name, leaf in _named(tree).items():
        if isinstance(leaf, np.ndarray) and leaf.size <= SMALL:
            kind = str(leaf.dtype)
            parts[kind].append(leaf.reshape(-1))
            starts[name] = {"start": ends[kind]}
            ends[kind] += leaf.size
        else:
            rest[name] = leaf
    packed = {**trees.from_paths(rest), **{kind: np.concatenate(parts[kind]) for kind in ends if ends[kind]}}
    return packed if starts else tree, starts


def _as_packed(tree: Any, said: Mapping[str, Any]) -> Any:
    """The arrays that `_packed` has made of a tree, as orbax takes them for reading; `said` is what the manifest says
    of each leaf."""
    sizes = Counter[str]()
    for entry in said.values():
        sizes[entry["dtype"]] += math.prod(entry["shape"]) if "start" in entry else 0
    rest = {name: _abstract(leaf) for name, leaf in _named(tree).items() if "start" not in said[name]}
    # Arrays of NumPy are read into the host's memory; no device need have room for all.
    whole = {kind: np.broadcast_to(np.empty((), kind), size) for kind, size in sizes.items() if size}
    return {**trees.from_paths(rest), **whole}


def _unpacked(packed: Any, tree: Any, said: Mapping[str, Any]) -> Any:
    """The tree that was packed, laid out as `tree` is."""
    found = _named(packed)

    def leaf(name: str, like: jax.ShapeDtypeStruct) -> jax.Array:
        if "start" not in said[name]:
            return found[name]
        start = said[name]["start"]
        kept = found.get(str(like.dtype), np.empty(0, like.dtype))
        array = kept[start : start + like.size].reshape(like.shape).copy()
        return jax.make_array_from_callback(like.shape, like.sharding, array.__getitem__)

    leaves = [leaf(name, _abstract(like)) for name, like in _named(tree).items()]
    return jax.tree.unflatten(jax.tree.structure(tree), leaves)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _keyless(tree: Any) -> Any:
    """The tree with the numbers of its typed keys, which is what can be written."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _keyed(leaf: Any, like: Any) -> Any:
    return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf


def _shared(leaf: Any) -> Any:
    """A leaf as orbax takes it from several processes: an array that is divided among them, or what each has, of which
    the first writes its own."""
    return leaf if parallel.divided(leaf) else np.asarray(leaf)


def _sync(*paths: Path) -> None:
    """Wait until they are on the disk, should the power be cut."""
    if sys.platform != "win32":  # where folders cannot be opened
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _clean(directory: Path) -> None:
    """Remove what is left of saves and deletions that did not end."""
    for path in directory.iterdir() if directory.is_dir() else ():
        if LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True)


def versions() -> dict[str, str]:
    """Those of the packages that make the numbers."""
    return {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def topology() -> dict[str, Any]:
    """The devices of this process and those that it shares the work with."""
    return {"platform": jax.default_backend(), "devices": jax.device_count(), "processes": jax.process_count()}


def restore(directory: str | Path, like: TrainState, step: int | None = None) -> TrainState:
    """Read a whole state, bit for bit as it was saved, with the devices and layout of `like`.

    Args:
      directory: what was given to `save`.
      like: a state of the same model and optimizer, from `train.init_state`.
      step: which one; None for the latest that is whole (see `newest`).

    Raises:
      BadFile: it is damaged.
      InputError: there is no such checkpoint, or it is of another model or optimizer; the differences are listed.
    """
    names = ("params", "model_state", "opt_state", "average")
    like_items = {name: getattr(like, name) for name in names if jax.tree.leaves(getattr(like, name))}
    like_items["progress"] = {"step": like.step, "key": like.key}

    def read(path: Path) -> dict[str, Any]:
        saved = dict.fromkeys(name.partition("/")[0] for name in _manifest(path)["arrays"])
        if more := [name for name in saved if name not in (*like_items, "best")]:
            raise InputError(f"{path} was saved for another model or optimizer: it has {', '.join(more)} as well")
        return _read(path, {name: _keyless(item) for name, item in like_items.items()})

    items = jax.tree.map(_keyed, _at(directory, step, read), like_items)
    return TrainState(
        items["progress"]["step"],
        items["params"],
        items.get("model_state", {}),
        items.get("opt_state", like.opt_state),
        items["progress"]["key"],
        items.get("average", {}),
    )


def restore_variables(directory: str | Path, like: Mapping[str, Any], step: int | None = None) -> dict[str, Any]:
    """Read a model's variables only, as evaluation takes them: with the averages of the parameters, where they were
    kept. `like` holds arrays or shapes; step and errors as in `restore`."""
    like = dict(like)
    items = {"params": like.pop("params")}
    if jax.tree.leaves(like):
        items["model_state"] = like

    def read(path: Path) -> dict[str, Any]:
        saved = _manifest(path)["arrays"]
        averaged = {name: leaf for name, leaf in trees.paths(items["params"]).items() if f"average/{name}" in saved}
        return _read(path, {**items, **({"average": trees.from_paths(averaged)} if averaged else {})})

    found = _at(directory, step, read)
    params = trees.paths(found["params"]) | trees.paths(found.get("average", {}))
    return {"params": trees.from_paths(params), **found.get("model_state", {})}


def restore_best(directory: str | Path, like: Mapping[str, Any], step: int | None = None) -> dict[str, Any] | None:
    """Read the variables that were given to `save` as `best`; None if there were none."""

    def read(path: Path) -> dict[str, Any] | None:
        there = any(name.startswith("best/") for name in _manifest(path)["arrays"])
        best: dict[str, Any] | None = _read(path, {"best": dict(like)})["best"] if there else None
        return best

    return _at(directory, step, read)


def place(directory: str | Path, step: int | None = None) -> dict[str, Any]:
    """The plain data that were given to `save`."""
    found: dict[str, Any] = manifest(directory, step)["place"]
    return found


def manifest(directory: str | Path, step: int | None = None) -> dict[str, Any]:
    """All that a checkpoint says of itself: place, config, versions, topology, arrays (type, shape, SHA-256, and where
    the small ones start in the array `ITEM/TYPE`, in which they lie end to end)."""
    return _at(directory, step, _manifest)


def newest(directory: str | Path) -> int | None:
    """The latest step that is whole; None if there is none. Those after it, which are damaged, are moved into the
    folder `quarantine` beside them, each with a file that says why."""

    def read(path: Path) -> int:
        _check(path, _manifest(path))
        return int(path.name)

    try:
        return _at(directory, None, read)
    except InputError:
        if steps(directory):
            raise
        return None


def quarantine(directory: str | Path, step: int, reason: BadFile) -> None:
    """Move a damaged checkpoint into the folder `quarantine` beside it, with a file that says why.

    Raises:
      BadFile: that reason, where it cannot be moved.
    """
    path = Path(directory) / f"{step:08d}"
    aside = path.parent / QUARANTINE / f"{path.name}-{time.time_ns()}"
    try:
        aside.parent.mkdir(exist_ok=True)
        path.rename(aside)
        aside.with_suffix(".txt").write_text(f"{reason}\n")
    except FileNotFoundError:  # deleted by the training that it is of, meanwhile
        with suppress(OSError):
            aside.parent.rmdir()  # unless others are in it
        return
    except OSError:
        raise reason from None
    warnings.warn(f"{reason}; it is now in {aside.parent}", stacklevel=2)


def steps(directory: str | Path) -> list[int]:
    """The steps that are saved, in order."""
    directory = Path(directory)
    found = directory.iterdir() if directory.is_dir() else ()
    return sorted(int(path.name) for path in found if _is_step(path.name) and path.is_dir())


def _is_step(name: str) -> bool:
    return name.isascii() and name.isdigit() and name == f"{int(name):08d}"


def delete(directory: str | Path, step: int) -> None:
    """Remove one checkpoint, in one move as far as others can see; what is left of it the next `Saver` removes."""
    path = Path(directory) / f"{step:08d}"
    shutil.rmtree(path.rename(path.with_name(f"{path.name}.deleted-tmp")), ignore_errors=True)


def _at(directory: str | Path, step: int | None, read: Callable[[Path], T]) -> T:
    """What is read of a step; of the latest that is whole, where it is None, and then the damaged ones are moved."""
    wait(directory)
    saved = steps(directory)
    if not saved or (step is not None and step not in saved):
        raise InputError(
            f"no checkpoint{'' if step is None else f' of step {step}'} in {directory}; there are: {saved or 'none'}"
        )
    path = Path(directory).resolve() / f"{saved[-1] if step is None else step:08d}"
    try:
        return read(path)
    except BadFile as error:
        if step is not None:
            raise
        quarantine(directory, saved[-1], error)
        return _at(directory, None, read)


def _read(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """The items that `like` names, verified."""
    manifest, said = _manifest(path), defaultdict[str, dict[str, Any]](dict)
    for key, value in manifest["arrays"].items():
        item, _, name = key.partition("/")
        said[item][name] = value
    for name, tree in like.items():
        if not said[name]:
            raise InputError(f"{path} has no {name}; it was saved for another model")
        saved = {key: jax.ShapeDtypeStruct(value["shape"], value["dtype"]) for key, value in said[name].items()}
        if problem := _difference(_named(tree), saved):
            raise InputError(f"{path} was saved for another model or optimizer, its {name} differ:\n{problem}")
    _check(path, manifest, like)
    packed = {name for name in like if any("start" in entry for entry in said[name].values())}
    stored = {
        name: _as_packed(tree, said[name]) if name in packed else jax.tree.map(_abstract, tree)
        for name, tree in like.items()
    }
    try:
        with _alone():
            items: dict[str, Any] = _orbax().load_checkpointables(path, stored)
    except Exception as error:  # it lets through whatever its backends raise; the files are not to blame
        if not path.exists():
            raise BadFile(f"{path} was removed while it was read") from None
        wrote, reads = manifest["versions"]["orbax-checkpoint"], version("orbax-checkpoint")
        raise InputError(
            f"orbax {reads} cannot read {path}, which orbax {wrote} wrote: {_first_line(error)}"
        ) from error
    items |= {name: _unpacked(items[name], like[name], said[name]) for name in packed}
    for item in items:
        for name, leaf in _named(items[item]).items():
            if not _described(leaf).items() <= said[item][name].items():
                raise BadFile(f"{path} is damaged (the array {item}/{name} is not what was saved)")
    return items


def _manifest(path: Path) -> dict[str, Any]:
    try:
        found = json.loads((path / MANIFEST).read_bytes())
        manifest: dict[str, Any] = found["manifest"]
        if found["sha256"] == _digest(json.dumps(manifest).encode()):
            return manifest
        reason = f"its {MANIFEST} is not what was saved"
    except GONE as error:
        reason = f"{MANIFEST}: {error.strerror}"
    except OSError as error:
        raise _unreadable(path / MANIFEST, error) from None
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        reason = f"{MANIFEST}: {error}"
    raise BadFile(f"{path} is damaged or is not a checkpoint ({reason})")


def _check(path: Path, manifest: Mapping[str, Any], items: Collection[str] | None = None) -> None:
    """Compare the files with their digests: those of some items, or all of them."""
    for name, digest in manifest["files"].items():
        item, _, inner = name.partition("/")
        if items is None or not inner or item in items:
            try:
                if _file_digest(path / name) == digest:
                    continue
                reason = "is not what was saved"
            except GONE as error:
                reason = str(error.strerror)
            except OSError as error:
                raise _unreadable(path / name, error) from None
            raise BadFile(f"{path} is damaged ({name}: {reason})")


def _unreadable(path: Path, error: OSError) -> InputError:
    """It may be whole: a disk that does not answer is not a damaged file."""
    return InputError(f"cannot read {path}: {error.strerror or error}")


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def _digest(content: Any) -> str:
    return hashlib.sha256(content).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _described(leaf: Any) -> dict[str, Any]:
    """The type and shape of an array, and a SHA-256 of its bytes."""
    array = parallel.fetch(leaf)
    digest = _digest(np.ascontiguousarray(array).reshape(-1).view(np.uint8))  # bfloat16 has no buffer of its own
    return {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": digest}


def _difference(expected: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """Of paths and shapes; else of types; "" if none."""
    if problem := trees.difference(expected, given):
        return problem
    types = {path: (str(leaf.dtype), str(given[path].dtype)) for path, leaf in expected.items()}
    return "\n".join(f"  type      {path}: expected {a}, got {b}" for path, (a, b) in types.items() if a != b)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, whatever containers hold them, so that trees of different origin can be compared."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): leaf
        for path, leaf in flat
    }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding if isinstance(leaf, jax.Array) else None
    return jax.ShapeDtypeStruct(
        leaf.shape, leaf.dtype, sharding=sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def _loops_closed() -> Iterator[None]:
    """Where one file cannot be written, the others end after the loop that waits for them, which they complain of."""
    before = sys.unraisablehook

    def hook(told: Any) -> None:
        if str(told.exc_value) != "Event loop is closed":
            before(told)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before


@cache
def _orbax() -> Any:
    """The library. It logs each step of its work through absl, and from threads of its own the tracebacks of what it
    raises as well."""
    from orbax.checkpoint import v1

    logging.getLogger("absl").addFilter(lambda record: f"{os.sep}orbax{os.sep}" not in record.pathname)
    return v1


def _alone() -> Any:
    """One of several processes reads for itself, and waits for none."""
    me = jax.process_index()
    alone = {"primary_host": me, "active_processes": {me}, "barrier_sync_key_prefix": f"process{me}"}
    options = _orbax().options.MultiprocessingOptions(**alone if parallel.several() else {})
    return _orbax().Context(multiprocessing_options=options)
