"""The chapters at toy size, and what they share."""

import dataclasses
import importlib
import json
import math
import statistics
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from experiments import chapter, results
from experiments.chapter import Figure, Outcome
from jaxdl import cli, runs
from jaxdl.errors import InputError

FOLDER = Path(chapter.__file__).parent
QUICK = ("backprop", "tensors")
CHAPTERS = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem != "chapter" and "chapter.main(" in p.read_text())


def named(name):
    return name if name in QUICK else pytest.param(name, marks=pytest.mark.slow)


@pytest.mark.parametrize("name", [*map(named, CHAPTERS)])
def test_a_chapter_reaches_its_figures_at_toy_size(name, tmp_path, capsys, monkeypatch):
    # One device, as a learner has.
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    importlib.import_module(f"experiments.{name}").main(["--smoke", "--check", "--out", str(tmp_path / "out")])
    assert "MISSED" not in capsys.readouterr().out
    for config in tmp_path.rglob("config.json"):
        run = runs.load(config.parent)
        assert run.result()["seconds"] > 0
        run.variables()
        cli.main(["show", str(run.path)])


def test_jaxdl_train_knows_the_chapters(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cli.main(["train", "backprop", "--rows", "5"])
    assert "backprop: 5 random rows" in capsys.readouterr().out
    (tmp_path / "backprop").mkdir()
    for name, said in (("backprop", "needs a folder of images"), ("results", "there is no folder results")):
        with pytest.raises(SystemExit) as stopped:
            cli.main(["train", name])
        assert stopped.value.code == 2
        assert said in capsys.readouterr().err


@dataclasses.dataclass(frozen=True)
class Options(chapter.Options):
    least: float = -math.inf


def measured(options, seed, out):
    """A chapter that measures the square of its seed."""
    if seed == 13:
        raise InputError("not this one")
    return Outcome("nothing", [Figure("square", seed**2, at_least=options.least, source="arithmetic")])


def test_figures_are_means_and_held_against_their_references(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chapter, "RESULTS", tmp_path)
    chapter.main("squares", Options, measured, ["--seeds", "1", "2", "4", "--least", "7", "--check", "--record"])
    squares = [1.0, 4.0, 16.0]
    said = f"{np.mean(squares):.4g} ± {np.std(squares, ddof=1):.2g}"
    assert f"square  {said}  ≥ 7  reached  arithmetic".split() == capsys.readouterr().out.splitlines()[-2].split()
    record = json.loads((tmp_path / "squares.json").read_text())
    assert record["figures"][0]["spread"] == pytest.approx(statistics.stdev(squares))
    assert record["command"] == "python -m experiments.squares --seeds 1 2 4 --least 7 --check --record"
    section = "\n".join(results.section(record))
    assert "| nothing | n = 3 | reference | source |" in section
    assert f"| square | **{said}** | ≥ 7 | arithmetic |" in section
    for arguments, code in ((["--least", "1", "--check"], 1), (["--seeds", "13"], 2), (["--seeds"], 2)):
        with pytest.raises(SystemExit) as stopped:
            chapter.main("squares", Options, measured, arguments)
        assert stopped.value.code == code
    captured = capsys.readouterr()
    assert "MISSED" in captured.out
    assert captured.err == "squares: not this one\nsquares: --seeds needs at least one number\n"
    chapter.main("squares", Options, measured, ["--least", "1"])  # missed, and not checked


@pytest.mark.parametrize(
    ("figure", "reached", "reference"),
    [
        (Figure("", 1.0), True, ""),
        (Figure("", math.nan), False, ""),
        (Figure("", 0.9, at_least=0.9), True, "≥ 0.9"),
        (Figure("", 3171.5, at_most=3171), False, "≤ 3171"),
        (chapter.near("", 0.7, 0.707, 0.01), True, "0.707 ± 0.01"),
        (chapter.near("", 0.69, 0.707, 0.01), False, "0.707 ± 0.01"),
        (chapter.near("", -2.96, -2.9596, 1e-3), True, "-2.96 ± 0.001"),
    ],
)
def test_what_a_figure_is_held_against(figure, reached, reference):
    assert (figure.reached, figure.reference) == (reached, reference)


def test_folders_are_never_written_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for expected in ("one", "one-2", "one-3"):
        assert chapter._folder("one", None) == Path("runs") / expected
        (Path("runs") / expected).mkdir(parents=True)
    with pytest.raises(InputError, match="exists already"):
        chapter._folder("one", Path("runs") / "one")


@pytest.mark.parametrize("stratify", [None, "kind"])
def test_a_published_split_is_that_of_complete_rows(stratify, tmp_path):
    rows = [(n, " " if n % 9 == 4 else n / 2, "ab"[n % 3 == 0]) for n in range(60)]
    table = chapter.write_table(tmp_path / "table.csv", ("n", "half", "kind"), rows)
    complete = [row for row in rows if row[1] != " "]
    kinds = [row[2] for row in complete] if stratify else None
    _, expected = train_test_split(complete, test_size=0.25, random_state=3, stratify=kinds)
    assert set(chapter.published_split(table, 0.25, 3, stratify=stratify)) == {row[0] for row in expected}
    with pytest.raises(InputError, match="no column 'kid'; the nearest: kind"):
        chapter.published_split(table, 0.25, 3, stratify="kid")


def test_the_pages_are_up_to_date():
    page = results.PAGE.read_text()
    assert results.page(page) == page
    readme = (FOLDER / "README.md").read_text()
    for name in CHAPTERS:
        assert f"| `{name}` |" in readme
