import errno
import json
import subprocess
import sys
import time
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill

import jaxdl
from jaxdl import checkpoint, data, models, runs
from jaxdl.errors import InputError
from jaxdl.optim import Phase

CONFIG = {
    "model": {"name": "dense", "num_classes": 3, "options": {"hidden": (4,)}},
    "classes": ("a", "b", "c"),
    "preprocessing": data.Preprocessing(4, mean=(0.0,), std=(255.0,)),
    "phases": [Phase(4, 0.1)],
}


def state(step):
    params = {"kernel": jnp.full(2, step, jnp.float32)}
    return jaxdl.train.TrainState(jnp.int32(step), params, {}, {}, jax.random.key(0), {})


def train(run, epochs=1):
    variables = fill(run.model, (4, 4, 1))
    source = data.from_arrays([[[0] * 4] * 4] * 3, [0, 1, 2])
    jaxdl.fit(
        run.model, source, variables=variables, phases=Phase(epochs, 0.1), callbacks=run.callbacks, progress=False
    )


def test_the_best_step_is_that_with_the_lowest_validation_loss(tmp_path):
    run = runs.create(tmp_path / "run", CONFIG)
    for step, loss in enumerate((0.9, 0.5, float("nan"), 0.7), 1):
        checkpoint.save(run.checkpoints, state(step))
        with (run.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "val_loss": loss}) + "\n")
    assert run.best_step() == 2
    checkpoint.delete(run.checkpoints, 2)
    assert run.best_step() == 4


def test_only_the_same_run_goes_on(tmp_path):
    run = runs.create(tmp_path / "run", CONFIG)
    assert runs.create(run.path, CONFIG, resume=True).config == run.config
    with pytest.raises(InputError, match="exists already.* or go on with it by --resume"):
        runs.check_new(run.path)
    other = {**CONFIG, "model": {**CONFIG["model"], "options": {"hidden": (5,)}}}
    with pytest.raises(InputError, match=r"other model\.options\.hidden: \[4\], not \[5\]"):
        runs.create(run.path, other, resume=True)
    train(run)
    rows = run.history()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')  # killed
    assert run.history() == rows
    run.finish({})
    with pytest.raises(InputError, match="has finished"):
        runs.check_new(run.path, resume=True)
    with pytest.raises(InputError, match="not a run directory"):
        runs.create(tmp_path, CONFIG, resume=True)
    assert runs.create(tmp_path / "new", CONFIG, resume=True).path.is_dir()


def test_two_processes_do_not_train_in_one_directory(tmp_path):
    with runs.create(tmp_path / "run", CONFIG) as run:
        train(run)
        code = "import sys, pathlib, jaxdl.runs\nwith jaxdl.runs.Run(pathlib.Path(sys.argv[1]), {}): pass"
        other = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True, check=False)
        assert f"another process is training in {run.path}" in other.stderr
    with run:
        pass


def test_a_run_is_free_once_its_checkpoints_are_written(tmp_path, monkeypatch):
    """Also where a second signal cuts short what waits for them."""
    run, write = runs.create(tmp_path / "run", CONFIG), checkpoint._write

    def slowly(*arguments):
        time.sleep(0.5)
        write(*arguments)

    monkeypatch.setattr(checkpoint, "_write", slowly)
    with pytest.raises(KeyboardInterrupt), run:
        checkpoint.Saver(run.checkpoints).save(state(1))
        raise KeyboardInterrupt
    assert checkpoint.newest(run.checkpoints) == 1


def test_leaving_a_run_leaves_what_others_save_alone(tmp_path):
    with checkpoint.Saver(tmp_path / "mine") as saver:
        saver.save(state(1))
        with runs.create(tmp_path / "run", CONFIG) as run:
            train(run)
        saver.save(state(2))
    assert checkpoint.steps(tmp_path / "mine") == [1, 2]


def test_a_run_that_another_process_makes_at_the_same_moment_stays(tmp_path, monkeypatch):
    run = runs.create(tmp_path / "run", CONFIG)
    monkeypatch.setattr(runs, "check_new", lambda *_: None)
    monkeypatch.setattr(Path, "exists", lambda _: False)
    with pytest.raises(InputError, match="cannot write the run directory .*File exists"):
        runs.create(run.path, CONFIG)
    assert run.path.is_dir()
    assert (run.path / "config.json").is_file()


def test_a_run_is_read_back_as_it_was(tmp_path):
    with runs.create(tmp_path / "run", CONFIG) as run:
        train(run)
        summary = run.finish({"accuracy": 0.5})
    back = runs.load(tmp_path / "run")
    assert back.model == models.create("dense", 3, hidden=(4,))
    assert back.preprocessing == CONFIG["preprocessing"]
    assert back.classes == ("a", "b", "c")
    like = {"params": back.shapes["params"]}
    saved = checkpoint.restore_variables(run.path / "checkpoints", like)
    chex.assert_trees_all_equal(back.variables(), saved)
    assert json.loads((run.path / "summary.json").read_text()) == summary
    assert {"accuracy", "best_step", "device", "versions"} <= summary.keys()


def test_a_run_is_a_source_of_weights(tmp_path):
    with runs.create(tmp_path / "run", CONFIG) as run:
        train(run)
    weights = runs.weights(run.path)
    assert (weights.name, weights.num_classes, weights.classes) == ("dense", 3, ("a", "b", "c"))
    assert weights.source.startswith("trained by jaxdl")
    chex.assert_trees_all_equal(weights.variables, run.variables())


def test_a_run_on_a_table(tmp_path):
    columns = (data.Numeric("size", 2.0, 0.1, 0.3), data.Categorical("place", ("north", "south")))
    preprocessing = data.TablePreprocessing(columns, data.Categorical("bought", ("a", "b", "c")), dropped=("id",))
    with runs.create(tmp_path / "run", {**CONFIG, "preprocessing": preprocessing}) as run:
        variables = fill(run.model, (3,))
        source = data.from_arrays(np.eye(3, dtype=np.float32), [0, 1, 2])
        jaxdl.fit(run.model, source, variables=variables, phases=Phase(1, 0.1), callbacks=run.callbacks, progress=False)
    back = runs.load(run.path)
    assert back.preprocessing == preprocessing
    kernel = back.variables()["params"]["dense_0"]["kernel"]
    assert kernel.shape == back.shapes["params"]["dense_0"]["kernel"].shape == (3, 4)
    with pytest.raises(InputError, match="was trained on a table"):
        runs.weights(run.path)
    config = json.loads((run.path / "config.json").read_text())
    del config["preprocessing"]["columns"][0]["fill"]
    (run.path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UserWarning, match=r"config\.json is damaged"):
        assert runs.load(run.path).preprocessing == preprocessing


def test_a_training_that_fails_at_once_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError), runs.create(tmp_path / "run", CONFIG):
        raise RuntimeError
    assert not (tmp_path / "run").exists()
    with pytest.raises(RuntimeError) as failed, runs.create(tmp_path / "run", CONFIG) as run:
        train(run)
        raise RuntimeError
    assert failed.value.__notes__ == [f"{run.path} keeps what was trained up to step 1"]
    assert runs.load(tmp_path / "run").best_step() == 1


def test_a_full_disk_keeps_what_is_there(tmp_path, monkeypatch):
    run = runs.create(tmp_path / "run", CONFIG)
    train(run)
    before = (run.path / "metrics.jsonl").read_text()

    def full(path, text):
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="cannot write .*summary.json: No space left"):
        run.finish({})
    assert not list(run.path.glob("*.tmp"))
    assert (run.path / "metrics.jsonl").read_text() == before
    with pytest.raises(InputError, match="cannot write"):
        runs.create(tmp_path / "other", CONFIG)
    assert not (tmp_path / "other").exists()


def test_directories_that_are_not_runs(tmp_path):
    with pytest.raises(InputError, match="exists already"):
        runs.create(tmp_path, CONFIG)
    with pytest.raises(InputError, match="not a run directory"):
        runs.load(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        runs.create(tmp_path / "file" / "run", CONFIG)
    run = runs.create(tmp_path / "run", CONFIG)
    with pytest.raises(InputError, match="no checkpoint"):
        runs.load(run.path)
    for damage in ("{", "{}"):
        (run.path / "config.json").write_text(damage)
        with pytest.raises(InputError, match="damaged"):
            runs.load(run.path)
    (run.path / "metrics.jsonl").write_text('{"epoch": 1, "st\n')
    (run.path / "config.json").write_text(json.dumps(run.config))
    with pytest.raises(InputError, match="no checkpoint"), pytest.warns(UserWarning, match="damaged from line 1 on"):
        runs.load(run.path)


def test_what_is_damaged_is_read_from_the_checkpoints(tmp_path):
    run = runs.create(tmp_path / "run", CONFIG)
    train(run, epochs=2)
    history, config = run.history(), run.path / "config.json"
    lines = (run.path / "metrics.jsonl").read_bytes()
    for damage in (b'{"epoch": 1, "st\n', b'{"epoch": 1}\n', b"\xff", lines.replace(b",", b"\x0c", 1), b"\n" + lines):
        (run.path / "metrics.jsonl").write_bytes(damage)
        assert runs.load(run.path).history() == history
    text = config.read_text()
    for damage in ("{", text.replace('"b"', '"c"'), text.replace("0.1", "0.3"), text.replace('"name"', '"nome"'), None):
        config.unlink() if damage is None else config.write_text(damage)
        with pytest.warns(UserWarning, match=r"config\.json is damaged"):
            assert runs.load(run.path) == run
    assert config.read_text() == text
    assert runs.create(run.path, CONFIG, resume=True) == run


def test_the_next_best_is_read_where_the_best_is_damaged(tmp_path):
    run = runs.create(tmp_path / "run", CONFIG)
    rows = [{"step": step, "val_loss": loss} for step, loss in ((1, 0.5), (2, 0.7))]
    each = [fill(run.model, (4, 4, 1), seed) for seed in (0, 1)]
    for step, variables in enumerate(each, 1):
        whole = jaxdl.train.TrainState(jnp.int32(step), variables["params"], {}, {}, jax.random.key(0), {})
        checkpoint.save(run.checkpoints, whole, place={"history": rows[:step]})
    chex.assert_trees_all_equal(run.variables(), each[0])
    (run.checkpoints / "00000001" / "params" / "_METADATA").write_text("")
    with pytest.warns(UserWarning, match="00000001 is damaged .*quarantine"):
        chex.assert_trees_all_equal(run.variables(), each[1])
    assert run.best_step() == 2
