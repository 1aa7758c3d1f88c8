"""Optimizers and schedules for one stretch of training."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import Any, NamedTuple, Self, get_args

import jax
import jax.numpy as jnp
import optax
from jax import Array, lax

from jaxdl import trees
from jaxdl.errors import InputError, nearest
from jaxdl.models import BatchStats

Duration = float | str
"""A share of the phase, 0 to 1, or a number with a unit: "30ep" (epochs), "500st" (steps), "5%" (of the phase)."""

# https://github.com/fastai/fastai/blob/master/fastai/callback/schedule.py: `fit_one_cycle`
CYCLE_START = 1 / 25
CYCLE_END = 1e-5

# Micikevicius et al., "Mixed Precision Training" (2017), arXiv:1710.03740, section 3.2, with the start and the patience
# of Keras's LossScaleOptimizer, and the end of NVIDIA's Apex: where gradients vanish it would grow to infinity.
LOSS_SCALE = 2.0**15
LOSS_SCALE_END = 2.0**24
LOSS_SCALE_PATIENCE = 2000  # steps without an overflow, after which it doubles


@dataclass(frozen=True)
class Constant:
    """The learning rate as it is."""

    kind: str = field(default="constant", init=False)


@dataclass(frozen=True)
class Cosine:
    """Half a cosine from the learning rate to the share `end` of it.

    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts" (2017), arXiv:1608.03983.
    """

    end: float = 0.0
    kind: str = field(default="cosine", init=False)

    def __post_init__(self) -> None:
        _check_share(self.kind, "end", self.end)


@dataclass(frozen=True)
class Polynomial:
    """From the learning rate to the share `end` of it, by a power of the time that is left: 1 is a straight line."""

    power: float = 1.0
    end: float = 0.0
    kind: str = field(default="polynomial", init=False)

    def __post_init__(self) -> None:
        _check_share(self.kind, "end", self.end)
        if not self.power > 0:
            raise InputError(f"{self.kind}: power must be above 0, got {self.power}")


@dataclass(frozen=True)
class Step:
    """The learning rate times `factor` whenever `every` has passed since the phase began."""

    factor: float = 0.1
    every: Duration = "30%"
    kind: str = field(default="step", init=False)

    def __post_init__(self) -> None:
        _check_share(self.kind, "factor", self.factor)


@dataclass(frozen=True)
class Exponential:
    """As `Step`, but evenly: by `factor` over each `every`, from the end of the warm-up on."""

    factor: float = 0.1
    every: Duration = "30%"
    kind: str = field(default="exponential", init=False)

    def __post_init__(self) -> None:
        _check_share(self.kind, "factor", self.factor)


@dataclass(frozen=True)
class OneCycle:
    """Half a cosine up from a 25th of the learning rate, which takes the place of the phase's warm-up, and half a
    cosine down to a hundred-thousandth.

    Smith & Topin, "Super-Convergence" (2017), arXiv:1708.07120, in the form and with the numbers of fastai; the
    momentum stays.
    """

    rise: Duration = "25%"
    kind: str = field(default="one-cycle", init=False)


Schedule = Constant | Cosine | Polynomial | Step | Exponential | OneCycle

SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant,
    "cosine": Cosine,
    "polynomial": Polynomial,
    "step": Step,
    "exponential": Exponential,
    "one-cycle": OneCycle,
}


@dataclass(frozen=True)
class Phase:
    """One stretch of training: how long, at which learning rate, and which parameters move."""

    epochs: int
    learning_rate: float
    name: str = "train"
    trainable: tuple[str, ...] = ("*",)
    """Patterns of parameter paths (`trees.mask`); everything else is frozen, bit for bit."""
    factors: tuple[tuple[str, float], ...] = ()
    """Patterns with factors of the learning rate, as in `transfer.layer_decay`; the first that matches counts, 1 is for
    the rest."""
    batch_stats: BatchStats = "update"
    """Whether the batch normalisation of trainable modules goes by the batch and updates its averages, or by them."""
    optimizer: str = "adamw"
    """One of `OPTIMIZERS`."""
    schedule: str | Schedule = "cosine"
    """One of `SCHEDULES`, by its name or with its parameters: `Step(0.1, every="30ep")`."""
    warmup: Duration = 0.1
    """How long the rate rises linearly from zero; not with "one-cycle", which has a rise of its own."""
    weight_decay: float = 1e-4
    """On kernels only. `OPTIMIZERS` tells where it is decoupled."""
    clip_norm: float | None = 1.0
    """Gradients are scaled down to this norm, taken over the trainable parameters."""
    accumulate: int = 1
    """How many batches make one update, by the mean of their gradients."""
    loss_scale: bool = False
    """Scale the loss up while the gradients are computed, as far as they do not overflow: for networks in float16,
    where small gradients are zero."""
    ema: float | None = None
    """Share of the old value in a moving average of the trainable parameters, which evaluation then uses."""
    views: int | None = None
    """Where the head alone is trained: the features of the images, and of this many augmented views of each, are
    computed once, and the epochs go round them. None: the whole network runs in every step, on images augmented anew.
    """

    def __post_init__(self) -> None:
        if isinstance(self.trainable, str) or not self.trainable:
            raise InputError(f"phase {self.name!r}: trainable is a tuple of patterns, such as ('head',)")
        if not isinstance(self.epochs, int) or not isinstance(self.learning_rate, Real):
            raise InputError(f"phase {self.name!r}: epochs and learning_rate are numbers, such as Phase(5, 1e-3)")
        if self.epochs < 1:
            raise InputError(f"phase {self.name!r}: epochs must be at least 1, got {self.epochs}")
        if not self.learning_rate > 0:
            raise InputError(f"phase {self.name!r}: the learning rate must be above 0, got {self.learning_rate}")
        for pattern, factor in self.factors:
            if not factor > 0:
                raise InputError(f"phase {self.name!r}: the factor of {pattern!r} must be above 0, got {factor}")
        if self.optimizer not in OPTIMIZERS:
            known = nearest(self.optimizer, OPTIMIZERS)
            raise InputError(f"phase {self.name!r}: no optimizer is called {self.optimizer!r}{known}")
        if isinstance(self.schedule, str) and self.schedule not in SCHEDULES:
            known = nearest(self.schedule, SCHEDULES)
            raise InputError(f"phase {self.name!r}: no schedule is called {self.schedule!r}{known}")
        if self.batch_stats not in (known_stats := get_args(BatchStats)):
            known = nearest(str(self.batch_stats), known_stats)
            raise InputError(f"phase {self.name!r}: batch_stats cannot be {self.batch_stats!r}{known}")
        if not isinstance(self.accumulate, int) or self.accumulate < 1:
            raise InputError(
                f"phase {self.name!r}: accumulate is at least 1 batch, in whole ones; got {self.accumulate}"
            )
        make_schedule(self, self.epochs * 10**9)  # raises where a duration is wrong for epochs of any length
        if not self.weight_decay >= 0:
            raise InputError(f"phase {self.name!r}: weight_decay cannot be negative, got {self.weight_decay}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise InputError(
                f"phase {self.name!r}: clip_norm is above 0, or None for no clipping; got {self.clip_norm}"
            )
        if self.ema is not None and not 0 <= self.ema < 1:
            raise InputError(f"phase {self.name!r}: ema is a share, from 0 up to 1, got {self.ema}")
        if self.views is not None and self.views < 0:
            raise InputError(f"phase {self.name!r}: views cannot be negative, got {self.views}")

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Self:
        """The phase of which these are the fields, as JSON gives back what `dataclasses.asdict` made of it."""

        def restored(value: Any) -> Any:
            if isinstance(value, Mapping):
                return SCHEDULES[value["kind"]](**{name: part for name, part in value.items() if name != "kind"})
            return tuple(restored(part) for part in value) if isinstance(value, list) else value

        return cls(**{name: restored(value) for name, value in plain.items()})


def steps(duration: Duration, total: int, epochs: int) -> int:
    """How many steps a duration takes in a phase of that many steps and epochs.

    >>> [steps(duration, total=1000, epochs=10) for duration in ("2ep", "500st", "5%", 0.1)]
    [200, 500, 50, 100]

    Raises:
      InputError: it is longer than the phase, negative, or no duration.
    """
    whole = {"ep": epochs, "st": total, "%": 100, "": 1}
    if isinstance(duration, str):
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(ep|st|%)", duration)
        if found is None:
            raise InputError(f"{duration!r} is no duration; write a number and its unit, as in '30ep', '500st' or '5%'")
        number, unit = float(found[1]), found[2]
        if number > whole[unit]:
            raise InputError(f"{duration!r} is longer than the phase, which has {whole[unit]}{unit}")
    else:
        number, unit = duration, ""
        if not 0 <= number <= 1:
            raise InputError(f"{duration} is no share of the phase, 0 to 1; steps and epochs are '500st' and '30ep'")
    return round(number / whole[unit] * total)


def make_schedule(phase: Phase, total: int) -> optax.Schedule:
    """The learning rate as a function of the step within a phase, from 0.

    Args:
      total: steps in all the phase's epochs. A step is a batch, with accumulation too.

    Raises:
      InputError: a duration is longer than the phase, or none, or an update takes more batches than there are.
    """
    if phase.accumulate > total:
        raise InputError(
            f"phase {phase.name!r}: accumulate={phase.accumulate} batches make an update, and it has only {total}: "
            "nothing would be trained"
        )
    rate = phase.learning_rate
    kind = SCHEDULES[phase.schedule]() if isinstance(phase.schedule, str) else phase.schedule

    def length(what: str, duration: Duration) -> int:
        try:
            return steps(duration, total, phase.epochs)
        except InputError as error:
            raise InputError(f"phase {phase.name!r}: {what}: {error}") from None

    if isinstance(kind, OneCycle):
        warm = max(1, min(length("rise", kind.rise), total - 1))
        rising = optax.cosine_decay_schedule(rate * CYCLE_START, warm, 1 / CYCLE_START)
    else:
        warm = min(length("warmup", phase.warmup), total - 1)  # at least one step at the full rate
        rising = optax.linear_schedule(0.0, rate, warm) if warm else None
    left = max(1, total - warm)
    match kind:  # one name for all of them, so two are lambdas
        case Constant():
            falling = optax.constant_schedule(rate)
        case Cosine():
            falling = optax.cosine_decay_schedule(rate, left, kind.end)
        case Polynomial():
            falling = optax.polynomial_schedule(rate, rate * kind.end, kind.power, left)
        case Step():
            # In whole numbers: XLA divides by multiplying with an inverse, and a step's floor may then be one too low.
            every = max(1, length("every", kind.every))
            falling = lambda n: rate * kind.factor ** ((n + warm) // every)  # noqa: E731  # a line, as for the others
        case Exponential():
            every = max(1, length("every", kind.every))
            falling = lambda n: rate * kind.factor ** (n / every)  # noqa: E731  # a line, as for the others
        case OneCycle():
            falling = optax.cosine_decay_schedule(rate, left, CYCLE_END)
    return falling if rising is None else optax.join_schedules([rising, falling], [warm])


class RateState(NamedTuple):
    """What the optimizers here know of their learning rate."""

    updates_made: Array
    """int32 []"""
    rate_factor: Array
    """float32 []: of the schedule's rate."""


class AccumulationState(NamedTuple):
    """Gradients that wait for an update."""

    inner: Any
    waiting: Any
    """Their sum, like the parameters."""
    batches: Array
    """int32 []: how many they are of."""


class LossScaleState(NamedTuple):
    """How the loss is scaled; `train.make_train_step` does it."""

    inner: Any
    loss_scale: Array
    """float32 []"""
    good: Array
    """int32 []: steps without an overflow since it last changed."""


def make_optimizer(phase: Phase, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer of a phase at the rates of a schedule. Give it the trainable half of the parameters only: clipping
    and decay then reach nothing that is frozen.

    With accumulation an update's rate is the schedule's at the last of its batches. Batches count alike, however many
    examples they have; those after the last whole update are lost with the phase. With a loss scale the gradients are
    those of the scaled loss, a batch with an overflow is left out, and nothing but the scale changes.
    """
    decay = optax.add_decayed_weights(phase.weight_decay, mask=_kernels)
    rule = optax.chain(*OPTIMIZERS[phase.optimizer](decay, _at_rate(schedule, phase.accumulate)))
    if phase.factors:
        rule = optax.chain(rule, optax.stateless(lambda updates, _: _scaled(updates, phase)))
    if phase.clip_norm is not None:
        rule = optax.chain(optax.clip_by_global_norm(phase.clip_norm), rule)
    if phase.accumulate > 1:
        rule = _accumulated(rule, phase.accumulate)
    return _unscaled(rule) if phase.loss_scale else rule


def factor(phase: Phase, path: str) -> float:
    """What the learning rate of a parameter is multiplied by in a phase."""
    return next((factor for pattern, factor in phase.factors if trees.matches(path, pattern)), 1.0)


def rate_factor(opt_state: Any) -> Array:
    """What the schedule's rate is multiplied by, float32 []: 1, until `with_rate_factor` says otherwise.

    Raises:
      InputError: the state is not of one of the optimizers here.
    """
    found = optax.tree.get(opt_state, "rate_factor")
    if found is None:
        raise InputError("this optimizer's rate has no factor; make the optimizer with optim.make_optimizer")
    return found


def with_rate_factor(opt_state: Any, factor: float) -> Any:
    """The state with another factor of the rate, on the same devices, so that a compiled step takes it as it is.

    Raises:
      InputError: as `rate_factor`.
    """
    return optax.tree.set(opt_state, rate_factor=jnp.full_like(rate_factor(opt_state), factor))


def _kernels(params: Any) -> Any:
    """Biases and the scales of batch normalisation are vectors; they are not decayed."""
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def _trust(coefficient: float) -> optax.GradientTransformation:
    return optax.masked(optax.scale_by_trust_ratio(trust_coefficient=coefficient), _kernels)


# The parts of each optimizer in their order. Decay that comes first is part of the gradient (L2 regularisation), as the
# optimizer was published; elsewhere it is decoupled: the rate times it is taken off the parameters. Constants are
# optax's, and the papers', but for those below.
#   gradient-descent  without momentum, what textbooks begin with
#   sgd        Nesterov's momentum; Sutskever et al. (2013), proceedings.mlr.press/v28/sutskever13.html
#   momentum   Polyak's
#   adam       Kingma & Ba (2014), arXiv:1412.6980
#   adamw      Loshchilov & Hutter (2017), arXiv:1711.05101
#   rmsprop    Hinton (2012), www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf
#   lamb       You et al. (2019), arXiv:1904.00962
#   lars       You et al. (2017), arXiv:1708.03888
#   lion       Chen et al. (2023), arXiv:2302.06675
#   adafactor  Shazeer & Stern (2018), arXiv:1804.04235
#   muon       Jordan (2024), kellerjordan.github.io/posts/muon; for matrices, the others by Adam with Nesterov's
#              momentum. 0.2 makes its updates as large as Adam's, for one rate and one decay: Liu et al. (2025),
#              arXiv:2502.16982, section 2.2. A rate of -1 leaves sign and rate to ours.
OPTIMIZERS: dict[str, Callable[[Any, Any], tuple[Any, ...]]] = {
    "gradient-descent": lambda decay, rate: (decay, rate),
    "sgd": lambda decay, rate: (decay, optax.trace(0.9, nesterov=True), rate),
    "momentum": lambda decay, rate: (decay, optax.trace(0.9), rate),
    "adam": lambda decay, rate: (decay, optax.scale_by_adam(), rate),
    "adamw": lambda decay, rate: (optax.scale_by_adam(), decay, rate),
    "rmsprop": lambda decay, rate: (decay, optax.scale_by_rms(), rate),
    "lamb": lambda decay, rate: (optax.scale_by_adam(eps=1e-6), decay, _trust(1.0), rate),
    "lars": lambda decay, rate: (decay, _trust(1e-3), rate, optax.trace(0.9)),
    "lion": lambda decay, rate: (optax.scale_by_lion(), decay, rate),
    "adafactor": lambda decay, rate: (
        optax.scale_by_factored_rms(),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        decay,
        rate,
    ),
    "muon": lambda decay, rate: (optax.contrib.muon(-1.0, consistent_rms=0.2), decay, rate),
}


def _at_rate(schedule: optax.Schedule, accumulate: int) -> optax.GradientTransformation:
    def init(params: Any) -> RateState:
        return RateState(jnp.zeros((), jnp.int32), jnp.ones((), jnp.float32))

    def update(updates: Any, state: RateState, params: Any = None) -> tuple[Any, RateState]:
        last = (state.updates_made + 1) * accumulate - 1  # of the batches of this update
        rate = -schedule(last) * state.rate_factor
        updates = jax.tree.map(lambda leaf: rate.astype(leaf.dtype) * leaf, updates)
        return updates, state._replace(updates_made=state.updates_made + 1)

    return optax.GradientTransformation(init, update)


def _scaled(updates: Any, phase: Phase) -> Any:
    return trees.from_paths({path: leaf * factor(phase, path) for path, leaf in trees.paths(updates).items()})


def _accumulated(rule: Any, count: int) -> optax.GradientTransformation:
    """The rule for the mean of the gradients of every `count` batches. `optax.MultiSteps` runs it in every batch."""

    def init(params: Any) -> AccumulationState:
        return AccumulationState(rule.init(params), jax.tree.map(jnp.zeros_like, params), jnp.zeros((), jnp.int32))

    def update(gradients: Any, state: AccumulationState, params: Any) -> tuple[Any, AccumulationState]:
        waiting = jax.tree.map(jnp.add, state.waiting, gradients)
        none = jax.tree.map(jnp.zeros_like, waiting)

        def move() -> tuple[Any, AccumulationState]:
            updates, inner = rule.update(jax.tree.map(lambda leaf: leaf / count, waiting), state.inner, params)
            return updates, AccumulationState(inner, none, jnp.zeros_like(state.batches))

        def wait() -> tuple[Any, AccumulationState]:
            return none, AccumulationState(state.inner, waiting, state.batches + 1)

        return lax.cond(state.batches == count - 1, move, wait)

    return optax.GradientTransformation(init, update)


def _unscaled(rule: Any) -> optax.GradientTransformation:
    """The rule for gradients of a loss that is scaled by what the state says."""

    def init(params: Any) -> LossScaleState:
        return LossScaleState(rule.init(params), jnp.float32(LOSS_SCALE), jnp.zeros((), jnp.int32))

    def update(gradients: Any, state: LossScaleState, params: Any) -> tuple[Any, LossScaleState]:
        gradients = jax.tree.map(lambda leaf: leaf / state.loss_scale, gradients)
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients)]).all()
        # Unscaled gradients that are no numbers are not the scale's doing: they go through, for the loop to see.
        updates, inner = lax.cond(
            finite | (state.loss_scale == 1),
            lambda: rule.update(gradients, state.inner, params),
            lambda: (jax.tree.map(jnp.zeros_like, gradients), state.inner),
        )
        good = jnp.where(finite, state.good + 1, 0)
        doubled = good == LOSS_SCALE_PATIENCE
        scale = state.loss_scale * jnp.where(finite, jnp.where(doubled, 2.0, 1.0), 0.5)
        scale = jnp.clip(scale, 1.0, LOSS_SCALE_END)
        return updates, LossScaleState(inner, scale, jnp.where(doubled, 0, good))

    return optax.GradientTransformation(init, update)


def _check_share(kind: str, what: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise InputError(f"{kind}: {what} is a share of the learning rate, 0 to 1, got {value}")
