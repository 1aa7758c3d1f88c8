"""Run directories: what a training leaves behind, and a trained network read back from it.

RUN/config.json      the model, its classes, its preprocessing, the data and the phases: all that made the run
RUN/metrics.jsonl    a line per epoch
RUN/checkpoints/     the last and the best state
RUN/summary.json     the result, written at the end
RUN/report.html      the page of the run (`jaxdl.page`), written at the end
"""

import contextlib
import dataclasses
import json
import os
import platform
import shutil
import sys
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import jax

from jaxdl import checkpoint, data, models, parallel
from jaxdl.callbacks import Callback, JSONLines, ModelCheckpoint
from jaxdl.data import Preprocessing, TablePreprocessing
from jaxdl.errors import BadFile, InputError
from jaxdl.history import History
from jaxdl.pretrained import Weights


@dataclasses.dataclass(frozen=True)
class Run:
    """A run directory. As a context, it removes itself if training fails before there is anything to keep."""

    path: Path
    config: dict[str, Any]
    _lock: list[Any] = dataclasses.field(default_factory=list, compare=False, repr=False)

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config["classes"])

    @property
    def model(self) -> Any:
        spec = self.config["model"]
        return models.create(spec["name"], spec["num_classes"], **spec["options"])

    @property
    def preprocessing(self) -> Preprocessing | TablePreprocessing:
        """That of images, or of the rows of a table."""
        spec: Any = self.config["preprocessing"]
        if "columns" in spec:
            return TablePreprocessing.from_plain(spec)
        return Preprocessing(**{**spec, "mean": tuple(spec["mean"]), "std": tuple(spec["std"])})

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one example, as the model takes it: `(H,W,C)` or `(F,)`."""
        expected = self.preprocessing
        if isinstance(expected, TablePreprocessing):
            return (len(expected.features),)
        return expected.size, expected.size, len(expected.mean)

    @property
    def shapes(self) -> dict[str, Any]:
        """The model's variables as shapes."""
        return models.shapes(self.model, self.input_shape)[0]

    def variables(self) -> dict[str, Any]:
        """The trained variables: those of the best epoch whose checkpoint is whole."""
        while True:
            step = self.best_step()
            try:
                return checkpoint.restore_variables(self.checkpoints, self.shapes, step)
            except BadFile as error:
                if step is None:
                    raise
                checkpoint.quarantine(self.checkpoints, step, error)

    def history(self) -> History:
        """The rows that the last checkpoint holds, and those of metrics.jsonl after them; without the last, where it
        was being written when the process was killed."""
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().decode(errors="replace").split("\n")[:-1] if path.exists() else []
        rows = History(_kept(self.checkpoints, "place").get("history", []))
        for n, line in enumerate(lines[len(rows) :], len(rows) + 1):
            try:
                row = json.loads(line)
            except ValueError:
                warnings.warn(f"{path} is damaged from line {n} on, which is left out", stacklevel=2)
                break
            if row not in rows[-1:]:  # damage may have made one line two, and then the last comes again
                rows.append(row)
        return rows

    def result(self) -> dict[str, Any] | None:
        """What summary.json holds; None before the run has finished."""
        path = self.path / "summary.json"
        return json.loads(path.read_text()) if path.exists() else None

    def best_step(self) -> int | None:
        """The saved step with the best figure of those that were monitored, or the latest if none was; None if none is
        saved."""
        saved = checkpoint.steps(self.checkpoints)
        row = History(row for row in self.history() if row["step"] in saved).best(
            self.config.get("monitor", "val_loss")
        )
        return row["step"] if row else max(saved, default=None)

    @property
    def checkpoints(self) -> Path:
        """Where `fit(…, resume=run.checkpoints)` goes on from."""
        return self.path / "checkpoints"

    @property
    def callbacks(self) -> tuple[Callback, ...]:
        """For `fit`: a line in metrics.jsonl for each epoch, and checkpoints of the best and the last."""
        return JSONLines(self.path / "metrics.jsonl"), ModelCheckpoint(self.checkpoints, config=self.config)

    def finish(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write summary.json: the result, where it was reached, and with what."""
        device = jax.devices()[0]
        summary = {
            **result,
            "best_step": self.best_step(),
            "device": f"{jax.device_count()} × {device.device_kind} ({device.platform})",
            "processes": jax.process_count(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "versions": checkpoint.versions(),
        }
        if parallel.first():
            _write(self.path / "summary.json", json.dumps(summary, indent=2) + "\n")
        return summary

    def __enter__(self) -> Self:
        """No other process may train here until the run is left, or its process ends, but those of the same training.

        Raises:
          InputError: one does.
        """
        parallel.first_says(self._take)
        return self

    def _take(self) -> None:
        if sys.platform != "win32":
            import fcntl

            file = (self.path / "config.json").open("r+b")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise InputError(f"another process is training in {self.path}") from None
            self._lock.append(file)

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        checkpoint.wait(self.checkpoints)  # a signal may have cut this short; the next to train here would remove it
        kept = checkpoint.steps(self.checkpoints) or (self.checkpoints / checkpoint.QUARANTINE).exists()
        if error is not None and not kept and parallel.first():
            shutil.rmtree(self.path, ignore_errors=True)
        elif isinstance(error, Exception) and (saved := checkpoint.steps(self.checkpoints)):
            error.add_note(f"{self.path} keeps what was trained up to step {' and '.join(map(str, saved))}")
        while self._lock:
            self._lock.pop().close()


def create(path: str | Path, config: Mapping[str, Any], resume: bool = False) -> Run:
    """Start a run in a directory that does not exist yet.

    Args:
      path: of the directory.
      config: plain data with "model" (name, num_classes, options), "classes", "preprocessing" and "phases", and
        whatever else made the run; dataclasses are written as their fields.
      resume: the directory may hold the same run, which was interrupted.

    Raises:
      InputError: the directory exists, or cannot be made; the run that is to go on has another configuration, or has
        finished; the processes do not train the same.
    """
    path, plain = Path(path), json.loads(json.dumps(config, default=_plain))
    other = _difference(parallel.first_says(lambda: plain), plain)
    if parallel.most(other is not None):
        says = f"this one has other {other}" if other else "another one says in what"
        raise InputError(f"the processes do not train the same; {says}")
    parallel.first_says(lambda: _create(path, plain, resume))
    return Run(path, plain)


def _create(path: Path, plain: dict[str, Any], resume: bool) -> None:
    check_new(path, resume)
    killed = resume and path.is_dir() and {file.name for file in path.iterdir()} <= {"config.json.tmp"}
    if path.exists() and not killed:
        if other := _difference(_elsewhere(_config(path)), _elsewhere(plain)):
            raise InputError(f"{path} cannot go on: it was started with other {other}")
        return
    made = False
    try:
        path.mkdir(parents=True, exist_ok=killed)
        made = True
        _write(path / "config.json", json.dumps(plain, indent=2) + "\n")
        (path / "checkpoints").mkdir()
    except (OSError, InputError) as error:
        if made:  # and not by another process, at the same moment
            shutil.rmtree(path, ignore_errors=True)
        raise InputError(f"cannot write the run directory {path}: {getattr(error, 'strerror', error)}") from None


def check_new(path: str | Path, resume: bool = False) -> None:
    """Raise InputError if a run directory exists already, or if it is to go on and has finished; ask before the work,
    not after."""
    path = Path(path)
    if resume and (path / "summary.json").exists():
        more = f"to train on from it, give --model {path} and another --out"
        raise InputError(f"{path} has finished: there is nothing to resume; {more}")
    if path.exists() and not resume:
        unfinished = (path / "config.json").exists() and not (path / "summary.json").exists()
        more = ", or go on with it by --resume" if unfinished else ""
        raise InputError(f"{path} exists already; choose another directory with --out, or remove it{more}")


def load(path: str | Path) -> Run:
    """A finished or unfinished run, read back.

    Raises:
      InputError: there is no run there, or nothing in it is trained yet.
    """
    path = Path(path)
    try:
        run = Run(path, _config(path))
        run.model, run.preprocessing, run.classes, run.result()  # they raise where it is damaged
        step = run.best_step()
    except InputError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: a file of this run is damaged ({error!r})") from None
    if step is None:
        raise InputError(f"{path} holds no checkpoint: its training ended before the first epoch did")
    return run


def unseen(run: Run, path: Path) -> tuple[data.Source, str]:
    """The images of a folder, or rows of a table, that the run has not been trained on.

    Returns:
      `(source, split)`: "test" is what is in the folder's test/, or was held out of this folder or table; "all" is all
      of another.

    Raises:
      InputError: there is no such folder or table, or it has other classes or columns.
    """
    preprocessing, spec = run.preprocessing, run.config.get("data") or {}
    on_bad = spec.get("on_bad", "error")
    if isinstance(preprocessing, Preprocessing) and (path / "test").is_dir():
        return data.scan(path / "test", preprocessing, run.classes, on_bad), "test"
    if "fingerprint" in spec:
        shares = {name: spec[name] for name in ("validation", "test", "seed")}
        with contextlib.suppress(InputError):  # what cannot be split is another folder or table
            if isinstance(preprocessing, Preprocessing):
                splits = data.from_folder(path, preprocessing, **shares, on_bad=on_bad)
            else:
                splits = data.Splits(*data.from_csv(path, **run.config["command"]["columns"], **shares)[:3])
            if splits.test is not None and data.fingerprint(*splits) == spec["fingerprint"]:
                return splits.test, "test"
    if isinstance(preprocessing, Preprocessing):
        return data.scan(path, preprocessing, run.classes, on_bad), "all"
    return preprocessing.labelled(path), "all"


def weights(path: str | Path) -> Weights:
    """The trained network of a run as `pretrained.read` gives those of weight files.

    Raises:
      InputError: as `load`, or the network is one for tables.
    """
    run = load(path)
    preprocessing = run.preprocessing
    if isinstance(preprocessing, TablePreprocessing):
        raise InputError(f"{path} was trained on a table; only networks for images can be used here")
    spec, own = run.config["model"], f"trained by jaxdl {version('jaxdl')}"
    options, source = spec["options"], f"{own} from {spec['from']}" if spec.get("from") else own
    return Weights(
        spec["name"],
        spec["num_classes"],
        options,
        run.variables(),
        preprocessing,
        source=source,
        classes=run.classes,
    )


def _config(path: Path) -> dict[str, Any]:
    """What config.json holds, or the last checkpoint where they differ in more than where the run lies."""
    file = path / "config.json"
    kept = _kept(path / "checkpoints", "config")
    if not kept and not file.is_file():
        raise InputError(f"{path} is not a run directory: it has no config.json")
    try:
        config: dict[str, Any] = json.loads(file.read_bytes())
        right = config if not kept or _elsewhere(config) == _elsewhere(kept) else kept
    except (OSError, ValueError, TypeError, AttributeError) as error:
        if not kept:
            raise InputError(f"{path}: a file of this run is damaged ({error!r})") from None
        config, right = {}, kept
        with contextlib.suppress(InputError):  # a disk that can only be read
            _write(file, json.dumps(kept, indent=2) + "\n")
    if config != right:
        warnings.warn(f"{file} is damaged; what the checkpoints hold of it is used", stacklevel=2)
    return right


def _kept(checkpoints: Path, name: str) -> dict[str, Any]:
    """A part of the manifest of the last checkpoint; empty where there is none."""
    try:
        return checkpoint.manifest(checkpoints)[name] or {}
    except InputError:
        return {}


def _elsewhere(config: dict[str, Any]) -> dict[str, Any]:
    """A config without where its run lies, which may be another place by now."""
    command = {name: value for name, value in config.get("command", {}).items() if name != "out"}
    return {**config, "command": command, "command_line": None}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The path of the first setting that differs, with both values."""
    for name in {**before, **now}:
        was, is_ = before.get(name), now.get(name)
        if name == "phases" and was and is_ and len(was) == len(is_):
            was, is_ = dict(enumerate(was)), dict(enumerate(is_))
        if was != is_:
            if isinstance(was, dict) and isinstance(is_, dict):
                return f"{name}.{_difference(was, is_)}"
            return f"{name}: {was!r:.200}, not {is_!r:.200}"
    return None


def _write(path: Path, text: str) -> None:
    """Write a file that is there complete or not at all."""
    draft = path.with_name(f"{path.name}.tmp")
    try:
        draft.write_text(text)
        draft.replace(path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror}") from None


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not plain data")
