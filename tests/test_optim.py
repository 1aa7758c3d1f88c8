"""Schedules against their formulas in float64, optimizers against those of optax."""

import dataclasses
import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxdl import optim
from jaxdl.errors import InputError
from jaxdl.optim import Constant, Cosine, Exponential, OneCycle, Phase, Polynomial, Step

shares = st.floats(0, 1)
durations = shares | st.integers(0, 100).map("{}%".format) | st.sampled_from(["1ep", "0.5ep", "1st"])
schedules = st.one_of(
    st.builds(Constant),
    st.builds(Cosine, end=shares),
    st.builds(Polynomial, power=st.floats(0.1, 4), end=shares),
    st.builds(Step, factor=shares, every=durations),
    st.builds(Exponential, factor=shares, every=durations),
    st.builds(OneCycle, rise=durations),
)


@given(st.integers(1, 99), st.integers(1, 999), st.data())
def test_durations_are_steps(epochs, per_epoch, data):
    total = epochs * per_epoch
    some = data.draw(st.integers(0, epochs))
    assert optim.steps(f"{some}ep", total, epochs) == some * per_epoch
    assert optim.steps(f"{some}.5ep", total + per_epoch, epochs + 1) == round((some + 0.5) * per_epoch)
    some = data.draw(st.integers(0, total))
    assert optim.steps(f"{some}st", total, epochs) == some
    percent = data.draw(st.integers(0, 100))
    assert abs(optim.steps(f"{percent}%", total, epochs) - percent * total / 100) <= 0.5 + 1e-9
    share = data.draw(shares)
    assert optim.steps(share, total, epochs) == round(share * total)


@pytest.mark.parametrize(
    ("duration", "said"),
    [
        ("30 ep", "'30 ep' is no duration; write .* '30ep', '500st' or '5%'"),
        ("30epochs", "no duration"),
        ("-3ep", "no duration"),
        ("ep", "no duration"),
        ("11ep", "'11ep' is longer than the phase, which has 10ep"),
        ("1001st", "longer than the phase, which has 1000st"),
        ("101%", "longer than the phase"),
        (500, "500 is no share of the phase, 0 to 1; .* '500st'"),
        (-0.1, "no share"),
        (float("nan"), "no share"),
    ],
)
def test_what_is_no_duration(duration, said):
    with pytest.raises(InputError, match=said) as error:
        optim.steps(duration, total=1000, epochs=10)
    assert "\n" not in str(error.value)


def expected(kind, warmup, rate, total, epochs):
    """The rate of every step of a phase, in float64."""

    def length(duration, least):
        return max(least, optim.steps(duration, total, epochs))

    n = np.arange(total, dtype=np.float64)
    warm = min(length(warmup, 0), total - 1)
    if isinstance(kind, OneCycle):
        warm = max(1, min(length(kind.rise, 1), total - 1))
    after = n - warm
    left = max(1, total - warm)
    rising = rate * n / max(1, warm)
    match kind:
        case Constant():
            falling = np.full(total, rate)
        case Cosine(end=end):
            falling = rate * (end + (1 - end) * (1 + np.cos(np.pi * after / left)) / 2)
        case Polynomial(power=power, end=end):
            falling = rate * (end + (1 - end) * np.maximum(0, 1 - np.maximum(after, 0) / left) ** power)
        case Step(factor=factor, every=every):
            falling = rate * factor ** np.floor(n / length(every, 1))
        case Exponential(factor=factor, every=every):
            falling = rate * factor ** (np.maximum(after, 0) / length(every, 1))
        case OneCycle():
            rising = rate / 25 + (rate - rate / 25) * (1 - np.cos(np.pi * n / warm)) / 2
            falling = rate * (1e-5 + (1 - 1e-5) * (1 + np.cos(np.pi * after / left)) / 2)
    return np.where(n < warm, rising, falling)


@given(schedules, durations, st.integers(1, 5), st.integers(1, 60))
def test_schedules_are_their_formulas(kind, warmup, epochs, per_epoch):
    total = epochs * per_epoch
    schedule = optim.make_schedule(Phase(epochs, 0.1, schedule=kind, warmup=warmup), total)
    rates = jax.jit(jax.vmap(schedule))(jnp.arange(total))
    np.testing.assert_allclose(rates, expected(kind, warmup, 0.1, total, epochs), rtol=1e-4, atol=1e-7)
    assert float(schedule(total - 1)) == pytest.approx(float(rates[-1]), rel=1e-5, abs=1e-7)


@given(st.integers(1, 200), st.floats(0, 1), st.sampled_from(list(optim.SCHEDULES)))
def test_a_schedule_warms_up_to_the_rate_and_never_passes_it(steps, warmup, kind):
    schedule = optim.make_schedule(Phase(1, 0.1, schedule=kind, warmup=warmup), steps)
    rates = np.array([schedule(step) for step in range(steps + 1)])
    assert rates.max() <= 0.1 + 1e-6
    if kind == "one-cycle":
        peak = max(1, min(round(0.25 * steps), steps - 1))
        assert rates[peak] == pytest.approx(0.1)
        assert (np.diff(rates[: peak + 1]) >= 0).all()
        assert (np.diff(rates[peak:]) <= 0).all()
        return
    warm = min(round(warmup * steps), steps - 1)
    np.testing.assert_allclose(rates[:warm], np.arange(warm) / max(1, warm) * 0.1, atol=1e-6)
    assert (np.diff(rates[warm:]) <= 1e-8).all()
    if kind in ("cosine", "polynomial"):
        assert rates[-1] == pytest.approx(0, abs=1e-7)


def test_steps_fall_where_they_should_when_compiled():
    # 41, 47 and 61 are among those whose inverse in float32 times a multiple of them is below a whole number.
    for every in (1, 3, 41, 47, 61):
        phase = Phase(1, 1.0, schedule=Step(0.5, f"{every}st"), warmup=0)
        n = np.arange(every * 8)
        rates = jax.jit(jax.vmap(optim.make_schedule(phase, len(n))))(jnp.asarray(n))
        np.testing.assert_array_equal(rates, 0.5 ** (n // every))


def test_a_schedules_name_is_its_defaults():
    for name, kind in optim.SCHEDULES.items():
        assert kind().kind == name
        named, given = (optim.make_schedule(Phase(2, 0.1, schedule=each), 40) for each in (name, kind()))
        assert [float(named(n)) for n in range(40)] == [float(given(n)) for n in range(40)]


@given(schedules | st.sampled_from(list(optim.SCHEDULES)), durations, st.sampled_from(list(optim.OPTIMIZERS)))
def test_a_phase_survives_json(schedule, warmup, optimizer):
    factors = (("stem", 0.5), ("head/*", 2.0))
    phase = Phase(3, 0.1, "x", ("stem", "head"), factors, schedule=schedule, warmup=warmup, optimizer=optimizer)
    assert Phase.from_plain(json.loads(json.dumps(dataclasses.asdict(phase)))) == phase


DECAY = 0.3
PARAMS = {
    "conv": {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(3, 4)), jnp.float32), "bias": jnp.ones(4)},
    "head": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)},
}
MASK = jax.tree.map(lambda leaf: leaf.ndim > 1, PARAMS)


def l2(rule):
    return optax.chain(optax.add_decayed_weights(DECAY, MASK), rule)


def lamb(rate):
    rules = {True: optax.lamb(rate, weight_decay=DECAY), False: optax.adam(rate, eps=1e-6)}
    return optax.partition(rules, MASK)


# What each name means, as optax's own optimizers.
OPTAX = {
    "gradient-descent": lambda rate: l2(optax.sgd(rate)),
    "sgd": lambda rate: l2(optax.sgd(rate, 0.9, nesterov=True)),
    "momentum": lambda rate: l2(optax.sgd(rate, 0.9)),
    "adam": lambda rate: l2(optax.adam(rate)),
    "adamw": lambda rate: optax.adamw(rate, weight_decay=DECAY, mask=MASK),
    "rmsprop": lambda rate: l2(optax.rmsprop(rate)),
    "lamb": lamb,
    "lars": lambda rate: optax.lars(rate, DECAY, MASK, trust_ratio_mask=MASK),
    "lion": lambda rate: optax.lion(rate, weight_decay=DECAY, mask=MASK),
    "adafactor": lambda rate: optax.chain(
        optax.adafactor(rate), optax.add_decayed_weights(lambda n: -DECAY * rate(n), MASK)
    ),
    "muon": lambda rate: optax.contrib.muon(rate, weight_decay=DECAY, consistent_rms=0.2),
}


def gradients(seed, like=PARAMS):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape), jnp.float32), like)


def descend(rule, each, params=PARAMS):
    """The parameters after every one of these gradients."""
    state, seen = rule.init(params), []

    @jax.jit
    def step(params, state, gradients):
        updates, state = rule.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    for gradient in each:
        params, state = step(params, state, gradient)
        seen.append(params)
    return seen


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_optimizers_are_those_of_optax(name):
    phase = Phase(1, 0.1, optimizer=name, weight_decay=DECAY, clip_norm=None)
    schedule = optim.make_schedule(phase, 6)
    each = [gradients(seed) for seed in range(6)]
    ours, theirs = descend(optim.make_optimizer(phase, schedule), each), descend(OPTAX[name](schedule), each)
    chex.assert_trees_all_close(ours, theirs, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", optim.OPTIMIZERS)
def test_biases_are_not_decayed(name):
    phase = Phase(1, 0.1, optimizer=name, weight_decay=1.0, warmup=0)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 10))
    params = {"kernel": jnp.ones((2, 2)), "kernel_4d": jnp.ones((2, 2, 1, 2)), "bias": jnp.ones(2)}
    still = jax.tree.map(jnp.zeros_like, params)
    (after,) = descend(rule, [still], params)
    np.testing.assert_array_equal(after["bias"], 1)
    assert (after["kernel"] < 1).all()
    assert (after["kernel_4d"] < 1).all()


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_usual_optimizers_find_the_bottom_of_a_bowl(optimizer):
    phase = Phase(1, 0.1, optimizer=optimizer, weight_decay=0)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 200))
    params = {"kernel": jnp.array([[3.0, -2.0]])}
    state = rule.init(params)
    update = jax.jit(lambda state, params: rule.update(jax.tree.map(lambda p: 2 * p, params), state, params))
    for _ in range(200):
        updates, state = update(state, params)
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


@pytest.mark.parametrize("name", ["adamw", "lars", "muon"])
def test_the_rates_factor_scales_the_rate_and_compiles_nothing(name):
    phase = Phase(1, 0.1, optimizer=name, warmup=0)
    schedule = optim.make_schedule(phase, 10)
    rule, slower = (optim.make_optimizer(phase, rate) for rate in (schedule, lambda n: 0.25 * schedule(n)))
    traced = []

    @jax.jit
    def update(*arguments):
        traced.append(arguments)
        return rule.update(*arguments)

    update_slower = jax.jit(slower.update)
    state = rule.init(PARAMS)
    assert float(optim.rate_factor(state)) == 1
    state = optim.with_rate_factor(state, 0.25)
    other = slower.init(PARAMS)
    for seed in range(3):
        ours, state = update(gradients(seed), state, PARAMS)
        theirs, other = update_slower(gradients(seed), other, PARAMS)
        chex.assert_trees_all_close(ours, theirs, rtol=1e-5, atol=1e-7)
    assert float(optim.rate_factor(state)) == 0.25
    update(gradients(0), rule.init(PARAMS), PARAMS)
    assert len(traced) == 1
    for change in (optim.rate_factor, lambda state: optim.with_rate_factor(state, 0.5)):
        with pytest.raises(InputError, match="make_optimizer"):
            change(optax.sgd(0.1).init(PARAMS))


@pytest.mark.parametrize(("name", "count"), [("sgd", 2), ("adamw", 3), ("lars", 4)])
def test_accumulated_gradients_move_as_their_mean_does(name, count):
    phase = Phase(1, 0.1, optimizer=name)
    schedule = optim.make_schedule(phase, 3 * count + 1)
    rule = optim.make_optimizer(dataclasses.replace(phase, accumulate=count), schedule)
    whole = optim.make_optimizer(phase, lambda update: schedule((update + 1) * count - 1))
    parts = [gradients(n) for n in range(3 * count + 1)]
    groups = [parts[n : n + count] for n in range(0, 3 * count, count)]
    means = [jax.tree.map(lambda *leaves: sum(leaves) / count, *group) for group in groups]
    ours, theirs = descend(rule, parts), descend(whole, means)
    chex.assert_trees_all_close(ours[count - 1 :: count], theirs, rtol=1e-5, atol=1e-6)
    for n, after in enumerate(ours):
        if (n + 1) % count:
            chex.assert_trees_all_equal(after, ours[n - 1] if n else PARAMS)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_scaled_gradients_move_as_unscaled_ones_do(accumulate):
    phase = Phase(1, 0.1, accumulate=accumulate)
    plain, scaled = (
        optim.make_optimizer(dataclasses.replace(phase, loss_scale=on), optim.make_schedule(phase, 6))
        for on in (False, True)
    )
    each = [gradients(seed) for seed in range(6)]
    up = [jax.tree.map(lambda leaf: leaf * optim.LOSS_SCALE, gradient) for gradient in each]
    chex.assert_trees_all_close(descend(scaled, up), descend(plain, each), rtol=1e-6)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_an_overflow_changes_nothing_but_the_scale(bad):
    phase = Phase(1, 0.1, loss_scale=True, accumulate=2)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 10))
    _, state = rule.update(gradients(0), rule.init(PARAMS), PARAMS)
    overflow = gradients(1)
    overflow["head"]["bias"] = overflow["head"]["bias"].at[1].set(bad)
    updates, after = rule.update(overflow, state, PARAMS)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
    chex.assert_trees_all_equal(after.inner, state.inner)
    assert (float(state.loss_scale), float(after.loss_scale)) == (2.0**15, 2.0**14)
    assert (int(state.good), int(after.good)) == (1, 0)


def test_the_scale_grows_with_patience_and_has_ends(monkeypatch):
    monkeypatch.setattr(optim, "LOSS_SCALE_PATIENCE", 3)
    phase = Phase(1, 0.1, loss_scale=True)
    rule = optim.make_optimizer(phase, optim.make_schedule(phase, 10))
    update = jax.jit(rule.update)

    def scales(state, gradient, count):
        seen = []
        for _ in range(count):
            updates, state = update(gradient, state, PARAMS)
            seen.append(float(state.loss_scale))
        return seen, updates

    assert scales(rule.init(PARAMS), gradients(0), 7)[0] == [2.0**15] * 2 + [2.0**16] * 3 + [2.0**17] * 2
    top = rule.init(PARAMS)._replace(loss_scale=jnp.float32(2.0**24))
    assert scales(top, gradients(0), 4)[0] == [2.0**24] * 4
    never = jax.tree.map(lambda leaf: leaf * jnp.nan, PARAMS)
    seen, updates = scales(rule.init(PARAMS), never, 15)
    assert seen == [2.0 ** (14 - n) for n in range(15)]
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(updates))
    _, updates = scales(rule.init(PARAMS), never, 16)  # no scale helps: let it be seen
    assert all(jnp.isnan(leaf).all() for leaf in jax.tree.leaves(updates))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"epochs": 0}, "epochs"),
        ({"learning_rate": 0.0}, "learning rate"),
        ({"learning_rate": float("nan")}, "learning rate"),
        ({"warmup": 2}, "warmup: 2 is no share"),
        ({"warmup": "2ep"}, "warmup: '2ep' is longer than the phase, which has 1ep"),
        ({"warmup": "5 %"}, "warmup: '5 %' is no duration"),
        ({"schedule": Step(every="2ep")}, "every: '2ep' is longer"),
        ({"schedule": Exponential(every=2.0)}, "every: 2.0 is no share"),
        ({"schedule": OneCycle(rise="x")}, "rise: 'x' is no duration"),
        ({"schedule": "cosin"}, "no schedule is called 'cosin'; the nearest: cosine"),
        ({"optimizer": "adamx"}, "no optimizer is called 'adamx'; the nearest: adam"),
        ({"accumulate": 0}, "accumulate"),
        ({"accumulate": 2.5}, "accumulate"),
        ({"batch_stats": "freeze"}, "batch_stats cannot be 'freeze'; the nearest: frozen"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"clip_norm": 0.0}, "clip_norm"),
        ({"trainable": "head"}, "trainable"),
        ({"factors": (("head", 0.0),)}, "factor"),
        ({"ema": 1.0}, "ema"),
    ],
)
def test_impossible_phases(wrong, said):
    with pytest.raises(InputError, match=f"phase 'train': .*{said}"):
        Phase(**({"epochs": 1, "learning_rate": 0.1} | wrong))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cosine(1.5),
        lambda: Polynomial(end=-1),
        lambda: Polynomial(power=0),
        lambda: Step(2.0),
        lambda: Exponential(-0.1),
    ],
)
def test_impossible_schedules(make):
    with pytest.raises(InputError, match="share of the learning rate|above 0"):
        make()


def test_steps_beyond_the_phase_are_told_when_they_are_known():
    phase = Phase(2, 0.1, warmup="500st", name="head")
    assert float(optim.make_schedule(phase, 1000)(500)) == pytest.approx(0.1)
    with pytest.raises(InputError, match="phase 'head': warmup: '500st' is longer than the phase, which has 400st"):
        optim.make_schedule(phase, 400)


def test_a_phase_makes_an_update_at_least():
    phase = Phase(2, 0.1, accumulate=8, name="head")
    optim.make_schedule(phase, 8)
    with pytest.raises(InputError, match="phase 'head': accumulate=8 .* it has only 6: nothing would be trained"):
        optim.make_schedule(phase, 6)
