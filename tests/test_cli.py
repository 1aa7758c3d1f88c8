"""The command line as a user meets it: real processes for the main job, in-process for what goes wrong."""

import csv
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys

import chex
import numpy as np
import pytest
import skimage.data
import sklearn.metrics
from conftest import fill
from PIL import Image

from jaxdl import callbacks as jaxdl_callbacks
from jaxdl import cli, models, pretrained, runs
from jaxdl.cli import common, results
from jaxdl.data import Preprocessing, decode
from jaxdl.errors import Interrupted


def jaxdl(*arguments, cwd):
    """Run the command; its standard output."""
    command = [sys.executable, "-c", "from jaxdl.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd / "cache")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Patches of three photographs, from different halves for training and test."""
    root = tmp_path_factory.mktemp("cli")
    draw = np.random.default_rng(0)
    for name in ("brick", "grass", "gravel"):
        photograph = getattr(skimage.data, name)()
        for split, left, count in (("train", 0, 10), ("test", 256, 6)):
            folder = root / "photos" / split / name
            folder.mkdir(parents=True)
            for n in range(count):
                y, x = draw.integers(512 - 96), left + draw.integers(256 - 96)
                Image.fromarray(photograph[y : y + 96, x : x + 96]).save(folder / f"{n}.png")
    homes(root / "homes.csv", 60)
    return root


def homes(path, count, seed=0):
    """A made-up table: prices of homes by area and town, and whether they are sold."""
    draw = np.random.default_rng(seed)
    lines = ["id,area,town,price,sold"]
    for n in range(count):
        area, town = draw.integers(40, 200), draw.choice(["Aldorf", "Besel"])
        price = 3.5 * area + 90 * (town == "Besel") + draw.normal(scale=9)
        lines.append(f"H{n},{area if n % 9 else ''},{town},{price:.1f},{'yes' if price < 450 else 'no'}")
    path.write_text("\n".join(lines))
    return path


@pytest.mark.slow
def test_fine_tune_evaluate_predict_show(photos):
    said = jaxdl("fine-tune", "photos", "--out", "run", "--epochs", 1, "--start", "top", cwd=photos)
    summary = json.loads((photos / "run" / "summary.json").read_text())
    assert f"test accuracy {summary['accuracy']:.4f} on 18 images" in said
    assert summary["accuracy"] >= 0.9
    assert len((photos / "run" / "metrics.jsonl").read_text().splitlines()) == 41
    config = json.loads((photos / "run" / "config.json").read_text())
    assert config["classes"] == ["brick", "grass", "gravel"]
    assert config["preprocessing"]["size"] == 224

    figures = json.loads(jaxdl("evaluate", "run", "photos", "--json", cwd=photos))
    assert figures["accuracy"] == pytest.approx(summary["accuracy"])
    assert (figures["count"], figures["split"]) == (18, "test")

    images = [f"photos/test/{name}/0.png" for name in ("brick", "grass")]
    answers = json.loads(jaxdl("predict", "run", *images, "--json", cwd=photos))
    assert [answer["path"] for answer in answers] == images
    assert sum(top["probability"] for top in answers[0]["top"]) == pytest.approx(1, abs=1e-5)
    assert "photos/test/brick/0.png:" in jaxdl("predict", "run", images[0], cwd=photos)

    for detail, stem in (("blocks", "stem"), ("parameters", "stem/kernel")):
        table = jaxdl("show", "run", "--detail", detail, cwd=photos)
        frozen = [line.split()[0] for line in table.splitlines() if line.endswith("  frozen")]
        assert stem in frozen
        assert not any(name.startswith("head") for name in frozen)
        assert f"test accuracy {summary['accuracy']:.4f} on 18 images" in table

    plan = jaxdl("phases", "run", "--last", 1, "--classes", 4, cwd=photos)
    assert plan.count("parameters: 5,124 trainable") == 2  # the last layer of all has no parameters
    found = json.loads(
        jaxdl("lr-find", "photos", "--model", "run", "--grid", 3, "--cache", "kept", "--json", cwd=photos)
    )
    assert found["suggestion"] in np.geomspace(1e-4, 0.1, 3)
    assert len(found["accuracies"]) == 3
    assert "suggested learning rate of the phase 'head'" in jaxdl("lr-find", "photos", "--cache", "kept", cwd=photos)
    assert len(list((photos / "kept").iterdir())) == 6  # images of two splits, their features twice
    assert (photos / "lr-find.png").stat().st_size > 9000


@pytest.mark.slow
def test_train_from_scratch_on_one_folder_that_it_splits(photos):
    said = jaxdl(
        "train", "photos/train", "--model", "tiny_vgg", "--size", 16, "--epochs", 1, "--out", "scratch", cwd=photos
    )
    assert "on 6 images" in said
    figures = json.loads(jaxdl("evaluate", "scratch", "photos/train", "--json", cwd=photos))
    assert (figures["count"], figures["split"]) == (6, "test")
    figures = json.loads(jaxdl("evaluate", "scratch", "photos/test", "--json", cwd=photos))
    assert (figures["count"], figures["split"]) == (18, "all")


def test_classify_names_what_is_on_a_photograph(tmp_path, capsys):
    Image.fromarray(skimage.data.coffee()).save(tmp_path / "coffee.jpg")
    cli.main(["classify", str(tmp_path / "coffee.jpg"), "--json"])
    (answer,) = json.loads(capsys.readouterr().out)
    assert answer["label"] == "espresso"
    assert len(answer["top"]) == 5
    cli.main(["classify", str(tmp_path / "coffee.jpg")])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[1].endswith("espresso")


@pytest.mark.parametrize(("target", "other"), [("price", "sold"), ("sold", "price")])
def test_a_table_is_learned_measured_and_predicted(target, other, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    homes(tmp_path / "homes.csv", 120)
    cli.main(["train", "homes.csv", "--target", target, "--drop", "id", other, "--hidden", "8", "--epochs", "3"])
    said = capsys.readouterr()
    run = runs.load("runs/homes-dense")
    assert run.config["model"]["options"] == {"hidden": [8]}
    summary = run.result()

    cli.main(["evaluate", "runs/homes-dense", "homes.csv", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["split"] == "test"
    assert {name: figures[name] for name in figures if name != "split"} == pytest.approx(
        {name: summary[name] for name in figures if name != "split"}
    )

    homes(tmp_path / "new.csv", 30, seed=1)
    cli.main(["evaluate", "runs/homes-dense", "new.csv", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert (figures["split"], figures["count"]) == ("all", 30)
    table = list(csv.DictReader((tmp_path / "new.csv").read_text().splitlines()))
    truth = [row.pop(target) for row in table]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, table[0])
        writer.writeheader()
        writer.writerows(table)
    cli.main(["predict", "runs/homes-dense", "rows.csv", "--json"])
    answers = json.loads(capsys.readouterr().out)
    assert [answer["row"] for answer in answers] == list(range(1, 31))
    cli.main(["predict", "runs/homes-dense", "rows.csv"])
    lines = capsys.readouterr().out.splitlines()
    cli.main(["show", "runs/homes-dense"])
    shown = capsys.readouterr().out
    assert f"features: area, town=Aldorf, town=Besel; target: {target}" in shown
    if target == "price":
        truth, values = np.array(truth, float), [answer["value"] for answer in answers]
        assert figures["mae"] == pytest.approx(sklearn.metrics.mean_absolute_error(truth, values), rel=1e-4)
        assert figures["r2"] == pytest.approx(sklearn.metrics.r2_score(truth, values), rel=1e-3)
        assert lines[0] == f"row 1: {values[0]:.6g}"
        assert f"test mean absolute error {summary['mae']:.6g}, R² {summary['r2']:.4f} on 24 rows" in said.out
        assert f"test mean absolute error {summary['mae']:.6g}" in shown
    else:
        labels = [answer["label"] for answer in answers]
        assert figures["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(truth, labels))
        assert lines[0].startswith(f"row 1: {labels[0]} ")
        assert f"test accuracy {summary['accuracy']:.4f} on {summary['count']} rows" in said.out


def test_weights_that_fit_in_part(photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    common = ["train", "photos", "--size", "16", "--epochs", "1", "--seed", "1"]
    cli.main([*common, "--out", "first"])
    cli.main([*common, "--out", "second", "--weights", "first", "--strict"])
    assert "10 arrays loaded, 0 left fresh, 0 ignored" in capsys.readouterr().err
    config = json.loads((photos / "second" / "config.json").read_text())
    assert config["model"]["from"] == "first"
    with pytest.raises(SystemExit):
        cli.main([*common, "--out", "third", "--model", "cnn", "--weights", "first"])
    assert "none of the given weights fits" in capsys.readouterr().err
    assert not (photos / "third").exists()


def test_a_training_that_diverges_keeps_what_was_good(photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "photos", "--size", "16", "--learning-rate", "1e30", "--epochs", "9", "--out", "diverged"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert stop.value.code == 2
    told = re.search(r"nan in step (\d) \(epoch \1, .*learning rate .*; diverged keeps what .* up to step (.*)$", last)
    kept = [int(step) for step in told[2].split(" and ")]
    assert kept[-1] == int(told[1]) - 1
    assert sorted(int(path.name) for path in (photos / "diverged" / "checkpoints").iterdir()) == kept


def test_a_network_is_shown_by_its_name_its_run_and_its_file(photos, capsys, monkeypatch):
    def shown(*arguments):
        cli.main(["show", *map(str, arguments)])
        return capsys.readouterr().out

    monkeypatch.chdir(photos)
    lines = shown("efficientnet_lite0", "--classes", 3).splitlines()
    assert lines[2].split() == ["stem", "Conv", "[B,112,112,32]", "864", "21.68", "M"]
    assert [line.split()[0] for line in lines[-4:-1]] == ["top", "top_bn", "head"]
    cli.main(["train", "photos", "--size", "16", "--epochs", "1", "--out", "small"])
    capsys.readouterr()
    run = json.loads(shown("small", "--json"))
    named = json.loads(shown("tiny_vgg", "--classes", 3, "--input", 16, 16, 3, "--json"))
    assert {name: run[name] for name in named} == named
    assert run["result"] == runs.load("small").result()
    assert (run["input"], run["parameters"], run["trainable"]) == (
        [1, 16, 16, 3],
        3493,
        [row["path"] for row in run["rows"] if row["parameters"]],
    )
    model = models.create("efficientnet_lite0", 3)
    pretrained.save("lite.safetensors", "efficientnet_lite0", fill(model, (96, 96, 3)), Preprocessing(96))
    file = json.loads(shown("lite.safetensors", "--json"))
    assert (file["model"], file["parameters"]) == ("efficientnet_lite0", 3_374_851)
    assert file["rows"][0]["output"] == [1, 48, 48, 32]
    assert "head/kernel  " in shown("lite.safetensors", "--detail", "parameters")
    model = models.create("tiny_vgg", 2)
    pretrained.save(
        "grey.safetensors", "tiny_vgg", fill(model, (16, 16, 1)), Preprocessing(16, mean=(0.0,), std=(255.0,))
    )
    grey = json.loads(shown("grey.safetensors", "--json"))
    named = models.summary(model, (16, 16, 1))
    assert (grey["input"], grey["parameters"], grey["flops"]) == ([1, 16, 16, 1], named.parameters, named.flops)
    with pytest.raises(SystemExit):
        cli.main(["weights", "convert", "small", "out.safetensors", "--flavour", "pytorch"])
    assert "small tells its flavour itself" in capsys.readouterr().err


def test_models_lists_every_network(capsys):
    cli.main(["models"])
    table = capsys.readouterr().out
    assert "5,288,548" in table
    assert "tiny_vgg" in table
    cli.main(["models", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["efficientnet_lite0"]["weights"] == "installed"


def test_data_inspect_and_augment(photos, capsys, tmp_path, monkeypatch):
    folder = shutil.copytree(photos / "photos", tmp_path / "photos")
    (folder / "train" / "brick" / "cut.png").write_bytes((folder / "train" / "brick" / "0.png").read_bytes()[:500])
    shutil.copy(folder / "train" / "grass" / "3.png", folder / "test" / "grass" / "same.png")
    cli.main(["data", "inspect", str(folder), "--out", str(tmp_path / "sheet.png")])
    said = capsys.readouterr().out
    assert ["brick", "11", "6"] in [line.split() for line in said.splitlines()]
    assert "1 files cannot be read:" in said
    assert "cut.png: damaged image" in said
    assert re.search(r"test/grass/same\.png = |= .*test/grass/same\.png", said)
    cli.main(["data", "inspect", str(folder), "--out", str(tmp_path / "sheet.png"), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["images"], found["counts"]["test"]) == (49, {"brick": 6, "grass": 7, "gravel": 6})
    assert decode(tmp_path / "sheet.png").shape[1] > 500
    cli.main(["data", "augment", str(folder), "--out", str(tmp_path / "augmented.png"), "--augment.rotate", "90"])
    assert decode(tmp_path / "augmented.png").shape[1] > 500
    capsys.readouterr()
    monkeypatch.setitem(sys.modules, "matplotlib.layout_engine", None)
    cli.main(["data", "inspect", str(folder)])
    said, error = capsys.readouterr()
    assert "brick" in said
    assert error == "no picture: pictures need matplotlib; run: pip install 'jaxdl[plots]'\n"


@pytest.mark.filterwarnings("default:.*more than one split")
def test_bad_files_are_left_out_and_listed(photos, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = shutil.copytree(photos / "photos", tmp_path / "photos")
    (folder / "train" / "brick" / "cut.png").write_bytes((folder / "train" / "brick" / "0.png").read_bytes()[:500])
    shutil.copy(folder / "train" / "grass" / "3.png", folder / "test" / "grass" / "same.png")
    train = ["train", "photos", "--size", "16", "--epochs", "1", "--out"]
    with pytest.raises(SystemExit):
        cli.main([*train, "strict"])
    assert "cut.png: damaged image" in capsys.readouterr().err
    cli.main([*train, "run", "--on-bad", "skip", "--cache", "kept"])
    said = capsys.readouterr().err
    assert "1 files are left out:\n  photos/train/brick/cut.png: damaged image" in said
    assert "jaxdl: 1 images of photos are in more than one split, such as" in said
    (skipped,) = json.loads((tmp_path / "run" / "config.json").read_text())["data"]["skipped"]
    assert "cut.png" in skipped
    assert len(list((tmp_path / "kept").iterdir())) == 3


def test_a_run_that_was_stopped_goes_on_and_has_what_was_asked_for(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    homes(tmp_path / "homes.csv", 120)
    train = ["train", "homes.csv", "--target", "sold", "--drop", "id", "price", "--hidden", "4", "--epochs", "9"]
    train += ["--metrics", "f1", "--class-weights", "balanced", "--monitor", "val_f1", "--optimizer", "adam"]
    train += ["--early-stopping", "7", "--reduce-on-plateau", "3", "--tensorboard", "--out"]
    cli.main([*train, "whole"])
    with monkeypatch.context() as patch:
        write = jaxdl_callbacks.JSONLines.__call__

        def stop(logger, event):
            write(logger, event)
            if event.epoch == 4:
                os.kill(os.getpid(), signal.SIGTERM)

        patch.setattr(jaxdl_callbacks.JSONLines, "__call__", stop)
        with pytest.raises(SystemExit) as told:
            cli.main([*train, "stopped"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert told.value.code == 128 + signal.SIGTERM
    assert said.startswith(
        "jaxdl: stopped; stopped keeps what is done, and --resume goes on with it: jaxdl train homes"
    )
    assert said.endswith("--out stopped --resume")
    cli.main(shlex.split(said.partition("goes on with it: jaxdl ")[2]))
    whole, stopped = (runs.load(name) for name in ("whole", "stopped"))
    chex.assert_trees_all_equal(stopped.variables(), whole.variables())
    assert len(stopped.history()) == len(whole.history()) > 4
    assert stopped.result()["f1"] == whole.result()["f1"]
    assert list((tmp_path / "whole" / "tensorboard").iterdir())
    capsys.readouterr()
    cli.main(["evaluate", "whole", "homes.csv", "--metrics", "top3", "--json"])
    figures = json.loads(capsys.readouterr().out)
    assert figures["f1"] == whole.result()["f1"]
    assert figures["top3"] == 1
    best = whole.history().best("val_f1")
    assert whole.best_step() == best["step"]


PROGRESS = ("3 classes; images:", "train:", "head:")  # what may be said before the mistake is met


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("fintune photos", "no command is called 'fintune'; the nearest: fine-tune"),
        ("fine-tune photos --modle x", "the nearest: --model"),
        ("fine-tune", "FOLDER"),
        ("fine-tune photos --epochs many", "--epochs"),
        ("fine-tune nowhere", "there is no folder nowhere"),
        ("fine-tune photos --model efficientnet_lite9", "the nearest: efficientnet_lite"),
        ("fine-tune photos --start block_5", "the nearest: blocks_5"),
        ("fine-tune photos --epochs 0 --head-epochs 0", "0 epochs"),
        ("fine-tune photos --out photos", "exists already"),
        ("fine-tune photos --learning-rate -1", "learning rate"),
        ("fine-tune photos --augment.zoom -1 --out new", "zoom"),
        ("fine-tune photos/train/brick", "there is none"),
        ("train photos --model tinyvgg", "the nearest: tiny_vgg"),
        ("train photos --size 2 --out new", "cannot take inputs"),
        ("train photos --size 0 --out new", "size"),
        ("train photos --size -5 --out new", "size"),
        ("train photos --seed -1 --out new", "seed"),
        ("train photos --batch-size 0 --out new", "batch"),
        ("fine-tune photos --label-smoothing 2 --out new", "smoothing"),
        ("train photos --label-smoothing 0.1", "Unrecognized"),
        ("evaluate photos photos", "not a run directory"),
        ("predict photos a.png", "not a run directory"),
        ("show nowhere", "nowhere is not a run directory, a weight file or the name of a network"),
        ("show eficientnet_b0", "the nearest: efficientnet_b0"),
        ("show photos", "not a run directory"),
        ("show homes.csv", "no weight file"),
        ("show photos/train/brick/0.png --classes 3", "--classes is for a network given by its name"),
        ("show cnn --input 4", "a convolutional network takes images [B,H,W,C]"),
        ("show cnn --classes 0", "at least one class"),
        ("classify", "at least one image"),
        ("classify nothing.jpg", "no such image"),
        ("classify photos/test/brick/0.png --model efficientnet_lite9", "the nearest: efficientnet_lite"),
        ("phases efficientnet_b0 --last 999", "there are 237 layers"),
        ("phases efficientnet_b0 --start block_5", "the nearest: blocks_5"),
        ("plan efficientnet_b9", "efficientnet_b9"),
        ("fine-tune photos --last -1", "layers"),
        ("fine-tune photos --views -1", "views"),
        ("fine-tune photos --ema 2", "ema"),
        ("fine-tune photos --model photos", "not a run directory"),
        ("fine-tune photos --cache photos/train/brick/0.png --out new", "cannot keep files"),
        ("lr-find photos --grid -1", "--grid"),
        ("lr-find photos --grid 4 --head-epochs 0", "has no views"),
        ("lr-find nowhere", "there is no folder nowhere"),
        ("train photos --size 16 --out new --weights nowhere.pth", "nowhere.pth"),
        ("data inspect nowhere", "there is no folder nowhere"),
        ("data inspect photos/train/brick", "no images in photos/train/brick"),
        ("data inspect photos --seed -1 --out new", "a seed is 0 or more"),
        ("data augment photos --augment.crop 2 --out new", "crop"),
        ("data augment photos --size 0 --out new", "size"),
        ("train photos --on-bad ignore", "--on-bad"),
        ("train photos --optimizer adm --out new", "the nearest: adam"),
        ("train photos --schedule cosin --out new", "the nearest: cosine"),
        ("train photos --loss focl --out new", "the nearest: focal"),
        ("train photos --size 16 --metrics f11 --out new", "no metric 'f11'; the nearest: f1"),
        ("train photos --size 16 --monitor val_f1 --out new", "no figure 'val_f1' to monitor"),
        ("train photos --size 16 --early-stopping 0 --out new", "EarlyStopping: patience=0"),
        ("train photos --resume --out photos", "photos is not a run directory"),
        ("train homes.csv --target price --drop id --class-weights balanced --out new", "a number is predicted here"),
        ("train homes.csv --target price --drop id --loss huber --out new", "by the squared error"),
        ("train photos --target price", "are for tables; photos is none"),
        ("train photos --model efficientnet_b0 --hidden 8", "efficientnet_b0 has no option 'hidden'"),
        ("train homes.csv", "say with --target which column of homes.csv"),
        ("train nowhere.csv --target price", "cannot read the table nowhere.csv"),
        ("train homes.csv --target prize", "no column 'prize'; the nearest: price"),
        ("train homes.csv --target price", "leave it out with drop=('id',) (--drop id)"),
        ("train homes.csv --target price --size 8", "--size and --augment are for images; homes.csv is a table"),
        ("train homes.csv --target price --drop id --epochs 0", "epochs must be at least 1"),
    ],
)
def test_mistakes_get_one_line_and_exit_code_2(arguments, reason, photos, capsys, monkeypatch):
    monkeypatch.chdir(photos)
    before = sorted(photos.rglob("*"))
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments.split())
    lines = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(PROGRESS)]
    assert stop.value.code == 2
    assert len(lines) == 1
    assert lines[0].startswith("jaxdl: ")
    assert reason in lines[0]
    assert sorted(photos.rglob("*")) == before, "something half-written was left behind"


def test_where_jax_does_not_start_there_is_one_line(tmp_path):
    command = [sys.executable, "-c", "from jaxdl.cli import main; main()", "show", "tiny_vgg"]
    environment = {**os.environ, "JAX_PLATFORMS": "abacus"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("jaxdl: JAX does not start: ")
    assert done.stderr.endswith("`jaxdl doctor` says more\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "fine-tune", "lr-find"])
def test_only_a_training_is_said_to_go_on(command, capsys, monkeypatch):
    class Stopped:
        def run(self):
            raise Interrupted(signal.SIGINT, "stopped; what is done is kept")

    monkeypatch.setattr(cli, "_parse", lambda arguments: Stopped())
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "photos"])
    assert stop.value.code == 128 + signal.SIGINT
    hint = "" if command == "lr-find" else f"; what is done is kept: jaxdl {command} photos --resume"
    assert capsys.readouterr().err == f"jaxdl: stopped{hint}\n"


def test_lr_find_says_at_once_that_it_cannot_draw(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.layout_engine", None)
    with pytest.raises(SystemExit):
        cli.main(["lr-find", "nowhere", "--model", "nothing"])
    assert "pictures need matplotlib" in capsys.readouterr().err


def test_help_is_not_an_error(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["fine-tune", "--help"])
    assert stop.value.code == 0
    assert "--head-epochs" in capsys.readouterr().out


def test_a_single_logit_is_that_of_the_second_class():
    yes, no = results._likeliest(np.array([np.log(4)]), ("no", "yes"))["top"]
    assert (yes["label"], no["label"]) == ("yes", "no")
    assert (yes["probability"], no["probability"]) == pytest.approx((0.8, 0.2))


def test_what_is_printed_as_json_is_json(capsys):
    common.print_json({"roc_auc": float("nan"), "rows": [(1, float("-inf"))], "name": "nan"})
    assert capsys.readouterr().out == '{"roc_auc": null, "rows": [[1, null]], "name": "nan"}\n'
