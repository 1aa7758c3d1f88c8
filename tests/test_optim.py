import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import optim
from jaxdl.errors import InputError
from jaxdl.optim import Phase


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(["cosine", "constant"]))
def test_a_schedule_warms_up_to_the_rate_and_never_passes_it(steps, warmup, kind):
    schedule = optim.make_schedule(Phase(1, 0.1, schedule=kind, warmup=warmup), steps)
    rates = np.array([schedule(step) for step in range(steps + 1)])
    assert rates.max() <= 0.1 + 1e-6
    warm = min(round(warmup * steps), steps - 1)
    np.testing.assert_allclose(rates[: warm + 1], np.linspace(0, 0.1, warm + 1) if warm else 0.1, atol=1e-6)
    assert (np.diff(rates[warm:]) <= 1e-8).all()
    if kind == "cosine":
        assert rates[-1] == pytest.approx(0, abs=1e-7)


def test_adamw_is_optax_adamw_without_decay_on_vectors():
    phase = Phase(1, 0.1, schedule="constant", warmup=0, weight_decay=0.3, clip_norm=None)
    ours = optim.make_optimizer(phase, optim.make_schedule(phase, 10))
    theirs = optax.adamw(0.1, weight_decay=0.3, mask=lambda p: {"kernel": True, "bias": False})
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    a, b = ours.init(params), theirs.init(params)
    for n in range(3):
        grads = jax.tree.map(lambda p, n=n: jnp.full_like(p, n - 0.5), params)
        u, a = ours.update(grads, a, params)
        v, b = theirs.update(grads, b, params)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), u, v)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_both_optimizers_find_the_bottom_of_a_bowl(optimizer):
    phase = Phase(1, 0.1, optimizer=optimizer, weight_decay=0)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 200))
    params = {"kernel": jnp.array([[3.0, -2.0]])}
    state = rule.init(params)
    for _ in range(200):
        updates, state = rule.update(jax.tree.map(lambda p: 2 * p, params), state, params)
        params = optax.apply_updates(params, updates)
    assert jnp.abs(params["kernel"]).max() < 0.05


def test_factors_scale_the_steps_of_what_they_name():
    phase = Phase(1, 0.1, warmup=0, weight_decay=0, factors=(("stem", 0.1), ("s*", 0.5)))
    params = {name: {"kernel": jnp.ones((2, 2))} for name in ("stem", "side", "head")}
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 10))
    updates, _ = rule.update(params, rule.init(params), params)
    steps = {name: float(-tree["kernel"][0, 0]) for name, tree in updates.items()}
    assert steps == pytest.approx({"stem": 0.01, "side": 0.05, "head": 0.1}, rel=1e-4)


def test_clipping_bounds_the_step():
    phase = Phase(1, 1.0, optimizer="sgd", warmup=0, weight_decay=0, clip_norm=1.0)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 10))
    params = {"kernel": jnp.zeros((3, 3))}
    updates, _ = rule.update({"kernel": jnp.full((3, 3), 1e6)}, rule.init(params), params)
    assert np.linalg.norm(updates["kernel"]) == pytest.approx(1.9, rel=1e-3)  # Nesterov's first step: 1 + 0.9


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"warmup": 2},
        {"trainable": "head"},
        {"factors": (("head", 0.0),)},
        {"ema": 1.0},
    ],
)
def test_impossible_phases(wrong):
    with pytest.raises(InputError, match="phase 'train'"):
        Phase(**({"epochs": 1, "learning_rate": 0.1} | wrong))
