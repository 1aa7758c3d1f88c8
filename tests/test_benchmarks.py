"""How measurements are written down; `make bench-…` makes them."""

import copy
import json

import pytest

from benchmarks import readme, record

RECORD = {
    "command": "make bench-x",
    "rows": [
        {"what": what, "peer": "theirs", "ratio": {"n": n, "median": 2.0, "q25": 1.5, "q75": 99.7}}
        for what, n in (("a", 3), ("b", 7), ("c (n = 3)", 3), ("d", 7), ("e", 7))
    ],
    "machine": "a processor, 16 cores, Linux",
    "device": "1 × cpu (cpu)",
    "versions": {"python": "3.11"},
    "date": "2026-01-01",
}


@pytest.mark.parametrize(
    ("ratio", "said"), [(0.994, "0.99"), (1.0, "1"), (14.6, "15"), (99.4, "99"), (99.7, "100"), (205.4, "205")]
)
def test_a_ratio_has_two_digits_and_no_exponent(ratio, said):
    assert readme.figure(ratio) == said


def test_a_table_says_how_often_each_row_was_measured():
    lines = readme.table(RECORD)
    assert lines[0] == "| `make bench-x`, n = 7 | theirs |"
    assert [line.split("|")[1].strip() for line in lines[2:7]] == ["a (n = 3)", "b", "c (n = 3)", "d", "e"]
    assert "**2** (1.5–100)" in lines[2]


def test_headlines_say_on_how_many_cores():
    records = {path.stem: json.loads(path.read_text()) for path in record.RESULTS.glob("*.json")}
    changed = copy.deepcopy(records)
    for each in changed.values():
        each["machine"] = each["machine"].replace("2 cores", "16 cores")
    ours, others = readme.headlines(records), readme.headlines(changed)
    assert (ours[0].split(" |")[0], others[0].split(" |")[0]) == ("| 2 CPU cores", "| 16 CPU cores")
    assert ours[1:] == others[1:]


def test_a_record_names_its_commit_where_there_is_git(monkeypatch, tmp_path):
    here = record._commit()
    monkeypatch.chdir(tmp_path)
    assert record._commit() == here
    monkeypatch.setenv("PATH", str(tmp_path))
    assert record._commit() == "unknown"
