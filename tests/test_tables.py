"""Tables against scikit-learn, and what can be wrong with them."""

import csv
import dataclasses
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler

from jaxdl import data
from jaxdl.errors import InputError

PLACES = ("north", "south, or so", 'the "west"')
MISSING = ("", " ", "NA", "NaN", "null", "?", "n/a")
SCALERS = {"standard": StandardScaler, "minmax": MinMaxScaler}

numbers = st.integers(-(10**6), 10**6).map(lambda n: n / 100)
# Every other row is complete, so that each column has a value among the training rows.
tables = st.lists(
    st.tuples(numbers, st.sampled_from(PLACES), st.none() | numbers, st.none() | st.sampled_from(PLACES)),
    min_size=6,
    max_size=20,
).map(lambda pairs: [row for a, b, c, d in pairs for row in ((a, b), (c, d))])


def write(path, rows, header=("row", "size", "place", "bought"), missing="", **how):
    """A CSV file; None becomes one of the texts that stand for missing values."""
    with path.open("w", newline="", encoding=how.pop("encoding", "utf-8")) as file:
        csv.writer(file, **how).writerows(
            [missing if value is None else value for value in row] for row in ([header] if header else []) + list(rows)
        )
    return path


def original_rows(part, preprocessing):
    """Which rows of the file a part has: the first column numbers them."""
    number = preprocessing.columns[0]
    return np.rint(part.inputs[:, 0] * number.scale + number.offset).astype(int)


@given(
    table=tables,
    scale=st.sampled_from(["standard", "minmax", None]),
    missing=st.sampled_from(MISSING),
    delimiter=st.sampled_from(",;\t"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig"]),
    end=st.sampled_from(["\n", "\r\n"]),
    seed=st.integers(0, 9),
)
def test_features_are_those_of_scikit_learn(table, scale, missing, delimiter, encoding, end, seed, tmp_path_factory):
    rows = [(n, size, place, "yes" if n % 2 else "no") for n, (size, place) in enumerate(table)]
    path = tmp_path_factory.mktemp("table") / "table.csv"
    how = {"missing": missing, "delimiter": delimiter, "encoding": encoding, "lineterminator": end}
    *parts, preprocessing = data.from_csv(write(path, rows, **how), "bought", scale=scale, seed=seed)

    found = [original_rows(part, preprocessing) for part in parts]
    assert sorted(np.concatenate(found)) == list(range(len(rows)))
    training = found[0]
    sizes = np.array([[math.nan if row[1] is None else row[1]] for row in rows])
    filled = SimpleImputer(strategy="median").fit(sizes[training]).transform(sizes)
    for part, which in zip(parts, found, strict=True):
        for column, known, values in ((0, None, np.arange(len(rows), dtype=float)[:, None]), (1, sizes, filled)):
            scaler = scale and SCALERS[scale]().fit((values if known is None else known)[training])
            expected = (scaler.transform(values) if scaler else values)[which, 0]
            np.testing.assert_allclose(part.inputs[:, column], expected, rtol=1e-5, atol=1e-5)
        places = np.array([[row[2] or "missing"] for row in rows])
        known = places[training][places[training] != "missing"][:, None]
        encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(known)
        np.testing.assert_array_equal(part.inputs[:, 2:], encoder.transform(places[which]))
        assert part.labels.tolist() == [n % 2 for n in which]
        assert part.classes == ("no", "yes")
        assert part.inputs.dtype == np.float32
    assert preprocessing.features == ("row", "size", *(f"place={place}" for place in encoder.categories_[0]))

    again = data.TablePreprocessing.from_plain(json.loads(json.dumps(dataclasses.asdict(preprocessing))))
    assert again == preprocessing
    known = [n for n in range(len(rows)) if rows[n][2] is None or rows[n][2] in encoder.categories_[0]]
    some = [dict(zip(("bought", "place", "size", "row"), rows[n][::-1], strict=True)) for n in known]
    for which, part in zip(found, parts, strict=True):
        for n, features in zip(which, part.inputs, strict=True):
            if n in known:
                np.testing.assert_array_equal(again(some[known.index(n)]), features)
    np.testing.assert_array_equal(again(some), [again(row) for row in some])
    np.testing.assert_array_equal(again(write(path, [rows[n] for n in known], **how)), again(some))


@given(counts=st.lists(st.integers(5, 30), min_size=2, max_size=4), seed=st.integers(0, 9))
def test_each_class_is_split_evenly(counts, seed, tmp_path_factory):
    labels = [f"class {n}" for n, count in enumerate(counts) for _ in range(count)]
    path = write(tmp_path_factory.mktemp("table") / "table.csv", enumerate(labels), ("row", "class"))
    *parts, preprocessing = data.from_csv(path, "class", seed=seed)
    test = np.bincount(parts[2].labels, minlength=len(counts))
    assert test.tolist() == [max(1, round(0.2 * count)) for count in counts]
    *again, same = data.from_csv(path, "class", seed=seed)
    assert same == preprocessing
    assert data.fingerprint(*again) == data.fingerprint(*parts)
    train, validation, nothing, _ = data.from_csv(path, "class", validation=0, test=0)
    assert (len(train), validation, nothing) == (len(labels), None, None)


@given(chosen=st.sets(st.integers(0, 29), min_size=1, max_size=20), numbers=st.booleans())
def test_the_test_rows_may_be_given(chosen, numbers, tmp_path_factory):
    rows = [(n, n / 7, n / 3 if numbers else "ab"[n % 2]) for n in range(30)]
    path = write(tmp_path_factory.mktemp("table") / "table.csv", rows, ("row", "size", "b"))
    train, nothing, test, preprocessing = data.from_csv(path, "b", test=sorted(chosen), validation=0)
    assert nothing is None
    assert original_rows(test, preprocessing).tolist() == sorted(chosen)
    assert original_rows(train, preprocessing).tolist() == sorted(set(range(30)) - chosen)
    np.testing.assert_allclose(train.inputs.mean(0), 0, atol=1e-6)  # scaled by the training rows
    for wrong in (np.arange(30) < 9, [0.5], np.array([True])):
        with pytest.raises(InputError, match="numbers of rows, which are integers"):
            data.from_csv(path, "b", test=wrong)
    for wrong in ([30], [-1], range(30), []):
        with pytest.raises(InputError, match="test rows have numbers from 0 to 29"):
            data.from_csv(path, "b", test=wrong)


def test_nothing_is_fitted_to_rows_that_are_held_out(tmp_path):
    rows = [[n, n % 7, PLACES[n % 3], n % 2] for n in range(40)]
    path = write(tmp_path / "table.csv", rows)
    *parts, preprocessing = data.from_csv(path, "bought")
    held_out = np.concatenate([original_rows(part, preprocessing) for part in parts[1:]])
    for n in held_out:
        rows[n][:3] = [1e6 + n, None, "elsewhere"]
    *changed, same = data.from_csv(write(path, rows), "bought")
    assert same == preprocessing
    np.testing.assert_array_equal(changed[0].inputs, parts[0].inputs)
    for part in changed[1:]:
        assert (part.inputs[:, 2:] == 0).all()  # a category that the training rows do not have


@pytest.mark.parametrize("scale", ["standard", "minmax", None])
def test_a_number_to_predict_is_scaled_and_comes_back(scale, tmp_path):
    prices = np.random.default_rng(0).uniform(1e5, 1e6, 40).round(2)
    path = write(tmp_path / "homes.csv", enumerate(prices), ("row", "price"))
    *parts, preprocessing = data.from_csv(path, "price", scale=scale)
    training = original_rows(parts[0], preprocessing)
    for part in parts:
        expected = prices[original_rows(part, preprocessing)][:, None]
        np.testing.assert_allclose(preprocessing.values(part.labels[:, None]), expected[:, 0], rtol=1e-6)
        if scale:
            expected = SCALERS[scale]().fit(prices[training][:, None]).transform(expected)
        np.testing.assert_allclose(part.labels, expected[:, 0], rtol=1e-5, atol=1e-6)
        assert part.classes == ()
    whole = preprocessing.labelled(path)
    np.testing.assert_array_equal(whole.subset(training).labels, parts[0].labels)
    np.testing.assert_array_equal(whole.inputs, preprocessing(path))


@pytest.mark.parametrize(
    ("values", "classes"),
    [
        (["no", "yes"], ("no", "yes")),
        ([10, 9], ("9", "10")),
        (range(10), tuple("0123456789")),
        (range(11), ()),
        ([0.5, 1.5], ()),
    ],
)
def test_what_is_a_class_and_what_a_number(values, classes, tmp_path):
    path = write(tmp_path / "table.csv", [(n, value) for n in range(4) for value in values], ("a", "b"))
    assert data.from_csv(path, "b").train.classes == classes
    other = "classification" if classes == () else "regression"
    if classes != ("no", "yes"):
        assert (data.from_csv(path, "b", task=other).train.classes == ()) == (other == "regression")


def test_numbers_may_be_names_and_columns_dropped(tmp_path):
    rows = [(f"id {n}", n % 3, n % 2, 2.5) for n in range(30)]
    path = write(tmp_path / "table.csv", rows, ("id", "kind", "bought", "same"))
    preprocessing = data.from_csv(path, "bought", drop=("id",), categorical=("kind",)).preprocessing
    assert preprocessing.features == ("kind=0", "kind=1", "kind=2", "same")
    for kind in (2, 2.0, "2", np.int64(2), np.float32(2)):
        row = preprocessing({"kind": kind, "same": 2.5})
        np.testing.assert_array_equal(row, [0, 0, 1, 0])  # a column of equal numbers is 0, not divided by 0
    np.testing.assert_array_equal(preprocessing({"kind": None, "same": 3.5}), [0, 0, 0, 1])


@pytest.mark.parametrize("form", ["{}", "{}.0", "{}."])
def test_whole_numbers_are_names_in_any_form(form, tmp_path):
    rows = [(form.format(n % 3) if n % 7 else None, form.format(n % 2 + 1)) for n in range(30)]
    path = write(tmp_path / "table.csv", rows, ("kind", "bought"))
    *parts, preprocessing = data.from_csv(path, "bought", categorical=("kind",))
    assert preprocessing.features == ("kind=0", "kind=1", "kind=2")
    assert parts[0].classes == ("1", "2")
    old = dataclasses.replace(  # as they were kept before
        preprocessing, columns=(data.Categorical("kind", tuple(form.format(n) for n in range(3))),)
    )
    for kind in (2, 2.0, "2", "2.0", np.float32(2)):
        for fitted in (preprocessing, old):
            np.testing.assert_array_equal(fitted({"kind": kind}), [0, 0, 1])
    other = write(tmp_path / "other.csv", [("1.0", "2"), ("1", "2.0")], ("kind", "bought"))
    assert preprocessing.labelled(other).labels.tolist() == [1, 1]
    np.testing.assert_array_equal(preprocessing(other), [[0, 1, 0]] * 2)


@pytest.mark.parametrize("target", ["1", 1, -2])
def test_a_table_without_a_header(target, tmp_path):
    rows = [(n / 10, "ab"[n % 2], n % 7) for n in range(20)]
    path = write(tmp_path / "table.csv", rows, header=None)
    train, _, _, preprocessing = data.from_csv(path, target, header=False, drop=("0",))
    assert (train.classes, preprocessing.features) == (("a", "b"), ("2",))
    without = write(tmp_path / "rows.csv", [(a, c) for a, _, c in rows], header=None)
    np.testing.assert_array_equal(preprocessing(without), preprocessing(path))
    with pytest.raises(InputError, match="has 1 columns; .* had 3"):
        preprocessing(write(tmp_path / "less.csv", [(1,)], header=None))


GOOD = "a,b\n" + "1,x\n2,y\n" * 6


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("", {}, "is empty"),
        ("\n\n", {}, "is empty"),
        ("a,b\n", {}, "a header but no rows"),
        (GOOD + "1\n", {}, "line 14: 1 fields; the first line has 2"),
        (GOOD + "1,x,2\n", {}, "line 14: 3 fields"),
        ('a,b\n"1\n2",x\n3\n', {}, "line 4: 1 fields"),
        (GOOD + '"1,x\n2,y\n', {}, "line 14: the row that begins here is broken"),
        (b"a,b\n1,x\n1,\xff\n", {}, "line 3: this is not text in UTF-8"),
        (b"\xff\xfea\0,\0b\0", {}, "line 1: this is not text in UTF-8"),
        ("a,b,a\n1,x,2\n", {}, "columns 1 and 3 are both called 'a'"),
        (",b\n1,x\n", {}, "column 1 has no name"),
        ("0.5,1.5\n0.5,2.5\n", {}, r"say header=False \(--no-header\)"),
        ("0.5,1.5,R\n0.5,2.5,M\n", {"target": "R"}, r"say header=False \(--no-header\)"),
        (GOOD, {"target": "B"}, "target: .* has no column 'B'; there are: a, b"),
        (GOOD, {"drop": ["bb"]}, "drop: .* has no column 'bb'; the nearest: b"),
        (GOOD, {"drop": "a"}, r"drop is a tuple of names, such as \('a',\)"),
        (GOOD, {"drop": ["a"]}, "nothing to learn from"),
        (GOOD, {"drop": ["b"]}, "nothing to predict"),
        (GOOD, {"categorical": ["b"]}, "'b' is the target"),
        (GOOD, {"task": "clasification"}, "no task .*; the nearest: classification"),
        (GOOD, {"scale": "min-max"}, "no scale .*; the nearest: minmax"),
        (GOOD, {"test": 1.5}, "share"),
        (GOOD, {"seed": -1}, "seed"),
        (GOOD, {"task": "regression"}, "line 2, column 'b': 'x' is not a number"),
        (GOOD + "1,?\n", {}, "line 14: the target 'b' is missing"),
        (GOOD + "1,z\n", {}, "column 'b': the class 'z' has one example"),
        ("a,b\n1,x\n2,x\n", {}, "the target 'b' is 'x' in every row"),
        (GOOD + "inf,x\n", {}, "line 14, column 'a': 'inf' is not a finite number"),
        (GOOD + "1e39,x\n", {}, "line 14, column 'a': '1e39' is not a finite number"),
        ("a,b\n" + "NA,x\n,y\n" * 6, {}, "column 'a' has no value"),
        ("a,b\n" + "NA,x\n,y\n" * 6, {"categorical": ["a"]}, "column 'a' has no value"),
        ("a,b\n" + "".join(f"id{n},{'xy'[n % 2]}\n" for n in range(9)), {}, r"9 different texts .* \(--drop a\)"),
        ("a,b\n" + "".join(f"{n},{'xy'[n % 2]}\n" for n in range(9)) + "l0,x\n", {}, "line 11, .*'l0' is not a number"),
    ],
)
def test_tables_that_cannot_be_used(text, options, reason, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=reason) as error:
        data.from_csv(path, **{"target": "b", **options})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "there are no rows"),
        (3, "got int"),
        ([["1"]], r"rows\[0\] is of type list"),
        ({"Size": 1, "place": "north"}, r"rows\[0\] has no column 'size'; the nearest: Size"),
        ([{"size": 1, "place": "north"}, {"size": "big", "place": "north"}], r"rows\[1\], column 'size': 'big' is not"),
        ({"size": math.inf, "place": "north"}, "'inf' is not a finite number"),
        ({"size": 1, "place": "norht"}, "no training row has 'norht'; the nearest: north; leave it empty"),
    ],
)
def test_rows_that_cannot_be_used(rows, reason, tmp_path):
    table = [(n % 7 / 1e9, ("north", "south")[n % 3 == 0], n % 2) for n in range(20)]
    path = write(tmp_path / "table.csv", table, ("size", "place", "bought"))
    preprocessing = data.from_csv(path, "bought").preprocessing
    with pytest.raises(InputError, match=reason):
        preprocessing(rows)
    with pytest.raises(InputError, match="line 2, column 'size': too far"):
        preprocessing(write(path, [(1e38, "north")], ("size", "place")))
    with pytest.raises(InputError, match="has no column 'place'; the nearest: Place"):
        preprocessing(write(path, [(1, "north")], ("size", "Place")))
    with pytest.raises(InputError, match="line 2: 'bought' has no class '2'"):
        preprocessing.labelled(write(path, [(0, "north", 2)], ("size", "place", "bought")))
    with pytest.raises(InputError, match="'bought' has classes"):
        preprocessing.values([[0.5, 0.5]])
    with pytest.raises(InputError, match=r"cannot read the table .*tabel\.csv: .*; the nearest: table\.csv"):
        preprocessing(tmp_path / "tabel.csv")


cells = st.sampled_from(["0", "1", "2.5", "a", "b", " 1", "", '"', '"a"', "?", "1e40", "\t", ";"])
texts = st.lists(st.tuples(cells, st.sampled_from("ab0")).map(",".join), max_size=12).map("\n".join)


@given(content=st.binary(max_size=200) | texts.map(str.encode))
def test_any_file_is_read_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("table") / "table.csv"
    path.write_bytes(content)
    try:
        train = data.from_csv(path, -1, header=False, validation=0, test=0).train
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert np.isfinite(train.inputs).all()
