"""The page of a run, and the page of several side by side: HTML files that tell what was trained, and how well."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxdl import explain, loop, metrics, report, runs, transfer, trees
from jaxdl.data import Categorical, Preprocessing, Source, TablePreprocessing
from jaxdl.errors import InputError
from jaxdl.history import History
from jaxdl.optim import Phase
from jaxdl.report import canvas
from jaxdl.report.classes import probabilities
from jaxdl.report.html import Html, bar, facts, folded, join, listing, page, photo, picture, table, tag, tiles
from jaxdl.report.images import overlay

WRONG, PAIRS, EXPLAINED = 12, 10, 4  # images and pairs of classes that are shown; explained: of right and of wrong
READABLE = 40  # classes that are named one by one
NORMAL = 1.96  # standard deviations to each side that hold 95% of a normal distribution
NEEDED = ("epoch", "phase", "step", "loss", "learning_rate", "seconds")  # of a row of the history
NAMES = {"mae": "mean absolute error", "r2": "R²"}


def write(run: runs.Run, test: Source | None = None, outputs: np.ndarray | None = None) -> Path:
    """Write RUN/report.html: what was trained on what, the result, where it is wrong, and how to make it again.

    Args:
      test: the examples that training has not seen; None where they are gone, and what needs them is left out.
      outputs: the network's on them, `[N,K]`, where they are known already.

    Returns:
      The path of the page.

    Raises:
      InputError: matplotlib is not installed, an image of the test data cannot be read, or the history is damaged.
    """
    told = _Told(run, test, outputs)
    sections = {
        "Training": _training(told),
        "Curves": _curves(told),
        "Predictions": _predictions(told),
        "Classes": _classes(told),
        "Mistakes": _mistakes(told),
        "Where it looks": _looks(told),
        "Columns": _columns(told),
        "Network": _network(told),
        "Time": _time(told),
        "Reproduce": _reproduce(told),
    }
    path = run.path / "report.html"
    path.write_text(page(told.name, _result(told), sections), encoding="utf-8")
    return path


def compare(compared: Sequence[runs.Run]) -> dict[str, Any]:
    """The results of several runs, and what differs in their configurations, as plain data.

    Returns:
      "runs": of each its name, model, metrics, loss, count, best_epoch, epochs, parameters, seconds and device, None
      where that is not known; "differences": the values of each option that is not the same in all of them, by its
      path in config.json; "notes": why the results are not of the same thing, where they are not.

    Raises:
      InputError: there are fewer than two runs, one is given twice, or some predict classes and others a number.
    """
    paths = [str(run.path) for run in compared]
    if len(compared) < 2:
        raise InputError(f"give at least two runs to compare; got {len(compared)}")
    if len({run.path.resolve() for run in compared}) < len(compared):
        raise InputError(f"a run is given twice: {', '.join(paths)}")
    if len({bool(run.classes) for run in compared}) > 1:
        raise InputError("some of these runs predict classes, others a number: they have no figure in common")
    names = [run.path.resolve().name for run in compared]
    names = names if len(set(names)) == len(names) else paths
    told, configs = [_Told(run) for run in compared], [_options(run.config) for run in compared]
    also = () if compared[0].classes else ("r2",)
    measured = dict.fromkeys(name for each in told for name in (*each.history.metrics, *also))
    values = {path: [config.get(path) for config in configs] for config in configs for path in config}
    notes = []
    if len({run.classes for run in compared}) > 1:
        notes.append("their classes differ, so they have learned different things")
    elif len({each.data.get("fingerprint") for each in told}) > 1:
        notes.append("their data differ, or how these are split, so they are not tested on the same examples")
    return {
        "runs": [{"run": name, **_figures(each, measured)} for name, each in zip(names, told, strict=True)],
        "differences": {path: each for path, each in values.items() if any(value != each[0] for value in each)},
        "notes": notes,
    }


def rows(found: Mapping[str, Any]) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """What `compare` has found as text: the rows of the results, and those of what differs, each with a head."""
    known = {name: {row[name] for row in found["runs"]} for name in found["runs"][0]}
    names = [name for name, each in known.items() if each != {None} and (name != "device" or len(each) > 1)]
    results = [tuple(_said(name, row[name]) for name in names) for row in found["runs"]]
    differ = [(path, *map(_value, each)) for path, each in found["differences"].items()]
    return (
        [tuple(map(_words, names)), *results],
        [("", *(row["run"] for row in found["runs"])), *differ],
    )


def write_comparison(compared: Sequence[runs.Run], path: Path) -> dict[str, Any]:
    """Write a page with the results of several runs, their curves, and what differs in their configurations.

    Returns:
      What `compare` returns.

    Raises:
      InputError: as `compare`; matplotlib is not installed, or a history is damaged.
    """
    found = compare(compared)
    (names, *results), (heads, *differ) = rows(found)
    histories = {row["run"]: run.history() for row, run in zip(found["runs"], compared, strict=True)}
    metric = _Told(compared[0]).metric
    numbers = {n for n, name in enumerate(names) if name not in ("run", "model", "device")}
    first = join(
        tag("h1", "Runs side by side"),
        tag("p", f"{', '.join(histories)}.", class_="lead"),
        *(tag("p", f"Take care: {note}.", class_="note") for note in found["notes"]),
        table(names, results, right=numbers, sortable=True),
    )
    alt = f"Loss and {_words(metric)} by epoch of {', '.join(histories)}."
    sections = {
        "Curves": picture(report.compare(histories, metric), alt, stacked=True),
        "What differs": table(heads, differ) if differ else tag("p", "Nothing, in their configurations."),
    }
    path.write_text(page("Runs side by side", first, sections), encoding="utf-8")
    return found


def interval(share: float, count: int) -> tuple[float, float]:
    """Between which shares the true one lies, with 95% confidence, where this one was found among so many examples.

    Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927).
    """
    z = NORMAL**2 / count
    middle, reach = share + z / 2, math.sqrt(z * (share * (1 - share) + z / 4))
    return (middle - reach) / (1 + z), (middle + reach) / (1 + z)


@dataclass(frozen=True)
class _Told:
    """A run, and all that its page tells of it."""

    run: runs.Run
    test: Any = None
    """The test data, a source, or None; what asks for their outputs or labels asks for them first."""
    known: np.ndarray | None = None
    """The outputs, where they are known."""

    @cached_property
    def history(self) -> History:
        history = self.run.history()
        for number, row in enumerate(history, 1):
            if missing := [name for name in NEEDED if name not in row]:
                raise InputError(f"{self.run.path}: metrics.jsonl is damaged: line {number} has no {missing[0]!r}")
        return history

    @cached_property
    def summary(self) -> dict[str, Any]:
        """Empty before the run has finished."""
        return self.run.result() or {}

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        return tuple(Phase.from_plain(phase) for phase in self.run.config["phases"])

    @property
    def name(self) -> str:
        return self.run.path.resolve().name

    @property
    def data(self) -> Mapping[str, Any]:
        """What config.json tells of the data; nothing, where the run was made from Python and does not."""
        return self.run.config.get("data") or {}

    @cached_property
    def table(self) -> TablePreprocessing | None:
        preprocessing = self.run.preprocessing
        return preprocessing if isinstance(preprocessing, TablePreprocessing) else None

    @property
    def unit(self) -> str:
        return "images" if self.table is None else "rows"

    @cached_property
    def best(self) -> dict[str, Any] | None:
        """The row of the epoch whose parameters are kept."""
        step = self.run.best_step()
        return next((row for row in self.history if row["step"] == step), None)

    @property
    def metric(self) -> str:
        """The first metric of the history, or the loss where there is none."""
        return next(iter(self.history.metrics), "loss")

    @cached_property
    def variables(self) -> dict[str, Any]:
        return self.run.variables()

    @property
    def normalize(self) -> Any:
        return getattr(self.run.preprocessing, "normalize", None)

    @cached_property
    def outputs(self) -> np.ndarray:
        """Float32 `[N,K]`, of the test data."""
        if self.known is not None:
            return self.known
        return loop.predict(self.run.model, self.variables, self.test, normalize=self.normalize)

    @property
    def classified(self) -> bool:
        """Whether there are test data with classes."""
        return self.test is not None and bool(self.run.classes)

    @property
    def photographs(self) -> bool:
        """Whether they are images."""
        return self.classified and self.table is None

    @property
    def labels(self) -> np.ndarray:
        """Of the test data, `[N]`."""
        return np.asarray(self.test.labels)

    @cached_property
    def probabilities(self) -> np.ndarray:
        """Of the classes, `[N,K]`."""
        return probabilities(self.outputs)

    @cached_property
    def matrix(self) -> np.ndarray:
        """The confusion matrix of the test data, `[K,K]`."""
        metric = metrics.confusion()
        return metric.compute(metric.update(self.outputs, self.labels, jnp.ones(len(self.labels))))

    def ranked(self, right: bool) -> np.ndarray:
        """The test images that are right, or wrong, those first of which the network is surest."""
        order = np.argsort(-self.probabilities.max(-1), kind="stable")
        return order[(self.probabilities.argmax(-1) == self.labels)[order] == right]

    def images(self, chosen: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Some of the test images with their numbers, uint8 `[H,W,C]`."""
        if len(chosen):
            images = np.clip(np.round(self.test.take(chosen)["image"]), 0, 255).astype(np.uint8)  # [B,H,W,C]
            yield from zip(chosen.tolist(), images, strict=True)


def _result(told: _Told) -> Html:
    """The first thing on the page: what was learned, and how well."""
    run, summary, best = told.run, told.summary, told.best
    counts, folder, tested = told.data.get("counts", {}), told.data.get("folder"), told.summary.get("count") or 0
    goal = f"{len(run.classes)} classes" if run.classes else told.table.target.name if told.table else "a number"
    lead = f"{run.config['model']['name']} has learned {goal}"
    lead += f" from {counts['training']:,} {told.unit}" if "training" in counts else ""
    lead += f" of {Path(folder).name}" if folder else ""

    figures = []
    if summary.get("accuracy") is not None and tested:
        low, high = interval(summary["accuracy"], tested)
        figures.append((f"{summary['accuracy']:.1%}", "test accuracy", f"95% confidence: {low:.1%} to {high:.1%}"))
    if summary.get("mae") is not None:
        of = f"mean absolute error of {told.table.target.name}" if told.table else "mean absolute error"
        figures.append((f"{summary['mae']:,.4g}", "test error", of))
    if summary.get("r2") is not None:
        figures.append((f"{summary['r2']:.3f}", "test R²", "1 is perfect, 0 no better than the mean"))
    figures += [
        (f"{summary[name]:.4g}", f"test {_words(name)}", "")
        for name in told.history.metrics
        if name not in ("accuracy", "mae") and summary.get(name) is not None
    ]
    if tested and "loss" in summary:
        figures.append((f"{summary['loss']:.4g}", "test loss", f"on {tested:,} {told.unit} that training has not seen"))
    if best:
        monitor = run.config.get("monitor", "val_loss")
        by = f", by the {_words(monitor)}" if monitor in best else ""
        figures.append((f"{best['epoch']}", "epoch kept", f"of {len(told.history)}{by}"))
    if "seconds" in summary:
        figures.append((_duration(summary["seconds"]), "from start to end", summary.get("device", "")))

    notes = [] if summary else ["The run has not finished: there is no test result."]
    if summary and not tested:
        notes.append("There was nothing to test on.")
    if tested and told.test is None:
        notes.append(
            f"What needs the test {told.unit} is left out, as {folder or 'the data'} is not there, or not as it was. "
            f"Where it lies elsewhere: jaxdl report {run.path} --data FOLDER"
        )
    if told.classified and summary.get("accuracy") is not None:
        share = told.matrix.trace() / len(told.labels)
        if len(told.labels) != tested or abs(share - summary["accuracy"]) > 0.5 / tested:
            notes.append(
                f"What follows is measured anew: {share:.1%} of {len(told.labels):,} test {told.unit} are right."
            )
    return join(
        tag("h1", told.name),
        tag("p", f"{lead}.", class_="lead"),
        tiles(figures),
        *(tag("p", note, class_="note") for note in notes),
    )


def _training(told: _Told) -> Html:
    """The network, the data and the phases."""
    config, data, params = told.run.config, told.data, told.run.shapes["params"]
    model, total = config["model"], trees.count(params)
    options = ", ".join(f"{name} {_value(value)}" for name, value in model["options"].items())
    described = {
        "network": f"{model['name']}, {total:,} parameters{f'; {options}' if options else ''}",
        "weights": (f"those of {model['from']}" if model["from"] else "fresh") if "from" in model else "",
        "data": data.get("folder", ""),
        told.unit: ", ".join(f"{count:,} {name}" for name, count in data.get("counts", {}).items()),
        "classes": _listed(told.run.classes),
        "target": told.table.target.name if told.table and not told.run.classes else "",
    }
    if isinstance(told.run.preprocessing, Preprocessing):
        described["seen at"] = f"{told.run.preprocessing.size} × {told.run.preprocessing.size} pixels"
    if batch := config.get("command", {}).get("batch_size"):
        described["in a batch"] = f"{batch}"
    rows = []
    for phase in told.phases:
        moving = trees.count(trees.split(params, trees.mask(params, phase.trainable))[0])
        patterns = phase.trainable if len(phase.trainable) < 4 else (phase.trainable[0], "…", phase.trainable[-1])
        schedule = phase.schedule if isinstance(phase.schedule, str) else phase.schedule.kind
        row = (phase.name, f"{phase.epochs}", f"{phase.learning_rate:g}", schedule, phase.optimizer)
        rows.append((*row, "everything" if moving == total else " ".join(patterns), f"{moving:,}"))
    names = ("phase", "epochs", "learning rate", "schedule", "optimizer", "trainable", "parameters")
    return join(facts(described), table(names, rows, right={1, 2, 6}))


def _curves(told: _Told) -> Html:
    if not told.history:
        return join()
    first, last, metric = told.history[0], told.history[-1], _words(told.metric)
    name = "val_loss" if "val_loss" in last else "loss"
    fell = f"the {_words(name)} goes from {first[name]:.4g} to {last[name]:.4g}"
    return join(
        picture(report.curves(told.history, told.metric), f"Loss and {metric} by epoch: {fell}.", stacked=True),
        picture(
            report.schedule(told.phases, last["step"] // last["epoch"]),
            "The learning rate by epoch, as planned.",
            stacked=True,
        ),
    )


def _predictions(told: _Told) -> Html:
    """Of a number that is predicted: what was predicted, by what it is."""
    if told.test is None or told.table is None or told.run.classes:
        return join()
    truth, predicted = told.table.values(told.labels), told.table.values(told.outputs)
    name, near = told.table.target.name, np.median(np.abs(predicted - truth))
    alt = f"Predicted by true {name} of {len(truth):,} test rows, with the line where both are equal."
    return join(
        tag("p", f"Half of the {len(truth):,} test rows are predicted to within {near:,.4g}."),
        picture(report.scatter(truth, predicted, name), alt, stacked=True),
    )


def _classes(told: _Told) -> Html:
    """How good each class is, and what is taken for what."""
    if not told.classified:
        return join()
    classes, matrix = told.run.classes, told.matrix
    scores = metrics.classification_report(matrix, classes)

    def cells(name: str, row: metrics.Scores) -> tuple[str, ...]:
        return (name, *(bar(share, f"{share:.3f}") for share in row[:3]), f"{row.support:,.0f}")

    each = [cells(name, row) for name, row in scores.classes.items()]
    foot = [cells(f"{name} average", scores.averages[name]) for name in ("macro", "weighted")]
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, matrix)
    most = [divmod(int(n), len(classes)) for n in np.argsort(-wrong, axis=None, kind="stable")[:PAIRS]]
    pairs = [
        (classes[a], classes[b], f"{wrong[a, b]:,.0f}", f"{wrong[a, b] / matrix[a].sum():.0%}")
        for a, b in most
        if wrong[a, b]
    ]
    axis = None if len(classes) <= READABLE else canvas.new(10, 9).subplots()  # of many, as a map without numbers
    alt = f"Confusion matrix: {matrix.trace():,.0f} of {matrix.sum():,.0f} test {told.unit} are on its diagonal."
    confused = [tag("h3", "Most confused"), table(("is", "taken for", "times", "share"), pairs, right={2, 3})]
    return join(
        table(("class", "precision", "recall", "F1", told.unit), each, right={1, 2, 3, 4}, foot=foot, sortable=True),
        picture(report.confusion_matrix(matrix, classes, axis=axis), alt),
        *(confused if pairs else ()),
    )


def _mistakes(told: _Told) -> Html:
    """The images that are taken for something else with the highest probability."""
    if not told.photographs:
        return join()
    wrong = told.ranked(right=False)
    return join(
        tag("p", f"{len(wrong):,} of {len(told.labels):,} test images are taken for something else."),
        tag("div", *(_shown(told, n, image) for n, image in told.images(wrong[:WRONG])), class_="photos"),
    )


def _looks(told: _Told) -> Html:
    """Where the network looks, in images that are right and in some that are wrong."""
    convolutions = any(np.ndim(leaf) == 4 for leaf in trees.paths(told.run.shapes["params"]).values())
    if not told.photographs or not convolutions:
        return join()
    right = told.ranked(right=True)
    surest = right[np.sort(np.unique(told.labels[right], return_index=True)[1])]  # of each class
    chosen = [*told.images(np.concatenate([surest[:EXPLAINED], told.ranked(right=False)[:EXPLAINED]]))]
    images = np.stack([image for _, image in chosen])
    heat = np.asarray(explain.grad_cam(told.run.model, told.variables, images, normalize=told.normalize))  # [B,H,W]
    return join(
        tag(
            "p",
            "What speaks for the class that is named is bright (Grad-CAM): where the network is surest and right, one "
            "image of a class, and where it is surest and wrong.",
        ),
        tag(
            "div",
            *(_shown(told, n, image, overlay(image, hot)) for (n, image), hot in zip(chosen, heat, strict=True)),
            class_="photos pairs",
        ),
    )


def _shown(told: _Told, n: int, *pictures: np.ndarray) -> Html:
    """A test image, with what it is taken for, and what it is where that is something else."""
    p, truth = told.probabilities[n], told.run.classes[told.labels[n]]
    guess = told.run.classes[p.argmax()]
    said = tag("b", f"{guess} {p.max():.0%}", class_="good" if guess == truth else "bad")
    item = getattr(told.test, "items", {n: None})[n]
    file = tag("small", item.name) if isinstance(item, Path) else ""
    caption = tag("figcaption", said, "" if guess == truth else tag("span", f"is {truth}"), file)
    return tag("figure", *(photo(each, f"{truth}, taken for {guess}") for each in pictures), caption)


def _columns(told: _Told) -> Html:
    """What the network was given of a table."""
    if told.table is None:
        return join()
    columns, dropped = told.table.columns, told.table.dropped
    rows = [
        (column.name, "text", _listed(column.categories))
        if isinstance(column, Categorical)
        else (column.name, "number", f"{column.fill:g}, where it is missing")
        for column in columns
    ]
    left = f" Left out: {', '.join(dropped)}." if dropped else ""
    said = f"{len(columns)} columns make {len(told.table.features)} features.{left}"
    return join(tag("p", said), table(("column", "kind", "values"), rows))


def _network(told: _Told) -> Html:
    """What each phase trained and froze."""
    shapes = told.run.shapes
    return join(
        *(folded(f"Phase {phase.name}, by module", listing(transfer.table(phase, shapes))) for phase in told.phases)
    )


def _time(told: _Told) -> Html:
    """Where the time went."""
    whole, waiting, validation = (
        sum(row.get(name, 0.0) for row in told.history) for name in ("seconds", "data_seconds", "val_seconds")
    )
    parts = {"training": whole - waiting, "waiting for batches": waiting, "validation": validation}
    if "seconds" in told.summary:
        rest = "the rest: reading, features computed once, checkpoints, the test"
        parts[rest] = max(0.0, told.summary["seconds"] - whole - validation)  # 0 where the run was interrupted
    total = sum(parts.values())
    rows = [
        (name, _duration(each), bar(each / total, f"{each / total:.0%}")) for name, each in parts.items() if each > 0
    ]
    return table(("part", "time", "share"), rows, right={1, 2})


def _reproduce(told: _Told) -> Html:
    config, data, summary = told.run.config, told.data, told.summary
    versions = summary.get("versions", {})
    described = {
        "data": data.get("fingerprint", ""),
        "seed": f"{data['seed']}" if "seed" in data else "",
        "device": summary.get("device", ""),
        "machine": summary.get("machine", ""),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items() if number),
    }
    skipped = data.get("skipped", [])
    return join(
        listing(config["command_line"]) if "command_line" in config else tag("p", "The run was made from Python."),
        facts(described),
        folded(f"{len(skipped):,} files were left out", listing("\n".join(skipped))) if skipped else "",
        folded("config.json", listing(json.dumps(config, indent=2, ensure_ascii=False))),
    )


def _figures(told: _Told, names: Iterable[str]) -> dict[str, Any]:
    """The result of a run, with the metrics of these names."""
    return {
        "model": told.run.config["model"]["name"],
        **{name: told.summary.get(name) for name in (*names, "loss", "count")},
        "best_epoch": told.best["epoch"] if told.best else None,
        "epochs": len(told.history),
        "parameters": trees.count(told.run.shapes["params"]),
        **{name: told.summary.get(name) for name in ("seconds", "device")},
    }


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What can be chosen in a run, by its path in config.json."""
    command = config.get("command") or {"phases": config["phases"]}
    repeated = ("data", "folder", "model", "out")  # the first three are told of below
    model = config["model"]
    chosen = {
        "model": {name: model.get(name) for name in ("name", "from")} if "command" in config else model,
        "data": {name: value for name, value in (config.get("data") or {}).items() if name != "skipped"},
        "preprocessing": config["preprocessing"],
        **{name: value for name, value in command.items() if name not in repeated},
    }
    return dict(_leaves(chosen))


def _leaves(plain: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in plain data that is no mapping and no list of mappings, by its path."""
    if isinstance(plain, list) and plain and all(isinstance(part, Mapping) for part in plain):
        plain = {str(n): part for n, part in enumerate(plain, 1)}
    if not isinstance(plain, Mapping):
        yield path, plain
        return
    for name, part in plain.items():
        yield from _leaves(part, f"{path}/{name}" if path else name)


def _said(name: str, value: Any) -> str:
    """A result as text."""
    if value is None:
        return ""
    if name == "seconds":
        return f"{value:,.1f}"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _listed(names: Sequence[str]) -> str:
    """Names one by one; of many the first, and how many more there are."""
    more = [f"… and {len(names) - READABLE:,} more"] if len(names) > READABLE else []
    return ", ".join([*names[:READABLE], *more])


def _words(name: str) -> str:
    """The name of a figure for readers."""
    return NAMES.get(name, name).replace("val_", "validation ").replace("_", " ")


def _value(value: Any) -> str:
    """The value of an option as text."""
    if isinstance(value, list):
        return " ".join(map(_value, value)) or "none"
    if value is None or isinstance(value, bool):
        return {None: "–", True: "yes", False: "no"}[value]
    return str(value)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
