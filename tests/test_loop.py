import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import fill
from sklearn.metrics import accuracy_score, log_loss

import jaxdl
from jaxdl import data, losses, metrics, models, optim, parallel, train
from jaxdl.augment import Affine, CutMix, MixUp, OneOf
from jaxdl.callbacks import LambdaCallback, ModelCheckpoint
from jaxdl.errors import InputError, Interrupted
from jaxdl.optim import Phase
from jaxdl.transfer import Recipe


def blobs(n=40, seed=0, classes=3):
    """Points around `classes` corners of a square."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, n)
    corners = np.array([[0, 0], [4, 0], [0, 4]], np.float32)
    return data.from_arrays((corners[labels] + draw.normal(size=(n, 2))).astype(np.float32), labels, "abc"[:classes])


def pictures(n=22, seed=0):
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 2, n)
    return data.from_arrays(
        (labels[:, None, None] * 100 + draw.integers(0, 99, (n, 8, 8))).astype(np.uint8), labels, "ab"
    )


def normalize(x):
    return x.astype(jnp.float32) / 255


def test_a_dense_net_learns_and_the_history_says_so():
    model = models.create("dense", 3, hidden=(16,))
    result = jaxdl.fit(model, blobs(200), blobs(50, 1), phases=Phase(15, 0.03), progress=False)
    assert jaxdl.evaluate(model, result.variables, blobs(100, 2))["accuracy"] > 0.9
    last = result.history[-1]
    assert last["loss"] < result.history[0]["loss"]
    assert (last["epoch"], last["step"], last["phase"]) == (15, 15 * 7, "train")
    assert {"accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds", "examples_per_second"} <= last.keys()
    said = repr(result)
    assert "epochs=15" in said
    assert repr(last["val_loss"]) in said
    assert "kernel" not in said


def test_a_neuron_learns_two_classes():
    model = models.create("neuron", 1)
    result = jaxdl.fit(
        model, blobs(100, classes=2), phases=Phase(20, 0.1), loss=losses.binary_cross_entropy, progress=False
    )
    figures = jaxdl.evaluate(model, result.variables, blobs(60, 1, classes=2), loss=losses.binary_cross_entropy)
    assert figures["accuracy"] > 0.9


def test_each_step_is_traced_once_although_the_last_batch_is_short(capsys):
    traces = []

    def augment(key, images):
        traces.append(images.shape)
        return images

    def mark(x):
        traces.append(len(x))
        return normalize(x)

    model = models.create("cnn", 2, filters=(2,))
    jaxdl.fit(model, pictures(22), pictures(9), phases=Phase(3, 0.01), batch_size=8, augment=augment, normalize=mark)
    # The train step and the evaluation step, each once over three epochs with a last batch of 6 of 8 and 1 of 8.
    assert [trace for trace in traces if trace not in (1, 8)] == [(8, 8, 8, 1)]
    assert traces.count(8) == 2
    assert traces.count(1) == 1, "what comes out of `normalize` is asked for once"
    assert "epoch  3/3" in capsys.readouterr().err


def test_a_resident_epoch_equals_streamed_steps(monkeypatch):
    model = models.create("dense", 3, hidden=(4,))
    variables = fill(model, (2,))
    resident = jaxdl.fit(model, blobs(), variables=variables, phases=Phase(2, 0.1), batch_size=16, progress=False)
    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: False)
    streamed = jaxdl.fit(model, blobs(), variables=variables, phases=Phase(2, 0.1), batch_size=16, progress=False)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), resident.variables, streamed.variables
    )
    for a, b in zip(resident.history, streamed.history, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)


def test_a_mesh_of_eight_trains_as_one_device_does():
    model = models.create("dense", 3, hidden=(4,))
    variables = fill(model, (2,))
    one = jaxdl.fit(model, blobs(), variables=variables, phases=Phase(2, 0.1), batch_size=12, progress=False)
    mesh = parallel.make_mesh()
    eight = jaxdl.fit(
        model, blobs(), variables=variables, phases=Phase(2, 0.1), batch_size=12, progress=False, mesh=mesh
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one.variables, eight.variables)
    figures = [jaxdl.evaluate(model, one.variables, blobs(21, 1), mesh=m, batch_size=8) for m in (None, mesh)]
    assert figures[0] == pytest.approx(figures[1])
    logits = [jaxdl.predict(model, one.variables, blobs(21, 1), mesh=m, batch_size=5) for m in (None, mesh)]
    np.testing.assert_allclose(*logits, rtol=1e-5)


def test_evaluate_is_scikit_learns_and_predict_keeps_the_order():
    model = models.create("dense", 3)
    variables, source = fill(model, (2,)), blobs(37)
    logits = jaxdl.predict(model, variables, source, batch_size=8)
    figures = jaxdl.evaluate(model, variables, source, batch_size=8)
    assert figures["count"] == 37
    assert figures["accuracy"] == pytest.approx(accuracy_score(source.labels, logits.argmax(-1)))
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    assert figures["loss"] == pytest.approx(log_loss(source.labels, p / p.sum(-1, keepdims=True)), rel=1e-4)
    np.testing.assert_allclose(logits, jaxdl.predict(model, variables, jnp.asarray(source.inputs)), rtol=1e-5)


def test_test_time_augmentation_is_the_mean_over_views():
    model, source = models.create("cnn", 2, filters=(2,)), pictures(10)
    variables, turn = fill(model, (8, 8, 1)), Affine(rotate=30)
    options = {"normalize": normalize, "batch_size": 5}
    images = source.inputs.astype(np.float32)
    views = [images]
    for n in (1, 2, 3):
        key = jax.random.fold_in(jax.random.key(0), n)  # the same for every batch
        views.append(np.concatenate([turn(key, images[:5]), turn(key, images[5:])]))
    each = [jaxdl.predict(model, variables, view, **options) for view in views]
    logits = jaxdl.predict(model, variables, source, augment=turn, views=3, **options)
    np.testing.assert_allclose(logits, np.mean(each, 0), rtol=1e-3, atol=1e-4)
    figures = jaxdl.evaluate(model, variables, source, augment=turn, views=3, **options)
    assert figures["accuracy"] == pytest.approx(accuracy_score(source.labels, logits.argmax(-1)))
    p = np.asarray(jax.nn.softmax(logits), np.float64)
    assert figures["loss"] == pytest.approx(log_loss(source.labels, p / p.sum(-1, keepdims=True)), rel=1e-3)
    with pytest.raises(InputError, match="for training steps only"):
        jaxdl.evaluate(model, variables, source, augment=CutMix(), views=1)
    with pytest.raises(InputError, match="both `augment` and `views`"):
        jaxdl.predict(model, variables, source, views=1)


def test_a_network_learns_from_mixes():
    model = models.create("cnn", 2, filters=(4,))
    options = {"normalize": normalize, "batch_size": 16}
    mix = OneOf(MixUp(0.4), CutMix())
    result = jaxdl.fit(model, pictures(60), phases=Phase(12, 0.03), augment=mix, progress=False, **options)
    assert jaxdl.evaluate(model, result.variables, pictures(40, 1), **options)["accuracy"] > 0.9
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_phases_follow_each_other_and_only_the_second_moves_the_trunk():
    model = models.create("dense", 3, hidden=(4,))
    variables = fill(model, (2,))
    seen = []

    def watch(event):
        same = np.array_equal(event.state.params["dense_0"]["kernel"], variables["params"]["dense_0"]["kernel"])
        seen.append((event.epoch, event.phase.name, int(event.state.step), same))

    phases = [Phase(2, 0.1, name="head", trainable=("head",)), Phase(1, 0.01, name="all")]
    jaxdl.fit(model, blobs(), variables=variables, phases=phases, callbacks=(watch,), progress=False)
    assert seen == [(1, "head", 2, True), (2, "head", 4, True), (3, "all", 6, False)]


def test_other_metrics_are_carried_along():
    model = models.create("dense", 3)
    chosen = {"top2": metrics.top_k(2)}
    result = jaxdl.fit(model, blobs(), blobs(9), phases=Phase(1, 0.1), metrics=chosen, progress=False)
    assert {"loss", "top2", "val_top2"} <= result.history[0].keys()
    assert "accuracy" not in result.history[0]


def test_what_cannot_be_trained():
    model = models.create("dense", 2)
    with pytest.raises(InputError, match="out of range: labels of 2 classes"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1))
    with pytest.raises(InputError, match="out of range"):
        jaxdl.evaluate(model, fill(model, (2,)), blobs())
    model = models.create("dense", 3)
    with pytest.raises(InputError, match="no parameter matches 'haed'; the nearest: head"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1, trainable=("haed",)))
    with pytest.raises(InputError, match="do not belong to this model"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), variables=fill(models.create("dense", 4), (2,)))
    with pytest.raises(InputError, match="the loss became .* try a lower one"):
        jaxdl.fit(model, blobs(), phases=Phase(9, 1e30, optimizer="sgd", clip_norm=None, warmup=0), progress=False)
    with pytest.raises(InputError, match="batch_size"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), batch_size=0)
    with pytest.raises(InputError, match="seed"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), seed=-1)
    with pytest.raises(InputError, match="binary_cross_entropy"):
        jaxdl.fit(models.create("neuron", 1), blobs(classes=2), phases=Phase(1, 0.1))
    for wrong in ((), 5, [1e-3]):
        with pytest.raises(InputError, match="no phase"):
            jaxdl.fit(model, blobs(), phases=wrong)
    ages = data.from_arrays(np.ones((6, 2)), np.arange(20, 26))
    with pytest.raises(InputError, match="label 20 of example 0 .*; for regression give floats"):
        jaxdl.fit(models.create("neuron", 1), ages, phases=Phase(1, 0.1), loss=losses.binary_cross_entropy)
    shares = data.from_arrays(np.ones((6, 2)), np.arange(6) % 2 / 1)
    with pytest.raises(InputError, match="give metrics too"):
        jaxdl.fit(models.create("neuron", 1), shares, phases=Phase(1, 0.1), loss=losses.binary_cross_entropy)
    with pytest.raises(InputError, match="phase 'late': accumulate=9 .* only 2"):
        jaxdl.fit(model, blobs(), phases=[Phase(1, 0.1), Phase(1, 0.1, "late", accumulate=9)], batch_size=20)
    with pytest.raises(InputError, match="callbacks are a list"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), callbacks=print)
    with pytest.raises(InputError, match="batch_size='a'"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), batch_size="a")
    with pytest.raises(InputError, match="a seed is 0 or more, got 'a'"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), seed="a")
    with pytest.raises(InputError, match="are numbers"):
        Phase(1, "fast")


def test_what_does_not_fit_together_is_told_in_one_line():
    dense, cnn = models.create("dense", 3), models.create("cnn", 2)
    variables, wide = fill(dense, (2,)), data.from_arrays(np.ones((6, 5)), np.arange(6) % 3)
    phases, empty = Phase(1, 0.1), blobs().subset(np.arange(0))
    cases = [
        (lambda: jaxdl.predict(dense, variables, wide.inputs), r"^dense_0 takes inputs \[..., 2\], got \[..., 5\]"),
        (lambda: jaxdl.evaluate(dense, variables, wide), "^dense_0 takes"),
        (lambda: jaxdl.fit(dense, wide, variables=variables, phases=phases), "^dense_0 takes"),
        (lambda: jaxdl.fit(dense, blobs(), wide, phases=phases), "^dense_0 takes"),
        (lambda: jaxdl.evaluate(models.create("dense", 4), variables, blobs()), "do not belong to this model"),
        (lambda: jaxdl.predict(cnn, fill(cnn, (8, 8, 1)), blobs()), r"takes images \[B,H,W,C\]"),
        (lambda: jaxdl.predict(cnn, fill(cnn, (8, 8, 3)), pictures()), "^conv_0_0 takes inputs"),
        (lambda: jaxdl.predict(cnn, {}, pictures(), normalize=lambda x: x + np.ones(3)), "`normalize` cannot take"),
        (lambda: jaxdl.fit(dense, empty, phases=phases), "the source is empty"),
        (lambda: jaxdl.fit(dense, blobs(), empty, phases=phases), "the source is empty"),
        (lambda: jaxdl.evaluate(dense, variables, None), "this split is None"),
        (lambda: jaxdl.predict(dense, variables, [[1.0, 2.0]]), "come as a source.*; this is a list"),
        (lambda: jaxdl.evaluate(dense, variables, blobs(), loss="mse"), "a loss is a function.*'mse'"),
        (lambda: jaxdl.fit(dense, blobs(), phases=phases, metrics=["accuracy"]), "metrics are a dict"),
        (lambda: jaxdl.fit("dense", blobs(), phases=phases), "a Flax Linen module.*'dense'"),
        (lambda: jaxdl.fine_tune(dense, variables, data.from_arrays(wide.inputs, np.ones(6))), "teaches classes"),
    ]
    for call, reason in cases:
        with pytest.raises(InputError, match=reason) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_the_model_is_given_what_comes_out_of_normalize():
    model = models.create("cnn", 2, filters=(2,))

    def coloured(x):
        return jnp.repeat(normalize(x), 3, -1)

    result = jaxdl.fit(model, pictures(), pictures(9), phases=Phase(1, 0.1), normalize=coloured, progress=False)
    assert result.variables["params"]["conv_0_0"]["kernel"].shape == (3, 3, 3, 2)
    assert jaxdl.predict(model, result.variables, pictures(), normalize=coloured).shape == (22, 2)


def test_a_phase_begins_with_the_best_of_the_one_before():
    model = models.create("dense", 3, hidden=(4,))
    variables = fill(model, (2,))
    # So fast that it gets worse again.
    phases = [Phase(6, 3.0, name="head", trainable=("head",), schedule="constant"), Phase(1, 1e-9, name="rest")]
    seen = []
    fit = {"variables": variables, "phases": phases, "progress": False}
    jaxdl.fit(model, blobs(), blobs(20, 1), callbacks=(seen.append,), **fit)
    head, after = seen[:6], seen[6]
    best = min(head, key=lambda event: event.metrics["val_loss"])
    assert best is not head[-1]
    assert after.metrics["val_loss"] == pytest.approx(best.metrics["val_loss"], rel=1e-4)
    assert (after.epoch, after.metrics["step"]) == (7, 14)
    # Without validation data there is no best.
    seen.clear()
    last = jaxdl.fit(model, blobs(), callbacks=(seen.append,), **fit)
    kernels = [np.asarray(event.state.params["head"]["kernel"]) for event in seen[-1:]]
    np.testing.assert_allclose(kernels[0], last.state.params["head"]["kernel"])


def test_fine_tuning_is_one_call():
    model = models.create("cnn", 7, filters=(4,), hidden=(5,))
    variables = fill(model, (8, 8, 1))
    recipe = Recipe(start="conv", head_epochs=3, epochs=2, learning_rate=0.1, fine_tuning_rate=0.01, ema=None)
    options = {"normalize": normalize, "augment": None, "progress": False, "batch_size": 8}
    seen = []
    tuned = jaxdl.fine_tune(model, variables, pictures(99), pictures(9, 1), recipe, callbacks=[seen.append], **options)
    assert [row["phase"] for row in tuned.history] == ["head"] * 3 + ["fine-tune"] * 2
    assert [row["epoch"] for row in tuned.history] == [1, 2, 3, 4, 5]
    assert tuned.model.num_classes == 2
    conv = [
        np.array_equal(e.state.params["conv_0_0"]["kernel"], variables["params"]["conv_0_0"]["kernel"]) for e in seen
    ]
    assert conv[2]
    assert not conv[4]
    assert jaxdl.evaluate(tuned.model, tuned.variables, pictures(20, 2), normalize=normalize)["accuracy"] > 0.9
    assert variables["params"]["head"]["bias"].shape == (7,)
    only = jaxdl.fine_tune(model, variables, pictures(), recipe=Recipe(epochs=0), **options)
    assert {row["phase"] for row in only.history} == {"head"}


def test_gradual_unfreezing_moves_more_with_every_phase():
    model = models.create("dense", 3, hidden=(4, 4, 4))
    variables = fill(model, (2,))
    recipe = Recipe(
        start=("dense_2", "dense_1", "dense_0"), head_epochs=1, epochs=1, layer_decay=0.5, learning_rate=0.1
    )
    moved = []

    def watch(event):
        old, new = variables["params"], event.state.params
        moved.append(
            {name for name in old if name != "head" and not np.array_equal(old[name]["kernel"], new[name]["kernel"])}
        )

    jaxdl.fine_tune(model, variables, blobs(), recipe=recipe, augment=None, callbacks=[watch], progress=False)
    assert moved == [set(), {"dense_2"}, {"dense_2", "dense_1"}, {"dense_2", "dense_1", "dense_0"}]


def test_numbers_are_learned_too():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 2)).astype(np.float32)
    source = data.from_arrays(x, x @ np.array([2.0, -1.0]) + 0.5)
    options = {"loss": losses.squared_error, "metrics": {"error": metrics.mean(losses.squared_error)}}
    model = models.create("neuron", 1)
    result = jaxdl.fit(model, source, phases=Phase(60, 0.1), progress=False, **options)
    assert jaxdl.evaluate(model, result.variables, source, **options)["error"] < 0.01
    np.testing.assert_allclose(result.variables["params"]["head"]["kernel"][:, 0], [2, -1], atol=0.1)
    with pytest.raises(InputError, match="labels that are numbers"):
        jaxdl.fit(model, source, phases=Phase(1, 0.1))


def test_several_heads_are_trained_together():
    x = np.asarray(blobs(80).inputs)
    labels = {"corner": blobs(80).labels, "sum": x.sum(1)}
    source = data.from_arrays(x, labels)
    model = models.create("dense", {"corner": 3, "sum": 1}, hidden=(16,))
    chosen = {"corner": losses.cross_entropy, "sum": losses.squared_error}
    options = {"loss": losses.combine(chosen), "metrics": {"right": metrics.of("corner", metrics.accuracy)}}
    options["metrics"]["error"] = metrics.of("sum", metrics.mean(losses.squared_error))
    result = jaxdl.fit(model, source, source, phases=Phase(40, 0.03), progress=False, **options)
    assert result.history[-1]["val_right"] > 0.9
    assert result.history[-1]["val_error"] < 0.5
    outputs = jaxdl.predict(model, result.variables, source, batch_size=32)
    assert {name: output.shape for name, output in outputs.items()} == {"corner": (80, 3), "sum": (80, 1)}
    assert accuracy_score(labels["corner"], outputs["corner"].argmax(-1)) == result.history[-1]["val_right"]
    with pytest.raises(InputError, match="labels for each of them by name"):
        jaxdl.fit(model, blobs(), phases=Phase(1, 0.1), **options)
    with pytest.raises(InputError, match="needs a loss for them"):
        jaxdl.fit(model, source, phases=Phase(1, 0.1))


def with_a_hole():
    """Blobs of which one is no number: it is in one of five batches."""
    inputs = np.asarray(blobs(40).inputs).copy()
    inputs[17] = np.nan
    return data.Arrays(inputs, blobs(40).labels, tuple("abc"))  # `from_arrays` does not take it


def test_a_loss_that_is_no_number_stops_at_its_step():
    model = models.create("dense", 3)
    rows = data.order(40, 8, seed=0, epoch=1)[0]
    step = int(np.flatnonzero((rows == 17).any(1))[0]) + 1
    phase = Phase(2, 0.1, schedule="constant", warmup=0)
    for resident in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("jaxdl.loop._resident", lambda *_, on=resident: on)
            with pytest.raises(InputError, match=rf"became nan in step {step} \(epoch 1.*at the learning rate 0.1;"):
                jaxdl.fit(model, with_a_hole(), phases=phase, batch_size=8, progress=False)


@pytest.mark.parametrize("resident", [True, False])
def test_a_batch_that_is_skipped_is_as_if_it_had_never_been(resident, monkeypatch):
    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: resident)
    model, optimizer = models.create("dense", 3, hidden=(4,)), "adam"
    phase = Phase(3, 0.1, optimizer=optimizer, schedule="constant", warmup=0, ema=0.5)
    options = {"variables": fill(model, (2,)), "batch_size": 8, "progress": False, "bad_numbers": "skip"}
    result = jaxdl.fit(model, with_a_hole(), phases=phase, **options)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 15))
    state = train.init_state(fill(model, (2,)), rule, jax.random.key(0), average=True)
    step = jax.jit(train.make_train_step(model, rule, ema=0.5))
    losses_ = []
    for epoch in (1, 2, 3):
        for batch in data.batches(with_a_hole(), 8, seed=0, epoch=epoch):
            if np.isfinite(batch["features"]).all():
                state, sums = step(state, batch)
                losses_.append(sums["loss"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), result.variables, state.variables)
    assert [row["skipped"] for row in result.history] == [1, 1, 1]
    assert result.history[-1]["loss"] == pytest.approx(float(np.divide(*np.sum(losses_[-4:], 0))), rel=1e-5)
    assert int(result.state.step) == 15
    inputs = np.full((40, 2), np.nan, np.float32)
    with pytest.raises(InputError, match=r"became nan in step 1 .*first in dense_0/bias"):
        jaxdl.fit(model, data.Arrays(inputs, blobs(40).labels, tuple("abc")), phases=phase, **options)


def test_an_epoch_that_is_rolled_back_is_one_at_a_lower_rate(tmp_path, monkeypatch):
    draw = np.random.default_rng(0)
    x = draw.normal(size=(60, 1)).astype(np.float32)
    source, model = data.from_arrays(x, x[:, 0] * 2), models.create("neuron", 1)
    options = {"loss": losses.squared_error, "metrics": {"error": metrics.mae}, "variables": fill(model, (1,))}
    options |= {"batch_size": 1, "progress": False}
    plain = {"optimizer": "gradient-descent", "schedule": "constant", "warmup": 0, "weight_decay": 0, "clip_norm": None}

    def fit(rate, **more):
        return jaxdl.fit(model, source, phases=Phase(3, rate, **plain), **options, **more)

    heard = []
    listen = LambdaCallback(epoch=lambda event: heard.append(int(event.state.step)))
    rolled = fit(5.0, bad_numbers="rollback", callbacks=[listen, ModelCheckpoint(tmp_path / "whole", every=0)])
    assert [row["rollbacks"] for row in rolled.history] == [1, 0, 0]
    assert heard == [60, 120, 180]
    lower = fit(0.5)
    np.testing.assert_allclose(rolled.history.column("learning_rate"), lower.history.column("learning_rate"))
    for a, b in zip(jax.tree.leaves(rolled.variables), jax.tree.leaves(lower.variables), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def fail(event):
        if event.epoch == 2:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(5.0, bad_numbers="rollback", callbacks=[ModelCheckpoint(tmp_path / "failed", every=0), fail])
    resumed = fit(5.0, bad_numbers="rollback", resume=tmp_path / "failed")
    for a, b in zip(jax.tree.leaves(rolled.variables), jax.tree.leaves(resumed.variables), strict=True):
        np.testing.assert_array_equal(a, b)

    class Stopper:
        kinds = ("note",)

        def __call__(self, event):
            if "begins again" in event.text:
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("jaxdl.loop._resident", lambda *_: False)  # so that the epoch stops in its middle
    whole, stopped = fit(5.0, bad_numbers="rollback"), tmp_path / "stopped"
    with pytest.raises(Interrupted):
        fit(5.0, bad_numbers="rollback", callbacks=[ModelCheckpoint(stopped), Stopper()])
    resumed = fit(5.0, bad_numbers="rollback", resume=stopped)
    for name in ("learning_rate", "rollbacks", "loss"):
        np.testing.assert_array_equal(resumed.history.column(name), whole.history.column(name))
    with pytest.raises(InputError, match=r"learning rate 1e\+20, 3 times lowered; try a lower one"):
        fit(1e23, bad_numbers="rollback")
    with pytest.raises(InputError, match="fsdp divides the state over a mesh: give"):
        fit(1.0, fsdp=True)
    with pytest.raises(InputError, match="bad_numbers='rolback' is not known; the nearest: rollback"):
        fit(1.0, bad_numbers="rolback")


def test_the_first_update_that_is_no_number_is_named():
    """A gradient overflows, while the loss is 0."""
    model, phase = models.create("neuron", 1), Phase(1, 0.1, optimizer="sgd", warmup=0, clip_norm=None)
    variables = jax.tree.map(np.zeros_like, fill(model, (1,)))
    options = {"loss": lambda outputs, labels: 1e30 * outputs[:, 0], "metrics": {}, "variables": variables}
    source = data.from_arrays(np.full((8, 1), 1e20, np.float32), np.ones(8))
    reason = r"the update became nan in step 1 \(.*, first in head/kernel\), at the learning rate 0.1; try a lower"
    with pytest.raises(InputError, match=reason):
        jaxdl.fit(model, source, phases=phase, batch_size=8, progress=False, **options)


def test_the_last_good_state_is_the_last_that_callbacks_see():
    model = models.create("dense", 3)
    seen = []

    def keep(event):
        seen.append(jax.device_get(event.state.params))

    # The second step's update overflows; no loss of the first two epochs, of one step each, shows it.
    phase = Phase(5, 1e38, schedule="constant", warmup=0, optimizer="sgd", clip_norm=None)
    with pytest.raises(InputError, match=r"the (update|loss) became nan in step \d"):
        jaxdl.fit(model, blobs(8), phases=phase, batch_size=8, callbacks=[keep], progress=False)
    for params in seen:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
