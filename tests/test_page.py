"""The pages: read by a parser that is not ours, and by a browser where there is one."""

import html
import json
import re
import shlex
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from jaxdl import cli, page, runs
from jaxdl.cli import training
from jaxdl.errors import InputError
from jaxdl.report.html import tag

CLASSES = ('<script>alert("a")', "b & 'c'", "d")
VOID = {"img", "meta", "source"}
CHROMIUM = shutil.which("chromium")


class Reader(HTMLParser):
    """What stands on a page; it raises where the tags are not balanced."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts, self.tables = [], [], {}, []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, name, attributes):
        self.tags.append((name, dict(attributes)))
        if name not in VOID:
            self.open.append(name)
        if name == "table":
            self.tables.append([])
        if name == "tr":
            self.tables[-1].append([])
        if name in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_endtag(self, name):
        assert self.open.pop() == name

    def handle_data(self, text):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(text)
        if {"td", "th"} & set(self.open):
            self.tables[-1][-1][-1] += text

    @property
    def text(self):
        return " ".join(text for name, texts in self.texts.items() if name not in ("style", "script") for text in texts)

    @property
    def titles(self):
        return self.texts["h2"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Runs on images of coloured squares and on a table; their names are what a page must not take for markup."""
    root = tmp_path_factory.mktemp("page") / "<b>&amp;"
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("test", 5)):
        for n, name in enumerate(CLASSES):
            folder = root / "photos" / split / name
            folder.mkdir(parents=True)
            for k in range(count):
                pixels = draw.integers(0, 130, (20, 20, 3), dtype=np.uint8)
                pixels[..., n] += 60
                Image.fromarray(pixels).save(folder / f"{k}.png")
    for k, (one, other) in enumerate([(0, 1), (1, 2), (2, 0)]):  # the same image in two classes: one is a mistake
        folder = root / "photos" / "test"
        shutil.copy(folder / CLASSES[one] / f"{k}.png", folder / CLASSES[other] / f"{k}.png")
    lines = ["area,<i>town,price,sold"]
    for _ in range(80):
        area, town = draw.integers(40, 200), draw.choice(["<u>", "Besel"])
        price = 3.5 * area + 90 * (town == "Besel") + draw.normal(scale=9)
        lines.append(f"{area},{town},{price:.1f},{'yes' if price < 450 else 'no'}")
    (root / "homes.csv").write_text("\n".join(lines))
    table = ["train", str(root / "homes.csv"), "--hidden", "4", "--learning-rate", "0.05", "--epochs", "4"]
    for arguments in (
        ["train", str(root / "photos"), "--model", "cnn", "--size", "16", "--epochs", "3", "--out", str(root / "cnn")],
        [*table, "--target", "price", "--drop", "sold", "--out", str(root / "price")],
        [*table, "--target", "sold", "--drop", "price", "--out", str(root / "sold")],
    ):
        cli.main(arguments)
    return root


def read(root, run):
    return Reader((root / run / "report.html").read_text())


ALL = ["Training", "Curves", "Network", "Time", "Reproduce"]


@pytest.mark.parametrize(
    ("run", "more"),
    [
        ("cnn", {"Classes", "Mistakes", "Where it looks"}),
        ("price", {"Predictions", "Columns"}),
        ("sold", {"Classes", "Columns"}),
    ],
)
def test_a_training_leaves_a_page_with_what_fits(root, run, more):
    found = read(root, run)
    assert set(found.titles) == {*ALL, *more}
    assert [text for text in found.titles if text in ALL] == ALL
    assert found.texts["a"] == found.titles
    shares = [int(row[2].rstrip("%")) for row in found.tables[-1][1:]]
    assert len(shares) >= 3
    assert sum(shares) == pytest.approx(100, abs=2)
    assert found.texts["pre"][-1] == json.dumps(runs.load(root / run).config, indent=2, ensure_ascii=False)
    command = shlex.split(found.texts["pre"][-2])
    assert command[0] == "jaxdl"
    assert command[command.index("--out") + 1] == str(root / run)


@pytest.mark.parametrize("run", ["cnn", "price", "sold"])
def test_a_page_needs_nothing_else(root, run):
    found = read(root, run)
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for name, attributes in found.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "srcset", "action", "data", "poster"):
            if key in attributes:
                assert attributes[key].startswith("data:image/") or attributes[key][1:] in ids
        assert name not in ("link", "iframe", "object", "base")
        assert name != "img" or attributes["alt"]
    assert [name for name, _ in found.tags].count("script") == 1
    assert not re.search(r"url\(|@import|https?:", "".join(found.texts["style"] + found.texts["script"]))
    assert len((root / run / "report.html").read_bytes()) < 3e6


def test_names_stay_text(root):
    found = read(root, "cnn")
    assert [row[0] for row in found.tables[1][1:4]] == list(CLASSES)
    assert not {"b", "i", "u"} & {name for name, attributes in found.tags if not attributes}
    assert str(root / "photos") in found.texts["dd"]
    columns = read(root, "price").tables[1]
    assert columns[2] == ["<i>town", "text", "<u>, Besel"]


@given(st.text(), st.text())
def test_any_text_comes_back_from_an_element(text, attribute):
    page = tag("p", text, tag("b", text), title=attribute)

    parser = Reader(page.replace("\r", "&#13;"))
    assert parser.tags[0] == ("p", {"title": attribute})
    assert "".join(parser.texts.get("b", [])) == text


def test_the_figures_are_those_of_the_predictions(root, capsys):
    images = sorted((root / "photos" / "test").glob("*/*.png"))
    cli.main(["predict", str(root / "cnn"), *map(str, images), "--json"])
    answers = json.loads(capsys.readouterr().out)
    truth, guesses = [image.parent.name for image in images], [answer["label"] for answer in answers]
    found = read(root, "cnn")
    scores = sklearn.metrics.precision_recall_fscore_support(truth, guesses, labels=CLASSES, zero_division=0)
    for row, *expected in zip(found.tables[1][1:4], *scores, strict=True):
        assert row[1:] == [*(f"{share:.3f}" for share in expected[:3]), f"{expected[3]}"]
    low, high = scipy.stats.binomtest(sum(map(str.__eq__, truth, guesses)), 15).proportion_ci(method="wilson")
    accuracy = sklearn.metrics.accuracy_score(truth, guesses)
    assert f"{accuracy:.1%}" in found.texts["dd"]
    assert f"95% confidence: {low:.1%} to {high:.1%}" in found.texts["dd"]
    wrong = [answer["probability"] for answer, is_ in zip(answers, truth, strict=True) if answer["label"] != is_]
    assert len(wrong) >= 3
    shown = [text.rpartition(" ")[2] for text in found.texts["b"]]
    assert shown[: len(wrong)] == [f"{p:.0%}" for p in sorted(wrong, reverse=True)][:12]
    assert f"{len(wrong)} of 15 test images are taken for something else" in found.text


def test_the_command_on_the_page_is_the_one_that_was_given():
    for typed in (
        "fine-tune 'my photos' --start blocks_7 blocks_6 --views None --augment.no-flip --augment.zoom 0.5 --ema 0.5",
        "fine-tune photos --model run --out new --on-bad skip --cache kept --seed 3 --augment.vertical-flip",
        "train homes.csv --target -1 --hidden 8 4 --no-header --drop 'a b' c --scale minmax",
        "train homes.csv --hidden --strict --metrics rmse --monitor val_rmse --early-stopping 3 --tensorboard",
    ):
        options = cli._parse(shlex.split(typed))
        line = training._command_line(options)
        assert cli._parse(shlex.split(line)[1:]) == options
        assert sorted(shlex.split(line)) == sorted(["jaxdl", *shlex.split(typed)])


def test_data_that_are_gone_or_have_changed(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "_kept", lambda *_: {})  # or the config comes from the checkpoint
    run, photos = shutil.copytree(root / "cnn", tmp_path / "cnn"), tmp_path / "moved"
    before = (run / "report.html").read_text()
    config = json.loads((run / "config.json").read_text())
    config["data"] |= {"folder": str(tmp_path / "photos"), "skipped": ["<a>.jpg: damaged image"]}
    (run / "config.json").write_text(json.dumps(config))
    cli.main(["report", str(run)])
    assert f"there is no folder {tmp_path / 'photos'}" in capsys.readouterr().err
    found = read(tmp_path, "cnn")
    assert found.titles == ALL
    assert "What needs the test images is left out" in found.text
    assert "1 files were left out" in found.texts["summary"]
    assert "<a>.jpg: damaged image" in found.texts["pre"]

    shutil.copytree(root / "photos", photos)
    cli.main(["report", str(run), "--data", str(photos)])
    assert read(tmp_path, "cnn").tables == Reader(before).tables
    next(photos.glob("test/*/0.png")).unlink()
    cli.main(["report", str(run), "--data", str(photos)])
    assert "% of 14 test images are right." in read(tmp_path, "cnn").text
    for data, reason in ((photos / "train", "is not, or not as it was"), (tmp_path / "none", "there is no folder")):
        with pytest.raises(SystemExit):
            cli.main(["report", str(run), "--data", str(data)])
        assert reason in capsys.readouterr().err


def test_a_run_that_has_not_finished_and_one_without_config_of_data(root, tmp_path, monkeypatch):
    monkeypatch.setattr(runs, "_kept", lambda *_: {})
    run = shutil.copytree(root / "price", tmp_path / "price")
    (run / "summary.json").unlink()
    config = json.loads((run / "config.json").read_text())
    for name in ("data", "command", "command_line"):
        del config[name]
    (run / "config.json").write_text(json.dumps(config))
    page.write(runs.load(run))
    found = read(tmp_path, "price")
    assert found.titles == ["Training", "Curves", "Columns", "Network", "Time", "Reproduce"]
    assert "The run has not finished: there is no test result." in found.texts["p"]
    assert "The run was made from Python." in found.texts["p"]


def test_without_matplotlib_training_says_how_to_get_the_page(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.layout_engine", None)
    train = ["train", str(root / "homes.csv"), "--target", "price", "--model", "neuron", "--epochs", "1"]
    cli.main([*train, "--out", str(tmp_path / "run")])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == (
        f"no page: pictures need matplotlib; run: pip install 'jaxdl[plots]'; then: jaxdl report {tmp_path / 'run'}"
    )
    assert not (tmp_path / "run" / "report.html").exists()


def test_runs_side_by_side(root, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(runs, "_kept", lambda *_: {})
    other = shutil.copytree(root / "price", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["command"]["learning_rate"] = 0.5
    (other / "config.json").write_text(json.dumps(config))
    compare = ["compare", str(root / "price"), str(other), "--out", str(tmp_path / "page.html")]
    cli.main([*compare, "--json"])
    found = json.loads(capsys.readouterr().out)
    summary = runs.load(other).result()
    for row, name in zip(found["runs"], ("price", "other"), strict=True):
        assert row["run"] == name
        assert {key: row[key] for key in ("mae", "r2", "loss", "count")}.items() <= summary.items()
    assert found["differences"] == {"learning_rate": [0.05, 0.5]}
    assert found["notes"] == []

    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "matplotlib.layout_engine", None)
        cli.main([*compare, "--json"])
        said = capsys.readouterr()
        assert json.loads(said.out) == found
        assert said.err.startswith("no page: pictures need matplotlib")
        with pytest.raises(SystemExit):
            cli.main(compare)
        assert "pictures need matplotlib" in capsys.readouterr().err

    cli.main(compare)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["price", "dense"]
    assert ["learning_rate", "0.05", "0.5"] in [line.split() for line in lines]
    whole = Reader((tmp_path / "page.html").read_text())
    assert whole.titles == ["Curves", "What differs"]
    assert whole.tables[1] == [["", "price", "other"], ["learning_rate", "0.05", "0.5"]]
    assert whole.tables[0][1][2] == f"{summary['mae']:.4f}"

    cli.main(["compare", str(root / "cnn"), str(root / "sold"), "--out", str(tmp_path / "page.html")])
    assert "their classes differ" in capsys.readouterr().err
    assert "their classes differ" in Reader((tmp_path / "page.html").read_text()).text


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("report photos", "not a run directory"),
        ("report nowhere", "not a run directory"),
        ("report empty", "no checkpoint"),
        ("report thin", "metrics.jsonl is damaged: line 2 has no 'learning_rate'"),
        ("compare price", "at least two runs"),
        ("compare", "at least two runs"),
        ("compare price ./price", "given twice"),
        ("compare price sold", "some of these runs predict classes, others a number"),
        ("compare price thin", "metrics.jsonl is damaged"),
        ("compare price photos", "not a run directory"),
    ],
)
def test_mistakes_get_one_line(arguments, reason, root, tmp_path, capsys, monkeypatch):
    for name in ("price", "sold", "empty", "thin"):
        shutil.copytree(root / ("sold" if name == "sold" else "price"), tmp_path / name)
        (tmp_path / name / "report.html").unlink()
    (tmp_path / "photos").mkdir()
    shutil.rmtree(tmp_path / "empty" / "checkpoints")
    rows = (tmp_path / "price" / "metrics.jsonl").read_text().splitlines()
    rows[1] = rows[1].replace('"learning_rate"', '"rate"')
    (tmp_path / "thin" / "metrics.jsonl").write_text("\n".join([*rows, ""]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "_kept", lambda *_: {})  # or the rows come from the checkpoint
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments.split())
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2
    assert len(lines) == 1
    assert reason in lines[0]
    assert not list(tmp_path.rglob("*.html"))


def test_pages_from_python_check_their_runs(root):
    with pytest.raises(InputError, match="at least two"):
        page.compare([runs.load(root / "price")])


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here")
def test_a_browser_shows_the_pages(root, tmp_path):
    """Each page in frames as wide as a screen and a telephone; a script beside them measures, and clicks."""
    compared = [runs.load(root / name) for name in ("cnn", "sold")]
    page.write_comparison(compared, tmp_path / "page.html")
    paths = [*(root / name / "report.html" for name in ("cnn", "price")), tmp_path / "page.html"]
    frames = [
        f'<iframe width="{width}" height="900" srcdoc="{html.escape(path.read_text())}"></iframe>'
        for path in paths
        for width in (1200, 375)
    ]
    (tmp_path / "frames.html").write_text(f"<!doctype html>{''.join(frames)}<pre></pre><script>{PROBE}</script>")
    flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --dump-dom"
    flags += " --disable-background-networking --disable-component-update --disable-sync --enable-logging=stderr"
    done = subprocess.run(
        [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'user'}", (tmp_path / "frames.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    measured = json.loads(html.unescape(re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)[1]))
    assert len(measured) == len(frames)
    for found, width in zip(measured, [1200, 375] * len(paths), strict=True):
        assert found["width"] <= width
        assert found["pictures"]
        assert all(min(size) > 10 for size in found["pictures"])
        assert all(right <= width for right in found["rights"])
    rows = [tuple(row) for row in read(root, "cnn").tables[1][1:4]]
    by_f1 = sorted(rows, key=lambda row: -float(row[3]))
    assert measured[0]["sorted"] == [[row[0] for row in each] for each in (by_f1, rows, rows[::-1])]


PROBE = """
onload = () => document.querySelector("pre").append(JSON.stringify(Array.from(frames, frame => {
  const page = frame.document, boxes = [...page.querySelectorAll("h1, p, dl, .scroll, pre, figure")];
  const sorted = [...page.querySelectorAll("table.sortable")].map(table => [3, 0, 0].map(n => {
    table.querySelectorAll("button")[n].click();
    return [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  }));
  return {
    width: page.documentElement.scrollWidth,
    pictures: [...page.images].map(image => [image.naturalWidth, image.width, image.height]),
    rights: boxes.map(box => box.getBoundingClientRect().right),
    sorted: sorted[0],
  };
})));
"""
