"""Save and restore. The only file that imports orbax."""

import contextlib
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxdl import trees
from jaxdl.errors import InputError
from jaxdl.train import TrainState


def save(directory: str | Path, state: TrainState) -> Path:
    """Write the whole state to `directory/STEP`, in one move: a checkpoint is there complete or not at all.

    Params, model_state and opt_state are separate items, so that each can be read without the others.

    Raises:
      InputError: the disk is full or cannot be written.
    """
    from orbax.checkpoint import v1 as ocp

    path = Path(directory).resolve() / f"{int(state.step):08d}"
    if path.exists():
        raise InputError(f"{path} is saved already")
    items = {
        "params": state.params,
        "model_state": state.model_state,
        "opt_state": state.opt_state,
        "average": state.average,
        "progress": {"step": state.step, "key": jax.random.key_data(state.key)},
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _quiet():
            ocp.save_checkpointables(path, {name: item for name, item in items.items() if jax.tree.leaves(item)})
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
      InputError: there is no such checkpoint, or it is of another model or optimizer; the differences are listed.
    """
    path = _at(directory, step)
    names = ("params", "model_state", "opt_state", "average")
    like_items = {name: getattr(like, name) for name in names if jax.tree.leaves(getattr(like, name))}
    like_items["progress"] = {"step": like.step, "key": jax.random.key_data(like.key)}
    items = _read(path, like_items, exact=True)
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
    averaged = _described(path).get("average", {})
    if chosen := {name: leaf for name, leaf in trees.paths(items["params"]).items() if name in averaged}:
        items["average"] = trees.from_paths(chosen)
    items = _read(path, items)
    params = trees.paths(items["params"]) | trees.paths(items.get("average", {}))
    return {"params": trees.from_paths(params), **items.get("model_state", {})}


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


def _read(path: Path, like: Mapping[str, Any], exact: bool = False) -> dict[str, Any]:
    """The items that `like` names, and with `exact` an error where there are others."""
    from orbax.checkpoint import v1 as ocp

    abstract = jax.tree.map(_abstract, dict(like))
    described = _described(path)
    if exact and (more := {name for name in described if name not in like}):
        raise InputError(f"{path} was saved for another model or optimizer: it has {', '.join(sorted(more))} as well")
    for name, tree in like.items():
        if name not in described:
            raise InputError(f"{path} has no {name}; it was saved for another model")
        if not described[name]:
            raise InputError(f"{path} is damaged (the description of its {name} is empty)")
        if problem := trees.difference(_named(tree), described[name]):
            raise InputError(f"{path} was saved for another model or optimizer, its {name} differ:\n{problem}")
    with _quiet():
        try:
            return ocp.load_checkpointables(path, abstract)
        except Exception as error:  # of many kinds, by what is damaged
            raise InputError(f"{path} is damaged ({_first_line(error)})") from None


def _described(path: Path) -> dict[str, dict[str, Any]]:
    """The items of a checkpoint: the shapes in each of them, by path."""
    from orbax.checkpoint import v1 as ocp

    with _quiet():
        try:
            items = ocp.checkpointables_metadata(path).metadata
        except Exception as error:  # of many kinds, by what is damaged
            raise InputError(f"{path} is damaged or is not a checkpoint ({_first_line(error)})") from None
    return {name: _named(item.metadata if hasattr(item, "metadata") else item) for name, item in items.items()}


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by path, whatever containers hold them, so that trees of different origin can be compared."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        "/".join(str(getattr(k, "key", getattr(k, "name", getattr(k, "idx", k)))) for k in path): leaf
        for path, leaf in flat
    }


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = getattr(leaf, "sharding", None) or jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=sharding)


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
