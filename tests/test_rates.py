"""Learning rates: the sweep is a training, the grid is many trainings."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import fill

import jaxdl
from jaxdl import data, features, models, rates
from jaxdl.errors import InputError
from jaxdl.optim import Phase

MODEL = models.create("cnn", 3, filters=(4,), hidden=(5,), dropout=0.3)
VARIABLES = fill(MODEL, (8, 8, 1))
HEAD = Phase(3, 0.05, trainable=("head",), views=2)
PIXELS = data.Preprocessing(8, mean=(10.0,), std=(99.0,))
SHARED = {"normalize": PIXELS.normalize, "batch_size": 8}


def pictures(n=21, seed=0):
    draw = np.random.default_rng(seed)
    labels = np.arange(n) % 3
    return data.from_arrays((labels[:, None, None] * 70 + draw.integers(0, 99, (n, 8, 8))).astype(np.uint8), labels)


def prepared(phase=HEAD, validation=True):
    held = pictures(10, 1) if validation else None
    return features.prepare(MODEL, VARIABLES, phase, pictures(), held, **SHARED)


def test_each_of_a_grid_is_the_training_that_fit_does():
    chosen = [1e-3, 0.05, 0.5]
    found = rates.grid(prepared(), HEAD, chosen, batch_size=8)
    for rate, loss, accuracy in zip(chosen, found.losses, found.accuracies, strict=True):
        phase = Phase(3, rate, trainable=("head",), views=2)
        options = {"variables": VARIABLES, "phases": phase, "progress": False, **SHARED}
        row = jaxdl.fit(MODEL, pictures(), pictures(10, 1), **options).history[-1]
        assert (loss, accuracy) == pytest.approx((row["val_loss"], row["val_accuracy"]), rel=1e-4)
    assert found.suggestion == chosen[int(np.argmin(found.losses))]


@pytest.mark.parametrize("phase", [HEAD, Phase(3, 0.05, ema=0.9)])
def test_a_sweep_falls_and_then_diverges(phase):
    found = rates.sweep(prepared(phase), phase, low=1e-5, high=1e4, steps=60, batch_size=8)
    assert found.rates[0] == pytest.approx(1e-5)
    assert found.rates[-1] == pytest.approx(1e4)
    np.testing.assert_allclose(np.diff(np.log(found.rates)), np.log(1e9) / 59, rtol=1e-3)
    best = found.rates[np.nanargmin(found.losses)]
    assert 1e-5 <= found.suggestion <= best
    assert np.isnan(found.losses[-1])


def test_the_first_steps_of_a_sweep_are_those_of_training():
    stage = prepared(Phase(1, 0.1))
    found = rates.sweep(stage, Phase(1, 0.1, clip_norm=None), low=1e-9, high=1e-8, steps=10, batch_size=21)
    logits = jaxdl.predict(MODEL, VARIABLES, pictures(), normalize=PIXELS.normalize)
    assert np.isfinite(found.losses).all()
    assert found.losses.std() < 0.2  # dropout alone
    p = jax.nn.log_softmax(logits)
    assert found.losses[-1] == pytest.approx(float(-p[np.arange(21), pictures().labels].mean()), rel=0.2)


def test_the_suggestion_is_where_the_loss_falls_fastest():
    rates_ = np.geomspace(1e-6, 1, 100)
    noise = 0.02 * np.random.default_rng(0).normal(size=100)
    for middle in (1e-4, 3e-3, 1e-2):
        falling = 2 - np.tanh(2 * np.log10(rates_ / middle))
        raw = np.where(rates_ > 100 * middle, 1e4, falling + noise)
        smooth = rates._smoothed(raw)
        assert abs(np.log10(rates._steepest(rates_, smooth) / middle)) < 0.35
        assert np.isnan(smooth[rates_ > 100 * middle]).all()


def test_where_nothing_falls_the_lowest_is_suggested():
    rates_ = np.geomspace(1e-6, 1, 100)
    raw = 1 + 0.01 * np.sin(np.arange(100) * 4) - 0.05 * (np.abs(np.log10(rates_ / 1e-4)) < 0.3)
    assert abs(np.log10(rates._steepest(rates_, rates._smoothed(raw)) / 1e-4)) < 0.5


def test_impossible_searches():
    for options, reason in (({"low": 0.0}, "above 0"), ({"low": 2.0}, "rise"), ({"steps": 5}, "at least 10 updates")):
        with pytest.raises(InputError, match=reason):
            rates.sweep(prepared(), HEAD, **options)
    with pytest.raises(InputError, match="10 updates of accumulate=4 batches, got 39 steps"):
        rates.sweep(prepared(), replace(HEAD, accumulate=4), steps=39)
    for chosen in ([], [0.0, 1.0]):
        with pytest.raises(InputError, match="above 0"):
            rates.grid(prepared(), HEAD, chosen)
    with pytest.raises(InputError, match="has no views"):
        rates.grid(prepared(Phase(1, 0.1)), Phase(1, 0.1), [0.1])
    with pytest.raises(InputError, match="validation"):
        rates.grid(prepared(validation=False), HEAD, [0.1])
    broken = {**VARIABLES, "params": {**VARIABLES["params"], "head": {"kernel": np.full((5, 3), np.nan, np.float32)}}}
    broken["params"]["head"]["bias"] = np.zeros(3, np.float32)
    stage = features.prepare(MODEL, broken, HEAD, pictures(), pictures(9), **SHARED)
    with pytest.raises(InputError, match="no number"):
        rates.sweep(stage, HEAD, batch_size=8)
    with pytest.raises(InputError, match="no number at any"):
        rates.grid(stage, HEAD, [0.1, 0.2], batch_size=8)


@pytest.mark.parametrize("mistakes", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("spread", [0.1, 1.0])
def test_noise_is_no_divergence(mistakes, spread):
    """Of a trained network, a batch has next to no loss but for the examples that it gets wrong."""
    rates_ = np.geomspace(1e-6, 1, 100)
    for seed in range(20):
        draw = np.random.default_rng(seed)
        raw = 0.01 * np.exp(spread * draw.normal(size=100)) + draw.poisson(mistakes, 100) * 2 / 32
        assert (raw > rates.DIVERGED * np.minimum.accumulate(raw))[:90].any()
        assert np.isfinite(rates._smoothed(raw)[: -rates.LASTING]).all()
        exploded = np.where(rates_ > 1e-2, 1e30, raw)
        exploded[rates_ > 0.1] = np.nan
        smooth, end = rates._smoothed(exploded), int((rates_ <= 1e-2).sum())
        assert np.isfinite(smooth[: end - rates.LASTING]).all()
        assert np.isnan(smooth[end:]).all()
