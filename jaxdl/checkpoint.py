"""Save and restore. The only file that imports orbax.

A checkpoint holds arrays, and a manifest: plain data of where the training stands, and a SHA-256 of every array. What
is read is compared with them, so a flipped bit is an error and not a number.
"""

import contextlib
import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxdl import trees
from jaxdl.errors import InputError
from jaxdl.train import TrainState

QUARANTINE = "quarantine"  # the folder beside the steps for those that are damaged


def save(
    directory: str | Path,
    state: TrainState,
    *,
    best: Mapping[str, Any] | None = None,
    place: Mapping[str, Any] | None = None,
) -> Path:
    """Write the whole state to `directory/STEP`, in one move: a checkpoint is there complete or not at all.

    Params, model_state and opt_state are separate items, so that each can be read without the others.

    Args:
      best: other variables to keep with it, `{"params": …}`.
      place: plain data to keep with it, which `place` reads.

    Raises:
      InputError: the disk is full or cannot be written, or that step is saved already.
    """
    from orbax.checkpoint import v1 as ocp

    path = Path(directory).resolve() / f"{int(state.step):08d}"
    if path.exists():
        raise InputError(f"{path} is saved already")
    items: dict[str, Any] = {
        "params": state.params,
        "model_state": state.model_state,
        "opt_state": state.opt_state,
        "average": state.average,
        "best": dict(best or {}),
        "progress": {"step": state.step, "key": jax.random.key_data(state.key)},
    }
    items = {name: jax.tree.map(jnp.asarray, item) for name, item in items.items() if jax.tree.leaves(item)}
    text = json.dumps({"place": dict(place or {}), "digests": _digests(items)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            manifest = {"manifest": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}
            ocp.save_checkpointables(path, items, custom_metadata=manifest)
    except Exception as error:  # orbax lets through whatever its backends raise
        for _ in range(20):  # threads of orbax may still be writing
            for leftover in path.parent.glob(f"{path.name}.*tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)
            time.sleep(0.05)
        if "No space left" in str(error):  # from the system, by way of tensorstore
            raise InputError(f"the disk is full: cannot save {path}; free some space") from None
        if isinstance(error, OSError):
            raise InputError(f"cannot save {path}: {error.strerror or error}") from None
        raise
    return path


def restore(directory: str | Path, like: TrainState, step: int | None = None) -> TrainState:
    """Read a whole state, bit for bit as it was saved, with the devices and layout of `like`.

    Args:
      directory: what was given to `save`.
      like: a state of the same model and optimizer, from `train.init_state`.
      step: which one; None for the latest.

    Raises:
      InputError: there is no such checkpoint, it is damaged, or it is of another model or optimizer; the differences
        are listed.
    """
    path = _at(directory, step)
    names = ("params", "model_state", "opt_state", "average")
    like_items = {name: getattr(like, name) for name in names if jax.tree.leaves(getattr(like, name))}
    like_items["progress"] = {"step": like.step, "key": jax.random.key_data(like.key)}
    if more := {name for name in _described(path)[0] if name not in (*like_items, "best")}:
        raise InputError(f"{path} was saved for another model or optimizer: it has {', '.join(sorted(more))} as well")
    items = _read(path, like_items)
    key = jax.random.wrap_key_data(items["progress"]["key"], impl=jax.random.key_impl(like.key))
    return TrainState(
        items["progress"]["step"],
        items["params"],
        items.get("model_state", {}),
        items.get("opt_state", like.opt_state),
        key,
        items.get("average", {}),
    )


def restore_variables(directory: str | Path, like: Mapping[str, Any], step: int | None = None) -> dict[str, Any]:
    """Read a model's variables only, as evaluation takes them: with the averages of the parameters, where they were
    kept. `like` holds arrays or shapes."""
    path, like = _at(directory, step), dict(like)
    items = {"params": like.pop("params")}
    if jax.tree.leaves(like):
        items["model_state"] = like
    averaged = _named(_described(path)[0].get("average", {}))
    if chosen := {name: leaf for name, leaf in trees.paths(items["params"]).items() if name in averaged}:
        items["average"] = trees.from_paths(chosen)
    items = _read(path, items)
    params = trees.paths(items["params"]) | trees.paths(items.get("average", {}))
    return {"params": trees.from_paths(params), **items.get("model_state", {})}


def restore_best(directory: str | Path, like: Mapping[str, Any], step: int | None = None) -> dict[str, Any] | None:
    """Read the variables that were given to `save` as `best`; None if there were none."""
    path = _at(directory, step)
    return _read(path, {"best": dict(like)})["best"] if "best" in _described(path)[0] else None


def place(directory: str | Path, step: int | None = None) -> dict[str, Any]:
    """The plain data that were given to `save`."""
    return _described(_at(directory, step))[1]["place"]


def newest(directory: str | Path) -> int | None:
    """The latest step that is whole; None if there is none. Those after it, which are damaged, are moved into the
    folder `quarantine` beside them, each with a file that says why."""
    for step in reversed(steps(directory)):
        path = _at(directory, step)
        try:
            _read(path, _described(path)[0])
        except InputError as error:
            aside = path.parent / QUARANTINE / f"{path.name}-{time.time_ns()}"
            aside.parent.mkdir(exist_ok=True)
            path.rename(aside)
            aside.with_suffix(".txt").write_text(f"{error}\n")
        else:
            return step
    return None


def steps(directory: str | Path) -> list[int]:
    """The steps that are saved, in order."""
    directory = Path(directory)
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdigit()) if directory.is_dir() else []


def delete(directory: str | Path, step: int) -> None:
    """Remove one checkpoint."""
    shutil.rmtree(Path(directory) / f"{step:08d}")


def _at(directory: str | Path, step: int | None) -> Path:
    saved = steps(directory)
    if not saved or (step is not None and step not in saved):
        raise InputError(
            f"no checkpoint{'' if step is None else f' of step {step}'} in {directory}; there are: {saved or 'none'}"
        )
    return Path(directory).resolve() / f"{saved[-1] if step is None else step:08d}"


def _read(path: Path, like: Mapping[str, Any]) -> dict[str, Any]:
    """The items that `like` names, verified."""
    from orbax.checkpoint import v1 as ocp

    abstract = jax.tree.map(_abstract, dict(like))
    described, manifest = _described(path)
    for name, tree in like.items():
        if name not in described:
            raise InputError(f"{path} has no {name}; it was saved for another model")
        if not (found := _named(described[name])):
            raise InputError(f"{path} is damaged (the description of its {name} is empty)")
        if problem := trees.difference(_named(tree), found):
            raise InputError(f"{path} was saved for another model or optimizer, its {name} differ:\n{problem}")
    with _quiet():
        try:
            items = ocp.load_checkpointables(path, abstract)
        except Exception as error:  # of many kinds, by what is damaged
            raise InputError(f"{path} is damaged ({_first_line(error)})") from None
    for name, digest in _digests(items).items():
        if digest != manifest["digests"].get(name):
            raise InputError(f"{path} is damaged (the array {name} is not what was saved)")
    return items


def _described(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The items of a checkpoint, as shapes, and its manifest."""
    from orbax.checkpoint import v1 as ocp

    with _quiet():
        try:
            found = ocp.checkpointables_metadata(path)
            text = found.custom_metadata["manifest"]
            if found.custom_metadata["sha256"] != hashlib.sha256(text.encode()).hexdigest():
                raise ValueError("its manifest is not what was saved")
            manifest = json.loads(text)
        except Exception as error:  # of many kinds, by what is damaged
            raise InputError(f"{path} is damaged or is not a checkpoint ({_first_line(error)})") from None
    items = {name: getattr(item, "metadata", item) for name, item in found.metadata.items()}
    return items, manifest


def _digests(items: Mapping[str, Any]) -> dict[str, str]:
    """A SHA-256 of each array, with its type and shape, by item and path."""
    found = {}
    for item, tree in items.items():
        for name, leaf in _named(tree).items():
            array = np.asarray(leaf)
            digest = hashlib.sha256(f"{array.dtype} {array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            found[f"{item}/{name}"] = digest.hexdigest()
    return found


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, whatever containers hold them, so that trees of different origin can be compared."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): leaf
        for path, leaf in flat
    }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextlib.contextmanager
def _quiet() -> Any:
    """Orbax logs each step of its work, and the traceback of what it raises as well, through absl."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)
