import concurrent.futures
import csv
import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

import jaxdl
from jaxdl import callbacks, checkpoint, data, models, train
from jaxdl.callbacks import (
    CSVLogger,
    EarlyStopping,
    Event,
    JSONLines,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    ScaleRate,
    Stop,
    TensorBoard,
    Training,
)
from jaxdl.errors import BadFile, InputError, Interrupted
from jaxdl.history import History
from jaxdl.optim import Phase

MODEL = models.create("dense", 3, hidden=(4,))
STATE = train.TrainState(jnp.int32(0), {"head": {"bias": jnp.zeros(3)}}, {}, {}, jax.random.key(0), {})
losses = st.lists(st.floats(0, 3), min_size=1, max_size=15)


def source(n=40, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, n)
    return data.from_arrays((np.eye(3)[labels] + draw.normal(size=(n, 3))).astype(np.float32), labels)


def fit(phases=None, **options):
    options = {"variables": fill(MODEL, (3,)), "batch_size": 8, "progress": False} | options
    return jaxdl.fit(MODEL, source(), source(20, 1), phases=phases or Phase(6, 0.1), **options)


def told(values, kind="epoch", monitor="val_loss", **more):
    """The event at the end of the last of some epochs, whose figures are given."""
    rows = [{"epoch": n, "step": n, monitor: value} for n, value in enumerate(values, 1)]
    training = Training(MODEL, (3,), (Phase(99, 0.1),), (True,), 8, 1, ("loss", "val_loss", monitor), monitor)
    return Event(kind, training, 0, STATE, History(rows), metrics=rows[-1] if rows else {}, **more)


def keras_early_stopping(values, patience, min_delta):
    """The epoch after which Keras 3's EarlyStopping ends, as its documentation describes it; None for not at all."""
    best, waited = np.inf, 0
    for epoch, value in enumerate(values, 1):
        waited += 1
        if value < best - min_delta:
            best, waited = value, 0
        if waited >= patience:
            return epoch
    return None


@given(losses, st.integers(1, 4), st.floats(0, 1))
def test_early_stopping_ends_where_the_figure_has_been_stale(values, patience, min_delta):
    stop = EarlyStopping(patience, min_delta)
    ends = [n for n in range(1, len(values) + 1) if stop(told(values[:n])) is not None]
    assert (ends[0] if ends else None) == keras_early_stopping(values, patience, min_delta)


def keras_plateau(values, factor, patience, min_delta, cooldown, lowest, rate):
    """The learning rate after these epochs, by the algorithm of Keras 3's ReduceLROnPlateau."""
    best, waited, cooling = np.inf, 0, 0
    for value in values:
        if cooling > 0:
            cooling, waited = cooling - 1, 0
        if value < best - min_delta:
            best, waited = value, 0
        elif not cooling > 0:
            waited += 1
            if waited >= patience and rate > lowest:
                rate, cooling, waited = max(rate * factor, lowest), cooldown, 0
    return rate


@given(losses, st.floats(0.1, 0.9), st.integers(1, 3), st.floats(0, 0.5), st.integers(0, 3), st.floats(0, 0.2))
def test_the_rate_is_reduced_as_keras_does(values, factor, patience, min_delta, cooldown, lowest):
    reduce = ReduceLROnPlateau(factor, patience, min_delta, cooldown, lowest)
    expected = keras_plateau(values, factor, patience, min_delta, cooldown, lowest, rate=0.1)
    assert reduce(told(values)).factor * 0.1 == pytest.approx(expected)


def test_fit_stops_early_and_goes_back_to_the_best_epoch():
    seen = []

    def keep(event):
        seen.append(jax.device_get(event.state.params))

    # So fast that it gets worse again.
    phase = Phase(30, 2.0, schedule="constant", warmup=0)
    result = fit(phase, callbacks=[keep, EarlyStopping(patience=3)])
    best = result.history.best()
    assert len(result.history) == best["epoch"] + 3 < 30
    chex.assert_trees_all_equal(result.state.params, seen[best["epoch"] - 1])
    stays = fit(phase, callbacks=[EarlyStopping(patience=3, restore_best=False)])
    chex.assert_trees_all_equal(stays.state.params, seen[best["epoch"] + 2])
    through = fit(replace(phase, epochs=best["epoch"] + 1), callbacks=[EarlyStopping(patience=9)])
    chex.assert_trees_all_equal(through.state.params, seen[best["epoch"] - 1])


def test_the_best_epoch_is_that_of_the_monitor():
    phase = Phase(8, 1.0, schedule="constant", warmup=0)
    result = fit(phase, monitor="val_accuracy", callbacks=[EarlyStopping(patience=20)])
    best = result.history.best("val_accuracy")
    figures = jaxdl.evaluate(MODEL, result.variables, source(20, 1))
    assert figures["accuracy"] == pytest.approx(best["val_accuracy"])
    averaged = fit(replace(phase, ema=0.5), monitor="val_accuracy", callbacks=[EarlyStopping(patience=20)])
    figures = jaxdl.evaluate(MODEL, averaged.variables, source(20, 1))
    assert figures["accuracy"] == pytest.approx(averaged.history.best("val_accuracy")["val_accuracy"])


def test_a_scaled_rate_is_that_of_a_lower_one():
    """A phase at a constant rate that is halved after three epochs is three epochs at it and three at half of it."""
    phase = Phase(6, 0.2, optimizer="sgd", schedule="constant", warmup=0, weight_decay=0, clip_norm=None)
    halved = fit(phase, callbacks=[lambda event: ScaleRate(0.5) if event.epoch >= 3 else None])
    assert [row["learning_rate"] for row in halved.history] == pytest.approx([0.2] * 3 + [0.1] * 3)
    rates = optax_rates(phase, steps=5)
    np.testing.assert_allclose(halved.state.params["head"]["kernel"], rates, rtol=1e-4)


def optax_rates(phase, steps):
    """The head's kernel after six epochs of the same batches, by optax alone."""
    import optax

    optimizer = optax.sgd(lambda n: jnp.where(n < 3 * steps, 0.2, 0.1), 0.9, nesterov=True)
    step = jax.jit(train.make_train_step(MODEL, optimizer))
    state = train.init_state(fill(MODEL, (3,)), optimizer, jax.random.key(0))
    for epoch in range(1, 7):
        for batch in data.batches(source(), 8, seed=0, epoch=epoch):
            state, _ = step(state, batch)
    return state.params["head"]["kernel"]


def test_the_best_and_the_last_are_kept(tmp_path):
    keep = ModelCheckpoint(tmp_path, every=0)
    keep(replace(told([], kind="begin"), training=told([0.9]).training))
    for n, loss in enumerate((0.9, 0.5, 0.7, float("nan")), 1):
        event = told([0.9, 0.5, 0.7, float("nan")][:n], place={"n": n, "loss": loss})
        event = replace(event, state=replace(STATE, step=jnp.int32(n)))
        keep(event)
        keep(replace(event, kind="end"))  # waits until it is written
        keep(replace(event, kind="begin"))  # opened again, it knows the best
        assert checkpoint.steps(tmp_path) == {1: [1], 2: [2], 3: [2, 3], 4: [2, 4]}[n]
    assert checkpoint.place(tmp_path, 2) == {"n": 2, "loss": 0.5}


def test_fast_epochs_are_saved_together_and_nothing_is_lost(tmp_path, monkeypatch):
    saved = []
    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda path, *rest: (saved.append(int(path.name)), write(path, *rest)))
    result = fit(callbacks=[ModelCheckpoint(tmp_path / "all")])
    assert saved == sorted({result.history.best()["step"], 30})
    saved.clear()

    def fail(event):
        if event.epoch == 3:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fit(callbacks=[ModelCheckpoint(tmp_path / "failed"), fail])
    assert checkpoint.steps(tmp_path / "failed")[-1] == 15
    checkpoint.save(tmp_path / "failed", replace(STATE, step=jnp.int32(99)))
    before = checkpoint.steps(tmp_path / "failed")
    with pytest.raises(InputError, match="holds checkpoints already"):
        fit(callbacks=[ModelCheckpoint(tmp_path / "failed")])
    assert checkpoint.steps(tmp_path / "failed") == before
    assert len(before) > 1


def test_saving_takes_a_small_share_of_the_time(tmp_path, monkeypatch):
    """Where a save takes a second, there is one in 50 seconds, after the first, whose time is not known before."""
    keep, now, write = ModelCheckpoint(tmp_path), [0.0], checkpoint._write

    def slowly(*arguments):
        write(*arguments)
        now[0] += 1.0

    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoint, "_write", slowly)
    keep(replace(told([], kind="begin"), training=told([0.9]).training))
    losses, saved = [], []
    for n in range(1, 18):
        now[0] += 11.5
        losses.append(1 / n)
        keep(replace(told(losses), state=replace(STATE, step=jnp.int32(n))))
        while keep._saver._pending:
            keep._saver._pending.popleft().result()
        saved.append(checkpoint.steps(tmp_path)[-1])
    assert saved == [1] * 8 + [9] * 4 + [13] * 5


# What has to be the same however often training was interrupted: dropout, augmentation, averages, several phases, a
# rate that was reduced, the choice of the best epoch.
PHASES = (
    Phase(3, 0.05, name="head", trainable=("head",), ema=0.9),
    Phase(4, 0.02, name="all", ema=0.8, optimizer="adam"),
)


def noise(key, x):
    return x + 0.1 * jax.random.normal(key, x.shape)


def interrupted(directory, at, resume=None):
    model = models.create("dense", 3, hidden=(4,), dropout=0.3)
    watch = [
        ModelCheckpoint(directory / "checkpoints", every=0),
        JSONLines(directory / "rows"),
        EarlyStopping(patience=3),
        ReduceLROnPlateau(0.5, patience=1),
        at,
    ]
    same: Any = {"variables": fill(model, (3,)), "batch_size": 8, "augment": noise, "monitor": "val_accuracy"}
    return jaxdl.fit(
        model, source(), source(20, 1), phases=PHASES, callbacks=watch, resume=resume, progress=False, **same
    )


def same(result, other):
    a, b = (replace(each.state, key=jax.random.key_data(each.state.key)) for each in (result, other))
    chex.assert_trees_all_equal(a, b)


def timeless(path):
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return [{k: v for k, v in row.items() if "second" not in k} for row in rows]


@pytest.mark.slow
def test_a_training_that_was_interrupted_ends_with_the_same_bits(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: False)  # so that it can stop in the middle of an epoch
    whole = interrupted(tmp_path / "whole", LambdaCallback())
    assert len(whole.history) > 4
    assert whole.history[-1]["learning_rate"] < whole.history[3]["learning_rate"] / 2
    # Killed as soon as an epoch is kept: in a phase, at its end, in the next one.
    for epoch in (2, 3, 5):
        directory = tmp_path / f"killed-{epoch}"

        def kill(event, epoch=epoch):
            if event.epoch == epoch:
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            interrupted(directory, kill)
        # The best of the phase is kept beside the state, unless it is the state.
        kept = checkpoint.manifest(directory / "checkpoints")["arrays"]
        assert any(name.startswith("best/") for name in kept) == (epoch == 5)
        result = interrupted(directory, LambdaCallback(), resume=directory / "checkpoints")
        same(result, whole)
        assert timeless(directory / "rows") == timeless(tmp_path / "whole" / "rows")


def test_a_training_that_is_told_to_stop_goes_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: False)
    whole, directory, seen = interrupted(tmp_path / "whole", LambdaCallback()), tmp_path / "stopped", []
    (directory / "checkpoints").mkdir(parents=True)

    def step(watch):
        seen.append(watch)
        if len(seen) in (2, 9):  # both in the second and the third epoch of five steps
            os.kill(os.getpid(), signal.SIGTERM if len(seen) == 2 else signal.SIGINT)

    monkeypatch.setattr("jaxdl.loop._Watch.due", step)
    for number in (signal.SIGTERM, signal.SIGINT):
        with pytest.raises(Interrupted, match="stopped after step .* goes on from there") as told:
            interrupted(directory, LambdaCallback(), resume=directory / "checkpoints")
        assert told.value.signal == number
        kept = checkpoint.steps(directory / "checkpoints")[-1]
        assert kept % 5, "in the middle of an epoch"
    same(interrupted(directory, LambdaCallback(), resume=directory / "checkpoints"), whole)
    assert timeless(directory / "rows") == timeless(tmp_path / "whole" / "rows")


def test_other_versions_and_devices_are_told(tmp_path, monkeypatch):
    fit(Phase(1, 0.1), callbacks=[ModelCheckpoint(tmp_path)])
    monkeypatch.setattr(checkpoint, "topology", lambda: {"platform": "cpu", "devices": 7, "processes": 1})
    with pytest.warns(UserWarning, match="was saved with devices 8, not 7: the last bits may be others"):
        fit(Phase(1, 0.1), resume=tmp_path)


@pytest.fixture
def restored_signals():
    """Ctrl-C as it is on a terminal; what runs in the background of a shell ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_between_phases_waits_for_what_is_being_written(number, tmp_path, restored_signals):
    def stop(event):
        if event.number == 1:
            os.kill(os.getpid(), number)

    phases = (Phase(2, 0.1, name="one"), Phase(2, 0.1, name="two"))
    with pytest.raises(KeyboardInterrupt) as told:
        fit(phases, callbacks=[ModelCheckpoint(tmp_path / "run"), LambdaCallback(phase=stop)])
    assert isinstance(told.value, Interrupted) == (number == signal.SIGTERM)
    assert checkpoint.newest(tmp_path / "run") == 10
    assert len(fit(phases, resume=tmp_path / "run").history) == 4


def test_an_end_that_fails_does_not_keep_others_from_theirs(tmp_path):
    def fail(event):
        raise OSError("cannot close")

    with pytest.raises(OSError, match="cannot close"):
        fit(callbacks=[LambdaCallback(end=fail), ModelCheckpoint(tmp_path)])
    assert checkpoint.newest(tmp_path) == 30


def test_a_function_of_your_own_is_heard_where_training_goes_on(tmp_path):
    def lower(event):
        return ScaleRate(0.1) if event.epoch >= 2 else None

    def fail(event):
        if event.epoch == 2:
            raise ZeroDivisionError

    whole = fit(callbacks=[lower])
    with pytest.raises(ZeroDivisionError):
        fit(callbacks=[ModelCheckpoint(tmp_path, every=0), lower, fail])
    resumed = fit(callbacks=[lower], resume=tmp_path)
    np.testing.assert_array_equal(resumed.history.column("learning_rate"), whole.history.column("learning_rate"))
    same(resumed, whole)


def test_the_functions_of_a_lambda_callback_are_heard_too(tmp_path):
    def enough(event):
        return Stop("enough") if event.epoch >= 3 else None

    def fail(event):
        if event.epoch == 3:
            raise ZeroDivisionError

    whole = fit(callbacks=[LambdaCallback(epoch=enough)])
    with pytest.raises(ZeroDivisionError):
        fit(callbacks=[ModelCheckpoint(tmp_path, every=0), LambdaCallback(epoch=enough), fail])
    resumed = fit(callbacks=[LambdaCallback(epoch=enough)], resume=tmp_path)
    assert len(resumed.history) == len(whole.history) == 3
    same(resumed, whole)


class InHalves(nn.Module):
    """As batch normalisation in groups is: it cannot be given a batch of one."""

    @nn.compact
    def __call__(self, x, train=False):
        if train and len(x) % 2:
            raise InputError(f"a batch of {len(x)} has no halves")
        return nn.Dense(3, name="head")(x)


def test_a_network_that_minds_the_size_of_its_batch_goes_on_in_the_middle_of_an_epoch(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: False)
    count, data_ = [], {"batch_size": 8, "phases": Phase(2, 0.1), "progress": False}

    def train_on(**more):
        return jaxdl.fit(InHalves(), source(), source(20, 1), variables=fill(InHalves(), (3,)), **data_, **more)

    whole = train_on()

    def stop(watch):
        count.append(watch)
        if len(count) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr("jaxdl.loop._Watch.due", stop)
        train_on(callbacks=[ModelCheckpoint(tmp_path)])
    assert checkpoint.place(tmp_path)["sums"] is not None
    same(train_on(resume=tmp_path), whole)


def test_variables_of_another_type_than_the_models_go_on(tmp_path):
    half = jax.tree.map(lambda leaf: leaf.astype(np.float16), fill(MODEL, (3,)))

    def kill(event):
        raise ZeroDivisionError

    whole = fit(Phase(2, 0.1, optimizer="sgd"), variables=half)
    assert whole.state.params["head"]["bias"].dtype == np.float16
    with pytest.raises(ZeroDivisionError):
        fit(Phase(2, 0.1, optimizer="sgd"), variables=half, callbacks=[ModelCheckpoint(tmp_path), kill])
    same(fit(Phase(2, 0.1, optimizer="sgd"), variables=half, resume=tmp_path), whole)


@pytest.fixture
def once_full(monkeypatch):
    """A disk that has no room for the first checkpoint."""
    write, full = checkpoint._write, [True]

    def fail_once(*arguments):
        if full.pop() if full else False:
            raise InputError("the disk is full")
        write(*arguments)

    monkeypatch.setattr(checkpoint, "_write", fail_once)


@pytest.mark.usefixtures("once_full")
def test_what_an_earlier_save_kept_from_being_saved_is_saved_at_the_end(tmp_path):
    keep = ModelCheckpoint(tmp_path, every=0)
    first, second = (replace(told([0.9, 0.8][:n]), state=replace(STATE, step=jnp.int32(n))) for n in (1, 2))
    keep(replace(told([], kind="begin"), training=first.training))
    keep(first)
    concurrent.futures.wait(keep._saver._pending)
    with pytest.raises(InputError, match="the disk is full"):
        keep(second)
    keep(replace(second, kind="end"))
    assert checkpoint.newest(tmp_path) == 2


@pytest.mark.usefixtures("once_full")
def test_what_waits_is_saved_at_the_end_where_an_earlier_save_had_failed(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("jaxdl.callbacks.time.monotonic", lambda: now[0])
    keep = ModelCheckpoint(tmp_path)
    first, second = (replace(told([0.9, 0.8][:n]), state=replace(STATE, step=jnp.int32(n))) for n in (1, 2))
    keep(replace(told([], kind="begin"), training=first.training))
    now[0] = 11.0
    keep(first)
    concurrent.futures.wait(keep._saver._pending)
    keep(second)  # it waits
    with pytest.raises(InputError, match="the disk is full"):
        keep(replace(second, kind="end"))
    assert checkpoint.newest(tmp_path) == 2


def test_a_phase_that_was_stopped_is_saved_before_the_next_one(tmp_path):
    def stop(event):
        return Stop("enough") if event.epoch == 2 else None

    def second(event):
        if event.number == 1:
            assert event.state.opt_state == {}
            assert checkpoint.restore_variables(tmp_path, event.state.variables)  # waits for it
            seen.append((checkpoint.steps(tmp_path), int(event.state.step)))
            best = checkpoint.restore_variables(tmp_path, event.state.variables, event.history.best("loss")["step"])
            chex.assert_trees_all_equal(event.state.params, best["params"])  # with which the phase begins

    seen = []
    phases = (Phase(4, 0.1, name="one"), Phase(1, 0.1, name="two"))
    fit(phases, callbacks=[ModelCheckpoint(tmp_path), stop, LambdaCallback(phase=second)], monitor="loss")
    assert seen == [([10], 10)]


@pytest.mark.parametrize("logger", [CSVLogger, JSONLines])
def test_a_row_is_logged_whole_or_not_at_all(logger, tmp_path, monkeypatch):
    log, event = logger(tmp_path / "log"), told([0.9])
    log(replace(event, kind="begin", history=event.history[:0]))
    log(event)
    before, opened = (tmp_path / "log").read_bytes(), Path.open

    class Half:
        """A file on a disk that is full after some bytes."""

        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, text):
            self.file.write(text[:5])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(InputError, match="cannot write .*No space left"):
        patch.setattr(Path, "open", lambda path, *mode: Half(opened(path, *mode)))
        log(told([0.9, 0.8]))
    assert (tmp_path / "log").read_bytes() == before


def test_where_the_best_is_found_damaged_meanwhile_the_others_still_make_way(tmp_path):
    keep, losses = ModelCheckpoint(tmp_path, every=0), [0.5, 0.9, 0.8, 0.7]
    keep(replace(told([], kind="begin"), training=told(losses).training))
    for n in range(1, 5):
        keep(replace(told(losses[:n]), state=replace(STATE, step=jnp.int32(n))))
        checkpoint.wait(tmp_path)
        if n == 2:
            assert checkpoint.steps(tmp_path) == [1, 2]
            with pytest.warns(UserWarning, match="flipped"):
                checkpoint.quarantine(tmp_path, 1, BadFile("flipped"))
    assert checkpoint.steps(tmp_path) == [4]


def test_where_the_best_was_damaged_the_next_best_is_kept(tmp_path):
    def train_on(values, begun):
        keep = ModelCheckpoint(tmp_path, every=0)
        epochs = [("epoch", n) for n in range(begun + 1, len(values) + 1)]
        for kind, n in [("begin", begun), *epochs, ("end", len(values))]:
            keep(replace(told(values[:n], kind), state=replace(STATE, step=jnp.int32(n))))

    train_on([0.9, 0.1, 0.5], 0)
    assert checkpoint.steps(tmp_path) == [2, 3]
    with pytest.warns(UserWarning, match="damaged; it is now in"):
        checkpoint.quarantine(tmp_path, 2, BadFile("damaged"))
    train_on([0.9, 0.1, 0.5, 0.3, 0.8], 3)
    assert checkpoint.steps(tmp_path) == [4, 5]


def test_only_the_same_training_goes_on(tmp_path):
    fit(Phase(2, 0.1), callbacks=[ModelCheckpoint(tmp_path / "run")])
    with pytest.raises(InputError, match="another training, of other batch_size: 8, not 4"):
        fit(Phase(2, 0.1), resume=tmp_path / "run", batch_size=4)
    with pytest.raises(InputError, match="of other phases"):
        fit(Phase(3, 0.1), resume=tmp_path / "run")
    with pytest.raises(InputError, match="of other monitor: val_loss, not val_accuracy"):
        fit(Phase(2, 0.1), resume=tmp_path / "run", monitor="val_accuracy")
    with pytest.raises(InputError, match=r"of other metrics: \['loss', 'accuracy'\], not \['loss'\]"):
        fit(Phase(2, 0.1), resume=tmp_path / "run", metrics={})
    checkpoint.save(tmp_path / "mine", STATE, place={"epoch": 50})
    with pytest.raises(InputError, match="was not saved by a ModelCheckpoint"):
        fit(Phase(2, 0.1), resume=tmp_path / "mine")
    checkpoint.delete(tmp_path / "mine", 0)
    (tmp_path / "mine" / checkpoint.QUARANTINE).mkdir()
    with pytest.raises(InputError, match="all checkpoints in .* are damaged; to begin again, remove it"):
        fit(Phase(2, 0.1), resume=tmp_path / "mine")
    with pytest.raises(InputError, match="of other bad_numbers: stop, not skip"):
        fit(Phase(2, 0.1), resume=tmp_path / "run", bad_numbers="skip")
    wider = models.create("dense", 3, hidden=(5,))
    with pytest.raises(InputError, match="was saved for another model"):
        jaxdl.fit(wider, source(), source(20, 1), phases=Phase(2, 0.1), resume=tmp_path / "run", batch_size=8)
    assert not (tmp_path / "run" / checkpoint.QUARANTINE).exists()
    with pytest.raises(InputError, match="no folder"):
        fit(resume=tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert len(fit(Phase(2, 0.1), resume=tmp_path / "empty").history) == 2
    checkpoint.save(tmp_path / "bare", STATE)
    with pytest.raises(InputError, match="does not tell how to go on"):
        fit(resume=tmp_path / "bare")
    assert len(fit(Phase(2, 0.1), resume=tmp_path / "run").history) == 2  # it had ended


def test_logs_have_a_line_for_each_epoch(tmp_path):
    result = fit(callbacks=[CSVLogger(tmp_path / "a" / "rows.csv"), JSONLines(tmp_path / "rows.jsonl")])
    with (tmp_path / "a" / "rows.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["val_loss"]) for row in table] == [row["val_loss"] for row in result.history]
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == list(result.history)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        fit(callbacks=[CSVLogger(tmp_path / "file" / "rows.csv")])


def test_tensorboard_reads_figures_histograms_pictures_and_the_graph(tmp_path):
    def draw(event):
        figure = jaxdl.report.curves(event.history)
        return {"curves": figure, "kernel": np.zeros((4, 4, 3), np.uint8), "gray": np.zeros((4, 4), np.uint8)}

    result = fit(Phase(3, 0.1), callbacks=[TensorBoard(tmp_path, images=draw)])
    values, names, nodes = {}, set(), set()
    for event in read_events(next(tmp_path.glob("events*"))):
        for value in event.summary.value:
            names.add((value.tag, value.WhichOneof("value")))
            if value.HasField("simple_value"):
                values.setdefault(value.tag, {})[event.step] = value.simple_value
        if event.graph_def:
            from tensorboardX.proto.graph_pb2 import GraphDef

            nodes = {node.name for node in GraphDef.FromString(event.graph_def).node}
    assert values["loss/validation"] == pytest.approx({row["epoch"]: row["val_loss"] for row in result.history})
    assert {("dense_0/kernel", "histo"), ("curves", "image"), ("kernel", "image"), ("gray", "image")} <= names
    assert nodes == {"input", "dense_0", "head"}


def read_events(path):
    """The records of an event file: length, checksum, content, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    content = path.read_bytes()
    while content:
        size = int.from_bytes(content[:8], "little")
        yield Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]


def test_a_lambda_callback_hears_what_it_wants():
    heard = []
    kinds = ("begin", "phase", "epoch", "end")
    fit(Phase(2, 0.1), callbacks=[LambdaCallback(**{kind: lambda e: heard.append(e.kind) for kind in kinds})])
    assert heard == ["begin", "phase", "epoch", "epoch", "end"]
    heard.clear()
    with pytest.raises(ZeroDivisionError):
        fit(callbacks=[LambdaCallback(end=lambda e: heard.append(e.epoch)), lambda event: 1 / 0])
    assert heard == [1]


def test_progress_says_what_happens(capsys):
    fit(Phase(2, 0.1), progress=True, callbacks=[EarlyStopping(patience=1, min_delta=9.0)])
    said = capsys.readouterr().err
    assert "train: 2 epochs, 31 of 31 parameters trainable" in said
    assert "epoch  2/2  loss" in said
    assert "phase 'train' ends after epoch 2: val_loss has not got better for 1 epochs" in said


def test_a_bar_is_drawn_on_a_terminal(monkeypatch):
    shown = []
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr("rich.progress.Progress.update", lambda self, task, **fields: shown.append(fields))
    bar = callbacks.Progress()
    for kind in ("begin", "batch", "epoch"):
        event = told([0.5], kind=kind)
        figures = {"loss": 0.25, "examples": 4.0, "examples_per_second": 100.0, "seconds": 1.0}
        bar(replace(event, metrics=figures))
    assert shown == [{"completed": 4.0, "figures": "loss 0.2500  100/s"}]


@pytest.mark.parametrize(
    ("callback", "reason"),
    [
        (lambda: EarlyStopping(patience=0), "EarlyStopping: patience=0"),
        (lambda: ReduceLROnPlateau(factor=2), "ReduceLROnPlateau: factor=2"),
        (lambda: EarlyStopping(monitor="val_acuracy", restore_best=False), "'val_acuracy'.*the nearest: val_accuracy"),
        (lambda: EarlyStopping(monitor="val_accuracy"), r"give fit\(monitor='val_accuracy'\), or restore_best=False"),
        (lambda: lambda event: "stop", "returned 'stop', not None, Stop or ScaleRate"),
    ],
)
def test_callbacks_that_cannot_be_used(callback, reason):
    with pytest.raises(InputError, match=reason):
        fit(callbacks=[callback()])
    with pytest.raises(InputError, match="give validation data"):
        jaxdl.fit(MODEL, source(), phases=Phase(1, 0.1), callbacks=[EarlyStopping()], progress=False)
    with pytest.raises(InputError, match="no figure 'val_los' to monitor; the nearest: val_loss"):
        fit(monitor="val_los")


def test_stop_is_an_action_of_your_own():
    assert len(fit(callbacks=[lambda event: Stop("enough") if event.epoch == 2 else None]).history) == 2


def test_a_signal_in_the_epoch_that_ends_a_phase_is_heard():
    def enough(event):
        os.kill(os.getpid(), signal.SIGTERM)
        return Stop("enough")

    with pytest.raises(Interrupted) as told:
        fit([Phase(3, 0.1), Phase(1, 0.1)], callbacks=[enough])
    assert told.value.signal == signal.SIGTERM
