"""Tables: a CSV file to features and labels, and what was fitted on its training rows as plain data.

train, validation, test, preprocessing = jaxdl.data.from_csv("insurance.csv", "charges")
preprocessing({"age": 40, "smoker": "no", ...})  # float32 [F]
"""

import csv
import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np

from jaxdl.data.sources import Arrays, check_seed, from_arrays, split
from jaxdl.errors import InputError, nearest

Scale = Literal["standard", "minmax"]
Task = Literal["classification", "regression"]

MISSING = {"", "?", "na", "n/a", "#n/a", "nan", "null"}  # in any case
CLASSES = 10  # a target of up to so many different whole numbers has classes
LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Numeric:
    """A column of numbers, which becomes one feature, `(number - offset) / scale`."""

    name: str
    fill: float
    """What stands in for a missing number: the median of the training rows."""
    offset: float
    """Their mean or, scaled by "minmax", the least of them; 0 where they stay as they are."""
    scale: float
    """Their standard deviation or, scaled by "minmax", the largest less the least; 1 where all are equal, or stay
    as they are."""


@dataclass(frozen=True)
class Categorical:
    """A column of names, which becomes a feature for each of its categories: 1 in the rows that have it, else 0."""

    name: str
    categories: tuple[str, ...]
    """Those of the training rows, sorted."""


Column = Numeric | Categorical


@dataclass(frozen=True)
class TablePreprocessing:
    """What a network expects of the rows of a table, as plain data that is saved in the run.

    Calling it takes a row, a mapping from column to value, to `float32 [F]`; a list of rows, or the path of a CSV file,
    to `float32 [N,F]`. Columns that it does not know are ignored, and so is the target. A missing number becomes the
    column's `fill`, a missing category zeros; missing is None, nan, or a text of `MISSING`.
    """

    columns: tuple[Column, ...]
    target: Column
    """Its categories are the classes; a number that is to be predicted is scaled for the network."""
    dropped: tuple[str, ...] = ()
    header: bool = True
    """Whether the first line of a file names the columns. Where not, their names are their numbers, from 0."""

    @classmethod
    def from_plain(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`, of JSON too."""

        def column(fields: Mapping[str, Any]) -> Column:
            if "categories" in fields:
                return Categorical(fields["name"], tuple(fields["categories"]))
            return Numeric(**fields)

        columns = tuple(column(each) for each in fields["columns"])
        return cls(columns, column(fields["target"]), tuple(fields["dropped"]), fields["header"])

    @property
    def features(self) -> tuple[str, ...]:
        """The name of each feature: its column's, or `column=category`."""
        names = [
            [column.name] if isinstance(column, Numeric) else [f"{column.name}={text}" for text in column.categories]
            for column in self.columns
        ]
        return tuple(chain(*names))

    def __call__(self, rows: Mapping[str, Any] | Sequence[Mapping[str, Any]] | str | Path) -> np.ndarray:
        """A row to `float32 [F]`; rows, or a CSV file, to `float32 [N,F]`.

        Raises:
          InputError: a column is missing, a number cannot be read, or no training row had that category.
        """
        if isinstance(rows, Mapping):
            return self([rows])[0]
        if isinstance(rows, str | Path):
            return _features(self.columns, self._read(rows))
        if not isinstance(rows, Sequence):
            raise InputError(f"rows are a list of mappings, or the path of a CSV file; got {type(rows).__name__}")
        return _features(self.columns, _from_rows(rows, [column.name for column in self.columns]))

    def labelled(self, path: str | Path) -> Arrays:
        """All rows of a CSV file that has the target too.

        Raises:
          InputError: as a call, and where the target is missing or no class.
        """
        table = self._read(path)
        return _arrays(_features(self.columns, table), _labels(self.target, table), self.target)

    def values(self, outputs: Any) -> np.ndarray:
        """A network's outputs `[N,1]`, or labels `[N]`, as `float32 [N]` in the units of the target.

        Raises:
          InputError: the target has classes.
        """
        if isinstance(self.target, Categorical):
            raise InputError(f"{self.target.name!r} has classes: the outputs are logits, and the labels classes")
        return (np.asarray(outputs, float).reshape(-1) * self.target.scale + self.target.offset).astype(np.float32)

    def _read(self, path: str | Path) -> "_Table":
        table = _read(Path(path), self.header)
        if self.header:
            return table
        names = sorted([*(column.name for column in (*self.columns, self.target)), *self.dropped], key=int)
        if len(table.columns) == len(names) - 1:
            names.remove(self.target.name)
        if len(table.columns) != len(names):
            raise InputError(f"{path} has {len(table.columns)} columns; the training's table had {len(names)}")
        return table._replace(columns=dict(zip(names, table.columns.values(), strict=True)))


class TableSplits(NamedTuple):
    """The parts of a table as `Splits` has those of a folder, and what was fitted on the first of them."""

    train: Arrays
    validation: Arrays | None
    test: Arrays | None
    preprocessing: TablePreprocessing


def from_csv(
    path: str | Path,
    target: str | int,
    *,
    drop: Sequence[str] = (),
    categorical: Sequence[str] = (),
    task: Task | None = None,
    scale: Scale | None = "standard",
    header: bool = True,
    validation: float = 0.1,
    test: float | Sequence[int] | np.ndarray = 0.2,
    seed: int = 0,
) -> TableSplits:
    """A CSV file (UTF-8; commas, semicolons or tabs) as features and labels, split and scaled.

    Scales, medians and categories are those of the training rows. A category that only held-out rows have counts as
    missing there.

    Args:
      target: the column to predict; where there is no header, its number from 0, or -1 for the last.
      drop: columns to leave out, identifiers for instance.
      categorical: columns whose numbers are names. Others are numeric where every value is a number or missing.
      task: None takes a target for classes where it is text, or has at most ten different values, all whole numbers.
      scale: "standard" for mean 0 and standard deviation 1, "minmax" for 0 to 1, None for the numbers as they are. A
        target that is a number is scaled as well; `preprocessing.values` is the way back.
      header: whether the first line names the columns.
      validation, test: shares of the rows, of validation of those that the test leaves, and of each class where there
        are classes, chosen by a seeded shuffle; 0 leaves that part empty (None). The test rows may be given instead, by
        their numbers from 0, as where a split is published.

    Returns:
      `(train, validation, test, preprocessing)`: features float32 `[N,F]`, and labels int32 `[N]` of the classes
      `train.classes`, or float32 `[N]`.

    Raises:
      InputError: the file cannot be read, a row has too many or too few fields, a column does not exist or is no use,
        a number is not finite, the target is missing in a row, or a class has too few rows. It says which and where.
    """
    for option, value, known in (("task", task, Task), ("scale", scale, Scale)):
        if value not in (None, *get_args(known)):
            raise InputError(f"no {option} is called {value!r}{nearest(str(value), get_args(known))}")
    for name, share in (("validation", validation), ("test", test)):
        if isinstance(share, int | float) and not 0 <= share < 1:
            raise InputError(f"{name} is a share of the rows, from 0 up to 1; got {share}")
    check_seed(seed)
    table = _read(Path(path), header)
    names, target = list(table.columns), str(target)
    if not header and target in map(str, range(-len(names), 0)):
        target = names[int(target)]
    for option, wanted in (("target", [target]), ("drop", drop), ("categorical", categorical)):
        if isinstance(wanted, str):
            raise InputError(f"{option} is a tuple of names, such as ({wanted!r},)")
        for name in wanted:
            if name not in names:
                raise InputError(f"{option}: {path} has no column {name!r}{nearest(name, names)}")
    if target in categorical:
        raise InputError(f"{target!r} is the target: say task='classification' (--task) where its numbers are classes")
    inputs = [name for name in names if name not in (target, *drop)]
    if not inputs or target in drop:
        raise InputError(f"{path}: drop leaves nothing to {'predict' if target in drop else 'learn from'}")

    classes = _classes(table, target, task)
    count = len(table.columns[target])
    groups = np.zeros(count, np.int32) if classes is None else _labels(classes, table)
    rows = from_arrays(np.arange(count)[:, None], groups, ("all rows",) if classes is None else classes.categories)
    tested: Arrays | None
    try:
        if isinstance(test, int | float):
            rest, tested = split(rows, test, seed) if test else (rows, None)
        else:
            numbers = np.asarray(test)
            if numbers.size and not np.issubdtype(numbers.dtype, np.integer):
                raise InputError(f"test is a share, or numbers of rows, which are integers; got {numbers.dtype}")
            given = np.isin(rows.inputs[:, 0], numbers)
            rest, tested = rows.subset(~given), rows.subset(given)
            if not 0 < len(tested) == len(np.unique(numbers)) < count:
                raise InputError(f"test rows have numbers from 0 to {count - 1}, and some are left to train on")
        rest, held = split(rest, validation, seed + 1) if validation else (rest, None)
    except InputError as error:
        raise InputError(f"{path}, column {target!r}: {error}") from None
    training = rest.inputs[:, 0]
    goal = _fit_numeric(table, target, training, scale) if classes is None else classes
    columns = tuple(
        _fit_categorical(table, name, training)
        if name in categorical or not _is_numeric(table, name)
        else _fit_numeric(table, name, training, scale)
        for name in inputs
    )
    features, labels = _features(columns, table, strict=False), _labels(goal, table)
    whole = _arrays(features, labels, goal)
    return TableSplits(
        whole.subset(training),
        held and whole.subset(held.inputs[:, 0]),
        tested and whole.subset(tested.inputs[:, 0]),
        TablePreprocessing(columns, goal, tuple(drop), header),
    )


class _Table(NamedTuple):
    """Columns of text, what holds them, and where in it a row stands."""

    columns: dict[str, list[str]]
    name: str
    where: Callable[[int], str]


def _read(path: Path, header: bool) -> _Table:
    try:
        content = path.read_bytes()
    except OSError as error:
        beside = () if path.exists() else [entry.name for entry in path.parent.glob("*.csv")]
        raise InputError(f"cannot read the table {path}: {error.strerror}{nearest(path.name, beside)}") from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise InputError(f"{path}, line {line}: this is not text in UTF-8; save the table as CSV in UTF-8") from None
    first = text.lstrip("\r\n")[:100_000].splitlines()[:1]
    delimiter = max(",;\t", key=lambda mark: len(next(csv.reader(first, delimiter=mark), ())))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    rows: list[list[str]] = []
    lines: list[int] = []
    while True:
        line = reader.line_num + 1  # where the row begins; a quoted field may go over several lines
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise InputError(f"{path}, line {line}: the row that begins here is broken: {error}") from None
        if row is None:
            break
        if rows and row and len(row) != len(rows[0]):
            raise InputError(f"{path}, line {line}: {len(row)} fields; the first line has {len(rows[0])}")
        if row:  # not an empty line
            rows.append([field.strip() for field in row])
            lines.append(line)
    if not rows:
        raise InputError(f"{path} is empty")
    names = [str(number) for number in range(len(rows[0]))]
    if header:
        _check_header(path, rows[0], names)
        names, rows, lines = rows[0], rows[1:], lines[1:]
    if not rows:
        raise InputError(f"{path} has a header but no rows")
    columns = {name: list(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    return _Table(columns, str(path), lambda row: f"{path}, line {lines[row]}")


def _check_header(path: Path, names: list[str], numbers: list[str]) -> None:
    for number, name in enumerate(names):
        if not name:
            raise InputError(f"{path}: column {number + 1} has no name in the header; give it one, and drop an index")
        if name in names[:number]:
            raise InputError(f"{path}: columns {names.index(name) + 1} and {number + 1} are both called {name!r}")
    known = [number for number in map(_number, names) if number is not None]
    fractions = [number for number in known if not number.is_integer()]
    # Numbers may be names, whole ones at least; pandas calls columns 0, 1, … by default.
    if (len(known) == len(names) and names != numbers) or 2 * len(fractions) > len(names):
        raise InputError(
            f"{path} has numbers where names should be: say header=False (--no-header) if it has no header"
        )


def _from_rows(rows: Sequence[Any], names: Sequence[str]) -> _Table:
    if not rows:
        raise InputError("there are no rows")
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(f"a row is a mapping from column to value; rows[{number}] is of type {type(row).__name__}")
        for name in names:
            if name not in row:
                raise InputError(f"rows[{number}] has no column {name!r}{nearest(name, map(str, row))}")
    return _Table({name: [_text(row[name]) for row in rows] for name in names}, "rows", lambda row: f"rows[{row}]")


def _text(value: Any) -> str:
    """A value as a CSV file has it; the category 1.0 is called 1 there."""
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    return "" if value is None else str(value).strip()


def _missing(text: str) -> bool:
    return text.lower() in MISSING


def _number(text: str) -> float | None:
    """nan where it is missing, None where it is no number."""
    if _missing(text):
        return math.nan
    try:
        return None if "_" in text else float(text)  # for Python, the identifier 1_000 is a number
    except ValueError:
        return None


def _category(text: str) -> str:
    """A category as it is named: 1 where the file has 1.0, as pandas writes whole numbers beside missing ones."""
    return re.sub(r"^(-?\d+)\.0*$", r"\1", text)


def _texts(table: _Table, name: str) -> list[str]:
    if name not in table.columns:
        raise InputError(f"{table.name} has no column {name!r}{nearest(name, table.columns)}")
    return table.columns[name]


def _numbers(table: _Table, name: str) -> np.ndarray:
    """A column as float64 `[N]`, nan where it is missing."""
    numbers = []
    for row, text in enumerate(_texts(table, name)):
        number = _number(text)
        if number is None or abs(number) > LARGEST:
            wrong = "not a number" if number is None else "not a finite number in float32"
            raise InputError(f"{table.where(row)}, column {name!r}: {text!r} is {wrong}")
        numbers.append(number)
    return np.array(numbers)


def _is_numeric(table: _Table, name: str) -> bool:
    """Whether each value is a number or missing. Raises InputError where most values are different texts: as classes
    or categories they would be learned by heart."""
    values = [text for text in table.columns[name] if not _missing(text)]
    words = [text for text in values if _number(text) is None]
    if words and 2 * len(set(values)) > len(values):
        if 2 * len(words) < len(values):
            where = table.where(table.columns[name].index(words[0]))
            raise InputError(f"{where}, column {name!r}: {words[0]!r} is not a number, as most of the column is")
        raise InputError(
            f"{table.name}: column {name!r} has {len(set(values))} different texts in {len(values)} rows, so it tells "
            f"rows apart and no more; leave it out with drop=({name!r},) (--drop {name}), or name it in categorical"
        )
    return not words


def _ordered(texts: set[str]) -> tuple[str, ...]:
    """Sorted: by value where all are numbers, else as text."""
    numbers = {text: _number(text) for text in texts}
    return tuple(sorted(texts) if None in numbers.values() else sorted(texts, key=lambda text: (numbers[text], text)))


def _classes(table: _Table, target: str, task: Task | None) -> Categorical | None:
    """The target with its classes; None where it is a number that is to be predicted."""
    texts = _target(table, target)
    values = set(map(_category, texts))
    if len(values) < 2:
        raise InputError(f"{table.name}: the target {target!r} is {texts[0]!r} in every row")
    if task is None and _is_numeric(table, target):
        few = len(values) <= CLASSES and all(float(text).is_integer() for text in values)
        task = "classification" if few else "regression"
    return None if task == "regression" else Categorical(target, _ordered(values))


def _target(table: _Table, target: str) -> list[str]:
    texts = _texts(table, target)
    for row, text in enumerate(texts):
        if _missing(text):
            raise InputError(f"{table.where(row)}: the target {target!r} is missing; fill it in, or take the row out")
    return texts


def _fit_numeric(table: _Table, name: str, rows: np.ndarray, scale: Scale | None) -> Numeric:
    numbers = _numbers(table, name)[rows]
    numbers = numbers[~np.isnan(numbers)]
    if not len(numbers):
        raise InputError(f"{table.name}: column {name!r} has no value in the training rows; drop it")
    low, high = float(numbers.min()), float(numbers.max())
    ranges = {"standard": (float(numbers.mean()), float(numbers.std())), "minmax": (low, high - low), None: (0.0, 1.0)}
    offset, width = ranges[scale]
    # The deviation of equal numbers is not quite 0, and that of tiny ones may be.
    return Numeric(name, float(np.median(numbers)), offset, width if low < high and width else 1.0)


def _fit_categorical(table: _Table, name: str, rows: np.ndarray) -> Categorical:
    texts = {_category(table.columns[name][row]) for row in rows}
    categories = _ordered({text for text in texts if not _missing(text)})
    if not categories:
        raise InputError(f"{table.name}: column {name!r} has no value in the training rows; drop it")
    return Categorical(name, categories)


def _features(columns: Sequence[Column], table: _Table, strict: bool = True) -> np.ndarray:
    """Float32 `[N,F]`; not strict, an unknown category counts as missing."""
    return np.concatenate(
        [
            _scaled(column, table)[:, None] if isinstance(column, Numeric) else _one_hot(column, table, strict)
            for column in columns
        ],
        axis=1,
    )


def _scaled(column: Numeric, table: _Table) -> np.ndarray:
    """Float32 `[N]`."""
    numbers = _numbers(table, column.name)
    with np.errstate(over="ignore"):
        scaled = (np.where(np.isnan(numbers), column.fill, numbers) - column.offset) / column.scale
    far = np.flatnonzero(np.abs(scaled) > LARGEST)
    if len(far):
        raise InputError(
            f"{table.where(far[0])}, column {column.name!r}: too far from the numbers of the training rows"
        )
    return scaled.astype(np.float32)


def _one_hot(column: Categorical, table: _Table, strict: bool) -> np.ndarray:
    """Float32 `[N,K]`."""
    known = {_category(text): n for n, text in enumerate(column.categories)}
    hot = np.zeros((len(_texts(table, column.name)), len(known)), np.float32)
    for row, text in enumerate(table.columns[column.name]):
        if (name := _category(text)) in known:
            hot[row, known[name]] = 1
        elif strict and not _missing(text):
            raise InputError(
                f"{table.where(row)}, column {column.name!r}: no training row has {text!r}"
                f"{nearest(text, known)}; leave it empty where it is unknown"
            )
    return hot


def _labels(target: Column, table: _Table) -> np.ndarray:
    """Int32 `[N]`, or scaled and float32 `[N]`."""
    texts = _target(table, target.name)
    if isinstance(target, Numeric):
        return _scaled(target, table)
    known = {_category(text): n for n, text in enumerate(target.categories)}
    for row, text in enumerate(texts):
        if _category(text) not in known:
            raise InputError(f"{table.where(row)}: {target.name!r} has no class {text!r}{nearest(text, known)}")
    return np.array([known[_category(text)] for text in texts], np.int32)


def _arrays(features: np.ndarray, labels: np.ndarray, target: Column) -> Arrays:
    return from_arrays(features, labels, target.categories if isinstance(target, Categorical) else None)
